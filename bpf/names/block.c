/* Blocks of payload records: each goes to the decoder it is for, and most to none. */
#include "applications.h"
#include "dns.h"
#include "listening.h"
#include "tcp.h"

/* `tcp_flags` of a UDP payload: where a fragment belongs, and whether others follow. */
#define IS_FRAGMENT 0x3fff

/* The device of a record; negative: none. */
static int32_t device_of(const struct wm_names_block *block, uint32_t attachment)
{
	if (!block->devices)
		return 0;
	return attachment < block->devices_count ? block->devices[attachment] : -1;
}

struct wm_ends wm_payload_ends(const struct wm_payload *head)
{
	struct wm_ends ends = {
		.src_port = head->src_port,
		.dst_port = head->dst_port,
		.protocol = head->protocol,
		.family = head->family,
	};

	memcpy(ends.src_addr, head->src_addr, sizeof(ends.src_addr));
	memcpy(ends.dst_addr, head->dst_addr, sizeof(ends.dst_addr));
	return ends;
}

/* Whether a datagram was DNS, and told. */
static int dns_read(struct wm_dns *dns, const struct wm_payload *head, const struct wm_ends *flow, const uint8_t *data,
		    uint32_t device, struct wm_told *told)
{
	int how = head->captured < head->bytes ? WM_DNS_IS_CUT : 0;

	if (head->source == WM_SOURCE_DNS)
		how |= WM_DNS_LENIENT;
	else if (!wm_dns_looks_like(data, head->captured, how))
		return 0;
	return !wm_dns_take(dns, device, head->time_ns, flow, data, head->captured, how, told);
}

/* Whether others can read a datagram, whose conversation they get from now on then. */
static int is_for_others(struct wm_listening *listening, const struct wm_payload *head, const struct wm_ends *flow,
			 const uint8_t *data, uint32_t device)
{
	uint64_t hash = wm_conversation_hash(listening->seed, device, flow);

	if (wm_listening_has(listening, hash))
		return 1;
	if (!wm_udp_application((struct wm_said){data, head->captured}, head->src_port, head->dst_port))
		return 0;
	wm_listening_add(listening, hash);
	return 1;
}

size_t wm_names_read(struct wm_dns *dns, struct wm_tcp *tcp, struct wm_listening *listening,
		     struct wm_names_block *block, size_t first, struct wm_told *told)
{
	block->others_count = 0;
	while (first < block->count && wm_told_has_room(told, 2) && !wm_listening_is_full(listening) &&
	       !told->pieces_count) {
		uint64_t at = block->offsets[first];
		uint32_t number = (uint32_t)first++;
		const uint8_t *data;
		struct wm_payload head;
		struct wm_ends flow;
		int32_t device;

		if (at > block->data_bytes || block->data_bytes - at < sizeof(head)) {
			block->others[block->others_count++] = number; /* who will say what is wrong */
			continue;
		}
		memcpy(&head, block->data + at, sizeof(head));
		at += sizeof(head);
		data = block->data + at;
		device = device_of(block, head.attachment);
		if (device < 0)
			continue;
		head.time_ns += block->origin_ns;
		flow = wm_payload_ends(&head);
		if (head.captured > block->data_bytes - at ||
		    (head.protocol != WM_NAMES_TCP && head.tcp_flags & IS_FRAGMENT)) {
			block->others[block->others_count++] = number;
			continue;
		}
		if (head.protocol == WM_NAMES_TCP)
			block->opaque_count +=
				wm_tcp_take(tcp, dns, (uint32_t)device, &head, &flow, data, told) == WM_TCP_OPAQUE;
		else if (dns_read(dns, &head, &flow, data, (uint32_t)device, told))
			continue;
		else if (is_for_others(listening, &head, &flow, data, (uint32_t)device))
			block->others[block->others_count++] = number;
		else
			block->opaque_count++;
	}
	return first;
}
