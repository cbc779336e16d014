/* A segment goes to the stream of its side; what is in order there, to the search for what it is, or to who reads that.
 *
 * Most first packets begin nothing, and are forgotten there and then; the last few are kept for a moment, because the
 * first part of a hello may come after the second.
 */
#include "tcp.h"
#include "applications.h"
#include "dns.h"
#include "ends.h"
#include "http1.h"
#include "known.h"
#include "streams.h"
#include "tls.h"

#define SYN 0x02
#define ACK 0x10

/* Evidence is looked for in so many bytes of each direction, and in so many packets of both. */
#define EVIDENCE_BYTES 512
#define EVIDENCE_ITEMS 64
/* A side that goes on alone is listened to for so long. */
#define ALONE_BYTES 4096
/* After so many messages that are none, a connection on port 53 is believed to carry something else. */
#define DNS_ERRORS 8
/* Opaque packets that are kept; a beginning that comes after what belongs behind it is that late at most. */
#define LATE_PACKETS 64
#define LATE_NS	     100000000ULL
/* The same for a hello within a connection. */
#define LATE_OF_ONE 4
/* A hello may stand behind so much of a prelude. */
#define PRELUDE_BYTES 1024
/* Cells that are free before a packet is read, and connections that are let go for that at once. */
#define CELLS_FREE     160
#define LET_GO_AT_ONCE 3

#define NOBODY 2 /* neither side */

enum stage {
	LISTENING, /* what it is isn't known yet */
	READING,
	OPAQUE, /* nothing more to read, unless something else begins */
};

enum reader {
	NO_READER,
	READER_HTTP1,
	READER_DNS,
	READER_TLS,
	READER_OTHER, /* HTTP/2, in Python */
};

/* Bytes, or a gap, that wait: of what was said while nobody knew what it is, and of what may belong behind a hello. In
 * one cell, and more for its bytes. */
struct waiting {
	uint64_t time_ns;
	int64_t gap; /* 0: bytes */
	struct wm_bytes bytes;
	uint32_t next;
	uint32_t seq;
	uint32_t length; /* of the segment */
	uint8_t side;
};
_Static_assert(sizeof(struct waiting) <= WM_CELL_BYTES - 8, "fits a cell");

struct queue {
	uint32_t first, last;
	uint32_t count;
};

/* One direction of DNS over TCP (RFC 1035, section 4.2.2): the message that has begun, behind its length. */
struct dns_half {
	struct wm_bytes message;
	uint32_t passed_over; /* bytes to come of one that found no cell */
	uint64_t time_ns;
};

struct connection {
	uint64_t hash;
	uint64_t serial;
	uint64_t heard_ns;
	struct wm_ends flow; /* of side 0 */
	uint32_t device;
	uint32_t next;	       /* in its bucket; 1 + index */
	uint32_t older, newer; /* of all, by when they were heard; 1 + index */
	struct wm_stream streams[2];
	struct queue said; /* while listening */
	uint32_t said_bytes[2];
	struct queue late;
	struct wm_known known;
	uint8_t stage;
	uint8_t reader;
	uint8_t client; /* side; NOBODY: not known */
	uint8_t has_tls;
	uint8_t dns_errors;
	union {
		struct wm_http http;
		struct wm_tls tls;
		struct dns_half dns[2]; /* of the server, of the client */
	};
};

struct late {
	uint64_t hash; /* 0: none */
	struct wm_payload head;
	uint8_t data[WM_PAYLOAD_BYTES_MAX];
};

struct wm_tcp {
	uint64_t seed;
	uint64_t serial;      /* of the latest connection */
	uint64_t ended_early; /* connections that were let go for want of room, and waited for something */
	struct wm_cells cells;
	struct connection *connections;
	uint32_t *buckets;
	uint32_t buckets_mask;
	uint32_t capacity;
	uint32_t count;
	uint32_t touched; /* places from the first on that were ever in use */
	uint32_t free;
	uint32_t oldest, newest;
	int how; /* enum wm_tcp_how */
	uint32_t late_next;
	struct late late[LATE_PACKETS];
	uint8_t of_stream[2][WM_SEGMENT_ROOM];
	uint8_t of_queue[WM_SEGMENT_ROOM];
	uint8_t of_late[WM_SEGMENT_ROOM];
	uint8_t beginnings[2][ALONE_BYTES + WM_SEGMENT_ROOM];
	uint8_t room[WM_HTTP_ROOM];
};

/* What a packet is read with. */
struct reading {
	struct wm_tcp *tcp;
	struct wm_dns *dns;
	struct wm_told *told;
	struct connection *connection;
	uint64_t now_ns;
};

static void process(const struct reading *r, int side, const struct wm_next *next);

/* --- memory */

static uint32_t buckets_for(uint32_t capacity)
{
	uint32_t buckets = 16;

	while (buckets < capacity)
		buckets *= 2;
	return buckets;
}

static size_t aligned(size_t bytes)
{
	return (bytes + 63) & ~(size_t)63;
}

size_t wm_tcp_bytes(uint32_t capacity, uint32_t cells)
{
	return aligned(sizeof(struct wm_tcp)) + aligned(buckets_for(capacity) * sizeof(uint32_t)) +
	       aligned(capacity * sizeof(struct connection)) + cells * sizeof(struct wm_cell);
}

void wm_tcp_begin(struct wm_tcp *tcp, uint32_t capacity, uint32_t cells, uint64_t seed, int how)
{
	uint8_t *at = (uint8_t *)tcp + aligned(sizeof(*tcp));
	uint32_t buckets = buckets_for(capacity);

	tcp->seed = seed;
	tcp->capacity = capacity;
	tcp->buckets_mask = buckets - 1;
	tcp->how = how;
	tcp->buckets = (uint32_t *)at;
	at += aligned(buckets * sizeof(uint32_t));
	tcp->connections = (struct connection *)at;
	at += aligned(capacity * sizeof(struct connection));
	tcp->cells = (struct wm_cells){.cells = (struct wm_cell *)at, .capacity = cells};
}

uint32_t wm_tcp_count(const struct wm_tcp *tcp)
{
	return tcp->count;
}

