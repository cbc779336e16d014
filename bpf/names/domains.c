/* Names of flows by their ends: what a client was told an address is, or what was announced to all. */
#include <string.h>

#include "names.h"

/* Flows at a time: the places that they are looked for are on their way from memory meanwhile. */
#define BLOCK 32

struct address {
	uint64_t words[2];
};

/* A flow's ends, as a client and as a server each. */
struct ends {
	struct address src, dst, src_client, dst_client;
	uint64_t there, back; /* hashes of the pairs, source or destination as the client */
};

static const struct address everyone;

/* One word of NH (RFC 4418, section 5.2.2): the sum of its halves with a key each, multiplied. */
static uint64_t nh(uint64_t word, uint64_t key, uint64_t other_key)
{
	return ((uint32_t)word + key) * ((word >> 32) + other_key);
}

/* NH and Murmur3's step behind it, as in bpf/lib/hash.h: nobody can choose addresses which share one. */
static uint64_t mixed(const uint64_t *keys, const struct address *address)
{
	uint64_t sum = nh(address->words[0], keys[0], keys[1]) + nh(address->words[1], keys[2], keys[3]);

	return (sum ^ sum >> 32) * 0xff51afd7ed558ccdULL;
}

static uint64_t pair_hash(const uint64_t *keys, const struct address *client, const struct address *server)
{
	return mixed(keys, client) * keys[4] + mixed(keys, server);
}

void wm_domains_hash(const uint64_t *hash_keys, const uint64_t *pairs, size_t count, uint64_t *hashes)
{
	for (size_t i = 0; i < count; i++) {
		struct address ends[2];

		memcpy(ends, pairs + 4 * i, sizeof(ends));
		hashes[i] = pair_hash(hash_keys, &ends[0], &ends[1]);
	}
}

static int is_same(const struct address *a, const struct address *b)
{
	return a->words[0] == b->words[0] && a->words[1] == b->words[1];
}

/* The client that an address is of: all of `own` are one. */
static struct address as_client(const struct wm_domains *domains, const struct address *address)
{
	struct address own;

	for (size_t i = 0; i < domains->own_count; i++) {
		memcpy(&own, domains->own + 16 * i, sizeof(own));
		if (is_same(&own, address)) {
			memcpy(&own, domains->owner, sizeof(own));
			return own;
		}
	}
	return *address;
}

static int64_t find(const struct wm_domains *domains, uint64_t hash, const struct address *client,
		    const struct address *server, int64_t time_ns)
{
	const uint32_t *starts = &domains->starts[hash >> domains->shift];

	for (uint32_t at = starts[0]; at < starts[1]; at++) {
		struct address pair[2];

		if (domains->hashes[at] != hash)
			continue;
		memcpy(pair, domains->pairs + 4 * (size_t)at, sizeof(pair));
		if (is_same(&pair[0], client) && is_same(&pair[1], server) &&
		    domains->end_ns[domains->slots[at]] >= time_ns)
			return domains->slots[at];
	}
	return -1;
}

static int64_t find_flow(const struct wm_domains *domains, const struct ends *ends, int src_is_client, int64_t time_ns)
{
	int64_t slot = find(domains, ends->there, &ends->src_client, &ends->dst, time_ns);

	if (slot >= 0)
		return slot;
	if (!src_is_client)
		return find(domains, ends->back, &ends->dst_client, &ends->src, time_ns);
	return find(domains, pair_hash(domains->hash_keys, &everyone, &ends->dst), &everyone, &ends->dst, time_ns);
}

void wm_domains_find(const struct wm_domains *domains, const uint8_t *src, const uint8_t *dst, size_t stride,
		     const uint8_t *src_is_client, size_t count, int64_t time_ns, int64_t *found)
{
	struct ends block[BLOCK];

	for (size_t begin = 0; begin < count; begin += BLOCK) {
		size_t in_block = count - begin < BLOCK ? count - begin : BLOCK;

		for (size_t i = 0; i < in_block; i++) {
			struct ends *ends = &block[i];

			memcpy(&ends->src, src + (begin + i) * stride, sizeof(ends->src));
			memcpy(&ends->dst, dst + (begin + i) * stride, sizeof(ends->dst));
			ends->src_client = as_client(domains, &ends->src);
			ends->dst_client = as_client(domains, &ends->dst);
			ends->there = pair_hash(domains->hash_keys, &ends->src_client, &ends->dst);
			ends->back = pair_hash(domains->hash_keys, &ends->dst_client, &ends->src);
			__builtin_prefetch(&domains->starts[ends->there >> domains->shift]);
			__builtin_prefetch(&domains->starts[ends->back >> domains->shift]);
		}
		for (size_t i = 0; i < in_block; i++)
			found[begin + i] = find_flow(domains, &block[i], src_is_client[begin + i], time_ns);
	}
}
