/* What payloads say, by the block: records of packets in, columns out. Plain C without I/O, clocks or allocation: time
 * comes with the packets, memory from the caller, and what a peer can make grow has a bound.
 *
 * Columns are arrays of the structs below; text they speak of lies in one arena, and `_at` is a place in it. Python
 * sees them without a copy, in the layout that the compiler gave them (names/columns.py).
 */
#ifndef WM_NAMES_H
#define WM_NAMES_H

#include <stddef.h>
#include <stdint.h>

/* A flow's addresses and ports as its packets bear them; ports in host order. */
struct wm_ends {
	uint8_t src_addr[16]; /* network order, IPv4 as v4-mapped */
	uint8_t dst_addr[16];
	uint16_t src_port;
	uint16_t dst_port;
	uint8_t protocol;
	uint8_t family;
	uint8_t pad[2];
};
_Static_assert(sizeof(struct wm_ends) == 40, "no padding but what is named");

#define WM_NONE (-1)

/* IP protocols (IANA). */
enum wm_names_protocol {
	WM_NAMES_TCP = 6,
	WM_NAMES_UDP = 17,
};

enum wm_dns_flags {
	WM_DNS_RETRY = 1,     /* the same question with the same id was asked before on this flow */
	WM_DNS_HAS_QUERY = 2, /* no response alone */
	WM_DNS_CUT = 4,	      /* the message was not there whole */
};

/* One question of one query, with its response if there was one. */
struct wm_dns_transaction {
	uint64_t time_ns;   /* of the query, or of the response where no query was seen */
	int64_t latency_ns; /* WM_NONE: no response, or no query to measure from */
	struct wm_ends flow;
	int32_t rcode; /* WM_NONE: no response */
	int32_t qtype; /* WM_NONE: the question could not be read */
	uint32_t query_at;
	uint32_t answers_at; /* the first of them in the column of answers */
	uint32_t message_at; /* a copy of the response, where an answer's data are still to be read from it */
	uint16_t query_bytes;
	uint16_t answers;
	uint16_t message_bytes;
	uint8_t flags; /* enum wm_dns_flags */
	uint8_t pad;
	uint32_t device; /* that carried it */
};
_Static_assert(sizeof(struct wm_dns_transaction) == 88, "no padding but what is named");

/* What the data of an answer are in the arena. */
enum wm_dns_form {
	WM_DNS_IPV4, /* 4 bytes */
	WM_DNS_IPV6, /* 16 bytes */
	WM_DNS_NAME, /* its text */
	WM_DNS_WIRE, /* as sent, in the copy of the message */
};

struct wm_dns_answer {
	uint32_t name_at;
	uint32_t data_at;
	uint32_t ttl; /* seconds */
	uint16_t name_bytes;
	uint16_t data_bytes;
	uint16_t type;
	uint16_t class;
	uint8_t form; /* enum wm_dns_form */
	uint8_t pad[3];
};
_Static_assert(sizeof(struct wm_dns_answer) == 24, "no padding but what is named");

/* A message of a DNS conversation over UDP. */
struct wm_dns_heard {
	uint64_t time_ns;
	uint64_t hash;	     /* of the flow */
	struct wm_ends flow; /* from client to server */
	uint32_t query_at;
	int16_t query_bytes; /* WM_NONE: it has no question */
	int16_t rcode;	     /* WM_NONE: of a query */
};
_Static_assert(sizeof(struct wm_dns_heard) == 64, "no padding but what is named");

/* What an answer that was asked for says of an address. */
struct wm_dns_address {
	uint8_t client[16]; /* who asked; 0: announced to all */
	uint8_t address[16];
	uint64_t time_ns; /* of the response */
	uint32_t ttl;	  /* seconds */
	uint32_t name_at; /* lower case */
	uint16_t name_bytes;
	uint8_t is_pointer; /* the name is what reverse DNS says of it */
	uint8_t pad[5];
};
_Static_assert(sizeof(struct wm_dns_address) == 56, "no padding but what is named");

