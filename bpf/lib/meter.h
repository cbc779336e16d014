/* The datapath that every engine shares: parsed headers and a size in, one counter and one flow updated. */
#ifndef WM_METER_H
#define WM_METER_H

#include "flow_table.h"
#include "packet.h"
#include "wire_size.h"

/* A counter that one CPU writes takes plain adds; the region that CPUs without one share takes atomic ones. */
static __always_inline void tally_add(struct wm_tally *tally, const struct wm_tally *size, int shared)
{
	if (wm_unlikely(shared)) {
		__sync_fetch_and_add(&tally->packets, size->packets);
		__sync_fetch_and_add(&tally->bytes, size->bytes);
		__sync_fetch_and_add(&tally->skbs, size->skbs);
	} else {
		tally->packets += size->packets;
		tally->bytes += size->bytes;
		tally->skbs += size->skbs;
	}
}

static __always_inline struct wm_counters *region_counters(struct wm_region_header *region, __u32 attachment)
{
	return (struct wm_counters *)((char *)region + sizeof(*region)) + attachment;
}

/* The flow, or for non-IP frames the ethertype, that the headers name. */
static __always_inline enum flow_added flow_of_headers(struct wm_region_header *region,
						       const volatile struct wm_table_shape *shape,
						       const struct headers *h, __u32 attachment,
						       const struct wm_tally *size, __u64 now, struct flow_found *found)
{
	__u32 context = (attachment + 1) << WM_CONTEXT_ATTACHMENT_SHIFT;
	struct wm_flow_head head = {.src_port_be = h->ports.src_be, .dst_port_be = h->ports.dst_be};
	__u64 key[WM_KEY6_WORDS];

	if (wm_unlikely(!h->family)) {
		head.context = context | WM_VLAN_NON_IP << WM_CONTEXT_VLAN_SHIFT;
		__builtin_memcpy(&key[0], &head, sizeof(head));
		__u32 in_place_of_addrs[2] = {h->ethertype, 0};
		__builtin_memcpy(&key[1], in_place_of_addrs, sizeof(key[1]));
		return flow_add(region, shape, key, WM_KEY4_WORDS, size, 0, now, found);
	}
	head.context = context | h->vlan << WM_CONTEXT_VLAN_SHIFT | h->protocol << WM_CONTEXT_PROTOCOL_SHIFT;
	if (wm_likely(h->family == 4)) {
		__builtin_memcpy(&key[0], &head, sizeof(head));
		__builtin_memcpy(&key[1], h->addr_be.v4, sizeof(key[1]));
		return flow_add(region, shape, key, WM_KEY4_WORDS, size, h->tcp_flags, now, found);
	}
	head.context |= 1U << WM_CONTEXT_V6_SHIFT;
	__builtin_memcpy(&key[0], &head, sizeof(head));
	__builtin_memcpy(&key[1], h->addr_be.words, sizeof(h->addr_be.words));
	return flow_add(region, shape, key, WM_KEY6_WORDS, size, h->tcp_flags, now, found);
}

/* Counts one buffer; returns what its flow's line was, and FLOW_NO_ROOM for what is in no flow. `shared` says that
 * `region` is the one, of counters only, for all CPUs without a region. `found`: untouched for what is in no flow.
 */
static __always_inline enum flow_added meter_count(struct wm_region_header *region,
						   const volatile struct wm_table_shape *shape, const struct headers *h,
						   __u32 attachment, const struct wm_tally *size, __u64 now, int shared,
						   struct flow_found *found)
{
	struct wm_counters *counters = region_counters(region, attachment);
	__u32 row = h->row, reason = h->reason;
	enum flow_added added;

	if (row >= WM_ROWS || reason > WM_REASONS)
		return FLOW_NO_ROOM; /* cannot be; the verifier wants to see it */
	/* WM_TRUNCATED_L2 has its reason's row only. */
	tally_add(&counters->rows[row], size, shared);
	if (wm_unlikely(reason == WM_TRUNCATED_L2))
		return FLOW_NO_ROOM;
	if (wm_likely(reason == WM_REASONS)) {
		if (wm_unlikely(shared)) {
			reason = WM_NO_REGION;
		} else {
			added = flow_of_headers(region, shape, h, attachment, size, now, found);
			if (wm_likely(added != FLOW_NO_ROOM))
				return added;
			reason = WM_TABLE_FULL;
		}
		/* Non-IP frames are attributed by their row; only their ethertype is lost. */
		if (!h->family)
			return FLOW_NO_ROOM;
	}
	wm_forget(reason);
	if (reason < WM_REASONS)
		tally_add(&counters->rows[WM_ROW_UNATTRIBUTED + reason], size, shared);
	return FLOW_NO_ROOM;
}

#endif
