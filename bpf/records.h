/* What the kernel half and its readers share: the records in a region of the flow table.
 *
 * Python's dtypes in datapath/records.py mirror these structs and are checked against the compiled object's BTF
 * at every load. Integers are in host byte order except addresses and ports (`_be`), which are as on the wire.
 */
#ifndef WM_RECORDS_H
#define WM_RECORDS_H

#include "lib/platform.h"

/* Wire packets, wire bytes, and the kernel buffers (skbs) that carried them. */
struct wm_tally {
	__u64 packets;
	__u64 bytes;
	__u64 skbs;
};
_Static_assert(sizeof(struct wm_tally) == 24, "mirrored in records.py");

/* Why a packet is in no flow. The order is an interface: records.py names them. */
enum wm_reason {
	WM_TRUNCATED_L2,       /* ends within the Ethernet header or a VLAN tag */
	WM_TRUNCATED_IP,       /* ends within the IP header, its options or an extension header */
	WM_MALFORMED_IP,       /* the version or header length contradicts the ethertype or itself */
	WM_IP_EXTENSION_LIMIT, /* more IPv6 extension headers than WM_IPV6_EXTENSIONS_MAX */
	WM_TRUNCATED_L4,       /* ends before the ports of a protocol that has them */
	WM_TABLE_FULL,	       /* no free line, or no free place near its hash, in this CPU's region */
	WM_NO_REGION,	       /* this CPU came online after the tables were made */
	WM_REASONS,
};

/* The rows of one attachment's counters. Every packet adds to exactly one row below WM_ROW_UNATTRIBUTED, or to
 * WM_TRUNCATED_L2, which has no family; packets in no flow add to their reason's row besides. */
#define WM_PROTOCOL_UNKNOWN 256 /* the IP header is cut before the protocol could be read */
#define WM_PROTOCOLS	    257
enum wm_row {
	WM_ROW_IPV4 = 0,			  /* + protocol */
	WM_ROW_IPV6 = WM_ROW_IPV4 + WM_PROTOCOLS, /* + protocol */
	WM_ROW_NON_IP = WM_ROW_IPV6 + WM_PROTOCOLS,
	WM_ROW_UNATTRIBUTED, /* + reason */
	WM_ROWS = WM_ROW_UNATTRIBUTED + WM_REASONS,
};

struct wm_counters {
	struct wm_tally rows[WM_ROWS];
} __attribute__((aligned(64)));

/* Why a packet's payload is sent to user space, to read a name from. The order is an interface: records.py names them.
 */
enum wm_source {
	WM_SOURCE_DNS,	 /* by port: DNS, mDNS, LLMNR */
	WM_SOURCE_TLS,	 /* a ClientHello or ServerHello, and what follows it */
	WM_SOURCE_HTTP,	 /* the head of an HTTP/1.x message or an HTTP/2 preface, and what follows it */
	WM_SOURCE_QUIC,	 /* an Initial packet */
	WM_SOURCE_FIRST, /* the first packets of any flow */
	WM_SOURCES,
};

/* How far the search for names in a flow's payload is. */
struct wm_inspection {
	__u8 budget; /* how many more packets to send, whatever they hold */
	__u8 state;  /* as what: 1 + enum wm_source; or that nothing has been looked at (payload.h) */
};
_Static_assert(sizeof(struct wm_inspection) == 2, "in a flow's line");

/* One packet's payload on its way to user space; `captured` bytes follow. */
struct wm_payload {
	__u64 time_ns;	   /* CLOCK_MONOTONIC, or the capture's own */
	__u8 src_addr[16]; /* network order, IPv4 as v4-mapped (RFC 4291, 2.5.5.2) */
	__u8 dst_addr[16];
	__u16 src_port;
	__u16 dst_port;
	__u32 seq;	/* TCP sequence number of its first byte */
	__u32 bytes;	/* of payload that the packet, or the super-packet, has */
	__u16 captured; /* of those, that follow here */
	__u16 attachment;
	__u16 tcp_flags; /* UDP: of a fragment, where it belongs (struct headers); else 0 */
	__u8 protocol;
	__u8 family;
	__u8 source; /* enum wm_source */
	__u8 pad[3];
};
_Static_assert(sizeof(struct wm_payload) == 64, "mirrored in records.py");
#define WM_PAYLOAD_BYTES_MAX 4096 /* of one packet */

/* The fixed part at the start of a region. A region is
 *
 *   header | counters[attachments] | touched[lines] | lines[lines]
 *
 * and belongs to one CPU and one epoch. Lines are 64 bytes, one cache line: an IPv4 flow takes one, an IPv6 flow two
 * neighbours. A flow's place is its hash, open addressing, so a packet of a known flow meets one line that is not in
 * the nearer caches. `touched` lists the first line of every entry, so that no reader scans for them. */
struct wm_region_header {
	__u32 entries;	   /* entries in `touched` */
	__u32 lines_used;  /* lines they take */
	__u32 flip_asked;  /* an early flip has been asked for in this epoch */
	__u32 spread_mask; /* lines − 1 over which places are spread while there is room: few flows touch few pages */
	__u32 payloads[WM_SOURCES];	 /* sent to user space in this epoch, by source */
	__u32 lost_payloads[WM_SOURCES]; /* picked and not sent: nobody had taken those before, or too many came at once
					  */
	__u32 pad[2];
};
_Static_assert(sizeof(struct wm_region_header) == 64, "mirrored in records.py");

