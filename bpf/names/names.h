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

/* Room for what is told, and how much of it is taken. */
struct wm_told {
	struct wm_dns_transaction *transactions;
	struct wm_dns_answer *answers;
	struct wm_dns_heard *heard;
	struct wm_dns_address *addresses;
	uint8_t *text;
	uint32_t transactions_room, transactions_count;
	uint32_t answers_room, answers_count;
	uint32_t heard_room, heard_count;
	uint32_t addresses_room, addresses_count;
	uint32_t text_room, text_bytes;
};

/* The least room of each column: what one message may take. */
#define WM_TOLD_TRANSACTIONS 512
#define WM_TOLD_ANSWERS	     512
#define WM_TOLD_HEARD	     1
#define WM_TOLD_ADDRESSES    2048
#define WM_TOLD_TEXT	     (1U << 20)

/* Whether every column has that much left. */
int wm_told_has_room(const struct wm_told *told);

/* Questions that wait for their responses; behind this head lie its buckets and slots. */
/* Messages that are remembered, by hash, to know their copies. */
#define WM_DNS_SEEN 1024

struct wm_dns_seen {
	uint64_t hash; /* of device, flow and message */
	uint64_t time_ns;
};

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

/* Conversations that others than this library read, as they have it from wm_names_read(); and the last packets of none.
 */
struct wm_listening;

/* The memory that `capacity` conversations take. */
size_t wm_listening_bytes(uint32_t capacity);

/* Makes an empty set of memory that is all zeros. */
void wm_listening_begin(struct wm_listening *listening, uint32_t capacity, uint64_t seed);

/* A conversation is read no more; `flow` is of either direction. */
void wm_listening_forget(struct wm_listening *listening, uint32_t device, const struct wm_ends *flow);

/* Packets of conversations that nobody read, of which so many are kept: the first part of a hello may come after the
 * second. */
#define WM_LATE_PACKETS 64

/* Where in the memory of a set the record of a packet lies that was kept; its time is since the epoch. */
size_t wm_late_offset(uint32_t number);

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
	uint32_t late[WM_LATE_PACKETS]; /* numbers of kept packets that belong before the last of `others` */
	size_t late_count;
	size_t opaque_count; /* records of which nothing can be read */
};

/* Reads records from number `first` on: DNS is told, what others can read is left to them, the rest is opaque. Returns
 * the next to read: less than all of them where `told` has no room left, or others should read first what is left to
 * them. */
size_t wm_names_read(struct wm_dns *dns, struct wm_listening *listening, struct wm_names_block *block, size_t first,
		     struct wm_told *told);

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

#endif
