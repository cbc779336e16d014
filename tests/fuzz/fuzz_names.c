/* Any bytes as DNS messages and other payloads on a few flows: nothing beyond a payload is read and nothing beyond its
 * room written, what waits is bounded, each question ends once, all that is told points at text that is there, and of a
 * conversation that may be read every packet is left to who reads it.
 *
 * An input is a byte of settings, then payloads, each with how it came.
 */
#include "applications.h"
#include "dns.h"
#include "listening.h"

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
#define FORGET	 0x20

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

/* So few that they often meet in one place. */
#define CONVERSATIONS 16

static struct wm_listening *listening;

/* What is in it, as it should be. */
static uint64_t read_by_others[CONVERSATIONS];
static uint32_t read_count;

static void listening_begin(void)
{
	read_count = 0;
	memset(listening, 0, wm_listening_bytes(CONVERSATIONS));
	wm_listening_begin(listening, CONVERSATIONS, 77);
}

static void listening_check(void)
{
	REQUIRE(listening->count == read_count);
	for (uint32_t i = 0; i < read_count; i++)
		REQUIRE(wm_listening_has(listening, read_by_others[i]));
}

static void read_forget(uint64_t hash)
{
	for (uint32_t i = 0; i < read_count; i++) {
		if (read_by_others[i] == hash)
			read_by_others[i] = read_by_others[--read_count];
	}
}

/* What the packets of a conversation that is read must lead to. */
static void others_check(const struct wm_names_block *block, const struct wm_ends *flow, const uint8_t *record,
			 size_t bytes, int was_read)
{
	uint64_t hash = wm_conversation_hash(listening->seed, 0, flow);
	struct wm_said said = {record + sizeof(struct wm_payload), bytes}, nothing = {said.data, 0};

	REQUIRE(block->others_count + block->opaque_count <= 1);
	REQUIRE(block->late_count <= WM_LATE_PACKETS && (!block->late_count || block->others_count));
	REQUIRE(!block->opaque_count || !was_read);
	for (size_t i = 0; i < block->late_count; i++) {
		struct wm_payload late;

		REQUIRE(block->late[i] < WM_LATE_PACKETS);
		memcpy(&late, (uint8_t *)listening + wm_late_offset(block->late[i]), sizeof(late));
		REQUIRE(late.protocol == WM_NAMES_TCP && late.captured <= sizeof(listening->late[0].data));
	}
	if (flow->protocol != WM_NAMES_TCP)
		return;
	REQUIRE(wm_listening_has(listening, hash) == (int)block->others_count);
	if (wm_tcp_application(said, nothing, flow->src_port, flow->dst_port) ||
	    wm_tcp_application(nothing, said, flow->dst_port, flow->src_port))
		REQUIRE(block->others_count);
}

/* The same as a record of a block, as an engine writes it: a head, then what was captured. */
static void block_take(struct wm_dns *dns, uint64_t time_ns, const struct wm_ends *flow, const uint8_t *data,
		       size_t bytes, uint8_t how, struct wm_told *told)
{
	uint8_t *record = malloc(sizeof(struct wm_payload) + bytes);
	struct wm_payload head = {
		.time_ns = time_ns,
		.src_port = flow->src_port,
		.dst_port = flow->dst_port,
		.bytes = (uint32_t)bytes + !!(how & WM_DNS_IS_CUT),
		.captured = (uint16_t)bytes,
		.tcp_flags = how & IN_PART && flow->protocol != WM_NAMES_TCP ? 0x2000 : 0,
		.protocol = flow->protocol,
		.family = flow->family,
		.source = how & WM_DNS_LENIENT ? WM_SOURCE_DNS : WM_SOURCE_FIRST,
	};
	uint32_t others[1];
	uint64_t offset = 0;
	int was_read = wm_listening_has(listening, wm_conversation_hash(listening->seed, 0, flow));
	struct wm_names_block block = {
		.data = record,
		.data_bytes = sizeof(head) + bytes,
		.offsets = &offset,
		.count = 1,
		.others = others,
	};

	REQUIRE(record);
	memcpy(head.src_addr, flow->src_addr, 16);
	memcpy(head.dst_addr, flow->dst_addr, 16);
	memcpy(record, &head, sizeof(head));
	memcpy(record + sizeof(head), data, bytes);
	REQUIRE(wm_names_read(dns, listening, &block, 0, told) == 1);
	if (!was_read && block.others_count && !head.tcp_flags)
		read_by_others[read_count++] = wm_conversation_hash(listening->seed, 0, flow);
	listening_check();
	others_check(&block, flow, record, bytes, was_read);
	if (wm_listening_is_full(listening)) {
		REQUIRE(!wm_names_read(dns, listening, &block, 0, told) && !block.others_count);
		listening_begin();
	}
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
		if (recipe.how & FORGET) {
			wm_listening_forget(listening, 0, &flow);
			read_forget(wm_conversation_hash(listening->seed, 0, &flow));
			REQUIRE(!wm_listening_has(listening, wm_conversation_hash(listening->seed, 0, &flow)));
			listening_check();
		}
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

	listening = malloc(wm_listening_bytes(CONVERSATIONS));
	REQUIRE(dns && listening);
	wm_dns_begin(dns, capacity, 77);
	listening_begin();
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
	free(listening);
	free(dns);
	return 0;
}
