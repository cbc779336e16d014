/* What the decoders tell of TLS connections and DNS messages, in words: the same on every machine.
 *
 * A file of pieces, each of kind, length in two bytes, and so many bytes. The first piece of a connection has BEGINS.
 */
#include "dns.h"
#include "tls.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IS_DNS	    1
#define FROM_CLIENT 2
#define IS_GAP	    4
#define BEGINS	    8

#define CELLS 512

static struct wm_dns_transaction transactions[WM_TOLD_TRANSACTIONS];
static struct wm_dns_answer answers[WM_TOLD_ANSWERS];
static struct wm_dns_heard heard[WM_TOLD_HEARD];
static struct wm_dns_address addresses[WM_TOLD_ADDRESSES];
static uint8_t text[WM_TOLD_TEXT];

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

int main(int count, char **arguments)
{
	static struct wm_cell memory[CELLS];
	static uint8_t room[WM_TLS_ROOM], data[0x10000];
	struct wm_cells cells = {.cells = memory, .capacity = CELLS};
	struct wm_tls_to to = {&cells, room, 1};
	struct wm_dns *dns = calloc(1, wm_dns_bytes(64));
	struct wm_ends flow = {.src_port = 5000, .dst_port = 53, .protocol = WM_NAMES_UDP, .family = 4};
	struct wm_tls tls = {0};
	enum wm_tls_took took = WM_TLS_WAITS;
	FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
	uint64_t time_ns = 1;
	uint8_t head[3];

	if (!file || !dns)
		return 1;
	flow.src_addr[15] = 1, flow.dst_addr[15] = 2;
	wm_dns_begin(dns, 64, 7);
	for (; fread(head, sizeof(head), 1, file) == 1; time_ns += 1000) {
		uint32_t bytes = wm_get16(head + 1);
		struct wm_told told = {.transactions = transactions,
				       .answers = answers,
				       .heard = heard,
				       .addresses = addresses,
				       .text = text,
				       .transactions_room = WM_TOLD_TRANSACTIONS,
				       .answers_room = WM_TOLD_ANSWERS,
				       .heard_room = WM_TOLD_HEARD,
				       .addresses_room = WM_TOLD_ADDRESSES,
				       .text_room = WM_TOLD_TEXT};

		if (fread(data, 1, bytes, file) != bytes)
			return 1;
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
