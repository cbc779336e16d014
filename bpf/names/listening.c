/* Which conversations are being read: a set of hashes, so that a packet of one costs a look, and an opaque one no more.
 */
#include "listening.h"
#include "known.h"

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

void wm_udp_learn(const struct wm_listening *listening, uint32_t device, const struct wm_ends *flow, uint64_t time_ns,
		  const struct wm_known_said *said, struct wm_told *told)
{
	struct wm_cell cell;
	struct wm_cells cells = {.cells = &cell, .capacity = 1};
	struct wm_known known;

	wm_known_begin(&known);
	wm_known_learn(&known, &cells, said, time_ns);
	told->lost += cells.lost;
	wm_known_tell(&known, &cells, flow, wm_conversation_hash(listening->seed, device, flow), told);
}
