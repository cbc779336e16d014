/* From bytes to headers: Ethernet, VLAN tags, IPv4, IPv6 with its extension headers, ports.
 *
 * Every engine parses with this file. Bytes are reached through packet_header(), which takes them from where they
 * lie if they lie in one piece and copies them otherwise, so nothing depends on what an skb keeps linear.
 */
#ifndef WM_PACKET_H
#define WM_PACKET_H

#include "../records.h"
#include "headers.h"

#define WM_VLAN_TAGS_MAX 4
/* There must be a bound to the walk. 182 headers fit an Ethernet frame; ten are already more than anyone sends. */
#define WM_IPV6_EXTENSIONS_MAX 128
#define WM_HEADERS_END_MASK    0x7fff /* 32 KiB, which is what the verifier lets a packet offset be */

/* PACKET_LINEAR is the kernel's first try: only what lies in one piece, no copies, no calls. Where that does not do
 * the same parser runs again as PACKET_SKB or PACKET_XDP, which reach every byte. */
enum packet_kind {
	PACKET_LINEAR,
	PACKET_SKB,
	PACKET_XDP,
	PACKET_HOST
};

/* One buffer of the engine. `data`..`end` is its linear part, `len` all of it. */
struct packet {
	enum packet_kind kind;
	void *ctx;
	const void *data;
	const void *end;
	__u32 len;
};

/* Copies len bytes at off out of the whole buffer, linear or not; 0 on success. Each engine defines its own. */
static __always_inline int packet_load(const struct packet *packet, __u32 off, void *to, __u32 len);

/* What a payload begins with. */
struct payload_start {
	union {
		__u32 words[2];
		__u8 bytes[8];
	};
} __attribute__((aligned(8)));

#define WM_MORE_FRAGMENTS 0x2000

/* What the headers say. Where `reason` is not WM_REASONS the packet can be in no flow, and `row` counts it as far
 * as its family and protocol could be read. */
struct headers {
	__u16 row;
	__u16 reason;
	__u16 l4_offset;      /* from `data`; 0 where the L4 header was not reached */
	__u16 l4_length;      /* bytes of the L4 header; 0 where not known */
	__u16 payload_offset; /* from `data` to behind the L4 header, or a later fragment's; 0: none to look at */
	__u16 jumbo_bytes;    /* hop-by-hop header that Linux puts in front of BIG TCP and takes away before the wire */
	__u16 vlan;	      /* outermost tag: WM_VLAN_TAGGED | id, or 0 */
	__u16 fragment;	      /* of a fragment: where it belongs, in units of 8 bytes, with WM_MORE_FRAGMENTS; else 0 */
	__u16 tcp_flags;
	__u8 family; /* 4, 6, or 0: not IP */
	__u8 protocol;
	__u32 ethertype;
	__u32 payload_bytes;
	__u32 fragment_id;
	struct wm_ports ports;
	union {
		__u64 words[4]; /* IPv6: source, destination */
		__u32 v4[2];
	} addr_be;
};

static __always_inline const void *packet_header(const struct packet *packet, __u32 off, void *scratch, __u32 len)
{
	const void *at = (const char *)packet->data + off;

	if (wm_likely((const char *)at + len <= (const char *)packet->end))
		return at;
	if (off + len > packet->len || packet_load(packet, off, scratch, len))
		return NULL;
	return scratch;
}

/* `ip_end` bounds what belongs to the IP packet; a buffer may be longer, and shorter. */
static __always_inline void headers_find_payload(const struct packet *packet, struct headers *h, __u32 offset,
						 __u32 ip_end)
{
	__u32 end = ip_end < packet->len ? ip_end : packet->len;

	if (offset >= end)
		return;
	h->payload_offset = offset;
	h->payload_bytes = end - offset;
}

static __always_inline void headers_refuse(struct headers *h, __u32 reason)
{
	h->reason = reason;
}

/* Ports, TCP flags and the header's length. `ip_end` bounds what belongs to the IP packet: what is behind it is
 * padding, and must not be read as ports. */
