/* The host engine: frames out of plain memory, through the parser and into the table that the kernel's programs use. */
#include "host.h"
#include "frame.h"
#include "../lib/meter.h"
#include "../lib/payload.h"
#include "../lib/payload_record.h"

#include <string.h>

static inline int engine_times_in_any_order(void)
{
	return 1;
}

/* Memory of flows for the call that is under way: a thread counts into one table at a time. */
static _Thread_local struct wm_recent *recent_flows;

static inline struct inspected engine_inspect(struct inspected_packet packet, __u64 now)
{
	return inspect(recent_flows, packet, now);
}

static inline int engine_fragment(__u32 hash, int first)
{
	return fragment_known(recent_flows, hash, first);
}

static inline __u64 engine_tick(__u64 now)
{
	return now;
}

static inline __u16 engine_age(__u64 now)
{
	return now >> WM_AGE_SHIFT_NS;
}

static inline int engine_starts_are_limited(void)
{
	return 0;
}

static inline void tally_take(struct wm_tally *tally, const struct wm_tally *size)
{
	tally->packets -= size->packets;
	tally->bytes -= size->bytes;
	tally->skbs -= size->skbs;
}

/* Counts one frame, unless its flow finds no room: then the frame is as if it had not come, and 0 is returned. The
 * kernel cannot wait for a flip, so there such a frame counts as WM_TABLE_FULL; here the caller can. */
static inline int frame_count(struct wm_region_header *region, const struct wm_table_shape *shape, __u32 attachment,
			      const struct headers *h, const struct wm_tally *size, __u64 now, struct flow_found *flow)
{
	struct wm_counters *counters = region_counters(region, attachment);
	struct wm_tally *full = &counters->rows[WM_ROW_UNATTRIBUTED + WM_TABLE_FULL];
	__u64 full_before = full->skbs;

	meter_count(region, shape, h, attachment, size, now, 0, flow);
	if (wm_likely(full->skbs == full_before))
		return 1;
	tally_take(full, size);
	tally_take(&counters->rows[h->row], size);
	return 0;
}

static int payloads_have_room(const struct wm_host_payloads *payloads)
{
	return payloads->capacity - payloads->used >= sizeof(struct payload_record) &&
	       payloads->count < payloads->offsets_capacity;
}

static void payload_keep(struct wm_host_payloads *payloads, const struct packet *packet, const struct headers *h,
			 __u32 source, __u64 now)
{
	__u32 captured = h->payload_bytes < payloads->limit ? h->payload_bytes : payloads->limit;
	struct wm_payload head = {
		.time_ns = now,
		.bytes = h->payload_bytes,
		.captured = captured,
		.attachment = payloads->attachment,
	};
	uint8_t *to = payloads->data + payloads->used;

	record_head(&head, packet, h, source);
	memcpy(to, &head, sizeof(head));
	if (packet_load(packet, h->payload_offset, to + sizeof(head), captured))
		return;
	payloads->offsets[payloads->count++] = payloads->used;
	payloads->used += (sizeof(head) + captured + 7) & ~7UL;
}

/* Bytes up to and including the last header that each segment of a super-packet repeats. */
static inline __u32 segment_header_end(const struct packet *packet, const struct headers *h,
				       const struct wm_host_offload *offload)
{
	struct wm_tcp_flags tcp;

	if (offload->segments_are == WM_SEGMENTS_FRAGMENTS)
		return h->l4_offset + (h->family == 6 ? sizeof(__u64) : 0);
	if (offload->l4_at && offload->l4_at != h->l4_offset) { /* in a tunnel */
		if (offload->segments_are == WM_SEGMENTS_UDP)
			return offload->l4_at + WM_UDP_HEADER;
		if (!packet_load(packet, offload->l4_at + WM_TCP_FLAGS_OFFSET, &tcp, sizeof(tcp)))
			return offload->l4_at + (wm_be16(tcp.offset_flags_be) >> 12) * 4;
	}
	return h->l4_offset + h->l4_length;
}

/* What a frame was on the wire. */
static inline struct wm_tally frame_size(const struct packet *packet, const struct headers *h, __u32 wire,
					 const struct wm_host_offload *offload)
{
	__u32 tag = offload->vlan ? sizeof(struct wm_vlan) : 0;

	if (wm_likely(!offload->gso_size))
		return wire_packet(wire + tag);
	return wire_segments(wire + tag - h->jumbo_bytes, segment_header_end(packet, h, offload) + tag - h->jumbo_bytes,
			     offload->gso_size);
}

size_t wm_host_count(void *memory, const struct wm_table_shape *shape, uint32_t attachment,
		     const struct wm_host_frames *frames, size_t first, struct wm_host_payloads *payloads,
		     enum wm_host_stop *stop)
{
	static const struct wm_host_offload none;
	struct wm_region_header *region = memory;
	size_t i;

	recent_flows = payloads ? payloads->recent : NULL;
	for (i = first; i < frames->count; i++) {
		uint64_t at = frames->offsets[i];
		uint32_t captured = frames->captured[i];
		const struct wm_host_offload *offload = frames->offloads ? &frames->offloads[i] : &none;
		struct headers h = {.reason = WM_REASONS, .vlan = offload->vlan};
		struct flow_found flow = {0};
		struct wm_tally size;
		struct packet packet;
		__u32 source;

		*stop = WM_HOST_PAYLOADS_DUE;
		if (payloads && wm_unlikely(!payloads_have_room(payloads)))
			return i;
		*stop = WM_HOST_OUTSIDE_DATA;
		if (at > frames->data_bytes || captured > frames->data_bytes - at)
			return i;
		packet = packet_of_frame(frames->data + at, captured);
		frame_parse(&packet, &h, frames->links ? frames->links[i] : WM_LINK_ETHERNET);
		size = frame_size(&packet, &h, frames->wire[i], offload);
		*stop = WM_HOST_FLIP_DUE;
		if (wm_unlikely(flip_due(region)))
			return i;
		if (!frame_count(region, shape, attachment, &h, &size, frames->times_ns[i], &flow))
			return i;
		if (!payloads || !flow.cold)
			continue;
		packet.end = (const uint8_t *)packet.data + captured; /* payloads are copied by bytes */
		source = payload_pick(&packet, &h, payloads->sources, region, flow.cold, frames->times_ns[i]);
		if (source == WM_SOURCES)
			continue;
		region->payloads[source]++;
		payload_keep(payloads, &packet, &h, source, frames->times_ns[i]);
	}
	*stop = WM_HOST_DONE;
	return i;
}
