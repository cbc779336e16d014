/* Texts lie in one cell; those of DNS alone, since names there are longer. */
#include "known.h"

#include <string.h>

static const struct {
	uint16_t at, room;
} places[WM_KNOWN_TEXTS] = {
	[WM_KNOWN_DOMAIN] = {0, 255}, [WM_KNOWN_METHOD] = {255, 32}, [WM_KNOWN_ALPN] = {287, 128},
	[WM_KNOWN_JA4] = {415, 40},   [WM_KNOWN_JA4S] = {455, 40},   [WM_KNOWN_QUERY] = {0, WM_CELL_BYTES - 8},
};

void wm_known_begin(struct wm_known *known)
{
	*known = (struct wm_known){.cipher = WM_NONE, .tls_version = WM_NONE, .status = WM_NONE, .rcode = WM_NONE};
}

static void changed(struct wm_known *known, uint64_t time_ns)
{
	known->has_changed = 1;
	known->since_ns = time_ns;
}

void wm_known_application(struct wm_known *known, uint8_t application, uint64_t time_ns)
{
	if (known->application == application)
		return;
	known->application = application;
	changed(known, time_ns);
}

void wm_known_number(struct wm_known *known, int16_t *number, int16_t value, uint64_t time_ns)
{
	if (*number == value)
		return;
	*number = value;
	changed(known, time_ns);
}

void wm_known_text(struct wm_known *known, struct wm_cells *cells, enum wm_known_text what, const uint8_t *text,
		   uint32_t bytes, uint64_t time_ns)
{
	uint8_t *to;

	if (bytes > places[what].room) {
		cells->lost++;
		bytes = 0; /* what was there before is true no more */
	}
	if (!bytes && !known->bytes[what])
		return;
	if (!known->cell)
		known->cell = wm_cell_take(cells);
	if (!known->cell)
		return;
	to = (uint8_t *)wm_cell_data(cells, known->cell) + places[what].at;
	if (known->bytes[what] == bytes && !memcmp(to, text, bytes))
		return;
	memcpy(to, text, bytes);
	known->bytes[what] = (uint16_t)bytes;
	changed(known, time_ns);
}

/* Only of addresses the last label is a number (RFC 3696, section 2). */
static int is_domain(const uint8_t *host, uint32_t bytes)
{
	uint32_t at = bytes;

	while (at && host[at - 1] >= '0' && host[at - 1] <= '9')
		at--;
	return bytes && host[0] != '[' && (at == bytes || (at && host[at - 1] != '.'));
}

static void domain_learn(struct wm_known *known, struct wm_cells *cells, const uint8_t *domain, uint32_t bytes,
			 uint8_t source, uint64_t time_ns)
{
	wm_known_text(known, cells, WM_KNOWN_DOMAIN, domain, bytes, time_ns);
	if (!known->bytes[WM_KNOWN_DOMAIN])
		source = WM_NAME_NO_DOMAIN;
	if (known->source == source)
		return;
	known->source = source;
	changed(known, time_ns);
}

void wm_known_host(struct wm_known *known, struct wm_cells *cells, const uint8_t *host, uint32_t bytes,
		   uint64_t time_ns)
{
	if (!is_domain(host, bytes))
		return;
	domain_learn(known, cells, host, bytes, WM_NAME_HTTP_HOST, time_ns);
}

static void number_learn(struct wm_known *known, int32_t *number, int32_t value, uint64_t time_ns)
{
	if (value == WM_NONE || *number == value)
		return;
	*number = value;
	changed(known, time_ns);
}

void wm_known_learn(struct wm_known *known, struct wm_cells *cells, const struct wm_known_said *said, uint64_t time_ns)
{
	const struct {
		enum wm_known_text what;
		const uint8_t *text;
		uint16_t bytes;
	} texts[] = {
		{WM_KNOWN_METHOD, said->method, said->method_bytes},
		{WM_KNOWN_ALPN, said->alpn, said->alpn_bytes},
		{WM_KNOWN_JA4, said->ja4, said->ja4_bytes},
		{WM_KNOWN_JA4S, said->ja4s, said->ja4s_bytes},
	};

	if (said->application)
		wm_known_application(known, said->application, time_ns);
	if (said->source == WM_NAME_HTTP_HOST) {
		wm_known_host(known, cells, said->domain, said->domain_bytes, time_ns);
	} else if (said->domain_bytes) {
		domain_learn(known, cells, said->domain, said->domain_bytes, said->source, time_ns);
	}
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		if (texts[i].bytes)
			wm_known_text(known, cells, texts[i].what, texts[i].text, texts[i].bytes, time_ns);
	}
	number_learn(known, &known->cipher, said->cipher, time_ns);
	number_learn(known, &known->tls_version, said->tls_version, time_ns);
	if (said->status != WM_NONE)
		wm_known_number(known, &known->status, said->status, time_ns);
}

void wm_known_tell(struct wm_known *known, struct wm_cells *cells, const struct wm_ends *flow, uint64_t hash,
		   struct wm_told *told)
{
	const uint8_t *text = known->cell ? wm_cell_data(cells, known->cell) : NULL;
	struct wm_name *name = &told->names[told->names_count];
	uint32_t at[WM_KNOWN_TEXTS];

	if (!known->has_changed)
		return;
	if (told->names_count == told->names_room || told->text_room - told->text_bytes < WM_CELL_BYTES) {
		told->lost++;
		return;
	}
	known->has_changed = 0;
	told->names_count++;
	for (int what = 0; what < WM_KNOWN_TEXTS; what++)
		at[what] = wm_told_text(told, text ? text + places[what].at : NULL, known->bytes[what]);
	*name = (struct wm_name){
		.time_ns = known->since_ns,
		.hash = hash,
		.flow = *flow,
		.domain_at = at[WM_KNOWN_DOMAIN],
		.method_at = at[WM_KNOWN_METHOD],
		.alpn_at = at[WM_KNOWN_ALPN],
		.ja4_at = at[WM_KNOWN_JA4],
		.ja4s_at = at[WM_KNOWN_JA4S],
		.query_at = at[WM_KNOWN_QUERY],
		.cipher = known->cipher,
		.tls_version = known->tls_version,
		.domain_bytes = known->bytes[WM_KNOWN_DOMAIN],
		.method_bytes = known->bytes[WM_KNOWN_METHOD],
		.alpn_bytes = known->bytes[WM_KNOWN_ALPN],
		.ja4_bytes = known->bytes[WM_KNOWN_JA4],
		.ja4s_bytes = known->bytes[WM_KNOWN_JA4S],
		.query_bytes = known->bytes[WM_KNOWN_QUERY],
		.status = known->status,
		.rcode = known->rcode,
		.application = known->application,
		.source = known->source,
	};
}

void wm_known_end(struct wm_known *known, struct wm_cells *cells)
{
	if (known->cell)
		wm_cell_give(cells, known->cell);
	known->cell = 0;
}
