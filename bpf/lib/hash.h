/* A keyed hash of a few words that nobody who does not know the keys can choose collisions for.
 *
 * NH of UMAC (RFC 4418, section 5.2.2, with sums and products of 64 bits): for any two different inputs, however they
 * were chosen, at most one in 2^32 keys makes their sums equal. Its multiplications do not wait for one another. What
 * it lacks is avalanche: inputs in a row give sums in a row. Murmur3's finalizer (Appleby, public domain constants)
 * has every bit of the sum reach every bit of the hash.
 */
#ifndef WM_HASH_H
#define WM_HASH_H

#include "platform.h"

static __always_inline __u64 hash_mix(__u64 hash)
{
	hash ^= hash >> 32;
	hash *= 0xff51afd7ed558ccdULL;
	return hash ^ hash >> 33;
}

/* The sum of NH: two keys a word. */
static __always_inline __u64 hash_sum(const volatile __u64 *keys, const __u64 *words, int count)
{
	__u64 sum = 0;

	for (int i = 0; i < count; i++)
		sum += (keys[2 * i] + (__u32)words[i]) * (keys[2 * i + 1] + (words[i] >> 32));
	return sum;
}

#endif
