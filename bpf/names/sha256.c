/* After FIPS 180-4, sections 4 to 6, in its words. */
#include "sha256.h"

#include <string.h>

/* Section 4.2.2: of the cube roots of the first 64 primes. */
static const uint32_t K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotr(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

/* Section 6.2.2. */
static void block_take(uint32_t state[8], const uint8_t block[WM_SHA256_BLOCK_BYTES])
{
	uint32_t w[64], h[8];

	for (int t = 0; t < 16; t++, block += 4)
		w[t] = (uint32_t)block[0] << 24 | (uint32_t)block[1] << 16 | (uint32_t)block[2] << 8 | block[3];
	for (int t = 16; t < 64; t++)
		w[t] = (rotr(w[t - 2], 17) ^ rotr(w[t - 2], 19) ^ w[t - 2] >> 10) + w[t - 7] +
		       (rotr(w[t - 15], 7) ^ rotr(w[t - 15], 18) ^ w[t - 15] >> 3) + w[t - 16];
	memcpy(h, state, sizeof(h));
	for (int t = 0; t < 64; t++) {
		uint32_t sum1 = rotr(h[4], 6) ^ rotr(h[4], 11) ^ rotr(h[4], 25);
		uint32_t sum0 = rotr(h[0], 2) ^ rotr(h[0], 13) ^ rotr(h[0], 22);
		uint32_t choice = (h[4] & h[5]) ^ (~h[4] & h[6]);
		uint32_t majority = (h[0] & h[1]) ^ (h[0] & h[2]) ^ (h[1] & h[2]);
		uint32_t first = h[7] + sum1 + choice + K[t] + w[t];

		memmove(h + 1, h, 7 * sizeof(h[0]));
		h[4] += first;
		h[0] = first + sum0 + majority;
	}
	for (int i = 0; i < 8; i++)
		state[i] += h[i];
}

void wm_sha256_begin(struct wm_sha256 *sha)
{
	/* Section 5.3.3: of the square roots of the first eight primes. */
	*sha = (struct wm_sha256){
		.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab,
			  0x5be0cd19},
	};
}

void wm_sha256_add(struct wm_sha256 *sha, const void *data, size_t bytes)
{
	const uint8_t *from = data;

	while (bytes) {
		size_t used = sha->bytes % sizeof(sha->block), part = sizeof(sha->block) - used;

		part = part < bytes ? part : bytes;
		memcpy(sha->block + used, from, part);
		sha->bytes += part;
		from += part;
		bytes -= part;
		if (used + part == sizeof(sha->block))
			block_take(sha->state, sha->block);
	}
}

void wm_sha256_end(struct wm_sha256 *sha, uint8_t digest[WM_SHA256_BYTES])
{
	/* Section 5.1.1: a bit, zeros, and the length in bits. */
	static const uint8_t padding[WM_SHA256_BLOCK_BYTES] = {0x80};
	uint64_t bits = sha->bytes * 8;
	uint8_t length[8];

	for (int i = 0; i < 8; i++)
		length[i] = (uint8_t)(bits >> (56 - 8 * i));
	wm_sha256_add(sha, padding, 1 + (119 - sha->bytes % 64) % 64);
	wm_sha256_add(sha, length, sizeof(length));
	for (int i = 0; i < WM_SHA256_BYTES; i++)
		digest[i] = (uint8_t)(sha->state[i / 4] >> (24 - i % 4 * 8));
}
