/* The programs on a device: XDP ingress, tc ingress, tc egress. They count and pass every packet.
 *
 * What is attached is an entry (kernel/entry.h), which goes on to the meter of its kind of hook.
 */
#include "kernel/settings.h"
#include "kernel/buffer.h"
#include "kernel/entry.h"
#include "kernel/payload_ring.h"
#include "lib/meter.h"
#include "lib/payload.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

static __always_inline int engine_times_in_any_order(void)
{
	return wm_test_runs;
}

/* Regions: [epoch][CPU]. Sized before load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct wm_region_header));
	__uint(max_entries, 1);
} wm_tables SEC(".maps");

/* For CPUs without a region: [epoch], header and counters only. Sized before load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct wm_region_header));
	__uint(max_entries, 1);
} wm_overflow SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} wm_events SEC(".maps");

/* Sized before load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct wm_recent));
	__uint(max_entries, 1);
} wm_recent SEC(".maps");

/* What does not fit the stack: headers on the general way, and a payload's record as it is put together. Programs on
 * one CPU follow one another. */
struct scratch {
	struct headers headers;
	struct wm_tally size;
	struct payload_record record;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct scratch));
	__uint(max_entries, 1);
} wm_scratch SEC(".maps");

static __always_inline struct scratch *scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&wm_scratch, &zero);
}

/* Keeps the shared records in the object's BTF, where Python checks its dtypes against them. */
union {
	struct wm_counters counters;
	struct wm_region_header header;
	struct wm_flow4 flow4;
	struct wm_flow6 flow6;
	struct wm_table_shape shape;
	struct wm_flip_request flip_request;
	struct wm_payload payload;
	struct wm_recent recent;
	struct wm_identity identity;
	enum wm_source source;
	enum wm_reason reason;
	enum wm_row row;
} *wm_records;

static __always_inline void ask_for_flip(struct wm_region_header *region, __u32 cpu, __u32 epoch)
{
	struct wm_flip_request request = {cpu, epoch};

	region->flip_asked = 1;
	bpf_ringbuf_output(&wm_events, &request, sizeof(request), 0);
}

/* The tick is the kernel's, and a flow is remembered for four to nine minutes at 250 Hz. A capture's times are
 * nanoseconds; nothing floods there. */
static __always_inline __u64 engine_tick(__u64 now)
{
	return now;
}

static __always_inline __u16 engine_age(__u64 now)
{
	return now >> (wm_test_runs ? WM_AGE_SHIFT_NS : 16);
}

static __always_inline int engine_starts_are_limited(void)
{
	return !wm_test_runs;
}

/* NULL where no payload is looked at, whose map has no room for them: up to Linux 6.7 (2afae08c9dcb) the verifier also
 * checks functions that nothing calls. */
static __always_inline struct wm_recent *recent_flows(void)
{
	__u32 zero = 0;

	return wm_payload_limit ? bpf_map_lookup_elem(&wm_recent, &zero) : NULL;
}

/* A function of its own, as are others below: the verifier checks each once. Numbers in and out: what is passed in
 * memory would take from the caller's stack. */
__noinline int wm_inspect(__u64 start, __u64 rest, __u64 now)
{
	struct wm_recent *recent = recent_flows();
	struct inspected found = {WM_SOURCES, {}};
	__u64 words[2] = {start, rest};
	struct inspected_packet packet;
	int word;

	__builtin_memcpy(&packet, words, sizeof(packet));
	if (recent)
		found = inspect(recent, packet, now);
	__builtin_memcpy(&word, &found, sizeof(word));
	return word;
}

__noinline int wm_fragment(__u32 hash, int first)
{
	struct wm_recent *recent = recent_flows();

	return recent ? fragment_known(recent, hash, first) : 0;
}

static __always_inline int engine_fragment(__u32 hash, int first)
{
	return wm_fragment(hash, first);
}

static __always_inline struct inspected engine_inspect(struct inspected_packet packet, __u64 now)
{
	struct inspected found;
	__u64 words[2];
	int word;

	__builtin_memcpy(words, &packet, sizeof(words));
	word = wm_inspect(words[0], words[1], now);
	__builtin_memcpy(&found, &word, sizeof(found));
	return found;
}

