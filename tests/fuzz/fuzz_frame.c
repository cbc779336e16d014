/* Any bytes as frames through the host engine: nothing but the frame is read, each counts exactly once, and what is
 * kept of payloads lies in the frame.
 *
 * An input is a byte of settings, then frames: a struct recipe and that many bytes of frame, as far as they are there.
 */
#include "fuzz.h"

#define KEPT_ROWS (4 * LINES)

/* How a frame comes. Every value is a right one. */
struct recipe {
	uint8_t length[2]; /* little-endian */
	uint8_t link;	   /* index into LINKS */
	uint8_t repeat; /* times more, up to 63; above: takes the rows afterwards (64), to the other attachment (128) */
	uint8_t vary;	/* the byte that counts up from one repetition to the next */
	uint8_t wire[3]; /* bytes beyond the captured ones */
};

static const uint32_t LINKS[] = {WM_LINK_ETHERNET,  WM_LINK_ETHERNET,  WM_ETHERTYPE_IPV4, WM_ETHERTYPE_IPV6,
				 WM_ETHERTYPE_VLAN, WM_ETHERTYPE_QINQ, WM_ETHERTYPE_LLC,  WM_ETHERTYPE_NONE};

static const uint32_t SPREADS[] = {LINES, 16, 64, LINES / 2}; /* lines that places are spread over */

struct kept {
	struct wm_flow_row rows[KEPT_ROWS];
	size_t count;
};

static int same_key(const struct wm_flow_row *a, const struct wm_flow_row *b)
{
	return !memcmp(a->src_addr, b->src_addr, 16) && !memcmp(a->dst_addr, b->dst_addr, 16) &&
	       a->src_port == b->src_port && a->dst_port == b->dst_port && a->attachment == b->attachment &&
	       a->vlan == b->vlan && a->protocol == b->protocol && a->family == b->family;
}

static struct wm_tally rows_sum(const struct wm_flow_row *rows, size_t count)
{
	struct wm_tally sum = {0, 0, 0};

	for (size_t i = 0; i < count; i++)
		fuzz_tally_add(&sum, &(struct wm_tally){rows[i].packets, rows[i].bytes, rows[i].skbs});
	return sum;
}

/* Merging loses nothing, leaves one row a flow, and keeps their order. */
static void merge_check(struct kept *kept)
{
	static uint64_t index[2 * KEPT_ROWS];
	static struct wm_flow_row before[KEPT_ROWS];
	struct wm_tally sum = rows_sum(kept->rows, kept->count), merged_sum;
	size_t merged, known = 0;

	memcpy(before, kept->rows, kept->count * sizeof(*before));
	memset(index, 0, sizeof(index));
	merged = wm_rows_merge(kept->rows, kept->count, index, 2 * KEPT_ROWS - 1);
	merged_sum = rows_sum(kept->rows, merged);
	REQUIRE(merged <= kept->count && tally_is(&sum, &merged_sum));
	for (size_t i = 0; i < kept->count; i++) {
		size_t at = 0;

		while (at < known && !same_key(&kept->rows[at], &before[i]))
			at++;
		REQUIRE(at < merged && same_key(&kept->rows[at], &before[i]));
		REQUIRE(kept->rows[at].first_ns <= before[i].first_ns && kept->rows[at].last_ns >= before[i].last_ns);
		known += at == known;
	}
	REQUIRE(known == merged);
	kept->count = 0;
}

#define RECORD_MAX (sizeof(struct wm_payload) + WM_PAYLOAD_BYTES_MAX)
#define RECORDS	   3 /* that find room at once */

static const uint32_t LIMITS[] = {0, 1, 64, WM_PAYLOAD_BYTES_MAX}; /* 0: payloads are of no interest */

/* Payloads in an allocation of their own, so that every byte written beyond it is found. */
static void payloads_begin(struct wm_host_payloads *payloads, uint32_t limit)
{
	memset(payloads, 0, sizeof(*payloads));
	payloads->recent = calloc(1, sizeof(struct wm_recent));
	payloads->limit = limit;
	payloads->sources = (1 << WM_SOURCES) - 1;
	payloads->capacity = RECORDS * RECORD_MAX;
	payloads->data = malloc(payloads->capacity);
	payloads->offsets_capacity = RECORDS;
	payloads->offsets = malloc(RECORDS * sizeof(*payloads->offsets));
	REQUIRE(payloads->recent && payloads->data && payloads->offsets);
}

static void payloads_end(struct wm_host_payloads *payloads)
{
	free(payloads->recent);
	free(payloads->data);
	free(payloads->offsets);
}

