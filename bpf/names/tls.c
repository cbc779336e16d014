/* Records and handshake messages out of each direction (RFC 8446, sections 5.1 and 4), and the two hellos out of both.
 */
#include "tls.h"
#include "applications.h"
#include "dns.h"

#include <string.h>

enum content {
	CHANGE_CIPHER_SPEC = 20,
	ALERT = 21,
	HANDSHAKE = 22,
	HEARTBEAT = 24,
};

enum message {
	CLIENT_HELLO = 1,
	SERVER_HELLO = 2,
};

#define RECORD_HEAD  5
#define MESSAGE_HEAD 4
#define OLD_HEAD     11 /* of a hello in the form of SSL 2.0 */

/* 2^14 bytes and what a cipher may add (RFC 5246, section 6.2.3; less in TLS 1.3). */
#define RECORD_BYTES_MAX ((1U << 14) + 2048)

/* What one direction is read with. */
struct reading {
	struct wm_tls *tls;
	struct wm_tls_half *half;
	const struct wm_tls_to *to;
	int from_client;
};

static uint32_t least(size_t a, size_t b)
{
	return (uint32_t)(a < b ? a : b);
}

/* A hello waits in a cell of its own, in the place of one before. Returns whether there is one. */
static int keep(const struct reading *r, uint32_t *cell, const void *hello, size_t bytes)
{
	if (!*cell)
		*cell = wm_cell_take(r->to->cells);
	if (*cell)
		memcpy(wm_cell_data(r->to->cells, *cell), hello, bytes);
	return !!*cell;
}

/* --- hellos. These return 0, or -1 where the bytes are none. */

static int offer_take(const struct reading *r, struct wm_span body, int is_cut)
{
	struct wm_client_hello hello;

	if (wm_client_hello_read(body, is_cut, WM_JA4_TLS, &hello))
		return -1;
	if (keep(r, &r->tls->offer, &hello, sizeof(hello)) &&
	    wm_bytes_add(r->to->cells, &r->tls->alpn, hello.alpn.at, (uint32_t)hello.alpn.bytes) < hello.alpn.bytes)
		wm_bytes_clear(r->to->cells, &r->tls->alpn);
	return 0;
}

static int choice_take(const struct reading *r, struct wm_span body)
{
	struct wm_server_hello hello;

	if (wm_server_hello_read(body, r->to->with_ja4s, &hello))
		return -1;
	(void)keep(r, &r->tls->choice, &hello, sizeof(hello));
	r->half->is_over = !hello.is_retry;
	return 0;
}

/* A whole message; of others than hellos nothing is told. */
static int message_take(const struct reading *r, struct wm_span body)
{
	uint8_t type = r->half->message_head[0];

	r->half->message_head_bytes = 0;
	if (type == SERVER_HELLO && !r->from_client)
		return choice_take(r, body);
	if (type == CLIENT_HELLO || type == SERVER_HELLO)
		r->half->is_over = 1;
	return type == CLIENT_HELLO && r->from_client ? offer_take(r, body, 0) : 0;
}

/* Adds to the hello that is not whole yet; `is_over` where no cell is free. */
static void hello_add(const struct reading *r, struct wm_span part)
{
	if (wm_bytes_add(r->to->cells, &r->half->hello, part.at, (uint32_t)part.bytes) < part.bytes)
		r->half->is_over = 1;
}

static struct wm_span hello_join(const struct reading *r)
{
	return (struct wm_span){r->to->room, wm_bytes_copy(r->to->cells, &r->half->hello, WM_TLS_ROOM, r->to->room)};
}

/* What the beginning of a ClientHello tells, where the rest of it will not come. */
static void offer_take_part(const struct reading *r)
{
	if (!r->tls->offer && r->half->message_head_bytes == MESSAGE_HEAD && r->half->message_head[0] == CLIENT_HELLO &&
	    !r->half->is_old)
		(void)offer_take(r, hello_join(r), 1);
	wm_bytes_clear(r->to->cells, &r->half->hello);
}

/* --- messages */

/* The next bytes of the message that has begun; returns how many, or -1. */
static int64_t message_part_take(const struct reading *r, struct wm_span part)
{
	struct wm_tls_half *half = r->half;
	int is_hello = half->message_head[0] == CLIENT_HELLO || half->message_head[0] == SERVER_HELLO;
	int result = 0;

	part.bytes = least(part.bytes, half->message_left);
	half->message_left -= (uint32_t)part.bytes;
	if (is_hello && (half->message_left || half->hello.count)) {
		hello_add(r, part);
		if (half->message_left || half->is_over)
			return (int64_t)part.bytes;
		result = message_take(r, hello_join(r));
		wm_bytes_clear(r->to->cells, &half->hello);
	} else if (!half->message_left) {
		result = message_take(r, part); /* it lies there whole */
	}
	return result ? -1 : (int64_t)part.bytes;
}