/* The region of a CPU that was written in `epoch`. NULL: it has none. */
static __always_inline struct wm_region_header *region_of(__u32 cpu, __u32 epoch)
{
	__u32 at = epoch * wm_regions + cpu;

	return wm_likely(cpu < wm_regions) ? bpf_map_lookup_elem(&wm_tables, &at) : NULL;
}

/* Counts a packet. Returns the region that its flow is in, and where; NULL: it is in no flow. */
static __always_inline struct wm_region_header *count(__u32 identity, __u32 cpu, __u32 epoch, const struct headers *h,
						      const struct wm_tally *size, __u64 now, struct flow_found *found)
{
	const volatile struct wm_table_shape *shape = &wm_shape;
	struct wm_region_header *region = region_of(cpu, epoch);
	__u32 attachment = identity_of(identity).attachment;

	wm_forget(attachment); /* one register, checked and used: up to Linux 6.1 the verifier goes by that */
	if (attachment >= wm_attachments)
		return NULL; /* cannot be */
	if (wm_unlikely(!region)) {
		region = bpf_map_lookup_elem(&wm_overflow, &epoch);
		if (region)
			meter_count(region, shape, h, attachment, size, now, 1, found);
		return NULL;
	}
	switch (meter_count(region, shape, h, attachment, size, now, 0, found)) {
	case FLOW_NO_ROOM:
		return NULL;
	case FLOW_NEW:
		if (flip_due(region))
			ask_for_flip(region, cpu, epoch);
		return region;
	case FLOW_KNOWN:
		return region;
	}
	return NULL; /* cannot be */
}

/* count() for the general ways; returns the flow's line, or -1. Functions that the verifier checks once, not once for
 * each path through a parser, and whose stacks are not added up: the 512 bytes are for all calls together, each rounded
 * up, to 32 before Linux 6.8. So counting and picking are two. */
__noinline int wm_count(const struct headers *h, const struct wm_tally *size, __u64 when, __u32 identity, __u32 epoch)
{
	struct flow_found found = {};

	if (!h || !size)
		return -1;
	return count(identity, bpf_get_smp_processor_id(), epoch & 1, h, size, when, &found) ? (int)found.line : -1;
}

/* What to send a packet's payload as, whose flow is at `line`. */
static __always_inline int pick(const struct packet *packet, const struct headers *h, __u32 line, __u32 epoch,
				__u64 when)
{
	struct wm_region_header *region = region_of(bpf_get_smp_processor_id(), epoch & 1);
	struct wm_flow_cold *flow;

	if (!region)
		return WM_SOURCES;
	flow = flow_cold(region, &wm_shape, line, h->family == 6 ? WM_KEY6_WORDS : WM_KEY4_WORDS);
	return payload_pick(packet, h, wm_payload_sources, region, flow, when);
}

__noinline int wm_walk_skb(struct __sk_buff *skb, struct ipv6_chain *chain)
{
	struct packet packet = {.kind = PACKET_SKB, .ctx = skb};

	if (!chain)
		return -1;
	ipv6_chain_walk(&packet, chain);
	return 0;
}

__noinline int wm_walk_xdp(struct xdp_md *xdp, struct ipv6_chain *chain)
{
	struct packet packet = {.kind = PACKET_XDP, .ctx = xdp};

	if (!chain)
		return -1;
	ipv6_chain_walk(&packet, chain);
	return 0;
}

static __always_inline void engine_walk(const struct packet *packet, struct ipv6_chain *chain)
{
	switch (packet->kind) {
	case PACKET_SKB:
		wm_walk_skb(packet->ctx, chain);
		break;
	case PACKET_XDP:
		wm_walk_xdp(packet->ctx, chain);
		break;
	default:
		chain->reason = WM_TRUNCATED_IP;
	}
}

/* The tick: as fine as the coarse clock, and inlined by the verifier where that would be two calls. */
static __always_inline __u64 now(void)
{
	return wm_test_runs ? wm_test_packet.time_ns : bpf_jiffies64();
}

