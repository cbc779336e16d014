/* One slot of this CPU's table, plain stores: finding or claiming the lines of a flow in a region.
 *
 * Only one CPU writes a region, with bottom halves off, and user space reads it only after a flip and an RCU grace
 * period; so nothing here is atomic.
 */
#ifndef WM_FLOW_TABLE_H
#define WM_FLOW_TABLE_H

#include "../records.h"

/* A chain longer than this is not searched on: the packet counts under WM_TABLE_FULL. At the load where a flip is
 * asked for (a quarter of the index) the expected chain is 1.2 places. */
#define WM_PROBES_MAX 32

/* Where the parts of a region are. The same for all regions; constants in the programs, set before load, and read
 * through a volatile pointer so that the compiler takes no value for granted. */
struct wm_table_shape {
	__u32 index_offset;
	__u32 lines_offset;
	__u32 index_mask;
	__u32 lines_mask;
	__u32 flip_threshold; /* lines in use at which an early flip is asked for */
	__u32 pad;
	__u64 seed; /* random: who sends packets must not be able to choose their places */
};
_Static_assert(sizeof(struct wm_table_shape) == 32, "mirrored in records.py");

/* Murmur3's finalizer over two words (Appleby, public domain constants): every input bit reaches every hash bit. */
static __always_inline __u64 hash_mix(__u64 hash)
{
	hash ^= hash >> 33;
	hash *= 0xff51afd7ed558ccdULL;
	return hash ^ hash >> 33;
}

/* A flow's key as words: what its lines begin with. */
#define WM_KEY4_WORDS 2
#define WM_KEY6_WORDS 5
_Static_assert(offsetof(struct wm_flow4, state) == WM_KEY4_WORDS * sizeof(__u64), "the key is compared by words");
_Static_assert(offsetof(struct wm_flow6, state) == WM_KEY6_WORDS * sizeof(__u64), "the key is compared by words");

static __always_inline __u32 key_hash(__u64 seed, const __u64 *key, int words)
{
	__u64 hash = seed ^ key[0];

	for (int i = 1; i < words; i++)
		hash = hash_mix(hash) ^ key[i];
	return (hash * 0xc4ceb9fe1a85ec53ULL) >> 32;
}

static __always_inline int key_equals(const __u64 *stored, const __u64 *key, int words)
{
	for (int i = 0; i < words; i++)
		if (stored[i] != key[i])
			return 0;
	return 1;
}

/* Takes the next free lines for a new entry; returns the first one's number, or -1. */
static __always_inline int lines_claim(struct wm_region_header *region, const volatile struct wm_table_shape *shape,
				       int lines)
{
	__u32 capacity = shape->lines_mask + 1;

	if (region->lines_v4 + region->lines_v6 + lines > capacity)
		return -1;
	if (lines == 1)
		return region->lines_v4++;
	region->lines_v6 += lines;
	return capacity - region->lines_v6;
}

static __always_inline int flip_due(const struct wm_region_header *region, const volatile struct wm_table_shape *shape)
{
	return region->lines_v4 + region->lines_v6 >= shape->flip_threshold && !region->flip_asked;
}

/* Adds a packet to the flow of `key`, which becomes one if it is none yet. Returns -1 if there is no room.
 * `words` is WM_KEY4_WORDS or WM_KEY6_WORDS, a constant where this is inlined. */
static __always_inline int flow_add(struct wm_region_header *region, const volatile struct wm_table_shape *shape,
				    const __u64 *key, int words, const struct wm_tally *size, __u16 tcp_flags,
				    __u64 now)
{
	int lines = words == WM_KEY4_WORDS ? 1 : 2;
	__u32 line_mask = shape->lines_mask & ~(lines - 1U);
	__u32 hash = key_hash(shape->seed, key, words);
	__u32 tag = WM_ENTRY_USED | (lines == 2 ? WM_ENTRY_V6 : 0) | (hash & WM_ENTRY_TAG_MASK);
	__u32 *index = (void *)region + shape->index_offset;
	char *table = (void *)region + shape->lines_offset;
	struct wm_flow_state *state;
	__u64 *flow;
	int line;

	wm_loop for (__u32 probe = 0; probe < WM_PROBES_MAX; probe++)
	{
		__u32 *entry = &index[(hash + probe) & shape->index_mask];
		__u32 found = *entry;

		if (wm_unlikely(!found)) {
			line = lines_claim(region, shape, lines);
			if (line < 0)
				return -1;
			*entry = tag | (line & WM_ENTRY_LINE_MASK);
			flow = (void *)(table + (__u64)(line & line_mask) * WM_LINE_BYTES);
			for (int i = 0; i < words; i++)
				flow[i] = key[i];
			state = (void *)&flow[words];
			state->packets = size->packets;
			state->bytes = size->bytes;
			state->skbs = size->skbs;
			state->first = now;
			state->last = now;
			state->hash = hash;
			state->tcp_flags = tcp_flags;
			state->probe = probe;
			state->pad = 0;
			return 0;
		}
		if ((found & ~WM_ENTRY_LINE_MASK) != tag)
			continue;
		flow = (void *)(table + (__u64)(found & line_mask) * WM_LINE_BYTES);
		if (!key_equals(flow, key, words))
			continue;
		state = (void *)&flow[words];
		state->packets += size->packets;
		state->bytes += size->bytes;
		state->skbs += size->skbs;
		state->last = now;
		state->tcp_flags |= tcp_flags;
		return 0;
	}
	return -1;
}

#endif
