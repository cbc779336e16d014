/* The host engine: frames out of plain memory, through the parser and into the table that the kernel's programs use. */
#include "host.h"
#include "../lib/meter.h"

#include <string.h>

static inline int packet_load(const struct packet *packet, __u32 off, void *to, __u32 len)
{
	if (len > packet->len || off > packet->len - len)
		return -1;
	memcpy(to, (const char *)packet->ctx + off, len);
	return 0;
}

static inline int engine_times_in_any_order(void)
{
	return 1;
}

static inline void engine_walk(const struct packet *packet, struct ipv6_chain *chain)
{
	ipv6_chain_walk(packet, chain);
}

/* A linear part of no bytes has every header copied out: frames in a file lie at any address, and a struct must not. */
static inline struct packet packet_of_frame(const uint8_t *frame, __u32 captured)
{
	return (struct packet){
		.kind = PACKET_HOST,
		.ctx = (void *)frame,
		.data = frame,
		.end = frame,
		.len = captured,
	};
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
			      const struct headers *h, const struct wm_tally *size, __u64 now)
{
	struct wm_counters *counters = region_counters(region, attachment);
	struct wm_tally *full = &counters->rows[WM_ROW_UNATTRIBUTED + WM_TABLE_FULL];
	__u64 full_before = full->skbs;

	meter_count(region, shape, h, attachment, size, now, 0);
	if (wm_likely(full->skbs == full_before))
		return 1;
	tally_take(full, size);
	tally_take(&counters->rows[h->row], size);
	return 0;
}

size_t wm_host_count(void *memory, const struct wm_table_shape *shape, uint32_t attachment,
		     const struct wm_host_frames *frames, size_t first, enum wm_host_stop *stop)
{
	struct wm_region_header *region = memory;
	size_t i;

	for (i = first; i < frames->count; i++) {
		uint64_t at = frames->offsets[i];
		uint32_t captured = frames->captured[i];
		struct headers h = {.reason = WM_REASONS};
		struct wm_tally size = wire_packet(frames->wire[i]);
		struct packet packet;

		*stop = WM_HOST_OUTSIDE_DATA;
		if (at > frames->data_bytes || captured > frames->data_bytes - at)
			return i;
		packet = packet_of_frame(frames->data + at, captured);
		if (!frames->links || frames->links[i] == WM_LINK_ETHERNET)
			parse_l2(&packet, &h);
		else
			parse_tags(&packet, &h, frames->links[i], 0);
		*stop = WM_HOST_FLIP_DUE;
		if (wm_unlikely(flip_due(region)))
			return i;
		if (!frame_count(region, shape, attachment, &h, &size, frames->times_ns[i]))
			return i;
	}
	*stop = WM_HOST_DONE;
	return i;
}
