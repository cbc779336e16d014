/* The ring of a packet socket (TPACKET_V3, packet(7)), block by block, as frames for wm_host_count(). No copies.
 *
 * The layouts are the kernel's (linux/if_packet.h, linux/virtio_net.h); they are spelled out here so that blocks can be
 * read, and this be tested, anywhere.
 */
#ifndef WM_PACKET_RING_H
#define WM_PACKET_RING_H

#include "host.h"

/* Room for frames of one block, as arrays of `capacity` elements. */
struct wm_ring_frames {
	size_t capacity;
	uint64_t *offsets; /* from the ring's beginning */
	uint32_t *captured;
	uint32_t *wire;
	uint64_t *times_ns;
	uint32_t *links;
	struct wm_host_offload *offloads;
};

/* Where in a block a reader stands. */
struct wm_ring_place {
	uint32_t at;   /* of the next frame's header, in bytes from the block's beginning */
	uint32_t left; /* frames */
};

/* Whether a block is user space's to read. What the kernel has written to it is visible from then on. */
int wm_ring_is_ours(const uint8_t *block);

/* Frames that the kernel has put so far into a block that is still its own. */
uint32_t wm_ring_frames_open(const uint8_t *block);

/* Gives a block back. */
void wm_ring_release(uint8_t *block);

/* The beginning of a block that is ours. */
struct wm_ring_place wm_ring_begin(const uint8_t *block);

/* Reads frames from `place` on until the block ends, `frames` is full or one is younger than until_ns; returns how
 * many. One that is younger by minutes is older in truth: the clock has been set back since. `block_at` is where the
 * block begins in `ring`; `ethernet` whether frames begin with an Ethernet header. */
size_t wm_ring_read(const uint8_t *ring, size_t block_at, size_t block_bytes, struct wm_ring_place place, int ethernet,
		    uint64_t until_ns, struct wm_ring_frames *frames);

/* Moves `place` behind so many frames. */
void wm_ring_skip(const uint8_t *block, size_t block_bytes, struct wm_ring_place *place, size_t count);

#endif
