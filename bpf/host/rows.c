/* See rows.h. */
#include "rows.h"
#include "../lib/address.h"
#include "../lib/hash.h"
#include "../lib/headers.h"
#include "../records.h"

#include <string.h>

/* How many rows ahead the next lines are asked for: enough to have several cache misses under way at once. */
#define PREFETCH_AHEAD 16

static uint32_t context_vlan(uint32_t context)
{
	return context >> WM_CONTEXT_VLAN_SHIFT & WM_VLAN_MASK;
}

static void row_fill(struct wm_flow_row *row, const struct wm_flow_head *head, const struct wm_flow_hot *hot,
		     const struct wm_flow_cold *cold, uint64_t tick_ns, uint64_t origin_ns)
{
	uint32_t vlan = context_vlan(head->context);

	row->src_port = wm_be16(head->src_port_be);
	row->dst_port = wm_be16(head->dst_port_be);
	row->attachment = (head->context >> WM_CONTEXT_ATTACHMENT_SHIFT) - 1;
	row->vlan = vlan & WM_VLAN_TAGGED ? vlan & ~WM_VLAN_TAGGED : WM_ROW_NO_VLAN;
	row->tcp_flags = cold->tcp_flags;
	row->protocol = head->context >> WM_CONTEXT_PROTOCOL_SHIFT;
	row->hash = cold->hash;
	row->packets = hot->packets;
	row->bytes = hot->bytes;
	row->skbs = hot->packets - cold->merged;
	row->first_ns = origin_ns + cold->first * tick_ns;
	row->last_ns = origin_ns + hot->last * tick_ns;
}

static void row_from_v4(struct wm_flow_row *row, const struct wm_flow4 *flow, uint64_t tick_ns, uint64_t origin_ns)
{
	address_from_v4(row->src_addr, flow->src_addr_be);
	address_from_v4(row->dst_addr, flow->dst_addr_be);
	row->family = 4;
	row_fill(row, &flow->head, &flow->hot, &flow->cold, tick_ns, origin_ns);
}

static void row_from_v6(struct wm_flow_row *row, const struct wm_flow6 *flow, uint64_t tick_ns, uint64_t origin_ns)
{
	memcpy(row->src_addr, flow->src_addr_be, sizeof(row->src_addr));
	memcpy(row->dst_addr, flow->dst_addr_be, sizeof(row->dst_addr));
	row->family = 6;
	row_fill(row, &flow->head, &flow->hot, &flow->cold, tick_ns, origin_ns);
}

static void row_from_ethertype(struct wm_ethertype_row *row, const struct wm_flow4 *frames)
{
	row->attachment = (frames->head.context >> WM_CONTEXT_ATTACHMENT_SHIFT) - 1;
	row->ethertype = frames->src_addr_be;
	row->packets = frames->hot.packets;
	row->bytes = frames->hot.bytes;
	row->skbs = frames->hot.packets - frames->cold.merged;
}

/* Makes an entry's lines free. In this order: who is killed in between finds all of it in the head yet. */
static void line_clear(void *line)
{
	struct wm_flow_head *head = line;

	if (head->context >> WM_CONTEXT_V6_SHIFT & 1)
		((struct wm_flow6 *)line)->second_line = 0;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	memset(head, 0, sizeof(*head));
}

static void entries_forget(struct wm_region_header *header)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	header->entries = header->lines_used = header->flip_asked = 0;
}

struct wm_rows_taken wm_rows_take(void *region, const struct wm_table_shape *shape, struct wm_flow_row *flows,
				  struct wm_ethertype_row *ethertypes, uint64_t tick_ns, uint64_t origin_ns, int keep)
{
	struct wm_region_header *header = region;
	const uint32_t *touched = (const void *)((char *)region + shape->touched_offset);
	char *lines = (char *)region + shape->lines_offset;
	struct wm_rows_taken taken = {0, 0};
	uint32_t entries = header->entries;

	for (uint32_t i = 0; i < entries; i++) {
		void *line = lines + (size_t)touched[i] * WM_LINE_BYTES;
		struct wm_flow_head *head = line;

		if (i + PREFETCH_AHEAD < entries)
			__builtin_prefetch(lines + (size_t)touched[i + PREFETCH_AHEAD] * WM_LINE_BYTES, 1);
		if (context_vlan(head->context) == WM_VLAN_NON_IP) {
			row_from_ethertype(&ethertypes[taken.ethertypes++], line);
		} else if (head->context >> WM_CONTEXT_V6_SHIFT & 1) {
			row_from_v6(&flows[taken.flows++], line, tick_ns, origin_ns);
		} else {
			row_from_v4(&flows[taken.flows++], line, tick_ns, origin_ns);
		}
		if (!keep)
			line_clear(line);
	}
	if (!keep)
		entries_forget(header);
	return taken;
}

