/* What user space gets of a packet whose payload is sent: whose it is, and its bytes. */
#ifndef WM_PAYLOAD_RECORD_H
#define WM_PAYLOAD_RECORD_H

#include "address.h"
#include "packet.h"

struct payload_record {
	struct wm_payload head;
	__u8 bytes[WM_PAYLOAD_BYTES_MAX];
};

/* All of a record's head but when, on which device and how much. */
static __always_inline void record_head(struct wm_payload *head, const struct packet *packet, const struct headers *h,
					__u32 source)
{
	__u32 seq_be = 0;

	if (h->family == 4) {
		address_from_v4(head->src_addr, h->addr_be.v4[0]);
		address_from_v4(head->dst_addr, h->addr_be.v4[1]);
	} else {
		__builtin_memcpy(head->src_addr, h->addr_be.words, sizeof(head->src_addr));
		__builtin_memcpy(head->dst_addr, &h->addr_be.words[2], sizeof(head->dst_addr));
	}
	head->src_port = wm_be16(h->ports.src_be);
	head->dst_port = wm_be16(h->ports.dst_be);
	head->protocol = h->protocol;
	head->family = h->family;
	head->source = source;
	if (h->protocol == WM_TCP) {
		packet_load(packet, h->l4_offset + WM_TCP_SEQ_OFFSET, &seq_be, sizeof(seq_be));
		head->seq = wm_be32(seq_be);
		head->tcp_flags = h->tcp_flags;
	} else {
		head->seq = h->fragment_id;
		head->tcp_flags = h->fragment;
	}
}

#endif
