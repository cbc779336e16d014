/* Which conversations are being read, and what is known at once to be nothing that can be read.
 *
 * A packet of a conversation that nobody reads is opaque unless it may begin something. Opaque packets cost nothing
 * more; the last few are kept for a moment, because the first part of a hello may come after the second.
 */
#include "listening.h"

/* A beginning that comes after what belongs behind it is that late at most. */
#define LATE_NS 100000000

static uint32_t slots_for(uint32_t capacity)
{
	uint32_t slots = 16;

	while (slots < 2 * capacity)
		slots *= 2;
	return slots;
}

size_t wm_listening_bytes(uint32_t capacity)
{
	return sizeof(struct wm_listening) + slots_for(capacity) * sizeof(uint64_t);
}

void wm_listening_begin(struct wm_listening *listening, uint32_t capacity, uint64_t seed)
{
	listening->seed = seed;
	listening->capacity = capacity;
	listening->mask = slots_for(capacity) - 1;
}

/* --- the set */

/* Where a conversation is, or the free place where it would be: linear probing, and half of the places are free. */
static uint32_t place_of(const struct wm_listening *listening, uint64_t hash)
{
	uint32_t place = hash & listening->mask;

	while (listening->conversations[place] && listening->conversations[place] != hash)
		place = (place + 1) & listening->mask;
	return place;
}

int wm_listening_has(const struct wm_listening *listening, uint64_t hash)
{
	return listening->conversations[place_of(listening, hash)] == hash;
}

int wm_listening_is_full(const struct wm_listening *listening)
{
	return listening->count >= listening->capacity;
}

void wm_listening_add(struct wm_listening *listening, uint64_t hash)
{
	uint32_t place = place_of(listening, hash);

	listening->count += !listening->conversations[place];
	listening->conversations[place] = hash;
}

void wm_listening_forget(struct wm_listening *listening, uint32_t device, const struct wm_ends *flow)
{
	uint64_t hash = wm_conversation_hash(listening->seed, device, flow);
	uint32_t hole = place_of(listening, hash), next = hole;

	if (!listening->conversations[hole])
		return;
	listening->count--;
	for (;;) { /* what was pushed on past the hole moves back into it (Knuth, vol. 3, 6.4, algorithm R) */
		uint64_t moved;

		listening->conversations[hole] = 0;
		do {
			next = (next + 1) & listening->mask;
			moved = listening->conversations[next];
			if (!moved)
				return;
		} while (((next - (uint32_t)moved) & listening->mask) < ((next - hole) & listening->mask));
		listening->conversations[hole] = moved;
		hole = next;
	}
}

/* --- opaque packets */

size_t wm_late_offset(uint32_t number)
{
	return offsetof(struct wm_listening, late) + number * sizeof(struct wm_late) + offsetof(struct wm_late, head);
}

void wm_late_keep(struct wm_listening *listening, uint64_t hash, const struct wm_payload *head, const uint8_t *data)
{
	struct wm_late *late = &listening->late[listening->late_next++ % WM_LATE_PACKETS];

	if (head->captured > sizeof(late->data))
		return;
	late->hash = hash;
	late->head = *head;
	memcpy(late->data, data, head->captured);
}

uint32_t wm_late_take(struct wm_listening *listening, uint64_t hash, uint64_t time_ns, uint32_t *numbers)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < WM_LATE_PACKETS; i++) {
		uint32_t number = (listening->late_next + i) % WM_LATE_PACKETS; /* oldest first */
		struct wm_late *late = &listening->late[number];

		if (late->hash != hash)
			continue;
		late->hash = 0;
		if (time_ns - late->head.time_ns <= LATE_NS)
			numbers[count++] = number;
	}
	return count;
}
