/* What the fuzzers of the engine share: a small one whose sums are checked. */
#ifndef WM_FUZZ_H
#define WM_FUZZ_H

#include "host.h"
#include "require.h"
#include "rows.h"
#include "../lib/headers.h"
#include "../records.h"

#include <stdint.h>
#include <string.h>

#define ATTACHMENTS 2
#define LINES	    256

/* A region as records.h lays it out, of which every byte belongs to something. */
struct region {
	struct wm_region_header header;
	struct wm_counters counters[ATTACHMENTS];
	uint32_t touched[LINES];
	uint8_t lines[LINES * WM_LINE_BYTES] __attribute__((aligned(128)));
};

struct engine {
	struct region region;
	struct wm_table_shape shape;
	struct wm_tally sent[ATTACHMENTS]; /* since the last take */
	uint32_t payloads;		   /* kept, since the last take */
	int never_due;			   /* flips are not asked for, so the table fills up */
};

static void engine_open(struct engine *engine, uint32_t spread_mask)
{
	engine->region.header.spread_mask = spread_mask;
	engine->region.header.flip_asked = !!engine->never_due;
}

static void engine_begin(struct engine *engine, uint32_t spread_mask, int never_due, uint64_t seed)
{
	memset(engine, 0, sizeof(*engine));
	engine->never_due = never_due;
	engine->shape = (struct wm_table_shape){
		.touched_offset = offsetof(struct region, touched),
		.lines_offset = offsetof(struct region, lines),
		.lines_mask = LINES - 1,
	};
	for (int i = 0; i < WM_HASH_KEYS; i++)
		engine->shape.hash_keys[i] = seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	engine_open(engine, spread_mask);
}

static void fuzz_tally_add(struct wm_tally *to, const struct wm_tally *tally)
{
	to->packets += tally->packets;
	to->bytes += tally->bytes;
	to->skbs += tally->skbs;
}

static int tally_is(const struct wm_tally *a, const struct wm_tally *b)
{
	return a->packets == b->packets && a->bytes == b->bytes && a->skbs == b->skbs;
}

static int is_zero(const void *data, size_t bytes)
{
	const uint8_t *at = data;

	while (bytes--)
		if (*at++)
			return 0;
	return 1;
}

/* What one attachment's counters, flows and ethertypes add up to: seen = flows + non-IP + unattributed, and seen is
 * what was sent, since each frame counts exactly once. */
static void attachment_check(const struct engine *engine, uint32_t attachment, const struct wm_tally *flows,
			     const struct wm_tally *ethertypes)
{
	const struct wm_tally *rows = engine->region.counters[attachment].rows;
	struct wm_tally seen = rows[WM_ROW_UNATTRIBUTED + WM_TRUNCATED_L2], attributed = *flows;

	for (int row = 0; row < WM_ROW_UNATTRIBUTED; row++)
		fuzz_tally_add(&seen, &rows[row]);
	fuzz_tally_add(&attributed, &rows[WM_ROW_NON_IP]);
	for (int reason = 0; reason < WM_REASONS; reason++)
		fuzz_tally_add(&attributed, &rows[WM_ROW_UNATTRIBUTED + reason]);
	REQUIRE(tally_is(&seen, &engine->sent[attachment]));
	REQUIRE(tally_is(&seen, &attributed));
	REQUIRE(is_zero(&rows[WM_ROW_UNATTRIBUTED + WM_TABLE_FULL], sizeof(*rows)));
	REQUIRE(is_zero(&rows[WM_ROW_UNATTRIBUTED + WM_NO_REGION], sizeof(*rows)));
	/* A table that is flipped in time has room for every ethertype; a fuller one may have lost some. */
	REQUIRE(ethertypes->skbs <= rows[WM_ROW_NON_IP].skbs);
	if (!engine->never_due)
		REQUIRE(tally_is(ethertypes, &rows[WM_ROW_NON_IP]));
}

/* Takes all rows, checks the sums, and leaves the engine as new. `flows` has room for LINES rows; returns how many. */
static size_t engine_take(struct engine *engine, struct wm_flow_row *flows)
{
	struct wm_tally of_flows[ATTACHMENTS] = {0}, of_ethertypes[ATTACHMENTS] = {0};
	struct wm_ethertype_row ethertypes[LINES];
	const struct wm_region_header *header = &engine->region.header;
	uint32_t entries = header->entries, spread_mask = header->spread_mask;
	struct wm_rows_taken taken;
	uint32_t payloads = 0;

	for (int source = 0; source < WM_SOURCES; source++)
		payloads += header->payloads[source];
	REQUIRE(payloads == engine->payloads);
	REQUIRE(header->lines_used <= LINES && entries <= header->lines_used);
	taken = wm_rows_take(&engine->region, &engine->shape, flows, ethertypes, 1, 0, 0);
	REQUIRE(taken.flows + taken.ethertypes == entries);
	for (size_t i = 0; i < taken.flows; i++) {
		struct wm_tally row = {flows[i].packets, flows[i].bytes, flows[i].skbs};

		REQUIRE(flows[i].attachment < ATTACHMENTS && row.packets);
		REQUIRE(flows[i].family == 4 || flows[i].family == 6);
		REQUIRE(flows[i].vlan <= 0xfff || flows[i].vlan == WM_ROW_NO_VLAN);
		fuzz_tally_add(&of_flows[flows[i].attachment], &row);
	}
	for (size_t i = 0; i < taken.ethertypes; i++) {
		struct wm_tally row = {ethertypes[i].packets, ethertypes[i].bytes, ethertypes[i].skbs};

		REQUIRE(ethertypes[i].attachment < ATTACHMENTS && row.packets);
		REQUIRE(ethertypes[i].ethertype <= WM_ETHERTYPE_NONE);
		fuzz_tally_add(&of_ethertypes[ethertypes[i].attachment], &row);
	}
	for (uint32_t i = 0; i < ATTACHMENTS; i++)
		attachment_check(engine, i, &of_flows[i], &of_ethertypes[i]);
	REQUIRE(!header->entries && !header->lines_used && !header->flip_asked);
	for (int i = 0; i < LINES; i++)
		REQUIRE(is_zero(&engine->region.lines[i * WM_LINE_BYTES], sizeof(struct wm_flow_head)));
	memset(engine->region.counters, 0, sizeof(engine->region.counters));
	memset(engine->sent, 0, sizeof(engine->sent));
	memset(engine->region.header.payloads, 0, sizeof(engine->region.header.payloads));
	engine->payloads = 0;
	engine_open(engine, spread_mask);
	return taken.flows;
}

#endif