/* One request, with the status of its final response if that was seen. A text of no bytes: there is none. */
struct wm_http_transaction {
	uint64_t time_ns;   /* of the request's first byte, or of the response's where no request was seen */
	int64_t latency_ns; /* from the request's last byte that was seen to the response's first; WM_NONE */
	struct wm_ends flow;
	uint32_t method_at; /* no bytes: no request was seen */
	uint32_t host_at;   /* lower case */
	uint32_t path_at;   /* with its query, as sent; no bytes where redacted */
	uint32_t device;
	uint16_t method_bytes;
	uint16_t host_bytes;
	uint16_t path_bytes;
	int16_t status;	 /* WM_NONE: no final response */
	uint8_t version; /* 10, 11 or 20 */
	uint8_t pad[7];
};
_Static_assert(sizeof(struct wm_http_transaction) == 88, "no padding but what is named");

/* A ClientHello, with what the ServerHello chose if that was seen. A text of no bytes: there is none. */
struct wm_hello {
	uint64_t time_ns;
	struct wm_ends flow; /* from client to server */
	uint32_t sni_at;     /* lower case, without a last dot */
	uint32_t alpn_at;    /* as offered: each name behind its length, a byte */
	uint32_t ja4_at;
	uint32_t ja4s_at;
	uint32_t chosen_at; /* the server's choice of ALPN */
	uint32_t device;
	int32_t tls_version; /* the server's choice, or the highest that was offered; WM_NONE */
	int32_t cipher;	     /* the server's choice; WM_NONE */
	uint16_t sni_bytes;
	uint16_t alpn_bytes;
	uint16_t ja4_bytes;
	uint16_t ja4s_bytes;
	uint16_t chosen_bytes;
	uint8_t ech;  /* it has an encrypted_client_hello extension */
	uint8_t quic; /* the version of QUIC; 0: TLS over TCP */
	uint8_t pad[4];
};
_Static_assert(sizeof(struct wm_hello) == 96, "no padding but what is named");

/* Where a domain is from. */
enum wm_name_source {
	WM_NAME_NO_DOMAIN,
	WM_NAME_SNI,
	WM_NAME_HTTP_HOST,
	WM_NAME_QUIC_SNI,
};

/* What is known of a conversation by what it says itself. A text of no bytes, a number of WM_NONE: not known. */
struct wm_name {
	uint64_t time_ns;    /* since when the last of it is known */
	uint64_t hash;	     /* of the conversation and its device */
	struct wm_ends flow; /* of either direction */
	uint32_t domain_at;
	uint32_t method_at; /* of the latest request */
	uint32_t alpn_at;
	uint32_t ja4_at;
	uint32_t ja4s_at;
	uint32_t query_at; /* of the last DNS message */
	int32_t cipher;
	int32_t tls_version;
	uint16_t domain_bytes;
	uint16_t method_bytes;
	uint16_t alpn_bytes;
	uint16_t ja4_bytes;
	uint16_t ja4s_bytes;
	uint16_t query_bytes;
	int16_t status; /* of the latest response */
	int16_t rcode;
	uint8_t application; /* enum wm_application */
	uint8_t source;	     /* enum wm_name_source */
	uint8_t pad[6];
};
_Static_assert(sizeof(struct wm_name) == 112, "no padding but what is named");

enum wm_piece_kind {
	WM_PIECE_DATA,	  /* bytes of one packet */
	WM_PIECE_GAP,	  /* `missing` bytes that were not seen; WM_NONE: nobody can tell how many */
	WM_PIECE_REQUEST, /* of HTTP/1 that became stream 1 of HTTP/2 (RFC 7540, section 3.2) */
	WM_PIECE_END,	  /* nothing more will come */
};

/* What comes next in a direction of a connection whose streams this library only puts in order: HTTP/2 in clear. */
struct wm_piece {
	uint64_t time_ns; /* of the packet; of a request's first byte */
	uint64_t serial;  /* of the connection */
	int64_t missing;
	uint64_t last_ns;    /* of a request's last byte */
	struct wm_ends flow; /* from client to server */
	uint32_t connection;
	uint32_t device;
	uint32_t data_at; /* of a request: method, host and path, one behind the other */
	uint32_t data_bytes;
	uint16_t method_bytes;
	uint16_t host_bytes;
	uint8_t from_client;
	uint8_t kind; /* enum wm_piece_kind */
	uint8_t pad[2];
};
_Static_assert(sizeof(struct wm_piece) == 96, "no padding but what is named");