/* Where the parts of a region are. The same for all regions; constants in the programs, set before load, and read
 * through a volatile pointer so that the compiler takes no value for granted. */
#define WM_HASH_KEYS 10 /* lib/hash.h: two for each word of an IPv6 flow's key */
struct wm_table_shape {
	__u32 touched_offset;
	__u32 lines_offset;
	__u32 lines_mask; /* lines − 1, lines a power of two */
	__u32 pad;
	__u64 hash_keys[WM_HASH_KEYS]; /* random: who sends packets must not be able to choose their places */
};
_Static_assert(sizeof(struct wm_table_shape) == 16 + 8 * WM_HASH_KEYS, "mirrored in records.py");

#define WM_LINE_BYTES 64

/* What makes a flow besides its addresses, and what a line begins with: one word, 0 in a line that is free. */
struct wm_flow_head {
	__u32 context; /* WM_CONTEXT_*: protocol, VLAN, kind, attachment; never 0 in use */
	__u16 src_port_be;
	__u16 dst_port_be;
};
_Static_assert(sizeof(struct wm_flow_head) == 8, "compared as one word");

#define WM_CONTEXT_PROTOCOL_SHIFT   0  /* 8 bits: IP protocol */
#define WM_CONTEXT_VLAN_SHIFT	    8  /* 13 bits: outermost tag's id, WM_VLAN_TAGGED set where there is one */
#define WM_CONTEXT_V6_SHIFT	    21 /* 1 bit: an IPv6 flow, two lines */
#define WM_CONTEXT_ATTACHMENT_SHIFT 22 /* 10 bits: attachment + 1 */
#define WM_ATTACHMENTS_MAX	    1023
#define WM_VLAN_MASK		    0x1fff
#define WM_VLAN_NON_IP		    1 /* in place of a tag: not a flow but a count of non-IP frames by ethertype */
#define WM_VLAN_TAGGED		    0x1000
#define WM_SECOND_LINE		    1ULL /* the head of an IPv6 flow's second line: no attachment, so no flow's head */

/* Ethertypes of frames that have none; above any number that fits a frame. */
#define WM_ETHERTYPE_LLC  0x10000 /* IEEE 802.3 length field */
#define WM_ETHERTYPE_NONE 0x10001 /* a device without Ethernet header */

/* What every packet of a flow adds to. */
struct wm_flow_hot {
	__u64 packets;
	__u64 bytes;
	__u64 last; /* by the engine's clock: ticks (jiffies) in the kernel, nanoseconds elsewhere */
};

/* What few packets change. */
struct wm_flow_cold {
	__u64 merged; /* packets − skbs: those that came in the same buffer as the one before */
	__u64 first;
	__u32 hash;
	__u16 tcp_flags; /* all flags seen, RFC 9293 section 3.1 */
	struct wm_inspection inspection;
};

/* An IPv4 flow, or the frames of one ethertype. */
struct wm_flow4 {
	struct wm_flow_head head;
	__u32 src_addr_be; /* the ethertype, in host order, where context says WM_CONTEXT_NON_IP */
	__u32 dst_addr_be;
	struct wm_flow_hot hot;
	struct wm_flow_cold cold;
};
_Static_assert(sizeof(struct wm_flow4) == WM_LINE_BYTES, "one cache line");

/* An IPv6 flow. */
struct wm_flow6 {
	struct wm_flow_head head;
	__u64 src_addr_be[2];
	__u64 dst_addr_be[2];
	struct wm_flow_hot hot;
	__u64 second_line; /* WM_SECOND_LINE */
	struct wm_flow_cold cold;
	__u64 pad[4];
};
_Static_assert(sizeof(struct wm_flow6) == 2 * WM_LINE_BYTES, "two cache lines");
_Static_assert(offsetof(struct wm_flow6, second_line) == WM_LINE_BYTES, "where a line's head is");

/* What is remembered of flows' payloads beyond an epoch, and from one CPU to the next: by hash, one place each, the
 * newest stays. All CPUs write it, plainly: who loses a race has a packet sent once more, or once less. */
#define WM_RECENT_FLOWS	    (1U << 16)
#define WM_RECENT_FRAGMENTS 64
struct wm_recent_flow {
	__u32 hash;
	__u16 age; /* of the clock's coarsest part, when it was last new in an epoch */
	struct wm_inspection inspection;
};
struct wm_recent {
	__u64 tick;			      /* of the starts counted here */
	__u32 started[2];		      /* inspections of new flows in this tick: TCP, UDP */
	__u32 fragments[WM_RECENT_FRAGMENTS]; /* hashes of packets whose first fragment was sent */
	struct wm_recent_flow flows[WM_RECENT_FLOWS];
};

/* Where a packet is counted: what each attachment's entry program says. */
struct wm_identity {
	__u16 attachment;
	__u8 has_ethernet; /* packets begin with an Ethernet header */
	__u8 is_ingress;
};
_Static_assert(sizeof(struct wm_identity) == 4, "mirrored in records.py, and one immediate operand");

/* What the kernel's tick was at a time, so that user space can turn ticks into time. */
struct wm_clock_reading {
	__u64 ticks;
	__u64 monotonic_ns; /* CLOCK_MONOTONIC */
};
_Static_assert(sizeof(struct wm_clock_reading) == 16, "mirrored in records.py");

/* A program's note to user space: this region is filling, flip before the interval ends. */
struct wm_flip_request {
	__u32 cpu;
	__u32 epoch;
};
_Static_assert(sizeof(struct wm_flip_request) == 8, "mirrored in records.py");

#endif