uint32_t wm_tcp_cells(const struct wm_tcp *tcp)
{
	return tcp->cells.count;
}

uint64_t wm_tcp_lost(const struct wm_tcp *tcp)
{
	return tcp->cells.lost + tcp->ended_early;
}

static struct connection *connection_at(struct wm_tcp *tcp, uint32_t number)
{
	return tcp->connections + (number - 1);
}

static uint32_t number_of(const struct wm_tcp *tcp, const struct connection *connection)
{
	return (uint32_t)(connection - tcp->connections) + 1;
}

/* --- queues */

static struct waiting *waiting_at(struct wm_tcp *tcp, uint32_t number)
{
	return wm_cell_data(&tcp->cells, number);
}

/* Returns whether there was a cell for it. */
static int queue_add(struct wm_tcp *tcp, struct queue *queue, const struct waiting *one, const uint8_t *data,
		     uint32_t bytes)
{
	uint32_t number = wm_cell_take(&tcp->cells);
	struct waiting *waiting;

	if (!number)
		return 0;
	waiting = waiting_at(tcp, number);
	*waiting = *one;
	waiting->next = 0;
	waiting->bytes = (struct wm_bytes){0};
	if (wm_bytes_add(&tcp->cells, &waiting->bytes, data, bytes) < bytes) {
		wm_bytes_clear(&tcp->cells, &waiting->bytes);
		wm_cell_give(&tcp->cells, number);
		return 0;
	}
	if (queue->last)
		waiting_at(tcp, queue->last)->next = number;
	else
		queue->first = number;
	queue->last = number;
	queue->count++;
	return 1;
}

/* Takes the first out; its bytes are copied to `room`. Returns whether there was one. */
static int queue_take(struct wm_tcp *tcp, struct queue *queue, struct waiting *one, uint8_t *room)
{
	uint32_t number = queue->first;
	struct waiting *waiting;

	if (!number)
		return 0;
	waiting = waiting_at(tcp, number);
	*one = *waiting;
	(void)wm_bytes_copy(&tcp->cells, &waiting->bytes, WM_SEGMENT_ROOM, room);
	queue->first = waiting->next;
	if (!queue->first)
		queue->last = 0;
	queue->count--;
	wm_bytes_clear(&tcp->cells, &waiting->bytes);
	wm_cell_give(&tcp->cells, number);
	return 1;
}

static void queue_clear(struct wm_tcp *tcp, struct queue *queue)
{
	struct waiting one;

	while (queue_take(tcp, queue, &one, tcp->of_queue))
		;
}

/* --- whose it is */

static int client_side(const struct connection *connection)
{
	if (connection->client != NOBODY)
		return connection->client;
	return connection->flow.src_port < connection->flow.dst_port;
}

/* From client to server, as far as is known. */
static struct wm_ends client_flow(const struct connection *connection)
{
	return client_side(connection) ? wm_reversed(&connection->flow) : connection->flow;
}

/* --- who reads */

static void with_http(const struct reading *r, struct wm_ends *flow, struct wm_http_to *to)
{
	*flow = client_flow(r->connection);
	*to = (struct wm_http_to){
		.cells = &r->tcp->cells,
		.room = r->tcp->room,
		.told = r->told,
		.known = &r->connection->known,
		.flow = flow,
		.device = r->connection->device,
		.redact = r->tcp->how & WM_TCP_REDACT,
	};
}

static struct wm_piece *piece_tell(const struct reading *r, int side, enum wm_piece_kind kind, uint64_t time_ns,
				   const uint8_t *data, uint32_t bytes)
{
	struct connection *connection = r->connection;
	struct wm_told *told = r->told;
	struct wm_piece *piece = &told->pieces[told->pieces_count];

	if (told->pieces_count == told->pieces_room || told->text_room - told->text_bytes < bytes) {
		told->lost++;
		return NULL;
	}
	told->pieces_count++;
	*piece = (struct wm_piece){
		.time_ns = time_ns,
		.serial = connection->serial,
		.connection = number_of(r->tcp, connection),
		.flow = client_flow(connection),
		.device = connection->device,
		.data_at = wm_told_text(told, data, bytes),
		.data_bytes = bytes,
		.from_client = side == client_side(connection),
		.kind = (uint8_t)kind,
	};
	return piece;
}

/* A message of DNS: what it says is told, and names the connection. */
static int dns_message(const struct reading *r, int from_client, const uint8_t *data, uint32_t bytes, int how,
		       uint64_t time_ns)
{
	struct connection *connection = r->connection;
	struct wm_ends flow = client_flow(connection), sent = from_client ? flow : wm_reversed(&flow);
	struct wm_told *told = r->told;
	uint32_t before = told->transactions_count;

	if (!wm_told_has_room(told, 1)) {
		told->lost++;
		return 0;
	}
	if (wm_dns_take(r->dns, connection->device, time_ns, &sent, data, bytes, how, told))
		return -1;
	for (uint32_t at = told->transactions_count; at-- > before;) {
		const struct wm_dns_transaction *last = &told->transactions[at];

		if (last->device != connection->device || memcmp(&last->flow, &flow, sizeof(flow)))
			continue; /* another's question, which ended to make room */
		wm_known_text(&connection->known, &r->tcp->cells, WM_KNOWN_QUERY, told->text + last->query_at,
			      last->query_bytes, time_ns);
		wm_known_number(&connection->known, &connection->known.rcode, (int16_t)last->rcode, time_ns);
		break;
	}
	return 0;
}

/* How many bytes the message takes that begins there, with its length; 0: too few to tell; negative: it is none. */
static int64_t dns_length(const uint8_t *data, uint32_t bytes)
{
	uint32_t length;

	if (bytes < 2)
		return 0;
	length = wm_get16(data);
	if (length < 12 || !wm_dns_may_begin(data + 2, bytes - 2 < 12 ? bytes - 2 : 12))
		return -1;
	return 2 + (int64_t)length;
}