/* The common packet: Ethernet, IPv4 or IPv6 without extension headers, its headers linear, no super-packet. Returns
 * what to send its payload as, enum wm_source, and WM_SOURCES for not at all; NOT_COMMON leaves all of it to the
 * general way. */
#define NOT_COMMON (-1)
static __always_inline int meter_common(__u32 identity, __u32 cpu, const struct packet *packet, __u32 vlan, __u64 when)
{
	struct headers h = {.reason = WM_REASONS, .vlan = vlan};
	const struct wm_eth *eth = packet->data;
	struct wm_region_header *region;
	struct packet linear = *packet;
	struct flow_found found = {};
	struct wm_tally size;

	linear.kind = PACKET_LINEAR;
	if ((const void *)(eth + 1) > packet->end)
		return NOT_COMMON;
	if (eth->ethertype_be == wm_be16(WM_ETHERTYPE_IPV4))
		parse_ipv4(&linear, &h, sizeof(*eth));
	else if (eth->ethertype_be == wm_be16(WM_ETHERTYPE_IPV6))
		parse_ipv6(&linear, &h, sizeof(*eth));
	else
		return NOT_COMMON;
	if (h.reason != WM_REASONS)
		return NOT_COMMON;
	size = one_packet(packet->len + (vlan ? sizeof(struct wm_vlan) : 0));
	region = count(identity, cpu, wm_epoch & 1, &h, &size, when, &found);
	if (!wm_payload_limit || !region)
		return WM_SOURCES;
	return payload_pick(packet, &h, wm_payload_sources, region, found.cold, when);
}

static __always_inline void send_payload(__u32 identity, const struct packet *packet, const struct headers *h,
					 __u32 source, __u32 gso_size)
{
	/* The region that counted the packet, unless the epoch turned in between: then this comes in the next interval.
	 */
	struct wm_region_header *region = region_of(bpf_get_smp_processor_id(), wm_epoch & 1);
	struct scratch *memory = scratch();

	if (!region || !memory)
		return;
	record_head(&memory->record.head, packet, h, source);
	memory->record.head.attachment = identity_of(identity).attachment;
	memory->record.head.time_ns = wm_test_runs ? wm_test_packet.time_ns : bpf_ktime_get_ns();
	record_send_all(&memory->record, packet, h, region, source, gso_size);
}

static __always_inline struct packet packet_of_skb(struct __sk_buff *skb)
{
	return (struct packet){
		.kind = PACKET_SKB,
		.ctx = skb,
		.data = (void *)(long)skb->data,
		.end = (void *)(long)skb->data_end,
		.len = skb->len,
	};
}

static __always_inline __u32 vlan_of_skb(struct __sk_buff *skb)
{
	return skb->vlan_present ? WM_VLAN_TAGGED | (skb->vlan_tci & WM_VLAN_ID_MASK) : 0;
}

/* The headers of any skb at all. A function of its own, as are the next three: the verifier checks each once, and not
 * every way through one for every way through another. */
__noinline int wm_parse_skb(struct __sk_buff *skb, __u32 has_ethernet, __u32 skipped, struct headers *h)
{
	struct packet packet = packet_of_skb(skb);

	if (!h)
		return -1;
	*h = (struct headers){.reason = WM_REASONS, .vlan = vlan_of_skb(skb)};
	if (has_ethernet && !skipped) {
		parse_l2(&packet, h);
	} else {
		parse_l3(&packet, h, wm_be16(skb->protocol), 0);
		if (!has_ethernet && h->ethertype == WM_ETHERTYPE_LLC)
			h->ethertype = WM_ETHERTYPE_NONE;
	}
	return 0;
}

__noinline int wm_size_skb(struct __sk_buff *skb, const struct headers *h, __u32 skipped, struct wm_tally *size)
{
	if (!h || !size)
		return -1;
	*size = skb_size(skb, h, skipped + (h->vlan && skb->vlan_present ? sizeof(struct wm_vlan) : 0));
	return 0;
}

__noinline int wm_pick_skb(struct __sk_buff *skb, const struct headers *h, __u32 line, __u32 epoch, __u64 when)
{
	struct packet packet = packet_of_skb(skb);

	return h ? pick(&packet, h, line, epoch, when) : WM_SOURCES;
}