/* Room for what is told, and how much of it is taken. */
struct wm_told {
	struct wm_dns_transaction *transactions;
	struct wm_dns_answer *answers;
	struct wm_dns_heard *heard;
	struct wm_dns_address *addresses;
	struct wm_http_transaction *http;
	struct wm_hello *hellos;
	struct wm_name *names;
	struct wm_piece *pieces;
	uint8_t *text;
	uint64_t lost; /* what found no room here, or is longer than is read */
	uint32_t transactions_room, transactions_count;
	uint32_t answers_room, answers_count;
	uint32_t heard_room, heard_count;
	uint32_t addresses_room, addresses_count;
	uint32_t http_room, http_count;
	uint32_t hellos_room, hellos_count;
	uint32_t names_room, names_count;
	uint32_t pieces_room, pieces_count;
	uint32_t text_room, text_bytes;
};

/* The least room of each column: what one message may take. */
#define WM_TOLD_TRANSACTIONS 512
#define WM_TOLD_ANSWERS	     512
#define WM_TOLD_HEARD	     1
#define WM_TOLD_ADDRESSES    2048
#define WM_TOLD_HTTP	     1024
#define WM_TOLD_HELLOS	     64
#define WM_TOLD_NAMES	     64
#define WM_TOLD_PIECES	     256
#define WM_TOLD_TEXT	     (1U << 20)

/* Whether every column has so many times that much left. */
int wm_told_has_room(const struct wm_told *told, uint32_t times);

/* Appends a text, for which there is room; returns where it lies. */
uint32_t wm_told_text(struct wm_told *told, const uint8_t *text, uint32_t bytes);

/* Tells one request, whose texts are so long as `of` says; without room it is counted as lost. */
void wm_http_tell(struct wm_told *told, const struct wm_http_transaction *of, const uint8_t *method,
		  const uint8_t *host, const uint8_t *path);

/* The same of a pair of hellos. */
void wm_hello_tell(struct wm_told *told, const struct wm_hello *of, const uint8_t *sni, const uint8_t *alpn,
		   const uint8_t *ja4, const uint8_t *ja4s, const uint8_t *chosen);

/* The longest domain name has 253 characters (RFC 1035, section 2.3.4). */
#define WM_HTTP_HOST_BYTES 255

/* The host of an authority in lower case, without user, port and last dot, into `host`; returns its bytes, 0 if there
 * is none. */
uint32_t wm_http_host(const uint8_t *authority, size_t bytes, uint8_t host[WM_HTTP_HOST_BYTES]);

/* Messages that are remembered, by hash, to know their copies. */
#define WM_DNS_SEEN 1024

struct wm_dns_seen {
	uint64_t hash; /* of device, flow and message */
	uint64_t time_ns;
};

/* Questions that wait for their responses; behind this head lie its buckets and slots. */
struct wm_dns {
	uint64_t seed;	      /* unpredictable: who sends packets must not be able to choose their places */
	uint64_t ended_early; /* questions that ended unanswered before their time, for want of room */
	uint64_t copies;      /* messages that were seen just before, byte for byte */
	uint32_t capacity;
	uint32_t buckets_mask;
	uint32_t count;		 /* questions that wait */
	uint32_t slots_used;	 /* slots from the first on that were ever in use */
	uint32_t free;		 /* slots that are free again; 1 + index, 0: none */
	uint32_t oldest, newest; /* by when they were asked; 1 + index */
	uint32_t pad;
	struct wm_dns_seen seen[WM_DNS_SEEN];
};

/* The memory that `capacity` questions take, touched as it is used. */
size_t wm_dns_bytes(uint32_t capacity);

/* Makes an empty table of memory that is all zeros. */
void wm_dns_begin(struct wm_dns *dns, uint32_t capacity, uint64_t seed);

