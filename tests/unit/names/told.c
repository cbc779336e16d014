/* What the decoders tell of TLS streams, DNS messages and TCP segments, in words: the same on every machine.
 *
 * A file of pieces, each of kind, length in two bytes, and so many bytes. The first piece of a stream has BEGINS. Of a
 * segment these begin with a struct segment.
 */
#include "applications.h"
#include "dns.h"
#include "listening.h"
#include "tcp.h"
#include "tls.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IS_DNS	    1
#define FROM_CLIENT 2
#define IS_GAP	    4
#define BEGINS	    8
#define IS_TCP	    16
#define IS_LATER    32 /* a second has passed, and what waited for it is told */

#define CELLS 512

/* Few enough that connections are let go for others, and that cells run short. */
#define CONNECTIONS 64
#define TCP_CELLS   400
#define SECOND_NS   1000000000ULL

/* Numbers in network order, with the ports as the client sends. */
struct segment {
	uint8_t client_port[2], server_port[2];
	uint8_t seq[4];
	uint8_t flags;
};

static struct wm_dns_transaction transactions[2 * WM_TOLD_TRANSACTIONS];
static struct wm_dns_answer answers[2 * WM_TOLD_ANSWERS];
static struct wm_dns_heard heard[2 * WM_TOLD_HEARD];
static struct wm_dns_address addresses[2 * WM_TOLD_ADDRESSES];
static struct wm_http_transaction http[2 * WM_TOLD_HTTP];
static struct wm_hello hellos[2 * WM_TOLD_HELLOS];
static struct wm_name names[2 * WM_TOLD_NAMES];
static struct wm_piece pieces[2 * WM_TOLD_PIECES];
static uint8_t text[2 * WM_TOLD_TEXT];

static void print_hex(const char *what, const uint8_t *at, size_t bytes)
{
	printf(" %s=", what);
	for (size_t i = 0; i < bytes; i++)
		printf("%02x", at[i]);
}

static void tls_print(const struct wm_tls *tls, const struct wm_tls_to *to, enum wm_tls_took took)
{
	struct wm_tls_handshake known = wm_tls_handshake(tls, to);

	printf("tls %d long=%d lost=%d cells=%u", (int)took, tls->is_too_long, (int)to->cells->lost, to->cells->count);
	if (known.offer) {
		printf(" version=%x ech=%d cut=%d", known.offer->version, known.offer->has_ech, known.offer->is_cut);
		print_hex("sni", known.offer->sni, known.offer->sni_bytes);
		print_hex("alpn", known.offer->alpn.at, known.offer->alpn.bytes);
		printf(" ja4=%.*s", known.offer->ja4_bytes, (const char *)known.offer->ja4);
	}
	if (known.choice) {
		printf(" chosen=%x cipher=%x retry=%d", known.choice->version, known.choice->cipher,
		       known.choice->is_retry);
		print_hex("alpn", known.choice->alpn, known.choice->alpn_bytes);
		printf(" ja4s=%.*s", known.choice->ja4s_bytes, (const char *)known.choice->ja4s);
	}
	printf("\n");
}

static void dns_print(const struct wm_told *told)
{
	for (uint32_t i = 0; i < told->transactions_count; i++) {
		const struct wm_dns_transaction *one = &transactions[i];

		printf("dns latency=%" PRId64 " rcode=%d type=%d flags=%d query=%.*s", one->latency_ns, one->rcode,
		       one->qtype, one->flags, one->query_bytes, (const char *)text + one->query_at);
		print_hex("message", text + one->message_at, one->message_bytes);
		printf("\n");
		for (uint32_t a = one->answers_at; a < one->answers_at + one->answers; a++) {
			printf(" %.*s ttl=%u type=%u class=%u form=%d", answers[a].name_bytes,
			       (const char *)text + answers[a].name_at, answers[a].ttl, answers[a].type,
			       answers[a].class, answers[a].form);
			print_hex("data", text + answers[a].data_at, answers[a].data_bytes);
			printf("\n");
		}
	}
	for (uint32_t i = 0; i < told->addresses_count; i++) {
		printf(" %.*s ttl=%u pointer=%d", addresses[i].name_bytes, (const char *)text + addresses[i].name_at,
		       addresses[i].ttl, addresses[i].is_pointer);
		print_hex("address", addresses[i].address, 16);
		printf("\n");
	}
}

