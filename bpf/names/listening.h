/* Conversations over UDP that are being read by others than this library. */
#ifndef WM_LISTENING_H
#define WM_LISTENING_H

#include "ends.h"

int wm_listening_has(const struct wm_listening *listening, uint64_t hash);
int wm_listening_is_full(const struct wm_listening *listening);
void wm_listening_add(struct wm_listening *listening, uint64_t hash);

struct wm_listening {
	uint64_t seed;
	uint32_t capacity;
	uint32_t mask;
	uint32_t count;
	uint32_t pad;
	uint64_t conversations[]; /* hashes, 0: free; mask + 1 of them */
};

#endif
