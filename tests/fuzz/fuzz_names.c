/* Any bytes as DNS messages and other payloads on a few flows: nothing beyond a payload is read and nothing beyond its
 * room written, what waits is bounded, each question ends once, all that is told points at text that is there, and of a
 * conversation that may be read every packet is left to who reads it.
 *
 * An input is a byte of settings, then payloads, each with how it came.
 */
#include "applications.h"
#include "dns.h"
#include "listening.h"
#include "require.h"
#include "tcp.h"

#include <stdlib.h>
#include <string.h>

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

/* Of TCP: one of two sequences, as the sides have them; and not where the last segment ended. */
#define IS_BACK	     0x40
#define OUT_OF_ORDER 0x80

static uint32_t next_seq[2];

static struct wm_dns_transaction transactions[2 * WM_TOLD_TRANSACTIONS];
static struct wm_dns_answer answers[2 * WM_TOLD_ANSWERS];
static struct wm_dns_heard heard[2 * WM_TOLD_HEARD];
static struct wm_dns_address addresses[2 * WM_TOLD_ADDRESSES];
static struct wm_http_transaction http[2 * WM_TOLD_HTTP];
static struct wm_hello hellos[2 * WM_TOLD_HELLOS];
static struct wm_name names[2 * WM_TOLD_NAMES];
static struct wm_piece pieces[2 * WM_TOLD_PIECES];
static uint8_t text[2 * WM_TOLD_TEXT];

