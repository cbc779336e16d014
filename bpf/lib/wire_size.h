/* How much of the wire one buffer is: a super-packet is its segments, each with headers of its own. */
#ifndef WM_WIRE_SIZE_H
#define WM_WIRE_SIZE_H

#include "../records.h"

/* One packet of its own length. */
static __always_inline struct wm_tally wire_packet(__u32 len)
{
	return (struct wm_tally){.packets = 1, .bytes = len, .skbs = 1};
}

/* A GSO/GRO super-packet of `len` bytes whose payload goes out in pieces of `gso_size`, each behind a copy of the
 * first `hdr` bytes. Not by gso_segs: that is 0 in what guests and taps send. */
static __always_inline struct wm_tally wire_segments(__u32 len, __u32 hdr, __u32 gso_size)
{
	struct wm_tally size = wire_packet(len);

	if (len > hdr + gso_size) {
		size.packets = (len - hdr + gso_size - 1) / gso_size;
		size.bytes += (size.packets - 1) * hdr;
	}
	return size;
}

#endif
