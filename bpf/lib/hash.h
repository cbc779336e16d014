/* Hashes of a few words. */
#ifndef WM_HASH_H
#define WM_HASH_H

#include "platform.h"

/* Murmur3's finalizer over each word (Appleby, public domain constants): every input bit reaches every hash bit. */
static __always_inline __u64 hash_mix(__u64 hash)
{
	hash ^= hash >> 33;
	hash *= 0xff51afd7ed558ccdULL;
	return hash ^ hash >> 33;
}

#endif