__noinline int wm_send_skb(struct __sk_buff *skb, const struct headers *h, __u32 source, __u32 identity)
{
	struct packet packet = {.kind = PACKET_SKB, .ctx = skb};

	if (!h)
		return -1;
	send_payload(identity, &packet, h, source, h->protocol == WM_UDP ? skb->gso_size : 0);
	return 0;
}

/* Any skb at all: the general way, for what meter_common() leaves. */
__noinline int wm_any_skb(struct __sk_buff *skb, __u32 skipped, __u32 identity)
{
	struct scratch *memory = scratch();
	__u32 epoch, source;
	struct headers *h;
	__u64 when;
	int line;

	if (!memory)
		return -1; /* cannot be */
	h = &memory->headers;
	wm_parse_skb(skb, identity_of(identity).has_ethernet, skipped, h);
	wm_size_skb(skb, h, skipped, &memory->size);
	epoch = wm_epoch;
	when = now();
	line = wm_count(h, &memory->size, when, identity, epoch);
	if (!wm_payload_limit || line < 0)
		return 0;
	source = wm_pick_skb(skb, h, line, epoch, when);
	return source < WM_SOURCES ? wm_send_skb(skb, h, source, identity) : 0;
}

/* For the common packet, whose headers are nowhere in memory: few payloads are sent, so they are parsed again. */
__noinline int wm_resend_skb(struct __sk_buff *skb, __u32 source, __u32 identity)
{
	struct scratch *memory = scratch();

	if (!memory)
		return -1;
	wm_parse_skb(skb, 1, 0, &memory->headers);
	return wm_send_skb(skb, &memory->headers, source, identity);
}

/* TCX_NEXT and, under clsact, TC_ACT_UNSPEC: whoever comes next decides. */
#define PASS_ON (-1)

SEC("tc")
int wm_meter_tc(struct __sk_buff *skb)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct wm_entry *entry = entry_of(cpu);
	struct packet packet = packet_of_skb(skb);
	__u32 identity, skipped = 0;
	int source = NOT_COMMON;

	if (!entry)
		return PASS_ON;
	identity = identity_noted(entry);
	if (wm_likely(identity_of(identity).has_ethernet)) {
		if (identity_of(identity).is_ingress)
			skipped = l2_bytes_skipped(skb);
		if (wm_likely(!skipped && !skb->gso_size))
			source = meter_common(identity, cpu, &packet, vlan_of_skb(skb), now());
	}
	if (wm_likely(source == WM_SOURCES))
		return PASS_ON;
	if (source == NOT_COMMON)
		wm_any_skb(skb, skipped, identity);
	else if (wm_payload_limit)
		wm_resend_skb(skb, source, identity);
	return PASS_ON;
}

SEC("tc")
int wm_tc_ingress(struct __sk_buff *skb)
{
	/* The stack's own copy of a broadcast or multicast that this host sends (dev_loopback_xmit()): it comes past
	 * here and was on no wire. Packet sockets, and so tcpdump, leave it out too. */
	if (wm_unlikely(skb->pkt_type == PACKET_LOOPBACK))
		return PASS_ON;
	entry_note(identity_of_copy());
	bpf_tail_call(skb, &wm_tc_meter, 0);
	return PASS_ON;
}

SEC("tc")
int wm_tc_egress(struct __sk_buff *skb)
{
	entry_note(identity_of_copy());
	bpf_tail_call(skb, &wm_tc_meter, 0);
	return PASS_ON;
}

/* Run by user space at each flip. */
struct wm_clock_reading wm_clock SEC(".data.control");

SEC("tc")
int wm_read_clock(struct __sk_buff *skb)
{
	wm_clock.ticks = bpf_jiffies64();
	wm_clock.monotonic_ns = bpf_ktime_get_ns();
	return skb ? PASS_ON : 0;
}

static __always_inline struct packet packet_of_xdp(struct xdp_md *xdp, __u32 len)
{
	return (struct packet){
		.kind = PACKET_XDP,
		.ctx = xdp,
		.data = (void *)(long)xdp->data,
		.end = (void *)(long)xdp->data_end,
		.len = len,
	};
}

