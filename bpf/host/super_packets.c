/* Which frames of a capture are longer than their link can carry, and how TCP's would have been cut. */
#include "super_packets.h"
#include "frame.h"

#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_MSS 2
#define ICMP	       1
#define ICMPV6	       58
/* No SYN is longer, link-layer header and tags included: so nothing between this and the usual MTU is of interest. */
#define SYN_FRAME_MAX 192

static uint32_t larger(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* Of the network header, from the frame's first byte. */
static uint32_t network_offset(const struct packet *packet, uint32_t link)
{
	uint32_t off = link == WM_LINK_ETHERNET ? sizeof(struct wm_eth) : 0, type = link;
	uint8_t be[2];

	if (off && !packet_load(packet, off - 2, be, 2))
		type = (uint32_t)be[0] << 8 | be[1];
	for (int i = 0; i < WM_VLAN_TAGS_MAX && is_vlan(type); i++) {
		off += sizeof(struct wm_vlan);
		if (packet_load(packet, off - 2, be, 2))
			break;
		type = (uint32_t)be[0] << 8 | be[1];
	}
	return off;
}

/* Loopback devices have an MTU of 64 KiB; on the wire neither such addresses nor MAC addresses of zeros are. */
static int is_loopback(const struct packet *packet, const struct headers *h, uint32_t link)
{
	static const uint8_t zeros[12], v6[16] = {[15] = 1};
	uint8_t macs[12];

	if (link == WM_LINK_ETHERNET && !packet_load(packet, 0, macs, sizeof(macs)) &&
	    !memcmp(macs, zeros, sizeof(macs)))
		return 1;
	if (h->family == 4)
		return *(const uint8_t *)&h->addr_be.v4[0] == 127;
	return !memcmp(h->addr_be.words, v6, sizeof(v6));
}

/* The segment size that a SYN announces (RFC 9293, 3.2); 0: none. */
static uint32_t announced_mss(const struct packet *packet, const struct headers *h)
{
	uint32_t off = h->l4_offset + WM_TCP_HEADER_MIN, end = h->l4_offset + h->l4_length;
	uint8_t option[4];

	while (off + sizeof(option) <= end && !packet_load(packet, off, option, sizeof(option))) {
		if (option[0] == TCP_OPTION_END)
			return 0;
		if (option[0] == TCP_OPTION_MSS && option[1] == 4)
			return (uint32_t)option[2] << 8 | option[3];
		if (option[0] != TCP_OPTION_NOP && option[1] < 2)
			return 0;
		off += option[0] == TCP_OPTION_NOP ? 1 : option[1];
	}
	return 0;
}

/* The longest IP packet that this one shows its link to carry: a SYN of those to come, and what no offload puts
 * together of itself. */
static uint32_t mtu_shown(const struct packet *packet, const struct headers *h, uint32_t ip_bytes)
{
	uint32_t shown = 0, mss;

	if (h->protocol == WM_TCP && h->tcp_flags & WM_TCP_SYN) {
		mss = announced_mss(packet, h);
		shown = mss ? mss + (h->family == 6 ? 60 : 40) : 0;
	} else if (h->fragment || h->protocol == ICMP || h->protocol == ICMPV6) {
		shown = ip_bytes;
	}
	return shown <= WM_SUPER_MTU_MAX ? shown : 0;
}

/* A quick look at what most short frames are, so that they need not be parsed twice. */
static int is_surely_no_syn(const uint8_t *frame, uint32_t captured, uint32_t link)
{
	uint32_t off = 0, type = link;

	if (captured < sizeof(struct wm_eth) + sizeof(struct wm_ipv4))
		return 0;
	if (link == WM_LINK_ETHERNET) {
		off = sizeof(struct wm_eth);
		type = (uint32_t)frame[12] << 8 | frame[13];
	}
	if (type == WM_ETHERTYPE_IPV4) {
		if (frame[off + 9] != WM_TCP)
			return 1;
		off += (frame[off] & 0x0f) * 4;
	} else if (type == WM_ETHERTYPE_IPV6) {
		if (frame[off + 6] != WM_TCP)
			return !is_ipv6_extension(frame[off + 6]);
		off += 40;
	} else {
		return !is_vlan(type);
	}
	return off + 13 < captured && !(frame[off + 13] & WM_TCP_SYN);
}

size_t wm_super_packets_find(const struct wm_host_frames *frames, struct wm_super_packets *found)
{
	const uint32_t mss = found->assumed_mss;
	const uint32_t usual = mss && mss < WM_SUPER_MTU_USUAL ? mss : WM_SUPER_MTU_USUAL;
	size_t told = 0;

	for (size_t i = 0; i < frames->count; i++) {
		struct headers h = {.reason = WM_REASONS};
		uint32_t ip_bytes, payload, size, wire = frames->wire[i];
		const uint8_t *frame;
		struct packet packet;

		found->ip_bytes[i] = 0;
		if (mss)
			found->offloads[i] = (struct wm_host_offload){0};
		if ((wire > SYN_FRAME_MAX && wire <= usual) || frames->offsets[i] > frames->data_bytes ||
		    frames->captured[i] > frames->data_bytes - frames->offsets[i])
			continue;
		frame = frames->data + frames->offsets[i];
		if (wire <= usual && is_surely_no_syn(frame, frames->captured[i], frames->links[i]))
			continue;
		packet = packet_of_frame(frame, frames->captured[i]);
		frame_parse(&packet, &h, frames->links[i]);
		if (h.reason != WM_REASONS || !h.family || is_loopback(&packet, &h, frames->links[i]))
			continue;
		ip_bytes = wire - network_offset(&packet, frames->links[i]);
		found->mtu = larger(found->mtu, mtu_shown(&packet, &h, ip_bytes));
		if (h.fragment || (h.protocol != WM_TCP && h.protocol != WM_UDP))
			continue;
		if (ip_bytes > WM_SUPER_MTU_USUAL)
			found->ip_bytes[i] = ip_bytes;
		if (mss && h.protocol == WM_TCP && h.l4_length >= WM_TCP_HEADER_MIN) {
			payload = wire - h.l4_offset - h.l4_length;
			/* An announced size is without options, which take their room from it (RFC 6691). */
			size = mss - (h.l4_length - WM_TCP_HEADER_MIN);
			if (wire > (uint32_t)h.l4_offset + h.l4_length && payload > size)
				found->offloads[i].gso_size = size;
			else
				found->ip_bytes[i] = 0; /* one segment, by what is assumed */
		}
		told += found->ip_bytes[i] || (mss && found->offloads[i].gso_size);
	}
	return told;
}