static __always_inline void parse_l4(const struct packet *packet, struct headers *h, __u32 ip_end)
{
	struct wm_tcp_flags flags_copy;
	struct wm_ports ports_copy;
	const struct wm_tcp_flags *flags;
	const struct wm_ports *ports;
	__u32 off = h->l4_offset;

	switch (h->protocol) {
	case WM_TCP:
	case WM_UDP:
	case WM_UDPLITE:
	case WM_DCCP:
	case WM_SCTP:
		break;
	default:
		return;
	}
	if (wm_unlikely(off + sizeof(*ports) > ip_end))
		return headers_refuse(h, WM_TRUNCATED_L4);
	ports = packet_header(packet, off, &ports_copy, sizeof(*ports));
	if (wm_unlikely(!ports))
		return headers_refuse(h, WM_TRUNCATED_L4);
	h->ports = *ports;

	if (h->protocol == WM_TCP) {
		off += WM_TCP_FLAGS_OFFSET;
		if (wm_unlikely(off + sizeof(*flags) > ip_end || off + sizeof(*flags) > packet->len))
			return;
		flags = packet_header(packet, off, &flags_copy, sizeof(*flags));
		if (wm_unlikely(!flags)) /* they are there: PACKET_LINEAR must not do without them */
			return headers_refuse(h, WM_TRUNCATED_L4);
		h->tcp_flags = wm_be16(flags->offset_flags_be) & WM_TCP_FLAGS_MASK;
		h->l4_length = (wm_be16(flags->offset_flags_be) >> 12) * 4;
	} else {
		h->l4_length = h->protocol == WM_SCTP ? WM_SCTP_HEADER : WM_UDP_HEADER;
	}
	if (h->protocol == WM_TCP || h->protocol == WM_UDP)
		headers_find_payload(packet, h, h->l4_offset + h->l4_length, ip_end);
}

static __always_inline void parse_ipv4(const struct packet *packet, struct headers *h, __u32 off)
{
	struct wm_ipv4 copy;
	const struct wm_ipv4 *ip = packet_header(packet, off, &copy, sizeof(*ip));
	__u32 header_bytes, total_bytes, ip_end;

	h->family = 4;
	h->row = WM_ROW_IPV4 + WM_PROTOCOL_UNKNOWN;
	if (wm_unlikely(!ip))
		return headers_refuse(h, WM_TRUNCATED_IP);
	header_bytes = (ip->version_ihl & 0x0f) * 4;
	if (wm_unlikely(ip->version_ihl >> 4 != 4))
		return headers_refuse(h, WM_MALFORMED_IP);
	h->protocol = ip->protocol;
	h->row = WM_ROW_IPV4 + ip->protocol;
	if (wm_unlikely(header_bytes < sizeof(*ip)))
		return headers_refuse(h, WM_MALFORMED_IP);
	if (wm_unlikely(off + header_bytes > packet->len))
		return headers_refuse(h, WM_TRUNCATED_IP);
	h->addr_be.v4[0] = ip->src_addr_be;
	h->addr_be.v4[1] = ip->dst_addr_be;

	/* A total length of 0 stands in super-packets over 64 KiB and in captures of offloaded ones. */
	total_bytes = wm_be16(ip->total_length_be);
	ip_end = total_bytes ? off + total_bytes : packet->len;
	if (wm_unlikely(ip->fragment_be & wm_be16(WM_IPV4_FRAGMENT_OFFSET | WM_IPV4_FRAGMENT_MORE))) {
		h->fragment = wm_be16(ip->fragment_be) & (WM_IPV4_FRAGMENT_OFFSET | WM_MORE_FRAGMENTS);
		h->fragment_id = ip->id_be;
		/* Only the first fragment carries ports (RFC 791, section 3.2). */
		if (h->fragment & WM_IPV4_FRAGMENT_OFFSET)
			return headers_find_payload(packet, h, off + header_bytes, ip_end);
	}
	h->l4_offset = off + header_bytes;
	parse_l4(packet, h, ip_end);
}

