/* One place of this CPU's table, plain stores: finding or claiming the lines of a flow in a region.
 *
 * Only one CPU writes a region, with bottom halves off, and user space reads it only after a flip and an RCU grace
 * period; so nothing here is atomic.
 */
#ifndef WM_FLOW_TABLE_H
#define WM_FLOW_TABLE_H

#include "../records.h"
#include "hash.h"

/* Lines that are looked at for a flow: the aligned block of this many around its place among the lines of
 * `spread_mask`, and if that is full, as many around a second place, by other bits of the hash, among all lines. When a
 * flip is asked for, with 3 lines in 8 in use, one block in ten thousand is full, and two in a hundred million. */
#define WM_BLOCK_LINES 16

/* A flow's key as words: what its lines begin with. */
#define WM_KEY4_WORDS 2
#define WM_KEY6_WORDS 5
_Static_assert(offsetof(struct wm_flow4, hot) == WM_KEY4_WORDS * sizeof(__u64), "the key is compared by words");
_Static_assert(offsetof(struct wm_flow6, hot) == WM_KEY6_WORDS * sizeof(__u64), "the key is compared by words");

_Static_assert(WM_HASH_KEYS == 2 * WM_KEY6_WORDS, "two a word");

static __always_inline __u32 key_hash(const volatile struct wm_table_shape *shape, const __u64 *key, int words)
{
	return hash_mix(hash_sum(shape->hash_keys, key, words)) >> 32;
}

/* One branch for all words: less to predict, and less to verify. Clang would go back to a branch for each. */
static __always_inline int key_equals(const __u64 *stored, const __u64 *key, int words)
{
	__u64 difference = 0;

	for (int i = 0; i < words; i++)
		difference |= stored[i] ^ key[i];
	wm_forget(difference);
	return !difference;
}

static __always_inline int flip_due(const struct wm_region_header *region)
{
	return region->lines_used >= (region->spread_mask + 1) / 8 * 3 && !region->flip_asked;
}

/* Whether a packet may be older than one counted before it, as in captures of several interfaces. */
static __always_inline int engine_times_in_any_order(void);

#define WM_HEAD_OF_SECOND_LINE (WM_LINE_BYTES / sizeof(__u64)) /* in words from the first */

enum flow_added {
	FLOW_NO_ROOM = -1,
	FLOW_KNOWN,
	FLOW_NEW
};

/* What flow_find() found: the lines of a flow, or free ones for it. */
struct flow_place {
	enum flow_added is; /* FLOW_NEW: free */
	__u32 line;
	__u64 *key; /* where the line begins */
};

static __always_inline struct wm_flow_hot *place_hot(const struct flow_place *place, int words)
{
	return (void *)&place->key[words];
}

static __always_inline struct wm_flow_cold *place_cold(const struct flow_place *place, int words)
{
	return words == WM_KEY4_WORDS ? (void *)(place_hot(place, words) + 1)
				      : (void *)&place->key[WM_HEAD_OF_SECOND_LINE + 1];
}

/* Finds the flow of `key`, or where it would be. `words` is WM_KEY4_WORDS or WM_KEY6_WORDS, a constant where this is
 * inlined. */
static __always_inline struct flow_place flow_find(struct wm_region_header *region,
						   const volatile struct wm_table_shape *shape, const __u64 *key,
						   int words, __u32 hash)
{
	int lines = words == WM_KEY4_WORDS ? 1 : 2;
	__u32 mask = shape->lines_mask & ~(lines - 1U);
	__u32 spread = region->spread_mask, start = hash;
	char *table = (char *)region + shape->lines_offset;
	struct flow_place place;

	wm_loop for (__u32 probe = 0; probe < 2 * WM_BLOCK_LINES; probe += lines)
	{
		if (probe == WM_BLOCK_LINES) {
			/* Outside the lines that are being filled. */
			start = (hash >> 16 | hash << 16) | ((spread + 1) & shape->lines_mask);
			spread = mask;
		}
		place.line = (start ^ (probe % WM_BLOCK_LINES)) & spread & mask;
		place.key = (void *)(table + (__u64)place.line * WM_LINE_BYTES);
		place.is = FLOW_KNOWN;
		if (wm_likely(key_equals(place.key, key, words)))
			return place;
		place.is = FLOW_NEW;
		if (!place.key[0] && (lines == 1 || !place.key[WM_HEAD_OF_SECOND_LINE]))
			return place;
	}
	place.is = FLOW_NO_ROOM;
	return place;
}