enum wm_dns_how {
	WM_DNS_IS_CUT = 1,  /* the end of the message is known to be missing */
	WM_DNS_LENIENT = 2, /* there is reason to believe that it is DNS: a damaged first question is one of no name */
};

/* Takes one message, without the length that precedes it over TCP, as `flow` of `device` carried it; `told` has room.
 * Returns 0, or -1 if it is none: no whole header, or no question where the header promises one. */
int wm_dns_take(struct wm_dns *dns, uint32_t device, uint64_t time_ns, const struct wm_ends *flow, const uint8_t *data,
		size_t bytes, int how, struct wm_told *told);

/* Ends what was asked at `until_ns` or before. Returns whether that was all; else `told` has no room left. */
int wm_dns_expire(struct wm_dns *dns, uint64_t until_ns, struct wm_told *told);

/* Whether these may be the first bytes of a message's header; what is not there yet may be. */
int wm_dns_may_begin(const uint8_t *data, size_t bytes);

/* Whether a datagram on a port that promises nothing is an ordinary query or its response: one question of a known type
 * and class, a name of printable bytes, header bits that fit, and records that end exactly where the datagram does.
 * Random bytes pass less than once in 10^9. cut: its end is missing, and its records are not looked at. */
int wm_dns_looks_like(const uint8_t *data, size_t bytes, int cut);

/* Connections over TCP that are being read: streams in order, HTTP/1, DNS, and the application of first bytes. */
struct wm_tcp;

/* The memory that so many connections take, and so many cells of 512 bytes for what waits in them; touched as it is
 * used. */
size_t wm_tcp_bytes(uint32_t capacity, uint32_t cells);

enum wm_tcp_how {
	WM_TCP_REDACT = 1, /* paths of requests are never kept */
	WM_TCP_JA4S = 2,   /* fingerprint servers' answers; ja4.h says why not always */
};

/* Makes an empty table of memory that is all zeros. */
void wm_tcp_begin(struct wm_tcp *tcp, uint32_t capacity, uint32_t cells, uint64_t seed, int how);

/* How many are being read. */
uint32_t wm_tcp_count(const struct wm_tcp *tcp);

/* Cells in use; tests look that they are bounded, and that none stays where no connection is read. */
uint32_t wm_tcp_cells(const struct wm_tcp *tcp);

/* How often something of them found no cell to wait in, or went before its time because others needed the room. */
uint64_t wm_tcp_lost(const struct wm_tcp *tcp);

/* Stops waiting for segments that should have come by `now_ns`, lets go connections that nothing was heard of since
 * `silent_ns`, and tells what has become known of all. Returns whether that was all; else `told` has no room left, or
 * others should read first what is left to them. */
int wm_tcp_advance(struct wm_tcp *tcp, struct wm_dns *dns, uint64_t now_ns, uint64_t silent_ns, struct wm_told *told);

/* What readers of streams say of a connection, by what its pieces say of it; nothing happens if it is no more.
 *
 * Of the next `count` bytes of a direction none is needed: a hole that ends among them isn't waited for. */
void wm_tcp_allow_missing(struct wm_tcp *tcp, struct wm_dns *dns, uint32_t connection, uint64_t serial, int from_client,
			  uint64_t count, uint64_t now_ns, struct wm_told *told);

/* Nothing more is to be read, unless something else begins. */
void wm_tcp_close(struct wm_tcp *tcp, struct wm_dns *dns, uint32_t connection, uint64_t serial, uint64_t now_ns,
		  struct wm_told *told);

/* What it says of itself: texts of no bytes, numbers of WM_NONE and WM_APP_UNKNOWN stay as they were. */
struct wm_known_said {
	const uint8_t *domain, *method, *alpn, *ja4, *ja4s;
	uint16_t domain_bytes, method_bytes, alpn_bytes, ja4_bytes, ja4s_bytes;
	int32_t cipher, tls_version;
	int16_t status;
	uint8_t application;
	uint8_t source; /* of the domain; of a host that is an address there is none */
};
void wm_tcp_learn(struct wm_tcp *tcp, uint32_t connection, uint64_t serial, uint64_t time_ns,
		  const struct wm_known_said *said);