/* Each message's room is all there is: what goes beyond is found by the sanitizer. */
static struct wm_told told_begin(void)
{
	return (struct wm_told){
		.transactions = transactions,
		.answers = answers,
		.heard = heard,
		.addresses = addresses,
		.http = http,
		.hellos = hellos,
		.names = names,
		.pieces = pieces,
		.text = text,
		.transactions_room = 2 * WM_TOLD_TRANSACTIONS,
		.answers_room = 2 * WM_TOLD_ANSWERS,
		.heard_room = 2 * WM_TOLD_HEARD,
		.addresses_room = 2 * WM_TOLD_ADDRESSES,
		.http_room = 2 * WM_TOLD_HTTP,
		.hellos_room = 2 * WM_TOLD_HELLOS,
		.names_room = 2 * WM_TOLD_NAMES,
		.pieces_room = 2 * WM_TOLD_PIECES,
		.text_room = 2 * WM_TOLD_TEXT,
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

static void place_check(const struct wm_told *told, uint32_t at, uint32_t bytes, uint32_t most)
{
	REQUIRE(bytes <= most && at <= told->text_bytes && bytes <= told->text_bytes - at);
}

static void connections_check(const struct wm_told *told)
{
	REQUIRE(told->http_count <= told->http_room && told->names_count <= told->names_room);
	REQUIRE(told->pieces_count <= told->pieces_room && told->hellos_count <= told->hellos_room);
	for (uint32_t i = 0; i < told->http_count; i++) {
		const struct wm_http_transaction *one = &http[i];

		place_check(told, one->method_at, one->method_bytes, 32);
		place_check(told, one->host_at, one->host_bytes, WM_HTTP_HOST_BYTES);
		place_check(told, one->path_at, one->path_bytes, 8192);
		REQUIRE(one->method_bytes || (!one->host_bytes && !one->path_bytes && one->status != WM_NONE));
		REQUIRE(one->status == WM_NONE || (one->status >= 101 && one->status < 600));
		REQUIRE(one->latency_ns == WM_NONE || (one->latency_ns >= 0 && one->status != WM_NONE));
		REQUIRE(one->version >= 10 && one->version < 20);
	}
	for (uint32_t i = 0; i < told->hellos_count; i++) {
		const struct wm_hello *one = &hellos[i];

		place_check(told, one->sni_at, one->sni_bytes, 255);
		place_check(told, one->alpn_at, one->alpn_bytes, 1 << 16);
		place_check(told, one->ja4_at, one->ja4_bytes, 40);
		place_check(told, one->chosen_at, one->chosen_bytes, 255);
		REQUIRE(!one->quic && one->tls_version >= 0 && one->cipher >= WM_NONE);
	}
	for (uint32_t i = 0; i < told->names_count; i++) {
		const struct wm_name *one = &names[i];

		place_check(told, one->domain_at, one->domain_bytes, 255);
		place_check(told, one->method_at, one->method_bytes, 32);
		place_check(told, one->query_at, one->query_bytes, 504);
		REQUIRE(one->application < WM_APPLICATIONS && !one->domain_bytes == !one->source);
	}
	for (uint32_t i = 0; i < told->pieces_count; i++) {
		const struct wm_piece *one = &pieces[i];

		place_check(told, one->data_at, one->data_bytes, WM_PAYLOAD_BYTES_MAX + 8192);
		REQUIRE((one->kind == WM_PIECE_DATA) <= !!one->data_bytes && one->serial && one->connection);
		REQUIRE(one->kind != WM_PIECE_GAP || one->missing > 0 || one->missing == WM_NONE);
	}
}

/* Returns how many of the questions that were asked ended. */
static uint32_t told_check(const struct wm_told *told)
{
	uint32_t ended = 0;

	REQUIRE(told->transactions_count <= told->transactions_room && told->answers_count <= told->answers_room);
	REQUIRE(told->heard_count <= told->heard_room && told->addresses_count <= told->addresses_room);
	REQUIRE(told->text_bytes <= told->text_room);
	connections_check(told);
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

/* So few that they often meet in one place, and that there is often no room. */
#define CONVERSATIONS 16
#define CONNECTIONS   4
#define CELLS	      200

static struct wm_listening *listening;
static struct wm_tcp *tcp;

/* What is in the first, as it should be. */
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

/* Whether what one side says proves something, whatever the other says. */
static int proves(const struct wm_ends *flow, struct wm_said said)
{
	struct wm_said nothing = {said.data, 0};

	return wm_tcp_application(said, nothing, flow->dst_port) || wm_tcp_application(nothing, said, flow->src_port);
}

/* What a packet must lead to. */
static void others_check(const struct wm_names_block *block, const struct wm_ends *flow, const uint8_t *record,
			 size_t bytes, int was_read)
{
	struct wm_said said = {record + sizeof(struct wm_payload), bytes};

	REQUIRE(block->others_count + block->opaque_count <= 1);
	REQUIRE(!block->opaque_count || !was_read);
	if (flow->protocol == WM_NAMES_TCP) {
		REQUIRE(!block->others_count && wm_tcp_count(tcp) <= CONVERSATIONS);
		REQUIRE(!block->opaque_count || !proves(flow, said));
		REQUIRE(wm_tcp_cells(tcp) <= CELLS);
	}
}

/* Where a segment lies: mostly behind the last of its side, else where its bytes say. */
static uint32_t sequence_of(const uint8_t *data, size_t bytes, uint8_t how)
{
	uint32_t seq = next_seq[!!(how & IS_BACK)];

	if (how & OUT_OF_ORDER && bytes > 2)
		seq += data[bytes - 1] * 7 - 300;
	else
		next_seq[!!(how & IS_BACK)] += (uint32_t)bytes;
	return seq;
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
		.tcp_flags = how & IN_PART ? flow->protocol == WM_NAMES_TCP ? 0x02 : 0x2000 : 0,
		.seq = sequence_of(data, bytes, how),
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
	REQUIRE(wm_names_read(dns, tcp, listening, &block, 0, told) == 1);
	if (!was_read && block.others_count && !head.tcp_flags)
		read_by_others[read_count++] = wm_conversation_hash(listening->seed, 0, flow);
	listening_check();
	others_check(&block, flow, record, bytes, was_read);
	if (wm_listening_is_full(listening)) {
		REQUIRE(!wm_names_read(dns, tcp, listening, &block, 0, told) && !block.others_count);
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
	uint64_t copies = dns->copies;
	uint32_t asked = 0;
	int how = recipe.how & (WM_DNS_IS_CUT | WM_DNS_LENIENT);

	REQUIRE(exact);
	memcpy(exact, data, bytes);
	if (!wm_dns_read(&message, exact, bytes, how, &unread) && !message.is_response)
		asked = message.questions_count;
	if (recipe.how & AS_BLOCK && recipe.ends & IS_TCP) {
		block_take(dns, time_ns, &flow, exact, bytes, recipe.how, told);
		free(exact);
		return 0;
	}
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
	return dns->copies == copies ? asked : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Those who read streams say what they like of them. */
static void pieces_take(struct wm_dns *dns, uint64_t time_ns, struct wm_told *told)
{
	static const uint8_t word[] = "word.example";
	struct wm_known_said said = {.domain = word,
				     .domain_bytes = sizeof(word) - 1,
				     .source = WM_NAME_HTTP_HOST,
				     .cipher = WM_NONE,
				     .tls_version = WM_NONE,
				     .status = WM_NONE};

	wm_tcp_learn(tcp, 0, 0, time_ns, &said); /* of no connection */
	while (told->pieces_count) {
		struct wm_piece piece = pieces[--told->pieces_count];

		wm_tcp_learn(tcp, piece.connection, piece.serial, time_ns, &said);
		if (piece.data_bytes % 3)
			wm_tcp_allow_missing(tcp, dns, piece.connection, piece.serial, piece.from_client,
					     piece.data_bytes, time_ns, told);
		else if (piece.data_bytes % 7 == 3)
			wm_tcp_close(tcp, dns, piece.connection, piece.serial, time_ns, told);
	}
}

/* Questions over TCP are asked by whatever streams make of their bytes; only what ended more than was asked for there
 * could be told apart, so that sum is kept of the others alone. */
/* A set of its own, of conversations that differ in a port: each byte adds one, or with its highest bit set removes it.
 */
static void listening_take(const uint8_t *data, size_t bytes)
{
	listening_begin();
	for (size_t i = 0; i < bytes; i++) {
		struct wm_ends flow = {.src_port = data[i] & 0x3f, .dst_port = 9, .protocol = WM_NAMES_TCP};
		uint64_t hash = wm_conversation_hash(listening->seed, 0, &flow);

		if (data[i] & 0x80) {
			wm_listening_forget(listening, 0, &flow);
			read_forget(hash);
		} else if (!wm_listening_has(listening, hash) && !wm_listening_is_full(listening)) {
			wm_listening_add(listening, hash);
			read_by_others[read_count++] = hash;
		}
		listening_check();
	}
}

/* All of the input as an authority; what is told of it lies in memory that ends where it may end. */
static void host_take(const uint8_t *data, size_t bytes)
{
	uint8_t *host = malloc(WM_HTTP_HOST_BYTES);

	REQUIRE(host && wm_http_host(data, bytes, host) <= WM_HTTP_HOST_BYTES);
	free(host);
}

/* A copy of just so many bytes, so that what is read beyond is found by the sanitizer. */
static struct wm_said exact_copy(const uint8_t *data, size_t bytes)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);

	REQUIRE(copy);
	memcpy(copy, data, bytes);
	return (struct wm_said){copy, bytes};
}

/* The first two messages as what client and server say first: where both together prove something, one of them alone
 * is not opaque, for else nobody would be there when the other comes. */
static void sides_take(const uint8_t *data, size_t bytes)
{
	static const uint16_t ports[] = {53, 21, 25, 110, 143, 389, 3306, 50000};
	uint16_t port = bytes ? ports[data[0] & 7] : 0;
	struct wm_said sides[2];
	struct recipe recipe;
	size_t at = 1;

	for (int side = 0; side < 2; side++) {
		size_t length = 0;

		if (at + sizeof(recipe) <= bytes) {
			memcpy(&recipe, data + at, sizeof(recipe));
			at += sizeof(recipe);
			length = recipe.length_low | (size_t)recipe.length_high << 8;
			length = length < bytes - at ? length : bytes - at;
		}
		sides[side] = exact_copy(data + at, length);
		at += length;
	}
	if (wm_tcp_application(sides[0], sides[1], port))
		REQUIRE(wm_tcp_may_begin(sides[0], 50001, port) || wm_tcp_may_begin(sides[1], port, 50001));
	REQUIRE(wm_tcp_application(sides[0], sides[1], port) < WM_APPLICATIONS);
	REQUIRE(wm_udp_application(sides[0], 50001, port) < WM_APPLICATIONS);
	(void)wm_prelude_bytes(sides[0]);
	free((void *)(uintptr_t)sides[0].data);
	free((void *)(uintptr_t)sides[1].data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint32_t capacity = bytes ? 1 + (data[0] & 63) : 1;
	struct wm_dns *dns = calloc(1, wm_dns_bytes(capacity));
	uint64_t asked = 0, ended = 0, time_ns = 1000;
	int over_tcp = 0;
	struct recipe recipe;

	listening = malloc(wm_listening_bytes(CONVERSATIONS));
	tcp = calloc(1, wm_tcp_bytes(CONNECTIONS, CELLS));
	REQUIRE(dns && listening && tcp);
	wm_dns_begin(dns, capacity, 77);
	wm_tcp_begin(tcp, CONNECTIONS, CELLS, 77, bytes ? data[0] >> 6 : 0);
	host_take(data, bytes);
	sides_take(data, bytes);
	listening_take(data, bytes);
	listening_begin();
	next_seq[0] = next_seq[1] = 0xffffff00;
	for (size_t at = 1; at + sizeof(recipe) <= bytes; time_ns += 10) {
		struct wm_told told = told_begin();
		size_t length;

		memcpy(&recipe, data + at, sizeof(recipe));
		at += sizeof(recipe);
		length = recipe.length_low | (size_t)recipe.length_high << 8;
		length = length < bytes - at ? length : bytes - at;
		over_tcp |= recipe.how & AS_BLOCK && recipe.ends & IS_TCP;
		if (recipe.how & EXPIRE) {
			time_ns += (uint64_t)recipe.ends << 24;
			REQUIRE(wm_dns_expire(dns, time_ns - 50, &told) || told.transactions_count);
			(void)wm_tcp_advance(tcp, dns, time_ns, recipe.how & FORGET ? time_ns : 0, &told);
		} else {
			asked += message_take(dns, time_ns, recipe, data + at, length, &told);
		}
		at += length;
		ended += told_check(&told);
		pieces_take(dns, time_ns, &told);
		REQUIRE(dns->count <= capacity);
		REQUIRE(wm_tcp_count(tcp) <= CONNECTIONS);
		REQUIRE(over_tcp || asked == ended + dns->count);
	}
	for (int is_over = 0; !is_over;) {
		struct wm_told told = told_begin();

		is_over = wm_tcp_advance(tcp, dns, time_ns, UINT64_MAX, &told);
		ended += told_check(&told);
		REQUIRE(is_over || told.pieces_count || told.names_count || told.http_count);
	}
	REQUIRE(!wm_tcp_count(tcp) && !wm_tcp_cells(tcp));
	for (int is_over = 0; !is_over;) {
		struct wm_told told = told_begin();

		is_over = wm_dns_expire(dns, UINT64_MAX, &told);
		ended += told_check(&told);
		REQUIRE(is_over || told.transactions_count);
	}
	REQUIRE(!dns->count && !dns->oldest && !dns->newest && (over_tcp || asked == ended));
	free(tcp);
	free(listening);
	free(dns);
	return 0;
}