/* What is there of a message is read. Packets mostly begin with one, so the next packet is tried. */
static void dns_gap(const struct reading *r, int from_client)
{
	struct dns_half *half = &r->connection->dns[from_client];
	uint32_t bytes = wm_bytes_copy(&r->tcp->cells, &half->message, WM_HTTP_ROOM, r->tcp->room);

	wm_bytes_clear(&r->tcp->cells, &half->message);
	half->passed_over = 0;
	if (bytes > 2)
		(void)dns_message(r, from_client, r->tcp->room + 2, bytes - 2, WM_DNS_IS_CUT, half->time_ns);
}

/* Keeps what has come of a message until the rest of it comes. Without a free cell it is read as it is, and the rest
 * passed over: that this side has no memory says nothing of the other. length: of all of it; 0: not known yet. */
static void dns_keep(const struct reading *r, int from_client, const uint8_t *data, uint32_t bytes, int64_t length)
{
	struct dns_half *half = &r->connection->dns[from_client];
	uint32_t left = (uint32_t)length - half->message.count - bytes;

	if (wm_bytes_add(&r->tcp->cells, &half->message, data, bytes) == bytes)
		return;
	dns_gap(r, from_client);
	half->passed_over = length ? left : 0;
}

/* Takes what is missing of a message that has begun; returns how many bytes, or -1 if it is none. */
static int64_t dns_rest(const struct reading *r, int from_client, const uint8_t *data, uint32_t bytes)
{
	struct dns_half *half = &r->connection->dns[from_client];
	uint8_t *room = r->tcp->room, head[14];
	uint32_t had = half->message.count, part;
	int64_t length = dns_length(head, wm_bytes_copy(&r->tcp->cells, &half->message, sizeof(head), head));

	if (length < 0)
		return -1;
	part = had < sizeof(head) ? (uint32_t)sizeof(head) - had : (uint32_t)length - had;
	part = part < bytes ? part : bytes;
	dns_keep(r, from_client, data, part, length);
	length = dns_length(head, wm_bytes_copy(&r->tcp->cells, &half->message, sizeof(head), head));
	if (length < 0)
		return -1;
	if (!length || half->message.count < length)
		return part;
	(void)wm_bytes_copy(&r->tcp->cells, &half->message, (uint32_t)length, room);
	wm_bytes_clear(&r->tcp->cells, &half->message);
	return dns_message(r, from_client, room + 2, (uint32_t)length - 2, 0, half->time_ns) ? -1 : (int64_t)part;
}

/* Takes a message that begins there, or the beginning of it; returns how many bytes, or -1 if it is none. */
static int64_t dns_begin(const struct reading *r, int from_client, const uint8_t *data, uint32_t bytes)
{
	struct dns_half *half = &r->connection->dns[from_client];
	int64_t length = dns_length(data, bytes);

	if (length < 0)
		return -1;
	if (!length || length > bytes) {
		dns_keep(r, from_client, data, bytes, length);
		return bytes;
	}
	return dns_message(r, from_client, data + 2, (uint32_t)length - 2, 0, half->time_ns) ? -1 : length;
}

/* The next bytes of a direction; returns 0, or -1 if they are no DNS. Nothing in the stream marks where a message
 * begins but the length of the one before. */
static int dns_data(const struct reading *r, int from_client, const uint8_t *data, uint32_t bytes, uint64_t time_ns)
{
	struct dns_half *half = &r->connection->dns[from_client];
	int64_t taken;

	half->time_ns = time_ns;
	for (; bytes; data += taken, bytes -= (uint32_t)taken) {
		if (half->passed_over) {
			taken = half->passed_over < bytes ? half->passed_over : bytes;
			half->passed_over -= (uint32_t)taken;
		} else {
			taken = half->message.count ? dns_rest(r, from_client, data, bytes)
						    : dns_begin(r, from_client, data, bytes);
		}
		if (taken < 0)
			return -1;
	}
	return 0;
}

static struct wm_tls_to with_tls(const struct reading *r)
{
	return (struct wm_tls_to){&r->tcp->cells, r->tcp->room, r->tcp->how & WM_TCP_JA4S};
}

/* The ALPN of a connection: the server's choice, or what alone was offered. */
static struct wm_span alpn_of(const struct wm_tls_handshake *shake)
{
	struct wm_span offered = shake->offer->alpn;

	if (shake->choice && shake->choice->alpn_bytes)
		return (struct wm_span){shake->choice->alpn, shake->choice->alpn_bytes};
	if (offered.bytes && offered.at[0] + 1U == offered.bytes)
		return (struct wm_span){offered.at + 1, offered.bytes - 1};
	return (struct wm_span){NULL, 0};
}

/* What hellos say names the connection, also while the server has not answered. */
static void tls_learn(const struct reading *r, const struct wm_tls_handshake *shake, uint64_t time_ns)
{
	const struct wm_client_hello *offer = shake->offer;
	const struct wm_server_hello *choice = shake->choice;
	struct wm_span alpn = alpn_of(shake);
	struct wm_known_said said = {
		.domain = offer->sni,
		.domain_bytes = offer->sni_bytes,
		.source = WM_NAME_SNI,
		.alpn = alpn.at,
		.alpn_bytes = (uint16_t)alpn.bytes,
		.ja4 = offer->ja4,
		.ja4_bytes = offer->ja4_bytes,
		.ja4s = choice ? choice->ja4s : NULL,
		.ja4s_bytes = choice ? choice->ja4s_bytes : 0,
		.tls_version = choice ? choice->version : offer->version,
		.cipher = choice ? choice->cipher : WM_NONE,
		.status = WM_NONE,
	};

	wm_known_learn(&r->connection->known, &r->tcp->cells, &said, time_ns);
}

static void tls_tell(const struct reading *r, const struct wm_tls_handshake *shake)
{
	struct connection *connection = r->connection;
	const struct wm_client_hello *offer = shake->offer;
	const struct wm_server_hello *choice = shake->choice;
	struct wm_hello of = {
		.time_ns = connection->tls.time_ns,
		.flow = client_flow(connection),
		.device = connection->device,
		.tls_version = choice ? choice->version : offer->version,
		.cipher = choice ? choice->cipher : WM_NONE,
		.sni_bytes = offer->sni_bytes,
		.alpn_bytes = (uint16_t)offer->alpn.bytes,
		.ja4_bytes = offer->ja4_bytes,
		.ja4s_bytes = choice ? choice->ja4s_bytes : 0,
		.chosen_bytes = choice ? choice->alpn_bytes : 0,
		.ech = offer->has_ech,
	};

	wm_hello_tell(r->told, &of, offer->sni, offer->alpn.at, offer->ja4, choice ? choice->ja4s : NULL,
		      choice ? choice->alpn : NULL);
}