/* Records that were kept of one frame say what is in it. */
static void payloads_check(const struct wm_host_payloads *payloads, const uint8_t *frame, uint32_t captured)
{
	struct wm_payload head;
	const uint8_t *bytes;
	uint32_t at = 0;

	REQUIRE(payloads->used <= payloads->capacity && payloads->count <= 1);
	for (size_t i = 0; i < payloads->count; i++) {
		memcpy(&head, payloads->data + payloads->offsets[i], sizeof(head));
		bytes = payloads->data + payloads->offsets[i] + sizeof(head);
		REQUIRE(head.bytes && head.bytes <= captured && head.source < WM_SOURCES);
		REQUIRE(head.captured == (head.bytes < payloads->limit ? head.bytes : payloads->limit));
		REQUIRE(head.protocol == WM_TCP || head.protocol == WM_UDP);
		REQUIRE(head.family == 4 || head.family == 6);
		while (at + head.bytes <= captured && memcmp(frame + at, bytes, head.captured))
			at++;
		REQUIRE(at + head.bytes <= captured);
	}
}

static void take(struct engine *engine, struct kept *kept)
{
	if (KEPT_ROWS - kept->count < LINES)
		merge_check(kept);
	kept->count += engine_take(engine, &kept->rows[kept->count]);
}

/* One frame of an allocation of its own, so that every byte read beyond it is found. */
static void frame_send(struct engine *engine, struct kept *kept, struct wm_host_payloads *payloads,
		       const struct recipe *recipe, uint8_t *frame, uint32_t captured, uint64_t time_ns)
{
	uint64_t offset = 0;
	uint32_t wire = captured + (recipe->wire[0] | recipe->wire[1] << 8 | (uint32_t)recipe->wire[2] << 16);
	uint32_t link = LINKS[recipe->link % (sizeof(LINKS) / sizeof(*LINKS))];
	uint32_t attachment = recipe->repeat >> 7, too_long = captured + 1;
	struct wm_host_frames frames = {
		.count = 1,
		.data = frame,
		.data_bytes = captured,
		.offsets = &offset,
		.captured = &too_long,
		.wire = &wire,
		.times_ns = &time_ns,
		.links = recipe->link & 1 ? NULL : &link,
	};
	struct wm_host_payloads *wanted = payloads->limit ? payloads : NULL;
	enum wm_host_stop stop;

	REQUIRE(wm_host_count(&engine->region, &engine->shape, attachment, &frames, 0, wanted, &stop) == 0);
	REQUIRE(stop == WM_HOST_OUTSIDE_DATA);
	frames.captured = &captured;
	if (wanted && time_ns % 5 == 0) {
		payloads->count = RECORDS;
		REQUIRE(wm_host_count(&engine->region, &engine->shape, attachment, &frames, 0, wanted, &stop) == 0);
		REQUIRE(stop == WM_HOST_PAYLOADS_DUE && payloads->count == RECORDS);
		payloads->count = 0;
	}
	if (!wm_host_count(&engine->region, &engine->shape, attachment, &frames, 0, wanted, &stop)) {
		REQUIRE(stop == WM_HOST_FLIP_DUE && engine->region.header.entries && !payloads->count);
		take(engine, kept);
		REQUIRE(wm_host_count(&engine->region, &engine->shape, attachment, &frames, 0, wanted, &stop) == 1);
	}
	REQUIRE(stop == WM_HOST_DONE);
	payloads_check(payloads, frame, captured);
	engine->payloads += payloads->count;
	payloads->used = payloads->count = 0;
	fuzz_tally_add(&engine->sent[attachment], &(struct wm_tally){1, wire, 1});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct engine engine;
	static struct kept kept;
	struct wm_host_payloads payloads;
	struct recipe recipe;
	uint64_t time_ns = 0;

	if (!bytes)
		return 0;
	engine_begin(&engine, SPREADS[data[0] >> 1 & 3] - 1, data[0] & 1, data[0] >> 3);
	payloads_begin(&payloads, LIMITS[data[0] >> 6]);
	kept.count = 0;
	data++, bytes--;
	while (bytes >= sizeof(recipe)) {
		uint32_t captured;
		uint8_t *frame;

		memcpy(&recipe, data, sizeof(recipe));
		data += sizeof(recipe), bytes -= sizeof(recipe);
		captured = recipe.length[0] | recipe.length[1] << 8;
		if (captured > bytes)
			captured = (uint32_t)bytes;
		frame = malloc(captured ? captured : 1);
		REQUIRE(frame);
		memcpy(frame, data, captured);
		for (int i = 0; i <= (recipe.repeat & 63); i++) {
			frame_send(&engine, &kept, &payloads, &recipe, frame, captured, time_ns++);
			if (recipe.vary < captured)
				frame[recipe.vary]++;
		}
		free(frame);
		data += captured, bytes -= captured;
		if (recipe.repeat & 64)
			take(&engine, &kept);
	}
	take(&engine, &kept);
	merge_check(&kept);
	payloads_end(&payloads);
	return 0;
}