static void print_told(const char *what, uint32_t at, uint32_t bytes)
{
	print_hex(what, text + at, bytes);
}

static void connections_print(const struct wm_told *told)
{
	for (uint32_t i = 0; i < told->http_count; i++) {
		const struct wm_http_transaction *one = &http[i];

		printf("http %u to %u after %" PRIu64 " latency=%" PRId64 " status=%d version=%d", one->flow.src_port,
		       one->flow.dst_port, one->time_ns, one->latency_ns, one->status, one->version);
		print_told("method", one->method_at, one->method_bytes);
		print_told("host", one->host_at, one->host_bytes);
		print_told("path", one->path_at, one->path_bytes);
		printf("\n");
	}
	for (uint32_t i = 0; i < told->hellos_count; i++) {
		const struct wm_hello *one = &hellos[i];

		printf("hello %u version=%d cipher=%d ech=%d", one->flow.src_port, one->tls_version, one->cipher,
		       one->ech);
		print_told("sni", one->sni_at, one->sni_bytes);
		print_told("alpn", one->alpn_at, one->alpn_bytes);
		print_told("ja4", one->ja4_at, one->ja4_bytes);
		print_told("ja4s", one->ja4s_at, one->ja4s_bytes);
		print_told("chosen", one->chosen_at, one->chosen_bytes);
		printf("\n");
	}
	for (uint32_t i = 0; i < told->names_count; i++) {
		const struct wm_name *one = &names[i];

		printf("name %u hash=%" PRIx64 " since=%" PRIu64 " application=%s source=%d cipher=%d version=%d "
		       "status=%d rcode=%d",
		       one->flow.src_port, one->hash, one->time_ns, wm_application_names[one->application], one->source,
		       one->cipher, one->tls_version, one->status, one->rcode);
		print_told("domain", one->domain_at, one->domain_bytes);
		print_told("method", one->method_at, one->method_bytes);
		print_told("alpn", one->alpn_at, one->alpn_bytes);
		print_told("query", one->query_at, one->query_bytes);
		printf("\n");
	}
	for (uint32_t i = 0; i < told->pieces_count; i++) {
		const struct wm_piece *one = &pieces[i];

		printf("piece %d of %u client=%d missing=%" PRId64, one->kind, one->connection, one->from_client,
		       one->missing);
		print_told("data", one->data_at, one->data_bytes);
		printf("\n");
	}
}

/* A segment as an engine hands it on, behind its head. */
static void segment_take(struct wm_dns *dns, struct wm_tcp *tcp, struct wm_listening *listening, uint8_t kind,
			 uint64_t time_ns, const uint8_t *data, uint32_t bytes, struct wm_told *told)
{
	static uint8_t record[sizeof(struct wm_payload) + WM_PAYLOAD_BYTES_MAX];
	const struct segment *of = (const void *)data;
	struct wm_payload head = {.time_ns = time_ns, .protocol = WM_NAMES_TCP, .family = 4, .tcp_flags = of->flags};
	uint32_t others[1];
	uint64_t offset = 0;
	struct wm_names_block block = {
		.data = record, .data_bytes = sizeof(record), .offsets = &offset, .count = 1, .others = others};

	head.seq = wm_get32(of->seq);
	head.src_port = (uint16_t)wm_get16(kind & FROM_CLIENT ? of->client_port : of->server_port);
	head.dst_port = (uint16_t)wm_get16(kind & FROM_CLIENT ? of->server_port : of->client_port);
	head.src_addr[15] = kind & FROM_CLIENT ? 1 : 2, head.dst_addr[15] = kind & FROM_CLIENT ? 2 : 1;
	bytes -= sizeof(*of);
	head.captured = (uint16_t)(bytes < WM_PAYLOAD_BYTES_MAX ? bytes : WM_PAYLOAD_BYTES_MAX);
	head.bytes = bytes;
	memcpy(record, &head, sizeof(head));
	memcpy(record + sizeof(head), data + sizeof(*of), head.captured);
	(void)wm_names_read(dns, tcp, listening, &block, 0, told);
	printf("tcp opaque=%d connections=%u cells=%u lost=%d\n", (int)block.opaque_count, wm_tcp_count(tcp),
	       wm_tcp_cells(tcp), (int)(wm_tcp_lost(tcp) + told->lost));
}

