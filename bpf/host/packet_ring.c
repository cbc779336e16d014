/* Blocks of a packet socket's ring as frames. */
#include "packet_ring.h"
#include "../records.h"
#include "../lib/headers.h"

#include <string.h>

/* struct tpacket_block_desc up to what is read here. */
struct ring_block {
	uint32_t version;
	uint32_t offset_to_private;
	uint32_t status;
	uint32_t frames;
	uint32_t first_at;
};

/* struct tpacket3_hdr, and the struct sockaddr_ll behind it. */
struct ring_frame {
	uint32_t next;
	uint32_t seconds;
	uint32_t nanoseconds;
	uint32_t captured;
	uint32_t wire;
	uint32_t status;
	uint16_t mac_at;
	uint16_t network_at;
	uint32_t rx_hash;
	uint32_t vlan_tci;
	uint16_t vlan_type;
	uint16_t pad;
	uint8_t padding[8];
	uint16_t address_family;
	uint16_t protocol_be;
	uint32_t ifindex;
	uint16_t hardware_type;
	uint8_t packet_type;
};
_Static_assert(offsetof(struct ring_frame, address_family) == 48, "TPACKET_ALIGN(sizeof(struct tpacket3_hdr))");

/* struct virtio_net_hdr, which PACKET_VNET_HDR puts right before the frame. In this machine's byte order. */
struct vnet_header {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t headers_bytes; /* how much is linear, whatever the name says */
	uint16_t gso_size;
	uint16_t checksum_from;
	uint16_t checksum_at;
};
_Static_assert(sizeof(struct vnet_header) == 10, "struct virtio_net_hdr");

#define TP_STATUS_USER		  (1U << 0)
#define TP_STATUS_VLAN_VALID	  (1U << 4)
#define VIRTIO_NET_HDR_NEEDS_CSUM 1 /* the flag */
#define VIRTIO_NET_HDR_GSO_UDP	  3 /* UFO: the segments are IP fragments */
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#define VIRTIO_NET_HDR_GSO_ECN	  0x80 /* a flag beside the type */

int wm_ring_is_ours(const uint8_t *block)
{
	const struct ring_block *head = (const void *)block;

	return __atomic_load_n(&head->status, __ATOMIC_ACQUIRE) & TP_STATUS_USER;
}

uint32_t wm_ring_frames_open(const uint8_t *block)
{
	const struct ring_block *head = (const void *)block;

	return __atomic_load_n(&head->frames, __ATOMIC_ACQUIRE);
}

void wm_ring_release(uint8_t *block)
{
	struct ring_block *head = (void *)block;

	__atomic_store_n(&head->status, 0, __ATOMIC_RELEASE);
}

struct wm_ring_place wm_ring_begin(const uint8_t *block)
{
	const struct ring_block *head = (const void *)block;

	return (struct wm_ring_place){.at = head->first_at, .left = head->frames};
}

/* The frame's header, or NULL where none can be: the memory is the kernel's, but a fault here must not read beyond. */
static const struct ring_frame *frame_at(const uint8_t *block, size_t block_bytes, uint32_t at)
{
	if (at > block_bytes || block_bytes - at < sizeof(struct ring_frame))
		return NULL;
	return (const void *)(block + at);
}

static struct wm_host_offload frame_offload(const struct ring_frame *frame)
{
	struct wm_host_offload offload = {0};
	struct vnet_header vnet;

	if (frame->status & TP_STATUS_VLAN_VALID)
		offload.vlan = WM_VLAN_TAGGED | (frame->vlan_tci & WM_VLAN_ID_MASK);
	memcpy(&vnet, (const char *)frame + frame->mac_at - sizeof(vnet), sizeof(vnet));
	if (!vnet.gso_type)
		return offload;
	offload.gso_size = vnet.gso_size;
	switch (vnet.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_UDP:
		offload.segments_are = WM_SEGMENTS_FRAGMENTS;
		break;
	case VIRTIO_NET_HDR_GSO_UDP_L4:
		offload.segments_are = WM_SEGMENTS_UDP;
		break;
	}
	/* What is segmented leaves its checksum to whoever segments it, so this is where the innermost header is. */
	if (vnet.flags & VIRTIO_NET_HDR_NEEDS_CSUM)
		offload.l4_at = vnet.checksum_from;
	return offload;
}

/* Longer than any flip takes. */
#define WM_RING_LATE_NS 60000000000ULL

static uint32_t frame_link(const struct ring_frame *frame, int ethernet)
{
	uint16_t protocol = wm_be16(frame->protocol_be);

	if (ethernet)
		return WM_LINK_ETHERNET;
	return protocol < WM_ETHERTYPE_MIN ? WM_ETHERTYPE_NONE : protocol;
}

size_t wm_ring_read(const uint8_t *ring, size_t block_at, size_t block_bytes, struct wm_ring_place place, int ethernet,
		    uint64_t until_ns, struct wm_ring_frames *frames)
{
	size_t count = 0;

	while (place.left && count < frames->capacity) {
		const struct ring_frame *frame = frame_at(ring + block_at, block_bytes, place.at);
		uint64_t time_ns;

		if (!frame || frame->mac_at < sizeof(*frame))
			break;
		time_ns = frame->seconds * 1000000000ULL + frame->nanoseconds;
		/* What came long after was stamped before somebody set the clock back: it would keep the others
		 * waiting. */
		if (time_ns > until_ns && time_ns - until_ns < WM_RING_LATE_NS)
			break;
		frames->offsets[count] = block_at + place.at + frame->mac_at;
		frames->captured[count] = frame->captured;
		frames->wire[count] = frame->wire;
		frames->times_ns[count] = time_ns;
		frames->links[count] = frame_link(frame, ethernet);
		frames->offloads[count] = frame_offload(frame);
		count++;
		place.at += frame->next;
		place.left--;
	}
	return count;
}

void wm_ring_skip(const uint8_t *block, size_t block_bytes, struct wm_ring_place *place, size_t count)
{
	for (; count && place->left; count--, place->left--) {
		const struct ring_frame *frame = frame_at(block, block_bytes, place->at);

		if (!frame) {
			place->left = 0;
			return;
		}
		place->at += frame->next;
	}
}
