/* Any bytes as a capture file, in pieces of any size: nothing beyond a piece is read, what is kept between pieces is
 * bounded, each frame lies in its piece, and however the file is cut its frames are the same.
 *
 * An input is a byte of settings, from which the sizes of the pieces follow, then the file.
 */
#include "fuzz.h"
#include "capture.h"

#define FRAMES_AT_ONCE 7 /* few, so that arrays fill up within a piece */

/* All that a reading of a file gave. */
struct outcome {
	enum wm_capture_state state;
	uint32_t detail;
	uint32_t linktypes_seen;
	uint64_t frames;
	uint64_t digest; /* of all frames in order: lengths, times, links, bytes */
	uint64_t left;	 /* bytes at the end that are no whole record */
};

struct reading {
	struct wm_capture capture;
	struct outcome outcome;
	uint8_t *held; /* bytes not taken yet */
	size_t held_bytes;
};

static void digest_add(struct outcome *outcome, const void *data, size_t bytes)
{
	const uint8_t *at = data;

	while (bytes--) /* FNV-1a */
		outcome->digest = (outcome->digest ^ *at++) * 0x100000001b3ULL;
}

static void frames_check(struct reading *reading, struct engine *engine, const uint8_t *data, size_t bytes,
			 const struct wm_capture_records *records)
{
	static struct wm_flow_row rows[LINES];
	struct wm_host_frames frames = {
		.count = records->count,
		.data = data,
		.data_bytes = bytes,
		.offsets = records->offsets,
		.captured = records->captured,
		.wire = records->wire,
		.times_ns = records->times_ns,
		.links = records->links,
	};
	struct outcome *outcome = &reading->outcome;
	enum wm_host_stop stop = WM_HOST_DONE;
	size_t counted = 0;

	for (size_t i = 0; i < records->count; i++) {
		REQUIRE(records->offsets[i] <= bytes && records->captured[i] <= bytes - records->offsets[i]);
		REQUIRE(records->captured[i] <= WM_CAPTURE_FRAME_MAX);
		REQUIRE(records->links[i] == WM_LINK_ETHERNET || records->links[i] <= WM_ETHERTYPE_NONE);
		digest_add(outcome, &records->captured[i], sizeof(records->captured[i]));
		digest_add(outcome, &records->wire[i], sizeof(records->wire[i]));
		digest_add(outcome, &records->times_ns[i], sizeof(records->times_ns[i]));
		digest_add(outcome, &records->links[i], sizeof(records->links[i]));
		digest_add(outcome, data + records->offsets[i], records->captured[i]);
		fuzz_tally_add(&engine->sent[0], &(struct wm_tally){1, records->wire[i], 1});
	}
	outcome->frames += records->count;
	counted = wm_host_count(&engine->region, &engine->shape, 0, &frames, counted, NULL, &stop);
	REQUIRE(counted == records->count && stop == WM_HOST_DONE);
	engine_take(engine, rows);
}

/* Reads from the held bytes until more are wanted or nothing more can come; returns whether more are wanted. */
static int records_read(struct reading *reading, struct engine *engine, size_t capacity)
{
	uint64_t offsets[FRAMES_AT_ONCE], times_ns[FRAMES_AT_ONCE];
	uint32_t captured[FRAMES_AT_ONCE], wire[FRAMES_AT_ONCE], links[FRAMES_AT_ONCE];
	struct wm_capture_records records = {capacity, 0, offsets, captured, wire, times_ns, links};
	enum wm_capture_state state;

	do {
		size_t taken = wm_capture_read(&reading->capture, reading->held, reading->held_bytes, &records, &state);

		REQUIRE(taken <= reading->held_bytes && records.count <= capacity);
		REQUIRE(state <= WM_CAPTURE_BYTE_ORDER);
		REQUIRE(state != WM_CAPTURE_FULL || (records.count == capacity && taken));
		frames_check(reading, engine, reading->held, reading->held_bytes, &records);
		reading->held_bytes -= taken;
		memmove(reading->held, reading->held + taken, reading->held_bytes);
		reading->held = realloc(reading->held, reading->held_bytes ? reading->held_bytes : 1);
		REQUIRE(reading->held);
	} while (state == WM_CAPTURE_FULL);
	REQUIRE(state != WM_CAPTURE_WANTS_MORE || reading->held_bytes < WM_CAPTURE_KEEP_BYTES);
	reading->outcome.state = state;
	return state == WM_CAPTURE_WANTS_MORE;
}

static struct outcome file_read(const uint8_t *file, size_t bytes, uint32_t random, size_t capacity)
{
	static struct reading reading; /* its interfaces take 100 KiB */
	static struct engine engine;
	int wants_more = 1;

	memset(&reading, 0, sizeof(reading));
	engine_begin(&engine, LINES - 1, 0, 77);
	reading.held = malloc(1);
	REQUIRE(reading.held);
	while (bytes && wants_more) {
		size_t piece = bytes;

		if (random) { /* minimal standard generator; mostly small pieces */
			random = (uint32_t)(random * 48271ULL % 0x7fffffff);
			piece = 1 + (random & 1 ? random >> 8 & 15 : random >> 8 & 1023);
			piece = piece < bytes ? piece : bytes;
		}
		reading.held = realloc(reading.held, reading.held_bytes + piece);
		REQUIRE(reading.held);
		memcpy(reading.held + reading.held_bytes, file, piece);
		reading.held_bytes += piece;
		file += piece, bytes -= piece;
		wants_more = records_read(&reading, &engine, capacity);
	}
	reading.outcome.detail = wants_more ? 0 : reading.capture.detail;
	reading.outcome.linktypes_seen = reading.capture.linktypes_seen;
	reading.outcome.left = reading.held_bytes + bytes;
	free(reading.held);
	return reading.outcome;
}

static void same_check(const struct outcome *whole, const struct outcome *pieces)
{
	REQUIRE(whole->state == pieces->state);
	REQUIRE(whole->detail == pieces->detail);
	REQUIRE(whole->linktypes_seen == pieces->linktypes_seen);
	REQUIRE(whole->frames == pieces->frames);
	REQUIRE(whole->digest == pieces->digest);
	REQUIRE(whole->left == pieces->left);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct outcome whole, pieces;

	if (!bytes)
		return 0;
	whole = file_read(data + 1, bytes - 1, 0, FRAMES_AT_ONCE);
	pieces = file_read(data + 1, bytes - 1, data[0] + 1U, 1 + data[0] % FRAMES_AT_ONCE);
	same_check(&whole, &pieces);
	return 0;
}
