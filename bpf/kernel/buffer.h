/* The kernel's buffers, skb and xdp_buff: their bytes beyond the linear part, and how much of the wire they are. */
#ifndef WM_KERNEL_BUFFER_H
#define WM_KERNEL_BUFFER_H

#include "../lib/packet.h"
#include "../lib/wire_size.h"
#include "settings.h"
#include "structs.h"

static __always_inline int packet_load(const struct packet *packet, __u32 off, void *to, __u32 len)
{
	switch (packet->kind) {
	case PACKET_SKB:
		return bpf_skb_load_bytes(packet->ctx, off, to, len);
	case PACKET_XDP:
		return wm_xdp_frags ? bpf_xdp_load_bytes(packet->ctx, off, to, len) : -1;
	default:
		return -1;
	}
}

static __always_inline struct wm_tally one_packet(__u32 len)
{
	return wire_packet(wm_test_runs && wm_test_packet.wire_bytes ? wm_test_packet.wire_bytes : len);
}

/* Where `data` is in the skb's head. In 64 bits: the verifier takes the difference of two kernel pointers only whole.
 */
static __always_inline __u32 data_offset(const struct sk_buff___wm *kernel_skb)
{
	__u64 offset = kernel_skb->data - kernel_skb->head;

	wm_forget(offset);
	return offset;
}

/* After generic XDP with frags, `data` at tc ingress may begin behind the Ethernet header. How many bytes behind. */
static __always_inline __u32 l2_bytes_skipped(struct __sk_buff *skb)
{
	struct sk_buff___wm *kernel_skb;

	if (!wm_kernel_skb)
		return 0;
	kernel_skb = bpf_cast_to_kern_ctx(skb);
	return (__u16)(data_offset(kernel_skb) - kernel_skb->mac_header);
}

/* Up to and including the TCP or UDP header at `offset`; 0 where there is none. */
static __always_inline __u32 transport_end(struct __sk_buff *skb, __u32 gso_type, __u32 offset)
{
	struct wm_tcp_flags tcp;

	if (!(gso_type & (SKB_GSO_TCPV4 | SKB_GSO_TCPV6)))
		return offset + WM_UDP_HEADER;
	if (bpf_skb_load_bytes(skb, offset + WM_TCP_FLAGS_OFFSET, &tcp, sizeof(tcp)))
		return 0;
	return offset + (wm_be16(tcp.offset_flags_be) >> 12) * 4;
}

/* Returns the bytes from `data` up to and including the header that each segment of a super-packet repeats last. That
 * is not the one that parse_l4() saw in tunnels and for UDP in IP fragments, and it saw none behind MPLS or PPPoE: then
 * what the stack noted in the skb tells, as it cuts by that too. */
static __always_inline __u32 gso_header_end(struct __sk_buff *skb, const struct headers *h)
{
	struct skb_shared_info___wm *info;
	struct sk_buff___wm *kernel_skb;
	__u32 type, end = 0;
	__u16 data;

	if (wm_kernel_skb) {
		kernel_skb = bpf_cast_to_kern_ctx(skb);
		data = data_offset(kernel_skb);
		info = bpf_rdonly_cast(kernel_skb->head + kernel_skb->end,
				       bpf_core_type_id_kernel(struct skb_shared_info___wm));
		type = info->gso_type;
		if (type & SKB_GSO_UDP)
			return h->l4_offset + (h->family == 6 ? sizeof(__u64) : 0);
		if (type & SKB_GSO_ENCAPSULATED)
			end = transport_end(skb, type, (__u16)(kernel_skb->inner_transport_header - data));
		else if (!h->l4_offset && kernel_skb->transport_header > data)
			end = transport_end(skb, type, (__u16)(kernel_skb->transport_header - data));
	}
	return end ? end : h->l4_offset + h->l4_length;
}

static __always_inline struct wm_tally skb_size(struct __sk_buff *skb, const struct headers *h, __u32 l2_extra)
{
	__u32 gso_size = skb->gso_size;
	__u32 len = skb->len + l2_extra;
	struct wm_tally size;

	if (wm_likely(!gso_size))
		return one_packet(len);
	if (gso_size == GSO_BY_FRAGS) {
		size = wire_packet(len);
		size.packets = skb->gso_segs ? skb->gso_segs : 1;
		size.bytes += (size.packets - 1) * (h->l4_offset + WM_SCTP_HEADER + l2_extra);
		return size;
	}
	return wire_segments(len - h->jumbo_bytes, gso_header_end(skb, h) + l2_extra - h->jumbo_bytes, gso_size);
}

static __always_inline __u32 xdp_length(struct xdp_md *xdp)
{
	__u32 linear = xdp->data_end - xdp->data;

	if (wm_kernel_skb) {
		const struct xdp_buff___wm *buff = bpf_cast_to_kern_ctx(xdp);

		if (!(buff->flags & XDP_FLAGS_HAS_FRAGS))
			return linear;
	}
	return wm_xdp_frags ? bpf_xdp_get_buff_len(xdp) : linear;
}

#endif
