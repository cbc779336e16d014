/* Conversations that are being read by others than this library, and the last packets that were of none of them. */
#ifndef WM_LISTENING_H
#define WM_LISTENING_H

#include "ends.h"
#include "../records.h"

int wm_listening_has(const struct wm_listening *listening, uint64_t hash);
int wm_listening_is_full(const struct wm_listening *listening);
void wm_listening_add(struct wm_listening *listening, uint64_t hash);

/* One opaque packet; its time since the epoch. */
struct wm_late {
	uint64_t hash; /* of its conversation; 0: none */
	struct wm_payload head;
	uint8_t data[WM_PAYLOAD_BYTES_MAX];
};

struct wm_listening {
	uint64_t seed;
	uint32_t capacity;
	uint32_t mask;
	uint32_t count;
	uint32_t late_next;
	struct wm_late late[WM_LATE_PACKETS];
	uint64_t conversations[]; /* hashes, 0: free; mask + 1 of them */
};

void wm_late_keep(struct wm_listening *listening, uint64_t hash, const struct wm_payload *head, const uint8_t *data);

/* Takes those of a conversation that came shortly before `time_ns`: their numbers, oldest first. */
uint32_t wm_late_take(struct wm_listening *listening, uint64_t hash, uint64_t time_ns, uint32_t *numbers);

#endif
