/* SHA-256 (FIPS 180-4), for fingerprints: what is hashed is public, so nothing here hides how long it takes. */
#ifndef WM_SHA256_H
#define WM_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define WM_SHA256_BYTES	      32
#define WM_SHA256_BLOCK_BYTES 64

struct wm_sha256 {
	uint32_t state[8];
	uint64_t bytes;
	uint8_t block[WM_SHA256_BLOCK_BYTES];
};

void wm_sha256_begin(struct wm_sha256 *sha);
void wm_sha256_add(struct wm_sha256 *sha, const void *data, size_t bytes);
void wm_sha256_end(struct wm_sha256 *sha, uint8_t digest[WM_SHA256_BYTES]);

#endif
