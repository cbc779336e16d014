/* The traffic source: each run of this program makes one packet of a load in a live frame (BPF_PROG_TEST_RUN with
 * BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18), which the kernel then sends out of the device it "came" from.
 *
 * Packets follow a cycle of templates. In each the address and the port that tell flows apart are rewritten, and the
 * header's checksum with them. Frames come back from the last receiver with whatever it left in them, so every header
 * is written anew.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define FRAME_MIN     60 /* Ethernet's least, without the frame check sequence */
#define FRAME_MAX     1514
#define TEMPLATES_MAX 128
#define CHECKSUM_AT   24 /* of IPv4 behind an Ethernet header */
#define BATCH	      64 /* frames that the kernel sends at once, as generator.py asks for; a power of two */
#define SPINS_MAX     (1U << 20)

/* One kind of packet. Mirrored in generator.py. */
struct template
{
	__u32 bytes;	  /* FRAME_MIN to FRAME_MAX */
	__u32 address_at; /* where the IPv4 address is that tells flows apart */
	__u32 port_at;	  /* and the port; 0: it stays */
	__u32 id_at;	  /* 16 bits that follow the flow too: DNS's id; 0: none */
	__u32 sum;	  /* of the IPv4 header's words, without the checksum and that address, not folded */
	__u32 whole;	  /* more than the first FRAME_MIN bytes matter */
	__u8 frame[FRAME_MAX + 6];
};
_Static_assert(sizeof(struct template) == 1544, "mirrored in generator.py");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct template);
	__uint(max_entries, TEMPLATES_MAX);
} templates SEC(".maps");

/* Set before load. */
const volatile __u32 gen_templates = 1;
const volatile __u32 gen_flows = 1;
const volatile __u32 gen_stride = 1; /* from a flow to the next, without a common divisor with gen_flows */
const volatile __u32 gen_hold = 1;   /* packets in a row that have the same flow */

/* What is being sent and what was sent. Mirrored in generator.py. One program runs at a time, so adds are plain. */
struct {
	__u64 packets;
	__u64 bytes;
	__u64 wait_ns;	/* spent waiting for the next batch's time */
	__u64 first_ns; /* when the first batch and the last began, CLOCK_MONOTONIC; 0: not begun */
	__u64 last_ns;
	__u64 interval_fp; /* from a packet to the next, in 2^-16 ns; 0: as fast as it goes */
	__u32 flow;
	__u32 held;
	__u32 template;
} progress SEC(".data.progress");

static long spin(__u32 at, __u64 *until_ns)
{
	(void)at;
	return bpf_ktime_get_ns() >= *until_ns;
}

/* Notes the time of the batch that begins, and at a rate waits for its turn. Waiting is done here because a test run
 * cannot be begun anew for each batch: its beginning takes an RCU grace period. */
static __always_inline void begin_batch(void)
{
	__u64 now = bpf_ktime_get_ns(), due;

	if (!progress.first_ns)
		progress.first_ns = now;
	progress.last_ns = now;
	due = progress.first_ns + (progress.packets * progress.interval_fp >> 16);
	if (!progress.interval_fp || now >= due)
		return;
	bpf_loop(SPINS_MAX, spin, &due, 0);
	progress.last_ns = bpf_ktime_get_ns();
	progress.wait_ns += progress.last_ns - now;
}

static __always_inline void advance(void)
{
	__u32 next = progress.template + 1;

	progress.template = next < gen_templates ? next : 0;
	if (++progress.held < gen_hold)
		return;
	progress.held = 0;
	next = progress.flow + gen_stride;
	progress.flow = next < gen_flows ? next : next - gen_flows;
}

static __always_inline __u16 checksum(__u32 sum, __u32 address_be)
{
	sum += (address_be & 0xffff) + (address_be >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

static __always_inline int put(struct xdp_md *xdp, __u32 at, const void *from, __u32 bytes)
{
	void *to = (void *)(long)xdp->data + (at & 63);

	if (to + bytes > (void *)(long)xdp->data_end)
		return -1;
	__builtin_memcpy(to, from, bytes);
	return 0;
}

/* Client number `flow` is 10.0.0.0 + flow. */
static __always_inline int write_flow(struct xdp_md *xdp, const struct template *template, __u32 flow)
{
	__u32 address_be = bpf_htonl(10U << 24 | (flow & 0xffffff));
	__u16 sum = checksum(template->sum, address_be), number_be = bpf_htons(0x8000 | (flow & 0x7fff));

	if (put(xdp, template->address_at, &address_be, sizeof(address_be)) || put(xdp, CHECKSUM_AT, &sum, sizeof(sum)))
		return -1;
	if (template->port_at && put(xdp, template->port_at, &number_be, sizeof(number_be)))
		return -1;
	return template->id_at ? put(xdp, template->id_at, &number_be, sizeof(number_be)) : 0;
}

SEC("xdp")
int generate(struct xdp_md *xdp)
{
	void *data, *end;
	struct template *template;
	__u32 at = progress.template, rest;
	long change;

	if (!(progress.packets & (BATCH - 1)))
		begin_batch();
	template = bpf_map_lookup_elem(&templates, &at);
	if (!template)
		return XDP_DROP;
	change = (long)template->bytes - (long)(xdp->data_end - xdp->data);
	if (change && bpf_xdp_adjust_tail(xdp, change))
		return XDP_DROP;
	data = (void *)(long)xdp->data;
	end = (void *)(long)xdp->data_end;
	if (data + FRAME_MIN > end)
		return XDP_DROP;
	__builtin_memcpy(data, template->frame, FRAME_MIN);
	rest = template->bytes - FRAME_MIN;
	if (template->whole && rest && rest <= FRAME_MAX - FRAME_MIN &&
	    bpf_xdp_store_bytes(xdp, FRAME_MIN, template->frame + FRAME_MIN, rest))
		return XDP_DROP;
	if (write_flow(xdp, template, progress.flow))
		return XDP_DROP;
	progress.packets++;
	progress.bytes += template->bytes;
	advance();
	return XDP_TX;
}
