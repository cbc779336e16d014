/* Segments that come before others wait in cells, as pieces: sorted, without overlaps. */
#include "streams.h"

#include <string.h>

/* Two cells at least: this, and its bytes. */
struct piece {
	int64_t start, end; /* positions that never wrap; there may be fewer bytes */
	uint64_t time_ns;
	struct wm_bytes bytes;
	uint32_t next;
};
_Static_assert(sizeof(struct piece) <= WM_CELL_BYTES - 8, "fits a cell");

static struct piece *piece_at(struct wm_cells *cells, uint32_t number)
{
	return wm_cell_data(cells, number);
}

/* How far ahead of a position a sequence number lies, from -2^31 to 2^31 - 1. */
static int64_t distance(int64_t position, uint32_t seq)
{
	return (int32_t)(seq - (uint32_t)position);
}

int wm_stream_is_fresh(const struct wm_stream *stream)
{
	return !stream->has_begun && !stream->held;
}

int wm_stream_is_start(const struct wm_stream *stream, struct wm_cells *cells, uint32_t seq)
{
	if (stream->has_begun)
		return stream->start == seq + 1;
	return stream->held && (uint32_t)piece_at(cells, stream->held)->start == seq + 1;
}

static void piece_drop(struct wm_stream *stream, struct wm_cells *cells)
{
	uint32_t number = stream->held;
	struct piece *piece = piece_at(cells, number);

	stream->held = piece->next;
	stream->held_bytes -= piece->bytes.count;
	stream->held_count--;
	wm_bytes_clear(cells, &piece->bytes);
	wm_cell_give(cells, number);
}

void wm_stream_clear(struct wm_stream *stream, struct wm_cells *cells)
{
	while (stream->held)
		piece_drop(stream, cells);
}

void wm_stream_open(struct wm_stream *stream, struct wm_cells *cells, uint32_t seq)
{
	if (!wm_stream_is_start(stream, cells, seq)) {
		wm_stream_clear(stream, cells);
		stream->has_begun = 0;
	}
	if (!stream->has_begun) {
		stream->start = seq + 1;
		stream->next = stream->held ? piece_at(cells, stream->held)->start : stream->start;
		stream->has_begun = 1;
	}
}

/* --- what is held */

/* Keeps the part from `start` to `end` of a segment that lies from `at` on, before the piece that `link` leads to. */
static int piece_add(struct wm_stream *stream, struct wm_cells *cells, uint32_t before,
		     const struct wm_segment *segment, int64_t at, int64_t start, int64_t end, uint32_t *added)
{
	int64_t from = start - at, to = end - at < segment->captured ? end - at : segment->captured;
	uint32_t number = wm_cell_take(cells), *link;
	struct piece *piece;

	if (!number)
		return 0;
	piece = piece_at(cells, number);
	*piece = (struct piece){.start = start, .end = end, .time_ns = segment->time_ns};
	if (from < to && wm_bytes_add(cells, &piece->bytes, segment->data + from, (uint32_t)(to - from)) < to - from) {
		wm_bytes_clear(cells, &piece->bytes);
		wm_cell_give(cells, number);
		return 0;
	}
	link = before ? &piece_at(cells, before)->next : &stream->held;
	piece->next = *link;
	*link = number;
	stream->held_bytes += piece->bytes.count;
	stream->held_count++;
	*added = number;
	return 1;
}

/* Keeps what of a segment is not held yet. */
static int hold(struct wm_stream *stream, struct wm_cells *cells, const struct wm_segment *segment, int64_t at)
{
	int64_t start = at, end = at + segment->bytes;
	uint32_t before = 0, number = stream->held;

	for (; number && start < end; number = piece_at(cells, number)->next) {
		const struct piece *held = piece_at(cells, number);

		if (end <= held->start)
			break;
		if (held->end > start) {
			if (start < held->start &&
			    !piece_add(stream, cells, before, segment, at, start, held->start, &before))
				return 0;
			start = held->end;
		}
		before = number;
	}
	return start >= end || piece_add(stream, cells, before, segment, at, start, end, &before);
}

static int waited_enough(const struct wm_stream *stream, struct wm_cells *cells, uint64_t now_ns)
{
	uint64_t oldest_ns = UINT64_MAX, limit_ns = stream->has_begun ? WM_HELD_NS : WM_START_NS;

	if (stream->has_begun ? stream->held_bytes > WM_HELD_BYTES || stream->held_count > WM_HELD_SEGMENTS
			      : stream->begins || stream->held_count >= WM_START_SEGMENTS)
		return 1;
	for (uint32_t number = stream->held; number; number = piece_at(cells, number)->next) {
		const struct piece *piece = piece_at(cells, number);

		oldest_ns = piece->time_ns < oldest_ns ? piece->time_ns : oldest_ns;
	}
	return now_ns > oldest_ns && now_ns - oldest_ns >= limit_ns;
}

