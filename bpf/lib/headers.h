/* The headers on the wire, as far as the meter reads them. Every field is in network byte order or a byte. */
#ifndef WM_HEADERS_H
#define WM_HEADERS_H

#include "platform.h"

struct wm_eth {
	__u8 dst[6];
	__u8 src[6];
	__u16 ethertype_be;
};

/* What follows a tag protocol identifier (IEEE 802.1Q, 9.6). */
struct wm_vlan {
	__u16 tci_be;
	__u16 ethertype_be;
};
#define WM_VLAN_ID_MASK 0x0fff

#define WM_ETHERTYPE_IPV4     0x0800
#define WM_ETHERTYPE_IPV6     0x86dd
#define WM_ETHERTYPE_VLAN     0x8100
#define WM_ETHERTYPE_QINQ     0x88a8
#define WM_ETHERTYPE_QINQ_OLD 0x9100
#define WM_ETHERTYPE_MIN      0x0600 /* below: a length field (IEEE 802.3, 3.2.6), */
#define WM_LENGTH_MAX	      1500   /* or neither */
#define WM_RAW_IPX_BE	      0xffff /* Novell's raw 802.3: IPX, whose checksum is unused, without an LLC header */

struct wm_ipv4 { /* RFC 791, section 3.1 */
	__u8 version_ihl;
	__u8 tos;
	__u16 total_length_be;
	__u16 id_be;
	__u16 fragment_be;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum_be;
	__u32 src_addr_be;
	__u32 dst_addr_be;
};
#define WM_IPV4_FRAGMENT_OFFSET 0x1fff
#define WM_IPV4_FRAGMENT_MORE	0x2000

struct wm_ipv6 { /* RFC 8200, section 3 */
	__u8 version_class;
	__u8 class_flow[3];
	__u16 payload_length_be;
	__u8 next_header;
	__u8 hop_limit;
	__u32 src_addr_be[4];
	__u32 dst_addr_be[4];
};

/* The start of every extension header (RFC 8200, section 4; RFC 4302 for AH); `fragment_be` and
 * `fragment_id` of the fragment header only. */
struct wm_ipv6_extension {
	__u8 next_header;
	__u8 length;
	__u16 fragment_be;
	__u32 fragment_id;
} __attribute__((aligned(8))); /* stack slots are tracked by eight bytes: a neighbour must not share this one's */
#define WM_IPV6_FRAGMENT_OFFSET 0xfff8
#define WM_IPV6_FRAGMENT_MORE	0x0001

/* Ports are the first four bytes of TCP, UDP, UDP-Lite, SCTP and DCCP. */
struct wm_ports {
	__u16 src_be;
	__u16 dst_be;
};

/* TCP from byte 12: data offset, reserved bits and flags (RFC 9293, section 3.1). */
struct wm_tcp_flags {
	__u16 offset_flags_be;
};
#define WM_TCP_SEQ_OFFSET   4
#define WM_TCP_FLAGS_OFFSET 12
#define WM_TCP_SYN	    0x02
#define WM_PORT_DNS	    53
#define WM_PORT_MDNS	    5353 /* RFC 6762 */
#define WM_PORT_LLMNR	    5355 /* RFC 4795 */
#define WM_TCP_FLAGS_MASK   0x0fff
#define WM_TCP_HEADER_MIN   20
#define WM_UDP_HEADER	    8
#define WM_SCTP_HEADER	    12

enum wm_protocol { /* IANA protocol numbers */
	WM_HOPOPTS = 0,
	WM_TCP = 6,
	WM_UDP = 17,
	WM_DCCP = 33,
	WM_ROUTING = 43,
	WM_FRAGMENT = 44,
	WM_AH = 51,
	WM_DSTOPTS = 60,
	WM_SCTP = 132,
	WM_UDPLITE = 136,
};

#endif