int main(int count, char **arguments)
{
	static struct wm_cell memory[CELLS];
	static uint8_t room[WM_TLS_ROOM], data[0x10000];
	struct wm_cells cells = {.cells = memory, .capacity = CELLS};
	struct wm_tls_to to = {&cells, room, 1};
	struct wm_dns *dns = calloc(1, wm_dns_bytes(64));
	struct wm_ends flow = {.src_port = 5000, .dst_port = 53, .protocol = WM_NAMES_UDP, .family = 4};
	struct wm_tcp *tcp = calloc(1, wm_tcp_bytes(CONNECTIONS, TCP_CELLS));
	struct wm_listening *listening = calloc(1, wm_listening_bytes(16));
	struct wm_tls tls = {0};
	enum wm_tls_took took = WM_TLS_WAITS;
	FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
	uint64_t time_ns = 1;
	uint8_t head[3];

	if (!file || !dns || !tcp || !listening)
		return 1;
	flow.src_addr[15] = 1, flow.dst_addr[15] = 2;
	wm_dns_begin(dns, 64, 7);
	wm_tcp_begin(tcp, CONNECTIONS, TCP_CELLS, 7, WM_TCP_JA4S);
	wm_listening_begin(listening, 16, 7);
	for (; fread(head, sizeof(head), 1, file) == 1; time_ns += 1000) {
		uint32_t bytes = wm_get16(head + 1);
		struct wm_told told = {.transactions = transactions,
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
				       .text_room = 2 * WM_TOLD_TEXT};

		if (fread(data, 1, bytes, file) != bytes)
			return 1;
		if (head[0] & IS_LATER) {
			time_ns += SECOND_NS;
			(void)wm_tcp_advance(tcp, dns, time_ns, time_ns - 2 * SECOND_NS, &told);
			connections_print(&told);
			dns_print(&told);
			continue;
		}
		if (head[0] & IS_TCP) {
			segment_take(dns, tcp, listening, head[0], time_ns, data, bytes, &told);
			connections_print(&told);
			dns_print(&told);
			continue;
		}
		if (head[0] & IS_DNS) {
			struct wm_ends back = flow;

			memcpy(back.src_addr, flow.dst_addr, 16);
			memcpy(back.dst_addr, flow.src_addr, 16);
			back.src_port = flow.dst_port, back.dst_port = flow.src_port;
			(void)wm_dns_take(dns, 0, time_ns, head[0] & FROM_CLIENT ? &flow : &back, data, bytes, 0,
					  &told);
			dns_print(&told);
			continue;
		}
		if (head[0] & BEGINS) {
			wm_tls_clear(&tls, &cells);
			took = WM_TLS_WAITS;
		}
		if (took != WM_TLS_WAITS)
			continue;
		took = head[0] & IS_GAP ? wm_tls_gap(&tls, &to, head[0] & FROM_CLIENT)
					: wm_tls_data(&tls, &to, head[0] & FROM_CLIENT, data, bytes, time_ns);
		tls_print(&tls, &to, took);
	}
	return 0;
}