static int64_t message_head_take(const struct reading *r, struct wm_span part)
{
	struct wm_tls_half *half = r->half;
	uint32_t bytes = least(part.bytes, (size_t)(MESSAGE_HEAD - half->message_head_bytes)), length;

	memcpy(half->message_head + half->message_head_bytes, part.at, bytes);
	half->message_head_bytes += (uint8_t)bytes;
	if (half->message_head_bytes < MESSAGE_HEAD)
		return bytes;
	length = wm_get32(half->message_head) & 0xffffff;
	if (length > WM_TLS_HELLO_BYTES) {
		r->tls->is_too_long |= half->message_head[0] == CLIENT_HELLO;
		return -1;
	}
	half->message_left = length;
	if (!half->message_left && message_take(r, (struct wm_span){part.at, 0}))
		return -1;
	return bytes;
}

static int content_take(const struct reading *r, struct wm_span content)
{
	while (content.bytes && !r->half->is_over) {
		int64_t taken = r->half->message_head_bytes < MESSAGE_HEAD ? message_head_take(r, content)
									   : message_part_take(r, content);

		if (taken < 0)
			return -1;
		content.at += taken;
		content.bytes -= (size_t)taken;
	}
	return 0;
}

/* --- records */

/* Whether the connection goes on after an alert; not after close_notify, 0 (RFC 5246, section 7.2). */
static int is_warning(const uint8_t alert[2])
{
	return alert[0] == 1 && alert[1];
}

/* So much as is there of a record's head, or of the whole of one that says nothing. Returns 0, or -1 if it is none. */
static int record_begin(const struct reading *r)
{
	struct wm_tls_half *half = r->half;
	uint8_t kind = half->head[0];
	uint32_t length;

	if (half->head_bytes < RECORD_HEAD)
		return 0;
	length = wm_get16(half->head + 3);
	if (kind < CHANGE_CIPHER_SPEC || kind > HEARTBEAT || half->head[1] != 3 || length > RECORD_BYTES_MAX)
		return -1;
	if (kind == HANDSHAKE) {
		half->record_left = (uint16_t)length;
		half->head_bytes = 0;
		return length ? 0 : -1;
	}
	if (half->message_head_bytes) /* within a handshake message */
		return -1;
	if ((kind != CHANGE_CIPHER_SPEC || length != 1) && (kind != ALERT || length != 2)) {
		/* What follows is encrypted. */
		half->is_over = 1;
		return 0;
	}
	if (half->head_bytes < RECORD_HEAD + length)
		return 0;
	/* A hello may come after a warning ("unrecognized name", RFC 6066, section 3), and after the change_cipher_spec
	 * that stands beside a HelloRetryRequest for the sake of middleboxes (RFC 8446, appendix D.4). */
	half->is_over = kind == ALERT && !is_warning(half->head + RECORD_HEAD);
	half->head_bytes = 0;
	return 0;
}

/* How many bytes of a record's head, or of a whole record that says nothing, are wanted at least. */
static uint32_t head_wanted(const struct wm_tls_half *half)
{
	return half->head_bytes < RECORD_HEAD ? RECORD_HEAD : RECORD_HEAD + wm_get16(half->head + 3);
}

/* --- the form of SSL 2.0 (RFC 5246, appendix E.2) */

/* The same hello, which has no extensions, in the form that TLS gives it; `to` has room for more than its bytes. */
static struct wm_span old_renewed(struct wm_span old, uint8_t *to)
{
	uint32_t ciphers = wm_get16(old.at + 5), challenge = wm_get16(old.at + 9);
	uint8_t *at = to, *count;

	memcpy(at, old.at + 3, 2); /* version */
	memset(at + 2, 0, 32);
	memcpy(at + 34 - challenge, old.at + old.bytes - challenge, challenge);
	at[34] = 0; /* session id */
	count = at + 35;
	at += 37;
	for (uint32_t i = 0; i < ciphers; i += 3) {
		const uint8_t *suite = old.at + OLD_HEAD + i;

		if (suite[0]) /* those of SSL 3.0 and TLS begin with a zero there */
			continue;
		memcpy(at, suite + 1, 2);
		at += 2;
	}
	count[0] = (uint8_t)((at - count - 2) >> 8);
	count[1] = (uint8_t)(at - count - 2);
	*at++ = 1; /* compression methods: none */
	*at++ = 0;
	return (struct wm_span){to, (size_t)(at - to)};
}

/* Behind its head; all of it is kept, since it must be written anew. */
static int old_part_take(const struct reading *r, struct wm_span part)
{
	struct wm_tls_half *half = r->half;
	struct wm_span old;
	int result;

	part.bytes = least(part.bytes, half->message_left);
	half->message_left -= (uint32_t)part.bytes;
	hello_add(r, part);
	if (half->message_left || half->is_over)
		return 0;
	old = hello_join(r);
	half->is_over = 1;
	result = r->from_client ? offer_take(r, old_renewed(old, r->to->room + old.bytes), 0) : 0;
	wm_bytes_clear(r->to->cells, &half->hello);
	return result;
}

