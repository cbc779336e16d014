/* From a region's lines to rows of flows, and rows of several regions into one of each flow.
 *
 * This is user space's side of the table: it runs when no program writes the region any more.
 */
#ifndef WM_ROWS_H
#define WM_ROWS_H

#include <stddef.h>
#include <stdint.h>

/* One flow as users see it: FLOW in flows/batch.py. */
struct wm_flow_row {
	uint8_t src_addr[16]; /* network order, IPv4 as v4-mapped (RFC 4291, 2.5.5.2) */
	uint8_t dst_addr[16];
	uint16_t src_port;
	uint16_t dst_port;
	uint16_t attachment;
	uint16_t vlan; /* WM_ROW_NO_VLAN without a tag */
	uint16_t tcp_flags;
	uint8_t protocol;
	uint8_t family;
	uint32_t hash;
	uint64_t packets;
	uint64_t bytes;
	uint64_t skbs;
	uint64_t first_ns;
	uint64_t last_ns;
};
_Static_assert(sizeof(struct wm_flow_row) == 88, "mirrored in flows/batch.py");
#define WM_ROW_NO_VLAN 0xffff

/* Frames of one ethertype: ETHERTYPE_COUNTER in flows/batch.py, which is packed. */
struct wm_ethertype_row {
	uint16_t attachment;
	uint32_t ethertype;
	uint64_t packets;
	uint64_t bytes;
	uint64_t skbs;
} __attribute__((packed));
_Static_assert(sizeof(struct wm_ethertype_row) == 30, "mirrored in flows/batch.py");

struct wm_table_shape;

/* What wm_rows_take() found. */
struct wm_rows_taken {
	size_t flows;
	size_t ethertypes;
};

/* Copies every entry of a region out, flows and ethertypes apart, and leaves the table empty, unless `keep`. Both
 * arrays have room for as many rows as the region has entries. A time of the engine's clock `t` becomes origin_ns + t ×
 * tick_ns.
 */
struct wm_rows_taken wm_rows_take(void *region, const struct wm_table_shape *shape, struct wm_flow_row *flows,
				  struct wm_ethertype_row *ethertypes, uint64_t tick_ns, uint64_t origin_ns, int keep);

/* Leaves a region's table empty. Who is killed half-way and calls it again is where it would have been. */
void wm_rows_clear(void *region, const struct wm_table_shape *shape);

/* Adds a region's counters of some attachments to sums[attachments][WM_ROWS][3], and sets them to 0, unless `keep`. */
void wm_counters_take(void *region, const uint32_t *attachments, size_t count, uint64_t *sums, int keep);

/* Sets a region's counters of all attachments to 0. */
void wm_counters_clear(void *region, size_t attachments);

/* Adds rows of the same flow up, into the first of them; returns how many rows are left, at the front, in order of
 * appearance. `index` has index_mask + 1 entries, all 0, a power of two above `count`. */
size_t wm_rows_merge(struct wm_flow_row *rows, size_t count, uint64_t *index, uint64_t index_mask);

/* Copies rows; the attachment of each becomes its entry of `places`, if there are any. In C, so that whoever calls from
 * Python lets other threads run: a million rows take tens of milliseconds. */
void wm_rows_copy(struct wm_flow_row *to, const struct wm_flow_row *rows, size_t count, const uint16_t *places);

/* Sums of the rows of each attachment: packets, bytes and skbs, added to sums[attachments][3]. Rows of others are left
 * out. */
void wm_rows_tally(const struct wm_flow_row *rows, size_t count, uint64_t *sums, size_t attachments);

/* For each row a number that both flows of a conversation share: by addresses, ports and protocol, whatever the device.
 * `keys` are random (lib/hash.h). */
#define WM_ROWS_HASH_KEYS 8
void wm_rows_conversation_hashes(const struct wm_flow_row *rows, size_t count, const uint64_t *keys, uint64_t *hashes);

#endif
