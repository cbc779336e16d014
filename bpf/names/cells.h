/* Memory in cells of one size, for bytes that wait: of segments before a hole, of heads that are not whole, of requests
 * that were not answered. Who finds no cell free keeps less.
 */
#ifndef WM_CELLS_H
#define WM_CELLS_H

#include <stddef.h>
#include <stdint.h>

#define WM_CELL_BYTES 512

struct wm_cell {
	uint32_t next; /* 1 + index, as all numbers of cells; 0: none */
	uint32_t pad;
	uint8_t data[WM_CELL_BYTES - 8]; /* aligned to 8 */
};
_Static_assert(sizeof(struct wm_cell) == WM_CELL_BYTES, "a whole number of cache lines");

struct wm_cells {
	struct wm_cell *cells;
	uint32_t capacity;
	uint32_t touched; /* cells from the first on that were ever in use */
	uint32_t free;	  /* those of them that are free again */
	uint32_t count;	  /* in use */
	uint64_t lost;	  /* how often something found no room here */
};

/* A free cell, not cleared; 0: there is none, which is counted. */
uint32_t wm_cell_take(struct wm_cells *cells);
void wm_cell_give(struct wm_cells *cells, uint32_t number);

static inline void *wm_cell_data(struct wm_cells *cells, uint32_t number)
{
	return cells->cells[number - 1].data;
}

/* Bytes in their order, in as many cells as they need. */
struct wm_bytes {
	uint32_t first, last;
	uint32_t count;
};

/* Returns how many were added: fewer than all where no cell is free. */
uint32_t wm_bytes_add(struct wm_cells *cells, struct wm_bytes *bytes, const uint8_t *data, uint32_t count);

/* The first `most` of them; returns how many. */
uint32_t wm_bytes_copy(struct wm_cells *cells, const struct wm_bytes *bytes, uint32_t most, uint8_t *to);
void wm_bytes_clear(struct wm_cells *cells, struct wm_bytes *bytes);

#endif
