/* Blocks of payload records: each goes to the decoder it is for. */
#include "names.h"
#include "../records.h"

#include <string.h>

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

/* Whether a datagram was read as DNS, or at least is none of anything else. */
static int datagram_read(struct wm_dns *dns, const struct wm_payload *head, const uint8_t *data, uint32_t device,
			 uint64_t time_ns, struct wm_told *told)
{
	int how = head->captured < head->bytes ? WM_DNS_IS_CUT : 0;
	struct wm_ends ends;

	if (head->source == WM_SOURCE_DNS)
		how |= WM_DNS_LENIENT;
	else if (!wm_dns_looks_like(data, head->captured, how))
		return 0;
	ends = ends_of(head);
	return !wm_dns_take(dns, device, time_ns, &ends, data, head->captured, how, told);
}

size_t wm_names_read(struct wm_dns *dns, struct wm_names_block *block, size_t first, struct wm_told *told)
{
	for (; first < block->count && wm_told_has_room(told); first++) {
		uint64_t at = block->offsets[first];
		struct wm_payload head;
		int32_t device;

		if (at > block->data_bytes || block->data_bytes - at < sizeof(head)) {
			block->others[block->others_count++] = (uint32_t)first; /* who will say what is wrong */
			continue;
		}
		memcpy(&head, block->data + at, sizeof(head));
		at += sizeof(head);
		device = device_of(block, head.attachment);
		if (device < 0)
			continue;
		if (head.captured > block->data_bytes - at || head.protocol != WM_NAMES_UDP ||
		    head.tcp_flags & IS_FRAGMENT ||
		    !datagram_read(dns, &head, block->data + at, (uint32_t)device, block->origin_ns + head.time_ns,
				   told))
			block->others[block->others_count++] = (uint32_t)first;
	}
	return first;
}
