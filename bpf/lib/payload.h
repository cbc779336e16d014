/* Which packets' payloads user space gets to see: the few that a name can be read from.
 *
 * A flow has a budget of packets that are sent whatever they hold: its first few, and those after one that begins like
 * the start of something. With that spent only such a beginning counts, and is looked for only where the payload lies
 * at hand or the flow is one whose messages matter each, as HTTP's do.
 */
#ifndef WM_PAYLOAD_H
#define WM_PAYLOAD_H

#include "flow_table.h"
#include "packet.h"

#define WM_BUDGET_TCP	3 /* one says who speaks, unless it is short or a greeting comes before it */
#define WM_BUDGET_UDP	2
#define WM_BUDGET_TLS	6  /* the rest of a ServerHello, which may be of a record with others */
#define WM_BUDGET_HELLO 16 /* of a ClientHello: with post-quantum keys over many segments, if they are small */
#define WM_BUDGET_QUIC	3  /* a ClientHello over several datagrams */
#define WM_BUDGET_HTTP	16 /* the rest of a head, and as much of the body as tells when it ended */

/* New flows whose inspection starts in one tick, on all CPUs together. Behind a flood of new flows names may be
 * missing, and are counted as lost; what it costs, here and in user space, stays bounded. */
#define WM_STARTS_TCP 256
#define WM_STARTS_UDP 64

/* wm_inspection.state: 1 + enum wm_source, or one of these. */
#define WM_UNOPENED   0x00	       /* no payload of the flow has been looked at in this epoch */
#define WM_FROM_START 0x80	       /* nor before: the flow's first packet was there */
#define WM_REFUSED    (1 + WM_SOURCES) /* too many flows began at once */

/* engine_age() of a clock of nanoseconds: steps of four and a half minutes. */
#define WM_AGE_SHIFT_NS 38

#define WM_WORD(a, b, c, d)                                                           \
	(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__                                    \
		 ? (__u32)(a) | (__u32)(b) << 8 | (__u32)(c) << 16 | (__u32)(d) << 24 \
		 : (__u32)(a) << 24 | (__u32)(b) << 16 | (__u32)(c) << 8 | (__u32)(d))

/* One packet of a flow, as inspect() takes it. */
struct inspected_packet {
	struct payload_start start;
	__u32 hash; /* the flow's */
	__u8 start_is_there;
	__u8 is_udp;
	struct wm_inspection inspection; /* the flow's */
};
_Static_assert(sizeof(struct inspected_packet) == 2 * sizeof(__u64), "two arguments of a call");

/* What comes of it. */
struct inspected {
	__u16 source;			 /* what to send the packet as; WM_SOURCES: not at all */
	struct wm_inspection inspection; /* the flow's, from now on */
};
_Static_assert(sizeof(struct inspected) == sizeof(__u32), "what a call returns");

/* What an engine has for this: inspect() and fragment_known() on its memory of flows, and its clock's parts. */
static __always_inline struct inspected engine_inspect(struct inspected_packet packet, __u64 now);
static __always_inline int engine_fragment(__u32 hash, int first);
static __always_inline __u64 engine_tick(__u64 now);
static __always_inline __u16 engine_age(__u64 now);
static __always_inline int engine_starts_are_limited(void);

/* By port alone: every message is a transaction of its own. */
static __always_inline int is_dns(const struct headers *h)
{
	const __u16 dns = wm_be16(WM_PORT_DNS), mdns = wm_be16(WM_PORT_MDNS), llmnr = wm_be16(WM_PORT_LLMNR);
	__u16 src = h->ports.src_be, dst = h->ports.dst_be;

	if (src == dns || dst == dns)
		return 1;
	return h->protocol == WM_UDP && (dst == mdns || src == mdns || dst == llmnr || src == llmnr);
}

/* What stands in methods: any token may be one (RFC 9110, section 9.1), and all that are registered, and those of
 * WebDAV and UPnP besides, are of these. With more, bodies of text would be taken for requests. */
static __always_inline int is_of_method(__u8 byte)
{
	return (byte >= 'A' && byte <= 'Z') || byte == '-';
}

/* What an HTTP/2 server says first: SETTINGS of at most 255 bytes, no acknowledgement, on stream 0 (RFC 9113, sections
 * 3.4 and 6.5). */
static __always_inline int begins_settings(const struct payload_start *start)
{
	return (start->words[0] & ~WM_WORD(0, 0, 0xff, 0)) == WM_WORD(0, 0, 0, 4) && !start->words[1];
}

/* A method and the beginning of a target behind it, or the first eight bytes of a longer method (RFC 9112, section 3;
 * RFC 9113, section 3.4, "PRI *"); or a response (RFC 9112, section 4), or the beginning of an HTTP/2 server's. */