/* What came of bytes, or of their lack. Returns whether there is more to read. */
static int tls_took(const struct reading *r, enum wm_tls_took took, uint64_t time_ns)
{
	struct connection *connection = r->connection;
	struct wm_tls_to to = with_tls(r);
	struct wm_tls_handshake shake = {NULL, NULL};

	if (took == WM_TLS_TOLD || took == WM_TLS_WAITS)
		shake = wm_tls_handshake(&connection->tls, &to);
	if (shake.offer)
		tls_learn(r, &shake, time_ns);
	if (took == WM_TLS_WAITS)
		return 1;
	if (took == WM_TLS_TOLD && shake.offer)
		tls_tell(r, &shake);
	r->told->lost += connection->tls.is_too_long;
	wm_tls_clear(&connection->tls, &r->tcp->cells);
	connection->reader = NO_READER;
	return 0;
}

static void streams_clear(const struct reading *r)
{
	for (int side = 0; side < 2; side++)
		wm_stream_clear(&r->connection->streams[side], &r->tcp->cells);
}

static void close_it(const struct reading *r)
{
	r->connection->stage = OPAQUE;
	queue_clear(r->tcp, &r->connection->said);
	memset(r->connection->said_bytes, 0, sizeof(r->connection->said_bytes));
	streams_clear(r);
}

/* Ends who reads: what is open there is told. */
static void reader_end(const struct reading *r)
{
	struct connection *connection = r->connection;
	struct wm_tls_to tls_to;
	struct wm_http_to to;
	struct wm_ends flow;

	switch (connection->reader) {
	case READER_HTTP1:
		with_http(r, &flow, &to);
		wm_http_end(&connection->http, &to);
		break;
	case READER_DNS:
		dns_gap(r, 1);
		dns_gap(r, 0);
		break;
	case READER_TLS:
		tls_to = with_tls(r);
		(void)tls_took(r, wm_tls_end(&connection->tls, &tls_to), r->now_ns);
		break;
	case READER_OTHER:
		(void)piece_tell(r, 0, WM_PIECE_END, r->now_ns, NULL, 0);
		break;
	default:
		break;
	}
	connection->reader = NO_READER;
}

static void read_gap(const struct reading *r, int side, int64_t missing, uint64_t time_ns)
{
	struct connection *connection = r->connection;
	int from_client = side == client_side(connection);
	struct wm_tls_to tls_to;
	struct wm_http_to to;
	struct wm_piece *piece;
	struct wm_ends flow;

	switch (connection->reader) {
	case READER_HTTP1:
		with_http(r, &flow, &to);
		wm_http_gap(&connection->http, &to, from_client, missing);
		break;
	case READER_DNS:
		dns_gap(r, from_client);
		break;
	case READER_TLS:
		tls_to = with_tls(r);
		if (!tls_took(r, wm_tls_gap(&connection->tls, &tls_to, from_client), time_ns))
			close_it(r);
		break;
	case READER_OTHER:
		piece = piece_tell(r, side, WM_PIECE_GAP, time_ns, NULL, 0);
		if (piece)
			piece->missing = missing;
		break;
	default:
		break;
	}
}

/* HTTP/2 goes on where HTTP/1 ended; the request that asked for it is its first. */
static void upgrade(const struct reading *r)
{
	struct connection *connection = r->connection;
	struct wm_http_transaction first;
	struct wm_told *told = r->told;
	struct wm_piece *piece;
	struct wm_http_to to;
	struct wm_ends flow;
	uint64_t last_ns = wm_http_last_ns(&connection->http, &r->tcp->cells);
	uint32_t before = told->http_count;

	with_http(r, &flow, &to);
	wm_http_end(&connection->http, &to);
	connection->reader = READER_OTHER;
	if (told->http_count == before)
		return;
	/* What was told of the first is taken back: it is told when its response has come. */
	first = told->http[before];
	told->http[before] = told->http[--told->http_count];
	piece = piece_tell(r, client_side(connection), WM_PIECE_REQUEST, first.time_ns, NULL, 0);
	if (!piece)
		return;
	piece->last_ns = last_ns;
	piece->data_at = first.method_at;
	piece->data_bytes = (uint32_t)first.method_bytes + first.host_bytes + first.path_bytes;
	piece->method_bytes = first.method_bytes;
	piece->host_bytes = first.host_bytes;
}

static void read_data(const struct reading *r, int side, const uint8_t *data, uint32_t bytes, uint64_t time_ns)
{
	struct connection *connection = r->connection;
	int from_client = side == client_side(connection);
	struct wm_tls_to tls_to;
	struct wm_http_to to;
	struct wm_ends flow;
	uint32_t read;

	switch (connection->reader) {
	case READER_HTTP1:
		with_http(r, &flow, &to);
		read = wm_http_data(&connection->http, &to, from_client, data, bytes, time_ns);
		if (!connection->http.done)
			break;
		if (!connection->http.is_h2c) {
			reader_end(r);
			close_it(r);
			break;
		}
		upgrade(r);
		if (read < bytes)
			(void)piece_tell(r, side, WM_PIECE_DATA, time_ns, data + read, bytes - read);
		break;
	case READER_DNS:
		if (!dns_data(r, from_client, data, bytes, time_ns))
			break;
		wm_bytes_clear(&r->tcp->cells, &connection->dns[from_client].message);
		if (++connection->dns_errors >= DNS_ERRORS) {
			reader_end(r);
			close_it(r);
		}
		break;
	case READER_TLS:
		tls_to = with_tls(r);
		if (!tls_took(r, wm_tls_data(&connection->tls, &tls_to, from_client, data, bytes, time_ns), time_ns))
			close_it(r);
		break;
	case READER_OTHER:
		(void)piece_tell(r, side, WM_PIECE_DATA, time_ns, data, bytes);
		break;
	default:
		break;
	}
}

/* --- what it is */

