/* The datapath as a plain C library: the sources of bpf/lib over ordinary memory, for any operating system.
 *
 * Nothing here allocates, blocks, or keeps state of its own: a region is the caller's memory, laid out as records.h
 * says, and one thread at a time writes it.
 */
#ifndef WM_HOST_H
#define WM_HOST_H

#include <stddef.h>
#include <stdint.h>

/* Where a frame begins. Any other number is the ethertype of a frame that begins with its network header: one off the
 * wire, WM_ETHERTYPE_LLC or WM_ETHERTYPE_NONE. */
#define WM_LINK_ETHERNET 0xffffffffU

/* Frames to count, as arrays of `count` elements, and the bytes they lie in. */
struct wm_host_frames {
	size_t count;
	const uint8_t *data;
	size_t data_bytes;
	const uint64_t *offsets;  /* of each frame's first byte in `data` */
	const uint32_t *captured; /* bytes of it that are there */
	const uint32_t *wire;	  /* bytes it had on the wire, link-layer header included */
	const uint64_t *times_ns;
	const uint32_t *links; /* WM_LINK_ETHERNET or an ethertype; NULL: all Ethernet */
};

struct wm_table_shape;

/* Why wm_host_count() ended before the last frame. */
enum wm_host_stop {
	WM_HOST_DONE,
	WM_HOST_FLIP_DUE,    /* the region is filling: read and clear it, then go on with the next frame */
	WM_HOST_OUTSIDE_DATA /* the next frame does not lie in `data` */
};

/* Counts frames from number `first` on into the region in `memory` for `attachment`; returns the number of the first
 * frame that was not counted. */
size_t wm_host_count(void *memory, const struct wm_table_shape *shape, uint32_t attachment,
		     const struct wm_host_frames *frames, size_t first, enum wm_host_stop *stop);

#endif
