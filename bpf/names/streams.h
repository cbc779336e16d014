/* One direction of a TCP connection: segments in any order in, bytes in their order out, holes named as such, in
 * bounded memory (RFC 9293, section 3.4). Where copies overlap the first one wins, as most receivers have it.
 */
#ifndef WM_STREAMS_H
#define WM_STREAMS_H

#include "cells.h"

/* A hole is waited for until this much has come after it, or this long by the clock of the packets. */
#define WM_HELD_BYTES	 (128U << 10)
#define WM_HELD_SEGMENTS 64
#define WM_HELD_NS	 1000000000ULL

/* A segment this far from where the stream stands isn't reordered: what lies between was not sent to us. */
#define WM_FAR_BYTES (1 << 20)

/* Where no SYN told the beginning, data that don't look like one wait this long for such that do. */
#define WM_START_SEGMENTS 3
#define WM_START_NS	  100000000ULL

struct wm_stream {
	int64_t next;	   /* position of the next byte in order, modulo 2^32 its sequence number; if it has begun */
	uint64_t optional; /* how many of the next bytes nobody needs */
	uint32_t held;	   /* pieces by position, without overlaps; their first cell */
	uint32_t held_bytes;
	uint32_t start; /* sequence number of the first byte */
	uint16_t held_count;
	uint8_t has_begun;
	uint8_t begins; /* what is held looks like the beginning */
};

/* A segment, of which the first `captured` bytes are there. */
struct wm_segment {
	uint64_t time_ns;
	const uint8_t *data;
	uint32_t captured;
	uint32_t bytes;
	uint32_t seq; /* of its first byte */
};

#define WM_GAP_UNKNOWN (-1)

/* What comes next: maybe a gap, bytes of one packet, maybe a gap. */
struct wm_next {
	uint64_t time_ns; /* of the packet that brought the bytes */
	int64_t gap;	  /* bytes missing before; WM_GAP_UNKNOWN: nobody can tell how many; 0: none */
	const uint8_t *data;
	uint32_t bytes;
	uint32_t missing; /* behind */
};

/* Whether nothing was seen yet. */
int wm_stream_is_fresh(const struct wm_stream *stream);

/* Whether the stream began, or may have begun, with the SYN that bears `seq`. */
int wm_stream_is_start(const struct wm_stream *stream, struct wm_cells *cells, uint32_t seq);

/* Stands before the first byte after a SYN. A SYN sent again changes nothing. */
void wm_stream_open(struct wm_stream *stream, struct wm_cells *cells, uint32_t seq);

enum wm_stream_took {
	WM_STREAM_HELD,	 /* see wm_stream_next() */
	WM_STREAM_NEXT,	 /* it is next, and `next` says of it what is new */
	WM_STREAM_WAITS, /* not taken: all that is held must go first (wm_stream_next() with `give_up`), then again */
	WM_STREAM_LOST,	 /* no cell was free for it, which is counted there */
};

/* Takes a segment. begins: it looks like the beginning of what a stream may say; of account only where no SYN was seen
 * and where it lies far back. */
enum wm_stream_took wm_stream_take(struct wm_stream *stream, struct wm_cells *cells, const struct wm_segment *segment,
				   int begins, struct wm_next *next);

/* What of the held is in order now, or was waited for long enough, or `give_up`: whatever is missing before it. Its
 * bytes are copied to `room` for WM_SEGMENT_ROOM. Returns whether there was something. */
int wm_stream_next(struct wm_stream *stream, struct wm_cells *cells, uint64_t now_ns, int give_up, uint8_t *room,
		   struct wm_next *next);
#define WM_SEGMENT_ROOM 4096

/* Forgets all that is held. */
void wm_stream_clear(struct wm_stream *stream, struct wm_cells *cells);

#endif
