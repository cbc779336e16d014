/* Any bytes as the two directions of a TLS connection: nothing beyond a packet is read, no cell is left behind, what is
 * told can be shown, and it is the same however the packets are cut.
 *
 * An input is a byte of settings, then packets, each with how it came. Read as a message, it must do no harm either.
 */
#include "tls.h"

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

/* How a packet came. */
struct packet {
	uint8_t length_low, length_high;
	uint8_t how; /* FROM_CLIENT, IS_GAP */
};
_Static_assert(sizeof(struct packet) == 3, "mirrored in fuzzing.py");

#define FROM_CLIENT 1
#define IS_GAP	    2

#define WITH_JA4S 0x80 /* of the settings; the rest: how many cells there are, 0 for as many as may be needed */

#define ENOUGH 512

struct connection {
	struct wm_tls tls;
	struct wm_cells cells;
	struct wm_tls_to to;
	enum wm_tls_took took;
};

/* Each room is all there is: what goes beyond is found by the sanitizer. */
static void connection_begin(struct connection *c, uint32_t cells, int with_ja4s)
{
	memset(c, 0, sizeof(*c));
	c->cells.cells = malloc(cells * sizeof(struct wm_cell));
	c->cells.capacity = cells;
	c->to.cells = &c->cells;
	c->to.room = malloc(WM_TLS_ROOM);
	c->to.with_ja4s = with_ja4s;
	REQUIRE(c->cells.cells && c->to.room);
}

static void connection_end(struct connection *c)
{
	wm_tls_clear(&c->tls, &c->cells);
	REQUIRE(!c->cells.count);
	free(c->cells.cells);
	free(c->to.room);
}

static void packet_take(struct connection *c, int from_client, const uint8_t *data, uint32_t bytes)
{
	uint8_t *exact = malloc(bytes ? bytes : 1);

	REQUIRE(exact);
	memcpy(exact, data, bytes);
	if (c->took == WM_TLS_WAITS)
		c->took = wm_tls_data(&c->tls, &c->to, from_client, exact, bytes, 1);
	free(exact);
}

/* The same, a byte at a time. */
static void packet_take_apart(struct connection *c, int from_client, const uint8_t *data, uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes; i++)
		packet_take(c, from_client, data + i, 1);
}

static int is_hex(uint8_t byte)
{
	return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f');
}

static void ja4_check(const uint8_t *text, uint32_t bytes, uint32_t begin, uint32_t whole)
{
	REQUIRE(!bytes || bytes == whole);
	for (uint32_t i = 0; i < bytes; i++)
		REQUIRE(i < begin ? (text[i] > 0x20 && text[i] < 0x7f) : (text[i] == '_' || is_hex(text[i])));
}

static void offer_check(const struct wm_client_hello *offer)
{
	for (uint32_t i = 0; i < offer->sni_bytes; i++)
		REQUIRE(offer->sni[i] > ' ' && offer->sni[i] < 0x7f && (offer->sni[i] < 'A' || offer->sni[i] > 'Z'));
	for (size_t at = 0; at < offer->alpn.bytes; at += 1U + offer->alpn.at[at])
		REQUIRE(1U + offer->alpn.at[at] <= offer->alpn.bytes - at);
	ja4_check(offer->ja4, offer->ja4_bytes, 10, WM_JA4_BYTES);
	REQUIRE(!offer->is_cut || !offer->ja4_bytes);
}

static void known_check(const struct connection *c)
{
	struct wm_tls_handshake known = wm_tls_handshake(&c->tls, &c->to);

	REQUIRE(c->took != WM_TLS_TOLD || known.offer);
	if (known.offer)
		offer_check(known.offer);
	if (known.choice) {
		ja4_check(known.choice->ja4s, known.choice->ja4s_bytes, 7, WM_JA4S_BYTES);
		REQUIRE(!known.choice->ja4s_bytes || c->to.with_ja4s);
	}
	for (int each = 0; each < 2; each++) {
		const struct wm_tls_half *half = &c->tls.halves[each];

		REQUIRE(half->hello.count <= WM_TLS_HELLO_BYTES && half->message_left <= WM_TLS_HELLO_BYTES);
		REQUIRE(half->head_bytes <= sizeof(half->head));
		REQUIRE(half->message_head_bytes <= sizeof(half->message_head));
	}
}

static int is_same(const void *a, const void *b, size_t bytes)
{
	return !bytes || !memcmp(a, b, bytes);
}