/* Whether a packet begins what is read, as the kernel half would think. */
static int begins_hello(struct wm_said said)
{
	return wm_looks_like_tls(said) || wm_looks_like_request(said) || wm_looks_like_response(said) ||
	       wm_looks_like_http2(said);
}

/* Whether the sender of the first bytes of a stream is the client of its protocol: 1, 0; or -1 where they don't tell.
 */
static int speaks_as_client(struct wm_said said)
{
	/* The type of the first handshake message; a hello in the form of SSL 2.0 is a client's. */
	if (wm_looks_like_tls(said))
		return said.data[0] != 0x16 || said.data[5] == 1;
	if (wm_looks_like_http2(said) || wm_looks_like_request(said))
		return 1;
	return wm_looks_like_response(said) ? 0 : -1;
}

static int may_start_tls(uint8_t application)
{
	switch (application) {
	case WM_APP_AMQP:
	case WM_APP_FTP:
	case WM_APP_HTTP:
	case WM_APP_IMAP:
	case WM_APP_LDAP:
	case WM_APP_MYSQL:
	case WM_APP_POP3:
	case WM_APP_POSTGRESQL:
	case WM_APP_RDP:
	case WM_APP_SMTP:
	case WM_APP_XMPP:
		return 1;
	default:
		return 0;
	}
}

/* Where a hello begins behind what asks for it or lets it come, in the same packet: a line, or PostgreSQL's SSLRequest
 * and its answer; 0: nowhere. */
static uint32_t hello_behind(struct wm_said said)
{
	static const uint8_t by_length[] = {1, 8};
	const uint8_t *at = said.data, *end = said.data + (said.bytes < PRELUDE_BYTES ? said.bytes : PRELUDE_BYTES);

	for (size_t i = 0; i < sizeof(by_length); i++) {
		if (said.bytes > by_length[i] &&
		    wm_looks_like_tls((struct wm_said){said.data + by_length[i], said.bytes - by_length[i]}))
			return by_length[i];
	}
	while (at < end && (at = memchr(at, '\n', (size_t)(end - at)))) {
		at++;
		if (wm_looks_like_tls((struct wm_said){at, said.bytes - (size_t)(at - said.data)}))
			return (uint32_t)(at - said.data);
	}
	return 0;
}

static int application_of(const struct connection *connection, const struct wm_said said[2], int client)
{
	uint16_t server_port = client ? connection->flow.src_port : connection->flow.dst_port;

	return wm_tcp_application(said[client], said[1 - client], server_port);
}

/* Finds out what this is, and who the client is. side: who spoke last. */
static int find(const struct reading *r, int side, const struct wm_said said[2])
{
	struct connection *connection = r->connection;
	int found, client, speaks = speaks_as_client(said[side]), who = side;

	if (speaks < 0) {
		who = 1 - side;
		speaks = speaks_as_client(said[who]);
	}
	if (speaks >= 0)
		connection->client = (uint8_t)(speaks ? who : 1 - who);
	client = client_side(connection);
	found = application_of(connection, said, client);
	if (!found && connection->client == NOBODY) {
		client = 1 - client;
		found = application_of(connection, said, client);
	}
	if (!found)
		return 0;
	connection->client = (uint8_t)client;
	if (!connection->known.application)
		wm_known_application(&connection->known, (uint8_t)found, r->now_ns);
	connection->reader = NO_READER;
	if (found == WM_APP_TLS) {
		connection->reader = READER_TLS;
		connection->tls = (struct wm_tls){0};
		connection->has_tls = 1;
	} else if (found == WM_APP_HTTP && wm_looks_like_http2(said[client])) {
		connection->reader = READER_OTHER;
	} else if (found == WM_APP_HTTP) {
		connection->reader = READER_HTTP1;
		connection->http = (struct wm_http){0};
	} else if (found == WM_APP_DNS) {
		connection->reader = READER_DNS;
		memset(connection->dns, 0, sizeof(connection->dns));
		connection->dns_errors = 0;
	}
	return 1;
}

/* Starts anew with one side: what it said until now was no beginning. */
static void said_forget(const struct reading *r, int side)
{
	struct queue *said = &r->connection->said, kept = {0};
	struct waiting one;

	while (queue_take(r->tcp, said, &one, r->tcp->of_queue)) {
		if (one.side != side)
			(void)queue_add(r->tcp, &kept, &one, r->tcp->of_queue, one.bytes.count);
	}
	*said = kept;
	r->connection->said_bytes[side] = 0;
}

/* Gives who reads what was said so far. */
static void replay(const struct reading *r)
{
	struct waiting one;

	if (r->connection->reader == NO_READER) {
		close_it(r);
		return;
	}
	r->connection->stage = READING;
	while (queue_take(r->tcp, &r->connection->said, &one, r->tcp->of_queue)) {
		if (r->connection->reader)
			read_data(r, one.side, r->tcp->of_queue, one.bytes.count, one.time_ns);
	}
	memset(r->connection->said_bytes, 0, sizeof(r->connection->said_bytes));
}

/* What each side has said so far, with `data` as the last of one. */
static void said_join(const struct reading *r, int side, const uint8_t *data, uint32_t bytes, struct wm_said said[2])
{
	struct connection *connection = r->connection;
	struct wm_tcp *tcp = r->tcp;

	for (int each = 0; each < 2; each++) {
		uint32_t at = 0;

		said[each] = (struct wm_said){tcp->beginnings[each], 0};
		if (each == side && !connection->said_bytes[each]) {
			said[each] = (struct wm_said){data, bytes};
			continue;
		}
		for (uint32_t number = connection->said.first; number; number = waiting_at(tcp, number)->next) {
			const struct waiting *one = waiting_at(tcp, number);

			if (one->side == each)
				at += wm_bytes_copy(&tcp->cells, &one->bytes, sizeof(tcp->beginnings[0]) - at,
						    tcp->beginnings[each] + at);
		}
		if (each == side) {
			bytes = bytes < sizeof(tcp->beginnings[0]) - at ? bytes : sizeof(tcp->beginnings[0]) - at;
			memcpy(tcp->beginnings[each] + at, data, bytes);
			at += bytes;
		}
		said[each].bytes = at;
	}
}

