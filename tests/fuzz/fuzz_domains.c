/* Any flows among any names by client and address: each gets the name that a search of all of them finds, and nothing
 * beyond the columns is read or written.
 *
 * An input is a head, then names of three bytes each, then flows of three bytes each.
 */
#include "names.h"
#include "require.h"

#include <stdlib.h>
#include <string.h>

struct head {
	uint8_t names;
	uint8_t own;	/* how many of the addresses are one client's */
	uint8_t stride; /* bytes between flows */
	uint8_t time;
};

struct recipe {
	uint8_t client, address; /* of a flow: source and destination */
	uint8_t rest;		 /* of a name: until when it holds; of a flow: whether its source is its client */
};
_Static_assert(sizeof(struct head) == 4 && sizeof(struct recipe) == 3, "mirrored in fuzzing.py");

#define NAMES_MAX 64
#define ADDRESSES 8 /* so few that most meet; the first is everyone's */

static const uint64_t keys[5] = {0x9e3779b97f4a7c15, 0xff51afd7ed558ccd, 3, 0xc4ceb9fe1a85ec53, 0x100000001b3};
static const uint8_t owner[16] = "wm-owner-of-all";

static uint8_t (*addresses)[16];

static void addresses_begin(void)
{
	addresses = calloc(ADDRESSES, sizeof(*addresses));
	REQUIRE(addresses);
	for (uint8_t i = 1; i < ADDRESSES; i++) {
		memset(addresses[i], i & 1 ? 0xff : 0x20, 12); /* some differ in one half only */
		addresses[i][15] = i;
	}
}

/* A name, as the index has it and as it is looked for by hand. */
struct name {
	uint64_t hash;
	uint64_t pair[4];
	int64_t end_ns;
	int64_t slot;
};

static int by_hash(const void *a, const void *b)
{
	uint64_t x = ((const struct name *)a)->hash, y = ((const struct name *)b)->hash;

	return (x > y) - (x < y);
}

/* The client of a pair: the owner for all that are own. */
static const uint8_t *client_of(uint8_t number, uint32_t own)
{
	number &= ADDRESSES - 1;
	return number >= 1 && number <= own ? owner : addresses[number];
}

static int64_t search(const struct name *names, uint32_t count, const uint8_t *client, const uint8_t *address,
		      int64_t time_ns)
{
	for (uint32_t i = 0; i < count; i++) {
		if (!memcmp(names[i].pair, client, 16) && !memcmp(names[i].pair + 2, address, 16))
			return names[i].end_ns >= time_ns ? names[i].slot : -1;
	}
	return -1;
}

static int64_t expected(const struct name *names, uint32_t count, uint32_t own, struct recipe flow, int64_t time_ns)
{
	const uint8_t *src = addresses[flow.client & (ADDRESSES - 1)], *dst = addresses[flow.address & (ADDRESSES - 1)];
	int64_t found = search(names, count, client_of(flow.client, own), dst, time_ns);

	if (found >= 0)
		return found;
	return flow.rest & 1 ? search(names, count, addresses[0], dst, time_ns)
			     : search(names, count, client_of(flow.address, own), src, time_ns);
}

/* Memory of just so many bytes, so that what lies beyond is found by the sanitizer. */
static void *exactly(size_t bytes)
{
	void *memory = calloc(1, bytes ? bytes : 1);

	REQUIRE(memory);
	return memory;
}

static void find(const struct name *names, uint32_t count, struct head head, const uint8_t *data, size_t flows)
{
	uint32_t bits = 1, own = head.own & 3, in_order = 0;
	size_t stride = 16 + (head.stride & 15);
	struct wm_domains domains = {.hash_keys = keys, .own_count = own, .owner = owner};
	uint64_t *hashes = exactly(count * sizeof(*hashes)), *pairs = exactly(count * 4 * sizeof(*pairs));
	int64_t *slots = exactly(count * sizeof(*slots)), *end_ns = exactly(count * sizeof(*end_ns));
	uint8_t *src = exactly(flows * stride), *dst = exactly(flows * stride), *is_client = exactly(flows);
	int64_t *found = exactly(flows * sizeof(*found));
	uint32_t *starts;

	while (count >> (bits - 1))
		bits++;
	starts = exactly(((1U << bits) + 1) * sizeof(*starts));
	for (uint32_t i = 0; i < count; i++) {
		hashes[i] = names[i].hash;
		memcpy(pairs + 4 * i, names[i].pair, sizeof(names[i].pair));
		slots[i] = names[i].slot;
		end_ns[names[i].slot] = names[i].end_ns;
	}
	for (uint32_t place = 0; place <= 1U << bits; place++) {
		while (in_order < count && hashes[in_order] >> (64 - bits) < place)
			in_order++;
		starts[place] = in_order;
	}
	for (size_t i = 0; i < flows; i++) {
		memcpy(src + i * stride, addresses[data[3 * i] & (ADDRESSES - 1)], 16);
		memcpy(dst + i * stride, addresses[data[3 * i + 1] & (ADDRESSES - 1)], 16);
		is_client[i] = data[3 * i + 2] & 1;
	}
	domains.hashes = hashes, domains.pairs = pairs, domains.slots = slots, domains.starts = starts;
	domains.shift = 64 - bits, domains.end_ns = end_ns, domains.own = addresses[1];
	wm_domains_find(&domains, src, dst, stride, is_client, flows, head.time, found);
	for (size_t i = 0; i < flows; i++) {
		struct recipe flow = {data[3 * i], data[3 * i + 1], data[3 * i + 2]};

		REQUIRE(found[i] == expected(names, count, own, flow, head.time));
	}
	free(hashes), free(pairs), free(slots), free(end_ns), free(starts);
	free(src), free(dst), free(is_client), free(found);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct name names[NAMES_MAX];
	struct head head;
	uint32_t count = 0;
	size_t at = sizeof(head);

	if (bytes < sizeof(head))
		return 0;
	memcpy(&head, data, sizeof(head));
	addresses_begin();
	for (uint32_t i = 0; i < head.names % NAMES_MAX && at + 3 <= bytes; i++, at += 3) {
		struct name *name = &names[count];

		memcpy(name->pair, client_of(data[at], head.own & 3), 16);
		memcpy(name->pair + 2, addresses[data[at + 1] & (ADDRESSES - 1)], 16);
		name->end_ns = data[at + 2];
		if (search(names, count, (uint8_t *)name->pair, (uint8_t *)(name->pair + 2), INT64_MIN) >= 0)
			continue; /* each pair once */
		wm_domains_hash(keys, name->pair, 1, &name->hash);
		name->slot = count++;
	}
	qsort(names, count, sizeof(*names), by_hash);
	find(names, count, head, data + at, (bytes - at) / 3);
	free(addresses);
	return 0;
}
