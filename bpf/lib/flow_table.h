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

static __always_inline __u32 key_hash(__u64 seed, const __u64 *key, int words)
{
	__u64 hash = seed ^ key[0];

	for (int i = 1; i < words; i++)
		hash = hash_mix(hash) ^ key[i];
	return (hash * 0xc4ceb9fe1a85ec53ULL) >> 32;
}

/* One branch for all words: less to predict, and less to verify. */
static __always_inline int key_equals(const __u64 *stored, const __u64 *key, int words)
{
	__u64 difference = 0;

	for (int i = 0; i < words; i++)
		difference |= stored[i] ^ key[i];
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

/* Adds a packet to the flow of `key`, which becomes one if it is none yet. `words` is WM_KEY4_WORDS or WM_KEY6_WORDS,
 * a constant where this is inlined. `found`: what few packets of the flow change; untouched where there is no room. */
static __always_inline enum flow_added flow_add(struct wm_region_header *region,
						const volatile struct wm_table_shape *shape, const __u64 *key,
						int words, const struct wm_tally *size, __u16 tcp_flags, __u64 now,
						struct wm_flow_cold **found)
{
	int lines = words == WM_KEY4_WORDS ? 1 : 2;
	__u32 mask = shape->lines_mask & ~(lines - 1U);
	__u32 hash = key_hash(shape->seed, key, words);
	__u32 spread = region->spread_mask, place = hash;
	char *table = (char *)region + shape->lines_offset;
	__u32 *touched = (void *)((char *)region + shape->touched_offset);
	struct wm_flow_cold *cold;
	struct wm_flow_hot *hot;
	__u32 line, entries;
	__u64 *flow;

	wm_loop for (__u32 probe = 0; probe < 2 * WM_BLOCK_LINES; probe += lines)
	{
		if (probe == WM_BLOCK_LINES) {
			/* Outside the lines that are being filled. */
			place = (hash >> 16 | hash << 16) | ((spread + 1) & shape->lines_mask);
			spread = mask;
		}
		line = (place ^ (probe % WM_BLOCK_LINES)) & spread & mask;
		flow = (void *)(table + (__u64)line * WM_LINE_BYTES);
		hot = (void *)&flow[words];
		cold = lines == 1 ? (void *)(hot + 1) : (void *)&flow[WM_HEAD_OF_SECOND_LINE + 1];
		if (wm_likely(key_equals(flow, key, words)))
			goto known;
		if (!flow[0] && (lines == 1 || !flow[WM_HEAD_OF_SECOND_LINE]))
			goto fresh;
	}
	return FLOW_NO_ROOM;

known:
	*found = cold;
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
	return FLOW_KNOWN;

fresh:
	entries = region->entries;
	touched[entries & shape->lines_mask] = line;
	region->entries = entries + 1;
	region->lines_used += lines;
	for (int i = 0; i < words; i++)
		flow[i] = key[i];
	if (lines == 2)
		flow[WM_HEAD_OF_SECOND_LINE] = WM_SECOND_LINE;
	*hot = (struct wm_flow_hot){size->packets, size->bytes, now};
	*cold = (struct wm_flow_cold){
		.merged = size->packets - size->skbs,
		.first = now,
		.hash = hash,
		.tcp_flags = tcp_flags,
	};
	*found = cold;
	return FLOW_NEW;
}

#endif