/* Conversations over UDP that others than this library read, as they have it from wm_names_read(). */
struct wm_listening;

/* The memory that `capacity` conversations take. */
size_t wm_listening_bytes(uint32_t capacity);

/* Makes an empty set of memory that is all zeros. */
void wm_listening_begin(struct wm_listening *listening, uint32_t capacity, uint64_t seed);

/* A conversation is read no more; `flow` is of either direction. */
void wm_listening_forget(struct wm_listening *listening, uint32_t device, const struct wm_ends *flow);

/* Tells what others have read of a conversation over UDP. */
void wm_udp_learn(const struct wm_listening *listening, uint32_t device, const struct wm_ends *flow, uint64_t time_ns,
		  const struct wm_known_said *said, struct wm_told *told);

/* Payload records as an engine left them (struct wm_payload). */
struct wm_names_block {
	const uint8_t *data;
	size_t data_bytes;
	const uint64_t *offsets;
	size_t count;
	uint64_t origin_ns;	/* added to their times */
	const int32_t *devices; /* by attachment, negative: left out; NULL: all are of device 0 */
	size_t devices_count;
	uint32_t *others; /* numbers of records that are left to others, room for all */
	size_t others_count;
	size_t opaque_count; /* records of which nothing can be read */
};

/* Reads records from number `first` on: what they say is told, what others can read is left to them, the rest is
 * opaque. Returns the next to read: less than all of them where `told` has no room left, or others should read first
 * what is left to them, here or in `told->pieces`. */
size_t wm_names_read(struct wm_dns *dns, struct wm_tcp *tcp, struct wm_listening *listening,
		     struct wm_names_block *block, size_t first, struct wm_told *told);

/* When a flow was first seen, in sets of as many as lie in a cache line: of more than find room, those not seen for the
 * longest time are forgotten. */
#define WM_BEGAN_WAYS 4
struct wm_began_flow {
	uint32_t tag;  /* upper half of the conversation's hash */
	uint32_t seen; /* in which round; 0: this place is free */
	uint64_t began_ns;
};
struct wm_began_set {
	struct wm_began_flow flows[WM_BEGAN_WAYS];
};
_Static_assert(sizeof(struct wm_began_set) == 64, "a cache line");

/* For each of `count` flows when it began: as was remembered by the hash of its conversation, or `first_ns` where
 * nothing was or the flow `is_new`. sets: sets_mask + 1 of them, a power of two. round: 1, 2, …, one for each call. */
void wm_began_find(struct wm_began_set *sets, uint32_t sets_mask, uint32_t round, const uint64_t *hashes,
		   const uint64_t *first_ns, const uint8_t *is_new, size_t count, uint64_t *began_ns);

/* Names by client and address, as pairs of 16 bytes each, in order of their hashes. */
struct wm_domains {
	const uint64_t *hash_keys; /* five, which nobody knows */
	const uint64_t *hashes;
	const uint64_t *pairs;	/* four words each */
	const int64_t *slots;	/* where each name is kept */
	const uint32_t *starts; /* where hashes begin whose upper bits are 0, 1, … */
	uint32_t shift;		/* by how much a hash leaves these */
	uint32_t own_count;
	const int64_t *end_ns; /* by slot: until when a name holds */
	const uint8_t *own;    /* addresses of one client, whose address is `owner` in pairs */
	const uint8_t *owner;
};

void wm_domains_hash(const uint64_t *hash_keys, const uint64_t *pairs, size_t count, uint64_t *hashes);

/* For each of `count` flows the slot of its name, and -1 if it has none at `time_ns`. Where the source is not known to
 * be the client, both ends may be, the source first; where it is, what was announced to all (client 0) comes last. src,
 * dst: addresses, `stride` bytes from one flow to the next. */
void wm_domains_find(const struct wm_domains *domains, const uint8_t *src, const uint8_t *dst, size_t stride,
		     const uint8_t *src_is_client, size_t count, int64_t time_ns, int64_t *found);

#endif