/* Where a walk along IPv6 extension headers stands. */
struct ipv6_chain {
	__u32 protocol; /* in: the first header's number; out: the last one's that could be named */
	__u32 offset;	/* in: of the first header; out: behind the chain, 0 where there is no L4 header to look for */
	__u32 end;	/* in: of the IP packet, or of the buffer if that is shorter */
	__u32 reason;	/* out: WM_REASONS, or why the chain could not be walked to its end */
	__u32 fragment; /* out: as in struct headers */
	__u32 fragment_id;
	__u32 fragment_offset; /* out: behind the fragment header of a later fragment, else 0 */
};

/* By a set of bits: one branch, where the verifier would follow five. */
static __always_inline int is_ipv6_extension(__u32 protocol)
{
	const __u64 extensions =
		1ULL << WM_HOPOPTS | 1ULL << WM_ROUTING | 1ULL << WM_FRAGMENT | 1ULL << WM_AH | 1ULL << WM_DSTOPTS;

	return protocol < 64 && extensions >> protocol & 1;
}

/* Walks the chain as Linux's ipv6_skip_exthdr() does. */
static __always_inline void ipv6_chain_walk(const struct packet *packet, struct ipv6_chain *chain)
{
	struct wm_ipv6_extension extension;
	__u32 off = chain->offset, next = chain->protocol, fragment;

	chain->offset = 0;
	chain->reason = WM_REASONS;
	wm_loop for (int i = 0; i <= WM_IPV6_EXTENSIONS_MAX; i++)
	{
		chain->protocol = next;
		if (!is_ipv6_extension(next)) {
			chain->offset = off;
			return;
		}
		if (i == WM_IPV6_EXTENSIONS_MAX)
			break;
		if (off + sizeof(extension) > chain->end || packet_load(packet, off, &extension, sizeof(extension))) {
			chain->reason = WM_TRUNCATED_IP;
			return;
		}
		if (next == WM_FRAGMENT) {
			fragment = wm_be16(extension.fragment_be);
			chain->fragment = fragment >> 3 | (fragment & WM_IPV6_FRAGMENT_MORE ? WM_MORE_FRAGMENTS : 0);
			chain->fragment_id = extension.fragment_id;
			if (fragment & WM_IPV6_FRAGMENT_OFFSET) {
				chain->protocol = extension.next_header;
				chain->fragment_offset = off + 8;
				return;
			}
		}
		if (next == WM_FRAGMENT)
			off += 8;
		else if (next == WM_AH)
			off += (extension.length + 2) * 4;
		else
			off += (extension.length + 1) * 8;
		if (off > chain->end) {
			chain->reason = WM_TRUNCATED_IP;
			return;
		}
		if (off > WM_HEADERS_END_MASK)
			break;
		next = extension.next_header;
	}
	chain->reason = WM_IP_EXTENSION_LIMIT;
}

/* The engine's way to call ipv6_chain_walk(): in the kernel a function that the verifier checks by itself, or each
 * path through the chain would be one through all that follows. */
static __always_inline void engine_walk(const struct packet *packet, struct ipv6_chain *chain);

static __always_inline void parse_ipv6(const struct packet *packet, struct headers *h, __u32 off)
{
	struct wm_ipv6 copy;
	const struct wm_ipv6 *ip = packet_header(packet, off, &copy, sizeof(*ip));
	__u32 payload_bytes, end;

	h->family = 6;
	h->row = WM_ROW_IPV6 + WM_PROTOCOL_UNKNOWN;
	if (wm_unlikely(!ip))
		return headers_refuse(h, WM_TRUNCATED_IP);
	if (wm_unlikely(ip->version_class >> 4 != 6))
		return headers_refuse(h, WM_MALFORMED_IP);
	h->protocol = ip->next_header;
	h->row = WM_ROW_IPV6 + ip->next_header;
	__builtin_memcpy(h->addr_be.words, ip->src_addr_be, sizeof(h->addr_be.words));
	payload_bytes = wm_be16(ip->payload_length_be);
	off += sizeof(*ip);
	/* A payload length of 0 is a jumbogram's (RFC 2675), Linux's BIG TCP, or none. */
	end = payload_bytes ? off + payload_bytes : packet->len;

	h->l4_offset = off;
	if (wm_unlikely(is_ipv6_extension(h->protocol))) {
		struct ipv6_chain chain = {.protocol = h->protocol, .offset = off};
		__u32 jumbo_bytes = h->protocol == WM_HOPOPTS && !payload_bytes ? 8 : 0;

		chain.end = end < packet->len ? end : packet->len;
		engine_walk(packet, &chain);
		h->protocol = chain.protocol & 0xff;
		h->row = WM_ROW_IPV6 + h->protocol;
		h->reason = chain.reason < WM_REASONS ? chain.reason : WM_REASONS; /* bounded, for the verifier */
		h->fragment = chain.fragment;
		h->fragment_id = chain.fragment_id;
		h->l4_offset = chain.offset & WM_HEADERS_END_MASK;
		if (chain.fragment_offset)
			headers_find_payload(packet, h, chain.fragment_offset & WM_HEADERS_END_MASK, end);
		if (!h->l4_offset)
			return;
		h->jumbo_bytes = jumbo_bytes;
	}
	parse_l4(packet, h, end);
}