static __always_inline int begins_http(const struct payload_start *start)
{
	if (start->words[0] == WM_WORD('H', 'T', 'T', 'P') && start->bytes[4] == '/')
		return 1;
	if (begins_settings(start))
		return 1;
	if (!is_of_method(start->bytes[0]) || !is_of_method(start->bytes[1]) || !is_of_method(start->bytes[2]))
		return 0;
	wm_loop for (int i = 3; i < 7; i++)
	{
		if (start->bytes[i] == ' ')
			return start->bytes[i + 1] > ' ' && start->bytes[i + 1] < 0x7f;
		if (!is_of_method(start->bytes[i]))
			return 0;
	}
	return is_of_method(start->bytes[7]) || start->bytes[7] == ' ';
}

/* A record (RFC 8446, section 5.1) with a ClientHello or ServerHello. */
static __always_inline int begins_tls(const struct payload_start *start)
{
	return start->bytes[0] == 22 && start->bytes[1] == 3 && start->bytes[2] <= 4 &&
	       (start->bytes[5] == 1 || start->bytes[5] == 2);
}

/* TLS records after which nothing is in the clear: change_cipher_spec and application_data. */
static __always_inline int goes_on_encrypted(const struct payload_start *start)
{
	return (start->bytes[0] == 23 || start->bytes[0] == 20) && start->bytes[1] == 3 && start->bytes[2] <= 4;
}

/* A long header of version 1 or 2 (RFC 9000, section 17.2; RFC 9369, section 3) that is an Initial's. */
static __always_inline int begins_quic(const struct payload_start *start)
{
	__u32 version_be;

	__builtin_memcpy(&version_be, &start->bytes[1], sizeof(version_be));
	if (version_be == WM_WORD(0, 0, 0, 1))
		return (start->bytes[0] & 0xf0) == 0xc0;
	return version_be == WM_WORD(0x6b, 0x33, 0x43, 0xcf) && (start->bytes[0] & 0xf0) == 0xd0;
}

/* Whether anything of the above may begin with this byte: for most packets of most flows that settles it. */
static __always_inline int may_begin(int udp, __u8 first)
{
	if (udp)
		return first >= 0xc0;
	return first == 22 || (first >= 'A' && first <= 'Z');
}

/* What a payload begins like; WM_SOURCES: nothing of ours. */
static __always_inline __u32 source_of(int udp, const struct payload_start *start)
{
	if (udp)
		return begins_quic(start) ? WM_SOURCE_QUIC : WM_SOURCES;
	if (begins_tls(start))
		return WM_SOURCE_TLS;
	return begins_http(start) ? WM_SOURCE_HTTP : WM_SOURCES;
}

static __always_inline __u8 budget_of(__u32 source, const struct payload_start *start)
{
	switch (source) {
	case WM_SOURCE_TLS:
		/* A ClientHello's type is 1, a ServerHello's 2: without a branch, each of which the verifier follows.
		 */
		return WM_BUDGET_TLS + (start->bytes[5] & 1) * (WM_BUDGET_HELLO - WM_BUDGET_TLS);
	case WM_SOURCE_QUIC:
		return WM_BUDGET_QUIC;
	default:
		return WM_BUDGET_HTTP;
	}
}

/* The inspection of a flow new in this epoch: as the last epoch left it, or else from the start. Refusals are not
 * remembered: the next epoch may have room. Nor is then what an earlier connection left, with the same ports. */
static __always_inline struct wm_inspection inspection_start(struct wm_recent *recent, __u32 hash, int is_udp,
							     int from_start, __u64 now)
{
	struct wm_recent_flow *flow = &recent->flows[hash % WM_RECENT_FLOWS];
	__u32 *started = &recent->started[!!is_udp];
	__u16 age = engine_age(now);

	if (!from_start && flow->hash == hash && (__u16)(age - flow->age) <= 1) {
		flow->age = age;
		return flow->inspection;
	}
	if (engine_starts_are_limited()) {
		if (recent->tick != engine_tick(now)) {
			recent->tick = engine_tick(now);
			recent->started[0] = recent->started[1] = 0;
		}
		if (*started >= (is_udp ? WM_STARTS_UDP : WM_STARTS_TCP)) {
			if (flow->hash == hash)
				*flow = (struct wm_recent_flow){0};
			return (struct wm_inspection){0, WM_REFUSED};
		}
		*started += 1;
	}
	*flow = (struct wm_recent_flow){
		.hash = hash,
		.age = age,
		.inspection = {is_udp ? WM_BUDGET_UDP : WM_BUDGET_TCP, 1 + WM_SOURCE_FIRST},
	};
	return flow->inspection;
}

static __always_inline int is_started(struct wm_inspection inspection)
{
	return inspection.state & ~WM_FROM_START;
}

/* Whether the flow's payloads have to be read even where that takes a copy. */
static __always_inline int is_worth_a_copy(struct wm_inspection inspection)
{
	return inspection.budget || inspection.state == 1 + WM_SOURCE_HTTP;
}

/* What to send a packet as, by what it begins with (NULL: not known) and what the budget of its flow allows;
 * WM_SOURCES: not at all. Changes the budget. */
