/* TLS (RFC 8446; before 1.3: RFC 5246): what a client and its server say in clear before they encrypt, which is the
 * ClientHello and the ServerHello. Out of the two streams of a connection, however they are cut, or a message at a
 * time.
 */
#ifndef WM_TLS_H
#define WM_TLS_H

#include "cells.h"
#include "ja4.h"

/* The longest hello that is read; one with post-quantum shares and padding has about 2 KiB. And so much of a direction
 * is looked through for it. */
#define WM_TLS_HELLO_BYTES  65536
#define WM_TLS_STREAM_BYTES (2 * WM_TLS_HELLO_BYTES)

#define WM_TLS_NAME_BYTES 255

/* A ClientHello. Texts of no bytes: there is none. */
struct wm_client_hello {
	struct wm_span alpn; /* as offered: each name behind its length, a byte */
	uint16_t version;    /* the newest that is offered; a draft of 1.3 counts as 1.3 */
	uint8_t has_ech;     /* it has an encrypted_client_hello extension; of clients without a key, one of noise */
	uint8_t is_cut;	     /* some of it is missing, so that it has no JA4 */
	uint8_t sni_bytes;   /* of a name in printable ASCII */
	uint8_t ja4_bytes;
	uint8_t sni[WM_TLS_NAME_BYTES]; /* in lower case, without a last dot */
	uint8_t ja4[WM_JA4_BYTES];
};
_Static_assert(sizeof(struct wm_client_hello) <= sizeof(((struct wm_cell *)0)->data), "waits in a cell");

/* A ServerHello. */
struct wm_server_hello {
	uint16_t version;   /* that was chosen */
	uint16_t cipher;    /* that was chosen */
	uint8_t is_retry;   /* a HelloRetryRequest, which binds to both; a second ServerHello follows */
	uint8_t alpn_bytes; /* 0 in TLS 1.3, where it is encrypted */
	uint8_t ja4s_bytes;
	uint8_t pad;
	uint8_t alpn[WM_TLS_NAME_BYTES];
	uint8_t ja4s[WM_JA4S_BYTES];
};
_Static_assert(sizeof(struct wm_server_hello) <= sizeof(((struct wm_cell *)0)->data), "waits in a cell");

/* Reads the body of a message, without its type and length, which ALPN points into. is_cut: its end is missing; what is
 * there whole is taken. Returns 0, or -1 if it is no ClientHello. */
int wm_client_hello_read(struct wm_span body, int is_cut, enum wm_ja4_transport transport,
			 struct wm_client_hello *hello);

/* with_ja4s: fingerprint it as one over TCP, too; ja4.h says why not always. */
int wm_server_hello_read(struct wm_span body, int with_ja4s, struct wm_server_hello *hello);

/* One direction, up to its hello. */
struct wm_tls_half {
	struct wm_bytes hello; /* the body of one that is not whole yet */
	uint32_t seen;	       /* bytes of the stream */
	uint32_t message_left; /* of the message that has begun, to come */
	uint16_t record_left;  /* of the handshake record that has begun, to come */
	uint8_t head[11];      /* of a record that says nothing else, or of a hello in the form of SSL 2.0 */
	uint8_t head_bytes;    /* of it, so far */
	uint8_t message_head[4];
	uint8_t message_head_bytes;
	uint8_t is_old;	 /* a hello in the form of SSL 2.0 has begun */
	uint8_t is_over; /* its hello was read, or there will be none in clear */
};

/* A connection's handshake; all zeros in the beginning. */
struct wm_tls {
	uint64_t time_ns;	      /* of the client's first bytes */
	uint32_t offer;		      /* the cell where the ClientHello waits; 0: there is none yet */
	uint32_t choice;	      /* the same of the ServerHello */
	struct wm_bytes alpn;	      /* of the ClientHello */
	struct wm_tls_half halves[2]; /* of the server, of the client */
	uint8_t has_time;
	uint8_t is_answered; /* no further ServerHello will come */
	uint8_t is_too_long; /* a ClientHello was longer than is read */
};

enum wm_tls_took {
	WM_TLS_WAITS, /* for more */
	WM_TLS_TOLD,  /* nothing more is to be learnt, and wm_tls_handshake() has what was */
	WM_TLS_OVER,  /* nothing is to be learnt */
	WM_TLS_NONE,  /* the client speaks no TLS */
};

/* Where to keep what is not whole, and whether to fingerprint the server's answer. */
struct wm_tls_to {
	struct wm_cells *cells;
	uint8_t *room; /* of WM_TLS_ROOM bytes, to put a hello together in; for the time of a call */
	int with_ja4s;
};
#define WM_TLS_ROOM WM_TLS_HELLO_BYTES

/* The next bytes of a direction, in order from the first on; the directions may come in any order. Not to be called any
 * more once it does not wait. */
enum wm_tls_took wm_tls_data(struct wm_tls *tls, const struct wm_tls_to *to, int from_client, const uint8_t *data,
			     uint32_t bytes, uint64_t time_ns);

/* Bytes of a direction were not seen, so that nothing further can be read of it; of a ClientHello, what is there is. */
enum wm_tls_took wm_tls_gap(struct wm_tls *tls, const struct wm_tls_to *to, int from_client);

/* Nothing more will come. */
enum wm_tls_took wm_tls_end(struct wm_tls *tls, const struct wm_tls_to *to);

/* What has become known, also while the server has not answered; until the next call for any connection. */
struct wm_tls_handshake {
	const struct wm_client_hello *offer;  /* NULL: nothing yet */
	const struct wm_server_hello *choice; /* NULL: none was seen */
};
struct wm_tls_handshake wm_tls_handshake(const struct wm_tls *tls, const struct wm_tls_to *to);

/* Gives back its cells, and leaves it as in the beginning. */
void wm_tls_clear(struct wm_tls *tls, struct wm_cells *cells);

#endif