/* Looks for evidence in what was said so far, with one packet more. */
static void hear(const struct reading *r, int side, const uint8_t *data, uint32_t bytes, uint64_t time_ns)
{
	struct connection *connection = r->connection;
	struct waiting one = {.time_ns = time_ns, .side = (uint8_t)side};
	uint32_t before = connection->said_bytes[side], other;
	struct wm_said said[2], now = {data, bytes};

	if (!before) {
		size_t prelude = wm_prelude_bytes(now);

		if (prelude < bytes) {
			data += prelude;
			bytes -= (uint32_t)prelude;
			now = (struct wm_said){data, bytes};
		}
	}
	if (before < EVIDENCE_BYTES) {
		said_join(r, side, data, bytes, said);
		if (find(r, side, said)) {
			replay(r);
			if (connection->stage == READING && connection->reader)
				read_data(r, side, data, bytes, time_ns);
			return;
		}
	}
	if (before && begins_hello(now)) {
		said_forget(r, side);
		hear(r, side, data, bytes, time_ns);
		return;
	}
	if (!queue_add(r->tcp, &connection->said, &one, data, bytes)) {
		close_it(r);
		return;
	}
	connection->said_bytes[side] += bytes;
	before += bytes;
	other = connection->said_bytes[1 - side];
	if (connection->said.count >= EVIDENCE_ITEMS || (before >= EVIDENCE_BYTES && other >= EVIDENCE_BYTES) ||
	    before >= ALONE_BYTES || other >= ALONE_BYTES)
		close_it(r);
}

/* --- streams */

/* Takes of a side what is in order now. */
static void drain(const struct reading *r, int side, int give_up)
{
	struct wm_next next;

	while (wm_stream_next(&r->connection->streams[side], &r->tcp->cells, r->now_ns, give_up,
			      r->tcp->of_stream[side], &next))
		process(r, side, &next);
}

/* A response to no request that was read answers one that waits: behind a hole, which nobody will fill now, or for more
 * of a first line that could have been anything. */
static void before_response(const struct reading *r, int side, const struct wm_next *next)
{
	struct connection *connection = r->connection;
	struct wm_said said = {next->data, next->bytes};

	if (connection->stage == LISTENING ? wm_looks_like_response(said)
					   : connection->stage == READING && connection->reader == READER_HTTP1 &&
						     side != client_side(connection) && !connection->http.waiting)
		drain(r, 1 - side, 1);
}

static void item_gap(const struct reading *r, int side, int64_t missing, uint64_t time_ns)
{
	if (r->connection->stage == LISTENING)
		said_forget(r, side);
	else if (r->connection->stage == READING)
		read_gap(r, side, missing, time_ns);
}

static void process(const struct reading *r, int side, const struct wm_next *next)
{
	struct connection *connection = r->connection;

	before_response(r, side, next);
	if (next->gap)
		item_gap(r, side, next->gap, next->time_ns);
	if (next->bytes && connection->stage == LISTENING)
		hear(r, side, next->data, next->bytes, next->time_ns);
	else if (next->bytes && connection->stage == READING)
		read_data(r, side, next->data, next->bytes, next->time_ns);
	if (next->missing)
		item_gap(r, side, next->missing, next->time_ns);
	if (connection->stage == READING && connection->reader == READER_HTTP1)
		connection->streams[side].optional =
			wm_http_optional(&connection->http, side == client_side(connection));
}

/* --- connections */

static void listen(const struct reading *r)
{
	struct connection *connection = r->connection;

	streams_clear(r);
	queue_clear(r->tcp, &connection->said);
	memset(connection->said_bytes, 0, sizeof(connection->said_bytes));
	memset(connection->streams, 0, sizeof(connection->streams));
	connection->stage = LISTENING;
	connection->reader = NO_READER;
}

/* Ends what is open: it is told. What is known stays. */
static void flush(const struct reading *r)
{
	drain(r, 0, 1);
	drain(r, 1, 1);
	reader_end(r);
	close_it(r);
}

static void begin(const struct reading *r)
{
	struct connection *connection = r->connection;

	listen(r);
	queue_clear(r->tcp, &connection->late);
	wm_known_end(&connection->known, &r->tcp->cells);
	wm_known_begin(&connection->known);
	connection->serial = ++r->tcp->serial;
	connection->client = NOBODY;
	connection->has_tls = 0;
}

static uint32_t *link_to(struct wm_tcp *tcp, uint64_t hash)
{
	uint32_t *link = &tcp->buckets[hash & tcp->buckets_mask];

	while (*link && connection_at(tcp, *link)->hash != hash)
		link = &connection_at(tcp, *link)->next;
	return link;
}

static void order_remove(struct wm_tcp *tcp, struct connection *connection)
{
	*(connection->older ? &connection_at(tcp, connection->older)->newer : &tcp->oldest) = connection->newer;
	*(connection->newer ? &connection_at(tcp, connection->newer)->older : &tcp->newest) = connection->older;
}

static void order_add(struct wm_tcp *tcp, struct connection *connection)
{
	uint32_t number = number_of(tcp, connection);

	connection->older = tcp->newest;
	connection->newer = 0;
	*(tcp->newest ? &connection_at(tcp, tcp->newest)->newer : &tcp->oldest) = number;
	tcp->newest = number;
}

static void tell_name(const struct reading *r)
{
	struct connection *connection = r->connection;

	wm_known_tell(&connection->known, &r->tcp->cells, &connection->flow, connection->hash, r->told);
}

/* Lets the connection go that nothing was heard of for longest; early: for want of room. */
static void let_go(struct wm_tcp *tcp, struct wm_dns *dns, uint64_t now_ns, int early, struct wm_told *told)
{
	uint32_t number = tcp->oldest, *link;
	struct connection *connection = connection_at(tcp, number);
	struct reading r = {tcp, dns, told, connection, now_ns};
	uint32_t cells = tcp->cells.count;
	int is_open = connection->reader == READER_OTHER;

	flush(&r);
	is_open |= tcp->cells.count < cells; /* something waited for the rest */
	tcp->ended_early += early && is_open;
	tell_name(&r);
	queue_clear(tcp, &connection->late);
	wm_known_end(&connection->known, &tcp->cells);
	link = link_to(tcp, connection->hash);
	*link = connection->next;
	order_remove(tcp, connection);
	connection->next = tcp->free;
	tcp->free = number;
	tcp->count--;
}

