/* Blocks of payload records: each goes to the decoder it is for, and most to none. */
#include "applications.h"
#include "dns.h"
#include "listening.h"

/* `tcp_flags` of a UDP payload: where a fragment belongs, and whether others follow. */
#define IS_FRAGMENT 0x3fff

/* The device of a record; negative: none. */
static int32_t device_of(const struct wm_names_block *block, uint32_t attachment)
{
	if (!block->devices)
		return 0;
	return attachment < block->devices_count ? block->devices[attachment] : -1;
}

static struct wm_ends ends_of(const struct wm_payload *head)
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

/* Whether others can read a packet, whose conversation they get from now on then. */
static int is_for_others(struct wm_listening *listening, struct wm_names_block *block, const struct wm_payload *head,
			 const struct wm_ends *flow, const uint8_t *data, uint32_t device)
{
	uint64_t hash = wm_conversation_hash(listening->seed, device, flow);
	struct wm_said said = {data, head->captured};
	int is_tcp = head->protocol == WM_NAMES_TCP;

	if (wm_listening_has(listening, hash))
		return 1;
	if (is_tcp ? !wm_tcp_may_begin(said, head->src_port, head->dst_port)
		   : !wm_udp_application(said, head->src_port, head->dst_port)) {
		if (is_tcp)
			wm_late_keep(listening, hash, head, data);
		return 0;
	}
	wm_listening_add(listening, hash);
	if (is_tcp)
		block->late_count = wm_late_take(listening, hash, head->time_ns, block->late);
	return 1;
}

size_t wm_names_read(struct wm_dns *dns, struct wm_listening *listening, struct wm_names_block *block, size_t first,
		     struct wm_told *told)
{
	block->others_count = block->late_count = 0;
	while (first < block->count && wm_told_has_room(told) && !wm_listening_is_full(listening) &&
	       !block->late_count) {
		uint64_t at = block->offsets[first];
		uint32_t number = (uint32_t)first++;
		struct wm_payload head;
		struct wm_ends flow;
		int32_t device;

		if (at > block->data_bytes || block->data_bytes - at < sizeof(head)) {
			block->others[block->others_count++] = number; /* who will say what is wrong */
			continue;
		}
		memcpy(&head, block->data + at, sizeof(head));
		at += sizeof(head);
		device = device_of(block, head.attachment);
		if (device < 0)
			continue;
		head.time_ns += block->origin_ns;
		flow = ends_of(&head);
		if (head.captured > block->data_bytes - at ||
		    (head.protocol != WM_NAMES_TCP && head.tcp_flags & IS_FRAGMENT)) {
			block->others[block->others_count++] = number;
			continue;
		}
		if (head.protocol != WM_NAMES_TCP &&
		    dns_read(dns, &head, &flow, block->data + at, (uint32_t)device, told))
			continue;
		if (is_for_others(listening, block, &head, &flow, block->data + at, (uint32_t)device))
			block->others[block->others_count++] = number;
		else
			block->opaque_count++;
	}
	return first;
}