void wm_rows_clear(void *region, const struct wm_table_shape *shape)
{
	struct wm_region_header *header = region;
	const uint32_t *touched = (const void *)((char *)region + shape->touched_offset);
	char *lines = (char *)region + shape->lines_offset;

	for (uint32_t i = 0; i < header->entries; i++)
		line_clear(lines + (size_t)touched[i] * WM_LINE_BYTES);
	entries_forget(header);
}

#define COUNTER_WORDS (WM_ROWS * sizeof(struct wm_tally) / sizeof(uint64_t))

void wm_counters_clear(void *region, size_t attachments)
{
	struct wm_counters *counters = (void *)((char *)region + sizeof(struct wm_region_header));

	for (size_t i = 0; i < attachments; i++) {
		uint64_t *at = (void *)&counters[i];

		for (size_t word = 0; word < COUNTER_WORDS; word++)
			if (at[word]) /* pages of attachments that never were stay untouched */
				at[word] = 0;
	}
}

void wm_counters_take(void *region, const uint32_t *attachments, size_t count, uint64_t *sums, int keep)
{
	struct wm_counters *counters = (void *)((char *)region + sizeof(struct wm_region_header));
	const size_t words = COUNTER_WORDS;

	for (size_t i = 0; i < count; i++) {
		uint64_t *from = (void *)&counters[attachments[i]];
		uint64_t *to = &sums[attachments[i] * words];

		for (size_t word = 0; word < words; word++) {
			if (!from[word])
				continue; /* most are 0, and their pages in `sums` are never touched */
			to[word] += from[word];
			if (!keep)
				from[word] = 0;
		}
	}
}

static int rows_same_flow(const struct wm_flow_row *a, const struct wm_flow_row *b)
{
	return !memcmp(a, b, offsetof(struct wm_flow_row, tcp_flags)) && a->protocol == b->protocol &&
	       a->family == b->family;
}

static void row_add(struct wm_flow_row *to, const struct wm_flow_row *row)
{
	to->packets += row->packets;
	to->bytes += row->bytes;
	to->skbs += row->skbs;
	to->tcp_flags |= row->tcp_flags;
	if (row->first_ns < to->first_ns)
		to->first_ns = row->first_ns;
	if (row->last_ns > to->last_ns)
		to->last_ns = row->last_ns;
}

size_t wm_rows_merge(struct wm_flow_row *rows, size_t count, uint64_t *index, uint64_t index_mask)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		uint32_t hash = rows[i].hash;
		uint64_t at = hash & index_mask;

		if (i + PREFETCH_AHEAD < count)
			__builtin_prefetch(&index[rows[i + PREFETCH_AHEAD].hash & index_mask], 1);
		/* An entry is the hash above the row's number + 1, so most others are told apart without their row. */
		for (; index[at]; at = (at + 1) & index_mask) {
			struct wm_flow_row *other = &rows[(uint32_t)index[at] - 1];

			if (index[at] >> 32 == hash && rows_same_flow(other, &rows[i])) {
				row_add(other, &rows[i]);
				break;
			}
		}
		if (index[at])
			continue;
		if (kept != i)
			rows[kept] = rows[i];
		index[at] = (uint64_t)hash << 32 | ++kept;
	}
	return kept;
}

void wm_rows_copy(struct wm_flow_row *to, const struct wm_flow_row *rows, size_t count, const uint16_t *places)
{
	memcpy(to, rows, count * sizeof(*rows));
	for (size_t i = 0; places && i < count; i++)
		to[i].attachment = places[to[i].attachment];
}

void wm_rows_tally(const struct wm_flow_row *rows, size_t count, uint64_t *sums, size_t attachments)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t *sum = &sums[(size_t)rows[i].attachment * 3];

		if (rows[i].attachment >= attachments)
			continue;
		sum[0] += rows[i].packets;
		sum[1] += rows[i].bytes;
		sum[2] += rows[i].skbs;
	}
}

/* Keys of an endpoint's address, its port, and their protocol. */
#define ENDPOINT_WORDS 3
_Static_assert(2 * (ENDPOINT_WORDS + 1) == WM_ROWS_HASH_KEYS, "two a word");

static uint64_t endpoint_hash(const uint64_t *keys, const uint8_t *address, uint16_t port)
{
	uint64_t words[ENDPOINT_WORDS] = {[2] = port};

	memcpy(words, address, 16);
	return hash_mix(hash_sum(keys, words, ENDPOINT_WORDS));
}

void wm_rows_conversation_hashes(const struct wm_flow_row *rows, size_t count, const uint64_t *keys, uint64_t *hashes)
{
	for (size_t i = 0; i < count; i++) {
		const struct wm_flow_row *row = &rows[i];
		uint64_t protocol = row->protocol;

		/* A sum takes both orders of its parts. */
		hashes[i] = hash_mix(endpoint_hash(keys, row->src_addr, row->src_port) +
				     endpoint_hash(keys, row->dst_addr, row->dst_port) +
				     hash_sum(&keys[2 * ENDPOINT_WORDS], &protocol, 1));
	}
}