static int old_begin(const struct reading *r)
{
	struct wm_tls_half *half = r->half;

	if (half->head_bytes < OLD_HEAD)
		return 0;
	if (!wm_looks_like_tls((struct wm_said){half->head, OLD_HEAD}))
		return -1;
	half->is_old = 1;
	half->message_left = 2 + (wm_get16(half->head) & 0x7fff) - OLD_HEAD;
	half->head_bytes = 0;
	hello_add(r, (struct wm_span){half->head, OLD_HEAD});
	return 0;
}

/* --- streams */

/* The next bytes of a direction; returns 0, or -1 if it is no TLS. */
static int stream_take(const struct reading *r, struct wm_span data)
{
	struct wm_tls_half *half = r->half;

	while (data.bytes && !half->is_over) {
		int is_old = !half->is_old && half->seen == half->head_bytes &&
			     (half->head_bytes ? half->head[0] : data.at[0]) & 0x80;
		uint32_t bytes;
		int result;

		if (half->is_old) {
			half->seen += (uint32_t)data.bytes;
			return old_part_take(r, data);
		}
		if (half->record_left) {
			bytes = least(data.bytes, half->record_left);
			half->record_left -= (uint16_t)bytes;
			result = content_take(r, (struct wm_span){data.at, bytes});
		} else {
			bytes = least(data.bytes, (is_old ? OLD_HEAD : head_wanted(half)) - half->head_bytes);
			memcpy(half->head + half->head_bytes, data.at, bytes);
			half->head_bytes += (uint8_t)bytes;
			result = is_old ? old_begin(r) : record_begin(r);
		}
		if (result)
			return -1;
		half->seen += bytes;
		data.at += bytes;
		data.bytes -= bytes;
	}
	return half->seen > WM_TLS_STREAM_BYTES && !half->is_over ? -1 : 0;
}

/* --- connections */

static struct reading reading_on(struct wm_tls *tls, const struct wm_tls_to *to, int from_client)
{
	return (struct reading){tls, &tls->halves[!!from_client], to, !!from_client};
}

static enum wm_tls_took settle(const struct wm_tls *tls)
{
	if (tls->offer)
		return tls->is_answered ? WM_TLS_TOLD : WM_TLS_WAITS;
	return tls->halves[1].is_over ? WM_TLS_OVER : WM_TLS_WAITS;
}

enum wm_tls_took wm_tls_data(struct wm_tls *tls, const struct wm_tls_to *to, int from_client, const uint8_t *data,
			     uint32_t bytes, uint64_t time_ns)
{
	struct reading r = reading_on(tls, to, from_client);

	if (from_client && tls->offer) /* a second hello, after a HelloRetryRequest, repeats the first */
		return settle(tls);
	if (from_client && !tls->has_time) {
		tls->time_ns = time_ns;
		tls->has_time = 1;
	}
	if (stream_take(&r, (struct wm_span){data, bytes})) {
		r.half->is_over = 1;
		if (from_client)
			return WM_TLS_NONE;
	}
	if (!from_client)
		tls->is_answered |= r.half->is_over;
	else if (r.half->is_over)
		offer_take_part(&r);
	return settle(tls);
}

enum wm_tls_took wm_tls_gap(struct wm_tls *tls, const struct wm_tls_to *to, int from_client)
{
	struct reading r = reading_on(tls, to, from_client);

	r.half->is_over = 1;
	if (from_client)
		offer_take_part(&r);
	else
		tls->is_answered = 1;
	return settle(tls);
}

enum wm_tls_took wm_tls_end(struct wm_tls *tls, const struct wm_tls_to *to)
{
	(void)wm_tls_gap(tls, to, 0);
	return wm_tls_gap(tls, to, 1);
}

struct wm_tls_handshake wm_tls_handshake(const struct wm_tls *tls, const struct wm_tls_to *to)
{
	struct wm_tls_handshake known = {NULL, NULL};

	if (tls->offer) {
		struct wm_client_hello *offer = wm_cell_data(to->cells, tls->offer);

		offer->alpn.at = to->room;
		offer->alpn.bytes = wm_bytes_copy(to->cells, &tls->alpn, WM_TLS_ROOM, to->room);
		known.offer = offer;
	}
	if (tls->choice)
		known.choice = wm_cell_data(to->cells, tls->choice);
	return known;
}

void wm_tls_clear(struct wm_tls *tls, struct wm_cells *cells)
{
	for (int each = 0; each < 2; each++)
		wm_bytes_clear(cells, &tls->halves[each].hello);
	wm_bytes_clear(cells, &tls->alpn);
	if (tls->offer)
		wm_cell_give(cells, tls->offer);
	if (tls->choice)
		wm_cell_give(cells, tls->choice);
	*tls = (struct wm_tls){0};
}
