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

size_t wm_host_count(void *region, const struct wm_table_shape *shape, uint32_t attachment,
		     const struct wm_host_frames *frames, size_t first, enum wm_host_stop *stop)
{
	*stop = WM_HOST_DONE;
	for (size_t i = first; i < frames->count; i++) {
		uint64_t at = frames->offsets[i];
		uint32_t captured = frames->captured[i];
		struct headers h = {.reason = WM_REASONS};
		struct wm_tally size;
		struct packet packet;

		if (at > frames->data_bytes || captured > frames->data_bytes - at) {
			*stop = WM_HOST_OUTSIDE_DATA;
			return i;
		}
		packet = packet_of_frame(frames->data + at, captured);
		if (!frames->links || frames->links[i] == WM_LINK_ETHERNET)
			parse_l2(&packet, &h);
		else
			parse_tags(&packet, &h, frames->links[i], 0);
		size = wire_packet(frames->wire[i]);
		meter_count(region, shape, &h, attachment, &size, frames->times_ns[i], 0);
		if (wm_unlikely(flip_due(region, shape))) {
			((struct wm_region_header *)region)->flip_asked = 1;
			*stop = WM_HOST_FLIP_DUE;
			return i + 1;
		}
	}
	return frames->count;
}