static struct connection *connection_add(struct wm_tcp *tcp, struct wm_dns *dns, uint32_t device, uint64_t hash,
					 const struct wm_ends *flow, uint64_t now_ns, struct wm_told *told)
{
	struct connection *connection;
	struct reading r = {tcp, dns, told, NULL, now_ns};
	uint32_t number;

	if (tcp->count == tcp->capacity)
		let_go(tcp, dns, now_ns, 1, told);
	number = tcp->free ? tcp->free : ++tcp->touched;
	connection = connection_at(tcp, number);
	if (tcp->free)
		tcp->free = connection->next;
	memset(connection, 0, sizeof(*connection));
	connection->hash = hash;
	connection->device = device;
	connection->flow = *flow;
	connection->next = tcp->buckets[hash & tcp->buckets_mask];
	tcp->buckets[hash & tcp->buckets_mask] = number;
	order_add(tcp, connection);
	tcp->count++;
	r.connection = connection;
	begin(&r);
	return connection;
}

/* --- packets */

/* A SYN begins a connection, another one if it repeats none. */
static void syn(const struct reading *r, int side, uint32_t seq, int is_answer)
{
	struct connection *connection = r->connection;
	struct wm_stream *stream = &connection->streams[side];

	if (!wm_stream_is_fresh(stream) && !wm_stream_is_start(stream, &r->tcp->cells, seq)) {
		flush(r);
		begin(r);
		connection->known.has_changed = 1; /* a name of its own, or none */
		connection->known.since_ns = r->now_ns;
	}
	if (connection->client == NOBODY)
		connection->client = (uint8_t)(is_answer ? 1 - side : side);
}

/* Puts a segment into the stream of its side, and takes what is in order then. */
static void segment_take(const struct reading *r, int side, const struct wm_segment *segment)
{
	struct connection *connection = r->connection;
	struct wm_stream *stream = &connection->streams[side];
	int32_t behind = (int32_t)((uint32_t)stream->next - segment->seq);
	int begins = 0;
	enum wm_stream_took took;
	struct wm_next next;

	if (!stream->has_begun || behind > WM_FAR_BYTES)
		begins = wm_tcp_begins((struct wm_said){segment->data, segment->captured}, connection->flow.src_port,
				       connection->flow.dst_port);
	took = wm_stream_take(stream, &r->tcp->cells, segment, begins, &next);
	if (took == WM_STREAM_WAITS) {
		drain(r, side, 1);
		took = wm_stream_take(stream, &r->tcp->cells, segment, begins, &next);
	}
	if (took == WM_STREAM_NEXT)
		process(r, side, &next);
	drain(r, side, 0);
}

/* Where in a packet something begins to be read, in a connection with nothing to read so far; negative: nowhere. */
static int64_t wakes(const struct connection *connection, struct wm_said said)
{
	uint32_t behind;

	if (connection->has_tls)
		return -1;
	if (wm_looks_like_tls(said) || (!connection->known.application && begins_hello(said)))
		return 0;
	behind = may_start_tls(connection->known.application) ? hello_behind(said) : 0;
	return behind ? (int64_t)behind : -1;
}

/* Keeps a packet that may be the rest of a hello whose beginning is late, or a hello that came too early. */
static void remember(const struct reading *r, int side, const struct wm_segment *segment)
{
	struct connection *connection = r->connection;
	struct waiting one = {
		.time_ns = segment->time_ns, .side = (uint8_t)side, .seq = segment->seq, .length = segment->bytes};

	if (!segment->captured || connection->has_tls || !may_start_tls(connection->known.application))
		return;
	if (connection->late.count == LATE_OF_ONE) {
		struct waiting oldest;

		(void)queue_take(r->tcp, &connection->late, &oldest, r->tcp->of_queue);
	}
	(void)queue_add(r->tcp, &connection->late, &one, segment->data, segment->captured);
}

/* Adds to a hello the packets that came before it: those of its side, which belong behind it, and a hello of the other.
 */
static void late_take(const struct reading *r, int side)
{
	struct queue late = r->connection->late;
	struct waiting one;

	r->connection->late = (struct queue){0};
	while (queue_take(r->tcp, &late, &one, r->tcp->of_late)) {
		struct wm_segment segment = {one.time_ns, r->tcp->of_late, one.bytes.count, one.length, one.seq};
		struct wm_said said = {segment.data, segment.captured};

		if (one.side == side || wm_looks_like_tls(said))
			segment_take(r, one.side, &segment);
	}
}

static struct wm_segment behind(struct wm_segment segment, uint32_t bytes)
{
	segment.data += bytes;
	segment.captured -= bytes;
	segment.bytes -= bytes;
	segment.seq += bytes;
	return segment;
}

/* Begins to read what stands in a packet of which nothing was read. */
static void wake(const struct reading *r, int side, struct wm_segment segment)
{
	listen(r);
	segment_take(r, side, &segment);
	late_take(r, side);
}

/* Looks for a hello behind what was read of a packet: begins to read it, or keeps it until a proxy has answered. */
static void behind_take(const struct reading *r, int side, const struct wm_segment *segment)
{
	struct connection *connection = r->connection;
	int is_asked = connection->reader == READER_HTTP1 && side == client_side(connection) &&
		       wm_http_is_lost(&connection->http, 1);
	struct wm_segment rest;
	int64_t at;

	if (connection->stage != OPAQUE && !is_asked)
		return;
	at = wakes(connection, (struct wm_said){segment->data, segment->captured});
	if (at <= 0)
		return;
	rest = behind(*segment, (uint32_t)at);
	if (is_asked)
		remember(r, side, &rest);
	else
		wake(r, side, rest);
}

