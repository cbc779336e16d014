/* Any bytes as DNS messages on a few flows: nothing beyond a message is read and nothing beyond its room written, what
 * waits is bounded, each question ends once, and all that is told points at text that is there.
 *
 * An input is a byte of settings, then messages, each with how it came.
 */
#include "dns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(claim)                                                                      \
	do {                                                                                \
		if (!(claim)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #claim); \
			abort();                                                            \
		}                                                                           \
	} while (0)

/* How a message came. */
struct recipe {
	uint8_t length_low, length_high;
	uint8_t ends; /* PORT, FROM_SERVER, TO_GROUP, IS_TCP, client's port */
	uint8_t how;  /* enum wm_dns_how; AS_BLOCK, EXPIRE */
};
_Static_assert(sizeof(struct recipe) == 4, "mirrored in fuzzing.py");

#define PORT	    0x03 /* 53, 5353, 5355 or 4000 */
#define FROM_SERVER 0x04
#define TO_GROUP    0x08
#define IS_TCP	    0x10
#define CLIENTS	    0xe0

#define AS_BLOCK 0x04
#define EXPIRE	 0x08
#define IN_PART	 0x10

#define PAYLOAD_BYTES 64 /* struct wm_payload */

static struct wm_dns_transaction transactions[WM_TOLD_TRANSACTIONS];
static struct wm_dns_answer answers[WM_TOLD_ANSWERS];
static struct wm_dns_heard heard[WM_TOLD_HEARD];
static struct wm_dns_address addresses[WM_TOLD_ADDRESSES];
static uint8_t text[WM_TOLD_TEXT];

/* Each message's room is all there is: what goes beyond is found by the sanitizer. */
static struct wm_told told_begin(void)
{
	return (struct wm_told){
		.transactions = transactions,
		.answers = answers,
		.heard = heard,
		.addresses = addresses,
		.text = text,
		.transactions_room = WM_TOLD_TRANSACTIONS,
		.answers_room = WM_TOLD_ANSWERS,
		.heard_room = WM_TOLD_HEARD,
		.addresses_room = WM_TOLD_ADDRESSES,
		.text_room = WM_TOLD_TEXT,
	};
}

static void text_check(const struct wm_told *told, uint32_t at, uint32_t bytes, int is_lower)
{
	REQUIRE(at <= told->text_bytes && bytes <= told->text_bytes - at);
	REQUIRE(bytes <= WM_DNS_NAME_TEXT);
	for (uint32_t i = at; i < at + bytes; i++) {
		REQUIRE(text[i] > 0x20 && text[i] < 0x7f);
		REQUIRE(!is_lower || text[i] == wm_lower(text[i]));
	}
}

/* Returns how many of the questions that were asked ended. */
static uint32_t told_check(const struct wm_told *told)
{
	uint32_t ended = 0;

	REQUIRE(told->transactions_count <= told->transactions_room && told->answers_count <= told->answers_room);
	REQUIRE(told->heard_count <= told->heard_room && told->addresses_count <= told->addresses_room);
	REQUIRE(told->text_bytes <= told->text_room);
	for (uint32_t i = 0; i < told->transactions_count; i++) {
		const struct wm_dns_transaction *one = &transactions[i];

		text_check(told, one->query_at, one->query_bytes, 0);
		REQUIRE(one->answers <= told->answers_count && one->answers_at <= told->answers_count - one->answers);
		REQUIRE(one->message_at <= told->text_bytes);
		REQUIRE(one->message_bytes <= told->text_bytes - one->message_at);
		REQUIRE(one->message_bytes <= WM_DNS_ANSWER_BYTES);
		REQUIRE(one->latency_ns == WM_NONE || (one->latency_ns >= 0 && one->rcode != WM_NONE));
		REQUIRE(one->rcode != WM_NONE || one->flags & WM_DNS_HAS_QUERY);
		REQUIRE(one->rcode >= WM_NONE && one->rcode < 4096 && one->qtype >= WM_NONE && one->qtype < 65536);
		ended += !!(one->flags & WM_DNS_HAS_QUERY);
	}
	for (uint32_t i = 0; i < told->answers_count; i++) {
		const struct wm_dns_answer *answer = &answers[i];

		text_check(told, answer->name_at, answer->name_bytes, 0);
		REQUIRE(answer->form <= WM_DNS_WIRE && answer->data_at <= told->text_bytes);
		REQUIRE(answer->data_bytes <= told->text_bytes - answer->data_at);
		if (answer->form == WM_DNS_NAME)
			text_check(told, answer->data_at, answer->data_bytes, 0);
	}
	for (uint32_t i = 0; i < told->addresses_count; i++) {
		text_check(told, addresses[i].name_at, addresses[i].name_bytes, 1);
		REQUIRE(addresses[i].name_bytes && addresses[i].name_bytes <= 253);
	}
	for (uint32_t i = 0; i < told->heard_count; i++) {
		if (heard[i].query_bytes != WM_NONE)
			text_check(told, heard[i].query_at, (uint32_t)heard[i].query_bytes, 0);
	}
	return ended;
}

