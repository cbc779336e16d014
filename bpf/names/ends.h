/* Flows and conversations as numbers that nobody who lacks the seed can choose. */
#ifndef WM_ENDS_H
#define WM_ENDS_H

#include "names.h"

#include <string.h>

static inline uint64_t wm_mixed(uint64_t hash, uint64_t word)
{
	hash ^= word; /* then the finalizer of MurmurHash3 */
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdULL;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53ULL;
	return hash ^ hash >> 33;
}

/* 8 bytes as a number, the same on every machine. */
static inline uint64_t wm_word(const uint8_t *at)
{
	uint64_t word = 0;

	for (int i = 7; i >= 0; i--)
		word = word << 8 | at[i];
	return word;
}

static inline uint64_t wm_mixed_address(uint64_t hash, const uint8_t address[16])
{
	return wm_mixed(wm_mixed(hash, wm_word(address)), wm_word(address + 8));
}

static inline uint64_t wm_mixed_bytes(uint64_t hash, const uint8_t *data, size_t bytes)
{
	uint8_t last[8] = {0};

	hash = wm_mixed(hash, bytes);
	for (; bytes >= 8; data += 8, bytes -= 8)
		hash = wm_mixed(hash, wm_word(data));
	memcpy(last, data, bytes);
	return wm_mixed(hash, wm_word(last));
}

/* Of a flow; of one to anyone, its destination's address left out. */
static inline uint64_t wm_flow_hash(uint64_t seed, const struct wm_ends *flow, int to_anyone)
{
	uint64_t hash = wm_mixed(seed, (uint64_t)flow->protocol << 40 | (uint64_t)flow->family << 32 |
					       (uint64_t)flow->src_port << 16 | flow->dst_port);

	hash = wm_mixed_address(hash, flow->src_addr);
	return to_anyone ? hash : wm_mixed_address(hash, flow->dst_addr);
}

static inline struct wm_ends wm_reversed(const struct wm_ends *flow)
{
	struct wm_ends back = *flow;

	memcpy(back.src_addr, flow->dst_addr, 16);
	memcpy(back.dst_addr, flow->src_addr, 16);
	back.src_port = flow->dst_port;
	back.dst_port = flow->src_port;
	return back;
}

/* Of a conversation on a device: the same for both of its flows; never 0. */
static inline uint64_t wm_conversation_hash(uint64_t seed, uint32_t device, const struct wm_ends *flow)
{
	int order = memcmp(flow->src_addr, flow->dst_addr, 16);
	struct wm_ends back;
	uint64_t hash;

	if (order > 0 || (!order && flow->src_port > flow->dst_port)) {
		back = wm_reversed(flow);
		flow = &back;
	}
	hash = wm_mixed(wm_flow_hash(seed, flow, 0), device);
	return hash ? hash : 1;
}

#endif
