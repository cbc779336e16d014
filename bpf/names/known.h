/* What is known of a conversation, as it becomes known: its application, and what hellos, requests and queries say. */
#ifndef WM_KNOWN_H
#define WM_KNOWN_H

#include "applications.h"
#include "cells.h"
#include "names.h"

enum wm_known_text {
	WM_KNOWN_DOMAIN,
	WM_KNOWN_METHOD,
	WM_KNOWN_ALPN,
	WM_KNOWN_JA4,
	WM_KNOWN_JA4S,
	WM_KNOWN_QUERY,
	WM_KNOWN_TEXTS,
};

struct wm_known {
	uint64_t since_ns; /* when the last of it became known */
	uint32_t cell;	   /* of its texts; 0: there are none */
	int32_t cipher;	   /* as wm_name */
	int32_t tls_version;
	int16_t status;
	int16_t rcode;
	uint8_t application;
	uint8_t source;
	uint8_t has_changed; /* since it was told */
	uint8_t pad;
	uint16_t bytes[WM_KNOWN_TEXTS];
};

void wm_known_begin(struct wm_known *known);

/* Each takes what is new, and when. A text that is too long for its place, or finds no cell, is not known then, and
 * counted in `cells`. */
void wm_known_application(struct wm_known *known, uint8_t application, uint64_t time_ns);
void wm_known_number(struct wm_known *known, int16_t *number, int16_t value, uint64_t time_ns);
void wm_known_text(struct wm_known *known, struct wm_cells *cells, enum wm_known_text what, const uint8_t *text,
		   uint32_t bytes, uint64_t time_ns);

/* The host of a request names the conversation unless it is an address. */
void wm_known_host(struct wm_known *known, struct wm_cells *cells, const uint8_t *host, uint32_t bytes,
		   uint64_t time_ns);

/* What others have read of it. */
void wm_known_learn(struct wm_known *known, struct wm_cells *cells, const struct wm_known_said *said, uint64_t time_ns);

/* Tells what has changed, of `flow`; without room in `told` that is counted as lost there, and still to be told. */
void wm_known_tell(struct wm_known *known, struct wm_cells *cells, const struct wm_ends *flow, uint64_t hash,
		   struct wm_told *told);
void wm_known_end(struct wm_known *known, struct wm_cells *cells);

#endif
