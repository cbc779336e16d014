/* A frame in plain memory as the parser takes it. */
#ifndef WM_FRAME_H
#define WM_FRAME_H

#include "host.h"
#include "../lib/packet.h"

#include <string.h>

static inline int packet_load(const struct packet *packet, __u32 off, void *to, __u32 len)
{
	if (len > packet->len || off > packet->len - len)
		return -1;
	memcpy(to, (const char *)packet->ctx + off, len);
	return 0;
}

static inline void engine_walk(const struct packet *packet, struct ipv6_chain *chain)
{
	ipv6_chain_walk(packet, chain);
}

/* A linear part of no bytes has every header copied out: frames in a file lie at any address, and a struct must not. */
static inline struct packet packet_of_frame(const uint8_t *frame, __u32 captured)
{
	return (struct packet){
		.kind = PACKET_HOST,
		.ctx = (void *)frame,
		.data = frame,
		.end = frame,
		.len = captured,
	};
}

static inline void frame_parse(const struct packet *packet, struct headers *h, uint32_t link)
{
	if (link == WM_LINK_ETHERNET)
		parse_l2(packet, h);
	else
		parse_tags(packet, h, link, 0);
}

#endif
