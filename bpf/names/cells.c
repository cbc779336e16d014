/* Cells that are free form a list; those never used yet lie behind it, so that memory is touched as it is needed. */
#include "cells.h"

#include <string.h>

#define DATA_BYTES sizeof(((struct wm_cell *)0)->data)

uint32_t wm_cell_take(struct wm_cells *cells)
{
	uint32_t number = cells->free;

	if (number)
		cells->free = cells->cells[number - 1].next;
	else if (cells->touched < cells->capacity)
		number = ++cells->touched;
	if (number)
		cells->count++;
	else
		cells->lost++;
	return number;
}

void wm_cell_give(struct wm_cells *cells, uint32_t number)
{
	cells->cells[number - 1].next = cells->free;
	cells->free = number;
	cells->count--;
}

uint32_t wm_bytes_add(struct wm_cells *cells, struct wm_bytes *bytes, const uint8_t *data, uint32_t count)
{
	uint32_t added = 0;

	while (added < count) {
		uint32_t used = bytes->count % DATA_BYTES, part = DATA_BYTES - used, cell;

		if (!used) { /* the last cell is full, or there is none */
			cell = wm_cell_take(cells);
			if (!cell)
				break;
			cells->cells[cell - 1].next = 0;
			if (bytes->last)
				cells->cells[bytes->last - 1].next = cell;
			else
				bytes->first = cell;
			bytes->last = cell;
		}
		part = part < count - added ? part : count - added;
		memcpy(cells->cells[bytes->last - 1].data + used, data + added, part);
		bytes->count += part;
		added += part;
	}
	return added;
}

uint32_t wm_bytes_copy(struct wm_cells *cells, const struct wm_bytes *bytes, uint32_t most, uint8_t *to)
{
	uint32_t count = bytes->count < most ? bytes->count : most, cell = bytes->first;

	for (uint32_t at = 0; at < count; at += DATA_BYTES) {
		uint32_t part = count - at < DATA_BYTES ? count - at : DATA_BYTES;

		memcpy(to + at, cells->cells[cell - 1].data, part);
		cell = cells->cells[cell - 1].next;
	}
	return count;
}

void wm_bytes_clear(struct wm_cells *cells, struct wm_bytes *bytes)
{
	while (bytes->first) {
		uint32_t next = cells->cells[bytes->first - 1].next;

		wm_cell_give(cells, bytes->first);
		bytes->first = next;
	}
	*bytes = (struct wm_bytes){0};
}
