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

/* What the segments of a super-packet are. */
enum wm_segments {
	WM_SEGMENTS_TCP,
	WM_SEGMENTS_UDP,
	WM_SEGMENTS_FRAGMENTS /* IP fragments of one UDP datagram */
};

/* What the kernel had done to a frame before it was seen. */
struct wm_host_offload {
	uint16_t vlan;	   /* a tag that was taken off: WM_VLAN_TAGGED | id; 0: none */
	uint16_t gso_size; /* a super-packet, whose payload is on the wire in pieces of so many bytes; 0: it is none */
	uint16_t l4_at;	   /* where the last header is that each piece repeats, TCP's or UDP's; 0: not known */
	uint16_t segments_are; /* enum wm_segments */
};

/* Frames to count, as arrays of `count` elements, and the bytes they lie in. */
struct wm_host_frames {
	size_t count;
	const uint8_t *data;
	size_t data_bytes;
	const uint64_t *offsets;  /* of each frame's first byte in `data` */
	const uint32_t *captured; /* bytes of it that are there */
	const uint32_t *wire;	  /* bytes it had on the wire, link-layer header included */
	const uint64_t *times_ns;
	const uint32_t *links;			/* WM_LINK_ETHERNET or an ethertype; NULL: all Ethernet */
	const struct wm_host_offload *offloads; /* NULL: frames are as they were on the wire */
};

struct wm_table_shape;
struct wm_recent;

/* Where payloads go that a name may be read from: struct wm_payload records, each followed by its captured bytes. */
struct wm_host_payloads {
	struct wm_recent *recent; /* all 0 at first */
	uint32_t limit;		  /* bytes of one packet's payload at most */
	uint32_t sources;	  /* bits of enum wm_source: those to keep */
	uint32_t attachment;	  /* what the records say */
	uint8_t *data;
	size_t capacity; /* bytes at `data` */
	size_t used;
	uint64_t *offsets; /* of each record */
	size_t offsets_capacity;
	size_t count;
};

/* Why wm_host_count() ended before the last frame. */
enum wm_host_stop {
	WM_HOST_DONE,
	WM_HOST_FLIP_DUE,     /* the region is filling: read and clear it, then go on with the next frame */
	WM_HOST_OUTSIDE_DATA, /* the next frame does not lie in `data` */
	WM_HOST_PAYLOADS_DUE  /* no room for another payload: take those there are, then go on with the next frame */
};

/* Counts frames from number `first` on into the region in `memory` for `attachment`; returns the number of the first
 * frame that was not counted. `payloads` NULL: names are of no interest. */
size_t wm_host_count(void *memory, const struct wm_table_shape *shape, uint32_t attachment,
		     const struct wm_host_frames *frames, size_t first, struct wm_host_payloads *payloads,
		     enum wm_host_stop *stop);

#endif