static struct wm_ends ends_of(uint8_t ends)
{
	static const uint16_t ports[] = {53, 5353, 5355, 4000};
	struct wm_ends flow = {
		.src_port = (uint16_t)(ends & CLIENTS ? 5000 + (ends >> 5) : ports[ends & PORT]),
		.dst_port = ports[ends & PORT],
		.protocol = ends & IS_TCP ? WM_NAMES_TCP : WM_NAMES_UDP,
		.family = 4,
	};
	static const uint8_t client[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1};
	static const uint8_t server[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 53};
	static const uint8_t group[16] = {[10] = 0xff, [11] = 0xff, [12] = 224, [15] = 251};

	memcpy(flow.src_addr, ends & FROM_SERVER ? server : client, 16);
	memcpy(flow.dst_addr, ends & TO_GROUP ? group : ends & FROM_SERVER ? client : server, 16);
	if (ends & FROM_SERVER) {
		uint16_t port = flow.src_port;

		flow.src_port = flow.dst_port;
		flow.dst_port = port;
	}
	return flow;
}

/* The same as a record of a block, as an engine writes it: a head, then what was captured. */
static void block_take(struct wm_dns *dns, uint64_t time_ns, const struct wm_ends *flow, const uint8_t *data,
		       size_t bytes, uint8_t how, struct wm_told *told)
{
	uint8_t *record = malloc(PAYLOAD_BYTES + bytes);
	uint32_t whole = (uint32_t)bytes + !!(how & WM_DNS_IS_CUT), others[1];
	uint16_t captured = (uint16_t)bytes, fragment = how & IN_PART ? 0x2000 : 0;
	uint64_t offset = 0;
	struct wm_names_block block = {
		.data = record,
		.data_bytes = PAYLOAD_BYTES + bytes,
		.offsets = &offset,
		.count = 1,
		.others = others,
	};

	REQUIRE(record);
	memset(record, 0, PAYLOAD_BYTES);
	memcpy(record, &time_ns, 8);
	memcpy(record + 8, flow->src_addr, 16);
	memcpy(record + 24, flow->dst_addr, 16);
	memcpy(record + 40, &flow->src_port, 2);
	memcpy(record + 42, &flow->dst_port, 2);
	memcpy(record + 48, &whole, 4);
	memcpy(record + 52, &captured, 2);
	memcpy(record + 56, &fragment, 2);
	record[58] = flow->protocol;
	record[59] = flow->family;
	record[60] = how & WM_DNS_LENIENT ? 0 : 4; /* WM_SOURCE_DNS or _FIRST */
	memcpy(record + PAYLOAD_BYTES, data, bytes);
	REQUIRE(wm_names_read(dns, &block, 0, told) == 1);
	REQUIRE(block.others_count <= 1);
	REQUIRE(block.others_count || flow->protocol == WM_NAMES_UDP);
	free(record);
}

/* Takes one message; returns how many questions were asked. */
static uint32_t message_take(struct wm_dns *dns, uint64_t time_ns, struct recipe recipe, const uint8_t *data,
			     size_t bytes, struct wm_told *told)
{
	static struct wm_dns_message message;
	struct wm_told unread = told_begin();
	struct wm_ends flow = ends_of(recipe.ends);
	uint8_t *exact = malloc(bytes ? bytes : 1);
	uint32_t asked = 0;
	int how = recipe.how & (WM_DNS_IS_CUT | WM_DNS_LENIENT);

	REQUIRE(exact);
	memcpy(exact, data, bytes);
	if (!wm_dns_read(&message, exact, bytes, how, &unread) && !message.is_response)
		asked = message.questions_count;
	if (recipe.how & AS_BLOCK) {
		uint32_t before = dns->count;

		block_take(dns, time_ns, &flow, exact, bytes, recipe.how, told);
		/* Whether it was taken is the block's to say. */
		if (dns->count == before && !told->transactions_count)
			asked = 0;
	} else if (wm_dns_take(dns, 0, time_ns, &flow, exact, bytes, how, told)) {
		REQUIRE(!asked);
	}
	free(exact);
	return asked;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint32_t capacity = bytes ? 1 + (data[0] & 63) : 1;
	struct wm_dns *dns = calloc(1, wm_dns_bytes(capacity));
	uint64_t asked = 0, ended = 0, time_ns = 1000;
	struct recipe recipe;

	REQUIRE(dns);
	wm_dns_begin(dns, capacity, 77);
	for (size_t at = 1; at + sizeof(recipe) <= bytes; time_ns += 10) {
		struct wm_told told = told_begin();
		size_t length;

		memcpy(&recipe, data + at, sizeof(recipe));
		at += sizeof(recipe);
		length = recipe.length_low | (size_t)recipe.length_high << 8;
		length = length < bytes - at ? length : bytes - at;
		if (recipe.how & EXPIRE)
			REQUIRE(wm_dns_expire(dns, time_ns - 50, &told) || told.transactions_count);
		else
			asked += message_take(dns, time_ns, recipe, data + at, length, &told);
		at += length;
		ended += told_check(&told);
		REQUIRE(dns->count <= capacity);
		REQUIRE(asked == ended + dns->count);
	}
	for (int is_over = 0; !is_over;) {
		struct wm_told told = told_begin();

		is_over = wm_dns_expire(dns, UINT64_MAX, &told);
		ended += told_check(&told);
		REQUIRE(is_over || told.transactions_count);
	}
	REQUIRE(!dns->count && !dns->oldest && !dns->newest && asked == ended);
	free(dns);
	return 0;
}