static void same_check(const struct connection *a, const struct connection *b)
{
	struct wm_tls_handshake x = wm_tls_handshake(&a->tls, &a->to), y = wm_tls_handshake(&b->tls, &b->to);

	REQUIRE(a->took == b->took && !x.offer == !y.offer && !x.choice == !y.choice);
	REQUIRE(!a->tls.is_too_long == !b->tls.is_too_long);
	if (x.offer) {
		REQUIRE(x.offer->version == y.offer->version && x.offer->has_ech == y.offer->has_ech);
		REQUIRE(x.offer->is_cut == y.offer->is_cut && x.offer->sni_bytes == y.offer->sni_bytes);
		REQUIRE(is_same(x.offer->sni, y.offer->sni, x.offer->sni_bytes));
		REQUIRE(x.offer->ja4_bytes == y.offer->ja4_bytes);
		REQUIRE(is_same(x.offer->ja4, y.offer->ja4, x.offer->ja4_bytes));
		REQUIRE(x.offer->alpn.bytes == y.offer->alpn.bytes);
		REQUIRE(is_same(x.offer->alpn.at, y.offer->alpn.at, x.offer->alpn.bytes));
	}
	if (x.choice) {
		REQUIRE(x.choice->version == y.choice->version && x.choice->cipher == y.choice->cipher);
		REQUIRE(x.choice->is_retry == y.choice->is_retry && x.choice->alpn_bytes == y.choice->alpn_bytes);
		REQUIRE(is_same(x.choice->alpn, y.choice->alpn, x.choice->alpn_bytes));
		REQUIRE(x.choice->ja4s_bytes == y.choice->ja4s_bytes);
		REQUIRE(is_same(x.choice->ja4s, y.choice->ja4s, x.choice->ja4s_bytes));
	}
}

/* The whole input as the body of each message, and as the beginning of one. */
static void message_check(const uint8_t *data, size_t bytes)
{
	static struct wm_client_hello whole, cut;
	struct wm_server_hello answer;
	uint8_t *exact = malloc(bytes ? bytes : 1);
	struct wm_span body = {exact, bytes};

	REQUIRE(exact);
	memcpy(exact, data, bytes);
	if (!wm_server_hello_read(body, 1, &answer))
		ja4_check(answer.ja4s, answer.ja4s_bytes, 7, WM_JA4S_BYTES);
	if (!wm_client_hello_read(body, 0, WM_JA4_QUIC, &whole)) {
		offer_check(&whole);
		REQUIRE(!wm_client_hello_read(body, 1, WM_JA4_QUIC, &cut));
		REQUIRE(cut.is_cut && cut.version == whole.version && cut.sni_bytes == whole.sni_bytes);
		REQUIRE(is_same(cut.sni, whole.sni, whole.sni_bytes));
	} else if (!wm_client_hello_read(body, 1, WM_JA4_QUIC, &cut)) {
		offer_check(&cut);
	}
	free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct connection few, one, apart;
	int with_ja4s = bytes && data[0] & WITH_JA4S;
	struct packet packet;

	connection_begin(&few, bytes ? data[0] & 0x7f : 0, with_ja4s);
	connection_begin(&one, ENOUGH, with_ja4s);
	connection_begin(&apart, ENOUGH, with_ja4s);
	for (size_t at = 1; at + sizeof(packet) <= bytes;) {
		int from_client;
		uint32_t length;

		memcpy(&packet, data + at, sizeof(packet));
		at += sizeof(packet);
		length = packet.length_low | (uint32_t)packet.length_high << 8;
		length = length < bytes - at ? length : (uint32_t)(bytes - at);
		from_client = packet.how & FROM_CLIENT;
		if (packet.how & IS_GAP) {
			struct connection *all[] = {&few, &one, &apart};

			for (int i = 0; i < 3; i++) {
				if (all[i]->took == WM_TLS_WAITS)
					all[i]->took = wm_tls_gap(&all[i]->tls, &all[i]->to, from_client);
			}
		} else {
			packet_take(&few, from_client, data + at, length);
			packet_take(&one, from_client, data + at, length);
			packet_take_apart(&apart, from_client, data + at, length);
		}
		known_check(&few);
		known_check(&one);
		same_check(&one, &apart);
		at += length;
	}
	if (one.took == WM_TLS_WAITS)
		one.took = wm_tls_end(&one.tls, &one.to);
	if (apart.took == WM_TLS_WAITS)
		apart.took = wm_tls_end(&apart.tls, &apart.to);
	same_check(&one, &apart);
	REQUIRE(one.took != WM_TLS_WAITS);
	connection_end(&few);
	connection_end(&one);
	connection_end(&apart);
	message_check(data, bytes);
	return 0;
}