static void advance(struct wm_stream *stream, int64_t count)
{
	stream->next += count;
	stream->optional -= stream->optional < (uint64_t)count ? stream->optional : (uint64_t)count;
}

/* What is new of bytes from `start` to `end`, which begin no later than the next byte. */
static int deliver(struct wm_stream *stream, uint64_t time_ns, const uint8_t *data, uint32_t bytes, int64_t start,
		   int64_t end, struct wm_next *next)
{
	int64_t seen = stream->next - start;

	next->time_ns = time_ns;
	next->data = data;
	next->bytes = next->missing = 0;
	if (end <= stream->next)
		return next->gap != 0;
	if (seen < bytes) {
		next->data = data + seen;
		next->bytes = bytes - (uint32_t)seen;
	}
	next->missing = (uint32_t)(end - stream->next) - next->bytes;
	advance(stream, end - stream->next);
	return 1;
}

int wm_stream_next(struct wm_stream *stream, struct wm_cells *cells, uint64_t now_ns, int give_up, uint8_t *room,
		   struct wm_next *next)
{
	while (stream->held) {
		const struct piece *first = piece_at(cells, stream->held);
		int64_t missing = stream->has_begun ? first->start - stream->next : 0, start = first->start,
			end = first->end;
		uint64_t time_ns = first->time_ns;
		uint32_t bytes;

		if ((!stream->has_begun || (missing > 0 && (uint64_t)missing > stream->optional)) && !give_up &&
		    !waited_enough(stream, cells, now_ns))
			return 0;
		if (!stream->has_begun) {
			stream->start = (uint32_t)start;
			stream->next = start;
			stream->has_begun = 1;
		}
		next->gap = missing > 0 ? missing : 0;
		if (missing > 0)
			advance(stream, missing);
		bytes = wm_bytes_copy(cells, &first->bytes, WM_SEGMENT_ROOM, room);
		piece_drop(stream, cells);
		if (deliver(stream, time_ns, room, bytes, start, end, next))
			return 1;
	}
	return 0;
}

/* --- what comes */

/* Goes on at a segment that is far away, unless it is only old. Backwards lies an old copy, a place more than 2 GiB
 * ahead, or another connection; the last two matter only where something begins. */
static enum wm_stream_took jump(struct wm_stream *stream, const struct wm_segment *segment, int begins, int64_t ahead,
				struct wm_next *next)
{
	if (ahead < 0 && !begins)
		return WM_STREAM_HELD;
	stream->next = (int64_t)segment->seq;
	stream->optional = 0;
	next->gap = ahead > 0 ? ahead : WM_GAP_UNKNOWN;
	(void)deliver(stream, segment->time_ns, segment->data, segment->captured, stream->next,
		      stream->next + segment->bytes, next);
	return WM_STREAM_NEXT;
}

/* Data of a stream whose SYN was not seen: waits a little for what looks like its beginning. */
static enum wm_stream_took before_start(struct wm_stream *stream, struct wm_cells *cells,
					const struct wm_segment *segment, int begins)
{
	int64_t first = stream->held ? piece_at(cells, stream->held)->start : segment->seq;
	int64_t ahead = distance(first, segment->seq);

	if (ahead < -WM_FAR_BYTES || ahead > WM_FAR_BYTES)
		return WM_STREAM_WAITS;
	stream->begins |= !!begins;
	return hold(stream, cells, segment, first + ahead) ? WM_STREAM_HELD : WM_STREAM_LOST;
}

enum wm_stream_took wm_stream_take(struct wm_stream *stream, struct wm_cells *cells, const struct wm_segment *segment,
				   int begins, struct wm_next *next)
{
	int64_t ahead;

	if (!segment->bytes)
		return WM_STREAM_HELD;
	if (!stream->has_begun && !stream->held && begins) { /* the ordinary case: nothing to wait for */
		stream->start = segment->seq;
		stream->next = segment->seq;
		stream->has_begun = 1;
	}
	if (!stream->has_begun)
		return before_start(stream, cells, segment, begins);
	ahead = distance(stream->next, segment->seq);
	if (ahead < -WM_FAR_BYTES || ahead > WM_FAR_BYTES)
		return stream->held ? WM_STREAM_WAITS : jump(stream, segment, begins, ahead, next);
	if (ahead <= 0 && !stream->held) {
		next->gap = 0;
		return deliver(stream, segment->time_ns, segment->data, segment->captured, stream->next + ahead,
			       stream->next + ahead + segment->bytes, next)
			       ? WM_STREAM_NEXT
			       : WM_STREAM_HELD;
	}
	return hold(stream, cells, segment, stream->next + ahead) ? WM_STREAM_HELD : WM_STREAM_LOST;
}