static __always_inline __u32 inspection_spend(struct wm_inspection *inspection, int is_udp,
					      const struct payload_start *start)
{
	__u32 source = start ? source_of(is_udp, start) : WM_SOURCES;

	if (source != WM_SOURCES) {
		*inspection = (struct wm_inspection){budget_of(source, start), 1 + source};
		return source;
	}
	if (!inspection->budget)
		return WM_SOURCES;
	source = inspection->state - 1;
	if (start && source != WM_SOURCE_HTTP && goes_on_encrypted(start)) {
		inspection->budget = 0;
		return WM_SOURCES;
	}
	inspection->budget--;
	return source < WM_SOURCES ? source : WM_SOURCE_FIRST;
}

/* Decides on a packet. Its flow is remembered for the next epoch. */
static __always_inline struct inspected inspect(struct wm_recent *recent, struct inspected_packet packet, __u64 now)
{
	struct wm_recent_flow *flow = &recent->flows[packet.hash % WM_RECENT_FLOWS];
	struct wm_inspection inspection = packet.inspection;
	struct payload_start start = packet.start;
	__u32 source;

	if (!is_started(inspection))
		inspection = inspection_start(recent, packet.hash, packet.is_udp, inspection.state, now);
	source = inspection_spend(&inspection, packet.is_udp, packet.start_is_there ? &start : NULL);
	if (flow->hash == packet.hash)
		flow->inspection = inspection;
	return (struct inspected){source, inspection};
}

/* One number for the fragments of a packet. */
static __always_inline __u32 fragment_hash(const struct headers *h)
{
	__u64 hash = h->fragment_id;

	if (h->family == 4)
		return hash_mix(hash ^ (__u64)h->addr_be.v4[0] << 32 ^ h->addr_be.v4[1]);
	for (int i = 0; i < 4; i++)
		hash = hash_mix(hash ^ h->addr_be.words[i]);
	return hash;
}

/* Whether a later fragment belongs to a packet whose first one was sent; that of a first one is noted. */
static __always_inline int fragment_known(struct wm_recent *recent, __u32 hash, int first)
{
	__u32 *place = &recent->fragments[hash % WM_RECENT_FRAGMENTS];

	if (first)
		*place = hash;
	return *place == hash;
}

/* DNS over UDP, whose answers may come in fragments: the first has the ports. */
static __always_inline __u32 fragment_pick(const struct headers *h, __u32 sources)
{
	int first = !(h->fragment & WM_IPV4_FRAGMENT_OFFSET);

	if (!(sources & 1 << WM_SOURCE_DNS) || h->protocol != WM_UDP || !h->payload_bytes || (first && !is_dns(h)))
		return WM_SOURCES;
	return engine_fragment(fragment_hash(h), first) ? WM_SOURCE_DNS : WM_SOURCES;
}

/* The first bytes of the payload, if they lie at hand or `anyhow`. */
static __always_inline int payload_begin(const struct packet *packet, const struct headers *h,
					 struct payload_start *start, int anyhow)
{
	const char *at = (const char *)packet->data + (h->payload_offset & WM_HEADERS_END_MASK);

	if (h->payload_bytes < sizeof(*start))
		return 0;
	if (at + sizeof(*start) <= (const char *)packet->end) {
		__builtin_memcpy(start, at, sizeof(*start));
		return 1;
	}
	return anyhow && !packet_load(packet, h->payload_offset, start, sizeof(*start));
}

/* What to send the payload of a packet of `flow` as, of the sources whose bits are set; WM_SOURCES: not at all. */
static __always_inline __u32 payload_pick(const struct packet *packet, const struct headers *h, __u32 sources,
					  struct wm_region_header *region, struct wm_flow_cold *flow, __u64 now)
{
	struct wm_inspection inspection = flow->inspection;
	int udp = h->protocol == WM_UDP, there, started;
	struct payload_start start = {0};
	__u32 source;

	if (wm_unlikely(h->fragment))
		return fragment_pick(h, sources);
	if (wm_unlikely(h->tcp_flags & WM_TCP_SYN))
		flow->inspection = inspection = (struct wm_inspection){0, WM_FROM_START};
	if (!h->payload_bytes)
		return WM_SOURCES;
	started = is_started(inspection);
	if (wm_unlikely(!started && is_dns(h))) /* ports are looked at once */
		flow->inspection = inspection = (struct wm_inspection){0, 1 + WM_SOURCE_DNS};
	if (wm_unlikely(inspection.state == 1 + WM_SOURCE_DNS))
		return sources & 1 << WM_SOURCE_DNS ? WM_SOURCE_DNS : WM_SOURCES;
	there = payload_begin(packet, h, &start, !started || is_worth_a_copy(inspection));
	if (wm_likely(started && !inspection.budget && !(there && may_begin(udp, start.bytes[0]))))
		return WM_SOURCES;

	struct inspected found =
		engine_inspect((struct inspected_packet){start, flow->hash, there, udp, inspection}, now);

	source = found.source;
	flow->inspection = found.inspection;
	if (!started && flow->inspection.state == WM_REFUSED)
		region->lost_payloads[WM_SOURCE_FIRST]++;
	return source < WM_SOURCES && sources >> source & 1 ? source : WM_SOURCES;
}

#endif