__noinline int wm_parse_xdp(struct xdp_md *xdp, __u32 len, __u32 vlan, struct headers *h)
{
	struct packet packet = packet_of_xdp(xdp, len);

	if (!h)
		return -1;
	*h = (struct headers){.reason = WM_REASONS, .vlan = vlan & (WM_VLAN_TAGGED | WM_VLAN_ID_MASK)};
	parse_l2(&packet, h);
	return 0;
}

__noinline int wm_pick_xdp(struct xdp_md *xdp, const struct headers *h, __u32 line, __u32 epoch, __u64 when)
{
	struct packet packet = packet_of_xdp(xdp, 0);

	return h ? pick(&packet, h, line, epoch, when) : WM_SOURCES;
}

__noinline int wm_send_xdp(struct xdp_md *xdp, const struct headers *h, __u32 source, __u32 identity)
{
	struct packet packet = {.kind = PACKET_XDP, .ctx = xdp};

	if (!h)
		return -1;
	send_payload(identity, &packet, h, source, 0);
	return 0;
}

/* Any XDP buffer at all. */
__noinline int wm_any_xdp(struct xdp_md *xdp, __u32 len, __u32 vlan, __u32 identity)
{
	struct scratch *memory = scratch();
	__u32 epoch, source;
	struct headers *h;
	__u64 when;
	int line;

	if (!memory)
		return -1; /* cannot be */
	h = &memory->headers;
	memory->size = one_packet(len + (vlan ? sizeof(struct wm_vlan) : 0));
	wm_parse_xdp(xdp, len, vlan, h);
	epoch = wm_epoch;
	when = now();
	line = wm_count(h, &memory->size, when, identity, epoch);
	if (!wm_payload_limit || line < 0)
		return 0;
	source = wm_pick_xdp(xdp, h, line, epoch, when);
	return source < WM_SOURCES ? wm_send_xdp(xdp, h, source, identity) : 0;
}

__noinline int wm_resend_xdp(struct xdp_md *xdp, __u32 len, __u32 source, __u32 identity)
{
	struct scratch *memory = scratch();

	if (!memory)
		return -1;
	wm_parse_xdp(xdp, len, 0, &memory->headers);
	return wm_send_xdp(xdp, &memory->headers, source, identity);
}

static __always_inline void meter_xdp(struct xdp_md *xdp, __u32 cpu, __u32 identity, __u32 vlan)
{
	__u32 len = xdp_length(xdp);
	struct packet packet = packet_of_xdp(xdp, len);
	int source = meter_common(identity, cpu, &packet, vlan, now());

	if (wm_likely(source == WM_SOURCES))
		return;
	if (source == NOT_COMMON)
		wm_any_xdp(xdp, len, vlan, identity);
	else if (wm_payload_limit)
		wm_resend_xdp(xdp, len, source, identity);
}

SEC("xdp")
int wm_meter_xdp(struct xdp_md *xdp)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct wm_entry *entry = entry_of(cpu);

	if (entry)
		meter_xdp(xdp, cpu, identity_noted(entry), 0);
	return XDP_PASS;
}

SEC("xdp")
int wm_xdp(struct xdp_md *xdp)
{
	entry_note(identity_of_copy());
	bpf_tail_call(xdp, &wm_xdp_meter, 0);
	return XDP_PASS;
}

/* For drivers that strip VLAN tags into the descriptor and hand them out there: loaded bound to its device
 * (Linux 6.8, e6795330f88b), and so as a whole for each. */
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *xdp, __u16 *tpid_be, __u16 *tci) __ksym __weak;

SEC("xdp")
int wm_xdp_vlan(struct xdp_md *xdp)
{
	__u16 tpid_be = 0, tci = 0;
	__u32 vlan = 0;

	if (!bpf_xdp_metadata_rx_vlan_tag(xdp, &tpid_be, &tci))
		vlan = WM_VLAN_TAGGED | (tci & WM_VLAN_ID_MASK);
	meter_xdp(xdp, bpf_get_smp_processor_id(), identity_of_whole(), vlan);
	return XDP_PASS;
}