/* What a number below the ethertypes says of the frame behind it. 0 is no length: it shows as the ethertype that it
 * would be, as in Wireshark. */
static __always_inline __u32 ethertype_of_length(const struct packet *packet, __u32 length, __u32 off)
{
	__u16 copy;
	const __u16 *first;

	if (!length)
		return 0;
	if (length > WM_LENGTH_MAX)
		return WM_ETHERTYPE_NONE;
	first = packet_header(packet, off, &copy, sizeof(copy));
	return first && *first == WM_RAW_IPX_BE ? WM_ETHERTYPE_NONE : WM_ETHERTYPE_LLC;
}

/* From the network header on. */
static __always_inline void parse_l3(const struct packet *packet, struct headers *h, __u32 ethertype, __u32 off)
{
	h->ethertype = ethertype;
	if (wm_likely(ethertype == WM_ETHERTYPE_IPV4)) {
		parse_ipv4(packet, h, off);
	} else if (ethertype == WM_ETHERTYPE_IPV6) {
		parse_ipv6(packet, h, off);
	} else {
		h->row = WM_ROW_NON_IP;
		if (ethertype < WM_ETHERTYPE_MIN)
			h->ethertype = ethertype_of_length(packet, ethertype, off);
	}
}

static __always_inline int is_vlan(__u32 ethertype)
{
	return ethertype == WM_ETHERTYPE_VLAN || ethertype == WM_ETHERTYPE_QINQ || ethertype == WM_ETHERTYPE_QINQ_OLD;
}

/* From behind the first ethertype on: tags, then the network layer at `off`. A tag that is already in `h` came from the
 * skb's metadata and is the outermost. */
static __always_inline void parse_tags(const struct packet *packet, struct headers *h, __u32 ethertype, __u32 off)
{
	struct wm_vlan copy;
	const struct wm_vlan *vlan;

	wm_loop for (int i = 0; i < WM_VLAN_TAGS_MAX && wm_unlikely(is_vlan(ethertype)); i++)
	{
		vlan = packet_header(packet, off, &copy, sizeof(*vlan));
		if (!vlan) {
			h->row = WM_ROW_UNATTRIBUTED + WM_TRUNCATED_L2;
			return headers_refuse(h, WM_TRUNCATED_L2);
		}
		if (!h->vlan)
			h->vlan = WM_VLAN_TAGGED | (wm_be16(vlan->tci_be) & WM_VLAN_ID_MASK);
		ethertype = wm_be16(vlan->ethertype_be);
		off += sizeof(*vlan);
	}
	parse_l3(packet, h, ethertype, off);
}

/* From the Ethernet header on. */
static __always_inline void parse_l2(const struct packet *packet, struct headers *h)
{
	struct wm_eth copy;
	const struct wm_eth *eth = packet_header(packet, 0, &copy, sizeof(*eth));

	if (wm_unlikely(!eth)) {
		h->row = WM_ROW_UNATTRIBUTED + WM_TRUNCATED_L2;
		return headers_refuse(h, WM_TRUNCATED_L2);
	}
	parse_tags(packet, h, wm_be16(eth->ethertype_be), sizeof(*eth));
}

#endif