/* Adds a packet to a flow that is known. */
static __always_inline void flow_count(const struct flow_place *place, int words, const struct wm_tally *size,
				       __u16 tcp_flags, __u64 now)
{
	struct wm_flow_hot *hot = place_hot(place, words);
	struct wm_flow_cold *cold = place_cold(place, words);

	hot->packets += size->packets;
	hot->bytes += size->bytes;
	if (engine_times_in_any_order()) {
		if (now > hot->last)
			hot->last = now;
		if (now < cold->first)
			cold->first = now;
	} else {
		hot->last = now;
	}
	if (wm_unlikely(size->packets != size->skbs))
		cold->merged += size->packets - size->skbs;
	if (tcp_flags)
		cold->tcp_flags |= tcp_flags;
}

/* Makes free lines those of a flow, with its first packet. */
static __always_inline void flow_claim(struct wm_region_header *region, const volatile struct wm_table_shape *shape,
				       const struct flow_place *place, const __u64 *key, int words, __u32 hash,
				       const struct wm_tally *size, __u16 tcp_flags, __u64 now)
{
	__u32 *touched = (void *)((char *)region + shape->touched_offset);
	int lines = words == WM_KEY4_WORDS ? 1 : 2;
	__u32 entries = region->entries;

	touched[entries & shape->lines_mask] = place->line;
	region->entries = entries + 1;
	region->lines_used += lines;
	for (int i = 0; i < words; i++)
		place->key[i] = key[i];
	if (lines == 2)
		place->key[WM_HEAD_OF_SECOND_LINE] = WM_SECOND_LINE;
	*place_hot(place, words) = (struct wm_flow_hot){size->packets, size->bytes, now};
	*place_cold(place, words) = (struct wm_flow_cold){
		.merged = size->packets - size->skbs,
		.first = now,
		.hash = hash,
		.tcp_flags = tcp_flags,
	};
}

/* Where a flow is in its region, and what few of its packets change. */
struct flow_found {
	__u32 line;
	struct wm_flow_cold *cold;
};

/* The same of a line that flow_add() found. */
static __always_inline struct wm_flow_cold *
flow_cold(struct wm_region_header *region, const volatile struct wm_table_shape *shape, __u32 line, int words)
{
	__u32 mask = shape->lines_mask & ~(words == WM_KEY4_WORDS ? 0U : 1U);
	struct flow_place place = {
		.key = (void *)((char *)region + shape->lines_offset + (__u64)(line & mask) * WM_LINE_BYTES),
	};

	return place_cold(&place, words);
}

/* Adds a packet to the flow of `key`, which becomes one if it is none yet. `found`: untouched where there is no room.
 */
static __always_inline enum flow_added flow_add(struct wm_region_header *region,
						const volatile struct wm_table_shape *shape, const __u64 *key,
						int words, const struct wm_tally *size, __u16 tcp_flags, __u64 now,
						struct flow_found *found)
{
	__u32 hash = key_hash(shape, key, words);
	struct flow_place place = flow_find(region, shape, key, words, hash);

	if (place.is == FLOW_NO_ROOM)
		return FLOW_NO_ROOM;
	if (wm_likely(place.is == FLOW_KNOWN))
		flow_count(&place, words, size, tcp_flags, now);
	else
		flow_claim(region, shape, &place, key, words, hash, size, tcp_flags, now);
	*found = (struct flow_found){place.line, place_cold(&place, words)};
	return place.is;
}

#endif
