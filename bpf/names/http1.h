/* HTTP/1.x (RFC 9112): requests and their responses out of the two streams of a connection, bodies skipped by their
 * lengths. Bytes that are no HTTP are skipped up to the next packet that begins like a head.
 */
#ifndef WM_HTTP1_H
#define WM_HTTP1_H

#include "cells.h"
#include "known.h"
#include "names.h"

/* Bytes of one head, of one chunk-size line with its extensions, and of all trailer fields of one body, at most. */
#define WM_HTTP_HEAD_BYTES (64U << 10)

/* Requests without a response, at most; the oldest is given up then. */
#define WM_HTTP_WAITING 256

/* The longest path that is kept; every recipient should support 8,000 bytes (RFC 9110, section 4.1). Methods of more
 * characters than any registered one has are not believed. */
#define WM_HTTP_PATH_BYTES   8192
#define WM_HTTP_METHOD_BYTES 32

struct wm_http_half {
	uint64_t first_ns; /* of the first byte of the head that is being read */
	uint64_t left;	   /* bytes to come of a body or chunk */
	struct wm_bytes buffer;
	uint32_t line_bytes; /* of chunk extensions or trailer fields so far */
	uint8_t state;
	uint8_t ends;	     /* how much of the empty line that ends a head is there */
	uint8_t has_line;    /* the first line of the head is whole, and is one */
	uint8_t is_lost;     /* something was missed, maybe whole messages */
	uint8_t is_doubtful; /* the body's length is believed only until a packet begins like a head */
};

struct wm_http {
	struct wm_http_half halves[2]; /* of the server, of the client */
	uint32_t oldest, newest;       /* requests that wait */
	uint16_t waiting;
	uint8_t is_sending; /* the newest request's body is being sent */
	uint8_t done;	    /* the connection speaks something else from here on: an upgrade, or a tunnel */
	uint8_t is_h2c;	    /* HTTP/2, whose stream 1 is the request that still waits (RFC 7540, section 3.2) */
};

/* Whose it is, and where to go with what is read. */
struct wm_http_to {
	struct wm_cells *cells;
	uint8_t *room; /* for a whole head and a packet */
	struct wm_told *told;
	struct wm_known *known;
	const struct wm_ends *flow; /* from client to server */
	uint32_t device;
	int redact; /* paths are never kept */
};
#define WM_HTTP_ROOM (WM_HTTP_HEAD_BYTES + 4096)

/* The next bytes of a direction, of one packet. Returns how many were read: not all where it is done. */
uint32_t wm_http_data(struct wm_http *http, const struct wm_http_to *to, int from_client, const uint8_t *data,
		      uint32_t bytes, uint64_t time_ns);

/* Bytes of a direction were not seen; WM_GAP_UNKNOWN: nobody can tell how many. */
void wm_http_gap(struct wm_http *http, const struct wm_http_to *to, int from_client, int64_t missing);

/* How many of the next bytes of a direction are certainly no head. */
uint64_t wm_http_optional(const struct wm_http *http, int from_client);

/* Whether bytes of a direction could not be read. */
int wm_http_is_lost(const struct wm_http *http, int from_client);

/* When the last byte was sent of the request that waits for longest. */
uint64_t wm_http_last_ns(const struct wm_http *http, struct wm_cells *cells);

/* Ends the connection: requests that have had no response are told. */
void wm_http_end(struct wm_http *http, const struct wm_http_to *to);

#endif