static void packet_take(const struct reading *r, const struct wm_payload *head, const struct wm_ends *flow,
			const uint8_t *data)
{
	struct connection *connection = r->connection;
	int side = memcmp(flow, &connection->flow, sizeof(*flow)) != 0;
	uint32_t captured = head->captured < WM_SEGMENT_ROOM ? head->captured : WM_SEGMENT_ROOM;
	struct wm_segment segment = {r->now_ns, data, captured, head->bytes > captured ? head->bytes : captured,
				     head->seq};
	struct wm_said said = {data, captured};
	int64_t at;

	if (head->tcp_flags & SYN) {
		syn(r, side, head->seq, head->tcp_flags & ACK);
		segment.seq++;
	}
	if (connection->stage == OPAQUE) {
		at = wakes(connection, said);
		if (at < 0)
			remember(r, side, &segment);
		else
			wake(r, side, behind(segment, (uint32_t)at));
	} else {
		if (head->tcp_flags & SYN) {
			wm_stream_open(&connection->streams[side], &r->tcp->cells, head->seq);
			drain(r, side, 0);
		}
		at = connection->has_tls && wm_stream_is_fresh(&connection->streams[side]) ? hello_behind(said) : 0;
		segment = behind(segment, (uint32_t)at); /* what lets a hello come says nothing more */
		segment_take(r, side, &segment);
		behind_take(r, side, &segment);
	}
	if (connection->streams[1 - side].held)
		drain(r, 1 - side, 0);
}

/* --- packets of nobody's */

static void late_keep(struct wm_tcp *tcp, uint64_t hash, const struct wm_payload *head, const uint8_t *data)
{
	struct late *late = &tcp->late[tcp->late_next % LATE_PACKETS];

	if (head->captured > sizeof(late->data))
		return;
	tcp->late_next++;
	late->hash = hash;
	late->head = *head;
	memcpy(late->data, data, head->captured);
}

/* Takes those of a connection that came shortly before, oldest first. */
static void late_read(const struct reading *r)
{
	for (uint32_t i = 0; i < LATE_PACKETS; i++) {
		struct late *late = &r->tcp->late[(r->tcp->late_next + i) % LATE_PACKETS];
		struct reading earlier = *r;
		struct wm_ends flow;

		if (late->hash != r->connection->hash)
			continue;
		late->hash = 0;
		earlier.now_ns = late->head.time_ns;
		if (r->now_ns > late->head.time_ns && r->now_ns - late->head.time_ns > LATE_NS)
			continue;
		flow = wm_payload_ends(&late->head);
		packet_take(&earlier, &late->head, &flow, late->data);
	}
}

enum wm_tcp_took wm_tcp_take(struct wm_tcp *tcp, struct wm_dns *dns, uint32_t device, const struct wm_payload *head,
			     const struct wm_ends *flow, const uint8_t *data, struct wm_told *told)
{
	uint64_t hash = wm_conversation_hash(tcp->seed, device, flow);
	struct reading r = {tcp, dns, told, NULL, head->time_ns};
	struct wm_said said = {data, head->captured};
	uint32_t *link = link_to(tcp, hash);

	if (!*link && !wm_tcp_may_begin(said, head->src_port, head->dst_port)) {
		late_keep(tcp, hash, head, data);
		return WM_TCP_OPAQUE;
	}
	for (int i = 0; i < LET_GO_AT_ONCE && tcp->count && tcp->cells.capacity - tcp->cells.count < CELLS_FREE; i++)
		let_go(tcp, dns, head->time_ns, 1, told);
	link = link_to(tcp, hash);
	if (*link) {
		r.connection = connection_at(tcp, *link);
		order_remove(tcp, r.connection);
		order_add(tcp, r.connection);
		r.connection->heard_ns = head->time_ns;
	} else {
		r.connection = connection_add(tcp, dns, device, hash, flow, head->time_ns, told);
		r.connection->heard_ns = head->time_ns;
		late_read(&r);
	}
	packet_take(&r, head, flow, data);
	return WM_TCP_READ;
}

/* --- time passes, and what others say */

int wm_tcp_advance(struct wm_tcp *tcp, struct wm_dns *dns, uint64_t now_ns, uint64_t silent_ns, struct wm_told *told)
{
	for (uint32_t number = tcp->oldest; number; number = connection_at(tcp, number)->newer) {
		struct connection *connection = connection_at(tcp, number);
		struct reading r = {tcp, dns, told, connection, now_ns};

		if (!wm_told_has_room(told, 2))
			return 0;
		for (int side = 0; side < 2; side++)
			drain(&r, side, 0);
		tell_name(&r);
	}
	while (tcp->count && connection_at(tcp, tcp->oldest)->heard_ns < silent_ns) {
		if (!wm_told_has_room(told, 2))
			return 0;
		let_go(tcp, dns, now_ns, 0, told);
	}
	return !told->pieces_count;
}

/* Whose piece it is, if that is still read by others. */
static struct connection *others(struct wm_tcp *tcp, uint32_t number, uint64_t serial)
{
	struct connection *connection;

	if (!number || number > tcp->touched)
		return NULL;
	connection = connection_at(tcp, number);
	return connection->serial == serial && connection->reader == READER_OTHER ? connection : NULL;
}

void wm_tcp_allow_missing(struct wm_tcp *tcp, struct wm_dns *dns, uint32_t number, uint64_t serial, int from_client,
			  uint64_t count, uint64_t now_ns, struct wm_told *told)
{
	struct reading r = {tcp, dns, told, others(tcp, number, serial), now_ns};
	int side;

	if (!r.connection)
		return;
	side = from_client ? client_side(r.connection) : 1 - client_side(r.connection);
	r.connection->streams[side].optional = count;
	drain(&r, side, 0);
}

void wm_tcp_close(struct wm_tcp *tcp, struct wm_dns *dns, uint32_t number, uint64_t serial, uint64_t now_ns,
		  struct wm_told *told)
{
	struct reading r = {tcp, dns, told, others(tcp, number, serial), now_ns};

	if (!r.connection)
		return;
	r.connection->reader = NO_READER;
	close_it(&r);
}

void wm_tcp_learn(struct wm_tcp *tcp, uint32_t number, uint64_t serial, uint64_t time_ns,
		  const struct wm_known_said *said)
{
	struct connection *connection = others(tcp, number, serial);

	if (connection)
		wm_known_learn(&connection->known, &tcp->cells, said, time_ns);
}
