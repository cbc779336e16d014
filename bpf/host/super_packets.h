/* Super-packets in captures: what the kernel's segmentation and receive offloads had put together where a capture was
 * taken. A capture file does not mark them; what can be told is that a packet is longer than its link can carry. */
#ifndef WM_SUPER_PACKETS_H
#define WM_SUPER_PACKETS_H

#include "host.h"

/* Of an Ethernet link unless a capture shows more. */
#define WM_SUPER_MTU_USUAL 1500
/* Of what an announced segment size can tell: above are loopback devices, whose 64 KiB say nothing of other links. */
#define WM_SUPER_MTU_MAX 16384

/* Where what is found is told of: arrays as long as the frames', and two numbers that go on from call to call. */
struct wm_super_packets {
	uint32_t assumed_mss; /* 0: nothing is to be computed */
	uint32_t mtu;	      /* largest that the capture has shown, at first WM_SUPER_MTU_USUAL */
	uint32_t *ip_bytes;   /* of TCP's and UDP's packets over WM_SUPER_MTU_USUAL; 0 for all others */
	struct wm_host_offload
		*offloads; /* with assumed_mss: TCP's that hold more than a segment have their gso_size */
};

/* Looks at all frames, counts none; returns how many have a length in `ip_bytes` or a gso_size. */
size_t wm_super_packets_find(const struct wm_host_frames *frames, struct wm_super_packets *found);

#endif
