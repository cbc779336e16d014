/* The datapath with what a benchmark needs around it: programs that do nothing, and packets of many flows. */
#include "../bpf/wiremeter.bpf.c"

/* Set before load. */
const volatile __u32 bench_flows = 1;	    /* how many flows the packets of a test run have */
const volatile __u32 bench_in_order = 0;    /* one after another, each once, instead of drawn at random */
const volatile __u32 bench_first_flow = 0;  /* the number of the first one */
const volatile __u32 bench_address_at = 26; /* where in the packet the four bytes are that tell flows apart */
const volatile __u32 bench_vlan = 0;	    /* a tag for the skb's metadata */

/* Draws the number of the next packet's flow. A full avalanche, so that no prefetcher guesses the order of lines. */
static __always_inline __u32 draw_flow(void)
{
	static __u32 packets;
	__u32 number = packets++;
	__u64 drawn;

	if (bench_in_order)
		return bench_first_flow + number;
	drawn = hash_mix(number * 0x9e3779b97f4a7c15ULL) * 0xc4ceb9fe1a85ec53ULL >> 32;
	return bench_first_flow + (drawn * bench_flows >> 32);
}

/* Each run of a test run is another packet: part of an address is rewritten in place, in one store as wide as the
 * parser's load, because a load that needs two stores waits for both. */
static __always_inline int next_packet(struct __sk_buff *skb)
{
	__u32 *at;

	if (bench_vlan && !skb->vlan_present)
		bpf_skb_vlan_push(skb, wm_be16(WM_ETHERTYPE_VLAN), bench_vlan);
	if (bench_flows == 1)
		return 0;
	at = (void *)(long)skb->data + bench_address_at;
	if ((void *)(at + 1) > (void *)(long)skb->data_end)
		return -1;
	*at = 10 | draw_flow() << 8;
	return 0;
}

SEC("tc")
int wm_bench_empty(struct __sk_buff *skb)
{
	return skb ? PASS_ON : 0;
}

SEC("tc")
int wm_bench_rewrite(struct __sk_buff *skb)
{
	next_packet(skb);
	return PASS_ON;
}

static const struct wm_identity bench_ingress = {.has_ethernet = 1, .is_ingress = 1};
static const struct wm_identity bench_egress = {.has_ethernet = 1};

/* As the entries do, behind another packet. */
SEC("tc")
int wm_bench_ingress(struct __sk_buff *skb)
{
	if (next_packet(skb))
		return PASS_ON;
	entry_note(bench_ingress);
	bpf_tail_call(skb, &wm_tc_meter, 0);
	return PASS_ON;
}

SEC("tc")
int wm_bench_egress(struct __sk_buff *skb)
{
	if (next_packet(skb))
		return PASS_ON;
	entry_note(bench_egress);
	bpf_tail_call(skb, &wm_tc_meter, 0);
	return PASS_ON;
}

SEC("xdp")
int wm_bench_empty_xdp(struct xdp_md *xdp)
{
	return xdp ? XDP_PASS : XDP_ABORTED;
}

SEC("xdp")
int wm_bench_xdp(struct xdp_md *xdp)
{
	entry_note(bench_ingress);
	bpf_tail_call(xdp, &wm_xdp_meter, 0);
	return XDP_PASS;
}
