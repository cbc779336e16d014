/* The programs' way to send a payload to user space: a record, put together in scratch memory, through a ring. */
#ifndef WM_KERNEL_PAYLOAD_RING_H
#define WM_KERNEL_PAYLOAD_RING_H

#include "../lib/payload_record.h"
#include "settings.h"

/* Two rings, so that a flood of DNS leaves room for the rest. Sized before load. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} wm_dns_payloads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} wm_payloads SEC(".maps");

/* At most this many datagrams of a UDP super-packet are sent; the others count as lost. */
#define DATAGRAMS_MAX 4

/* Wakes the reader as a ring becomes a quarter full; short of that it comes by itself at each flip. */
#define WAKE_WINDOW 16384
static __always_inline __u64 wake_flags(__u64 waiting_bytes)
{
	__u64 over = waiting_bytes - wm_payload_ring / 4;

	return over < WAKE_WINDOW ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* Sends `captured` payload bytes that are in the record, or counts them as lost. */
static __always_inline void record_send(struct payload_record *record, struct wm_region_header *region, __u32 source,
					__u32 captured)
{
	__u32 size = sizeof(record->head) + captured;
	long error = -1;
	__u64 waiting;

	wm_forget(source); /* one register, checked and used: the verifier goes by that */
	if (source >= WM_SOURCES || size > sizeof(*record))
		return;
	if (source == WM_SOURCE_DNS) {
		waiting = bpf_ringbuf_query(&wm_dns_payloads, BPF_RB_AVAIL_DATA);
		if (waiting + sizeof(*record) < wm_payload_ring)
			error = bpf_ringbuf_output(&wm_dns_payloads, record, size, wake_flags(waiting));
	} else {
		waiting = bpf_ringbuf_query(&wm_payloads, BPF_RB_AVAIL_DATA);
		if (waiting + sizeof(*record) < wm_payload_ring)
			error = bpf_ringbuf_output(&wm_payloads, record, size, wake_flags(waiting));
	}
	if (error)
		region->lost_payloads[source]++;
	else
		region->payloads[source]++;
}

/* Sends the payload behind a record's head, of a UDP super-packet each datagram (gso_size above 0). */
static __always_inline void record_send_all(struct payload_record *record, const struct packet *packet,
					    const struct headers *h, struct wm_region_header *region, __u32 source,
					    __u32 gso_size)
{
	__u32 limit = wm_payload_limit, offset = h->payload_offset, left = h->payload_bytes;
	__u32 bytes, last, captured;
	__u32 *lost;

	if (!offset || offset > WM_HEADERS_END_MASK)
		return;
	/* Checked once and kept as a pointer: up to Linux 6.1 the verifier forgets the bounds of a number on the stack.
	 */
	wm_forget(source);
	if (source >= WM_SOURCES)
		return;
	lost = &region->lost_payloads[source];
	wm_loop for (int i = 0; i < DATAGRAMS_MAX && left; i++)
	{
		bytes = gso_size && gso_size < left ? gso_size : left;
		last = (bytes < limit ? bytes : limit) - 1;
		/* Compared as the last byte's place: from "not 0" the verifier concludes "at least 1" since 6.8 only.
		 */
		wm_forget(last);
		if (last >= WM_PAYLOAD_BYTES_MAX)
			return;
		captured = last + 1;
		if (packet_load(packet, offset, record->bytes, captured))
			captured = 0;
		record->head.bytes = bytes;
		record->head.captured = captured;
		record_send(record, region, source, captured);
		left -= bytes;
		offset += bytes;
	}
	if (left && gso_size)
		*lost += (left + gso_size - 1) / gso_size;
}

#endif
