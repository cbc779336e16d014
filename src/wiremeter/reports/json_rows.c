/* Rows of columns as JSON objects: what stands before each value is the same in all rows, and given as text. */
#include <arpa/inet.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum wm_json_kind {
	WM_JSON_NUMBER,	 /* values */
	WM_JSON_WORD,	 /* one of words: values says which */
	WM_JSON_LIST,	 /* as many words as counts says, from values on */
	WM_JSON_ADDRESS, /* 16 bytes of addresses: of IPv4 the last four, as families says */
};

/* One column. Words are JSON already; one begins where starts of its number says, and ends where the next begins. */
struct wm_json_column {
	const uint8_t *before;
	uint32_t before_bytes;
	uint32_t kind;
	const uint64_t *values;
	uint64_t null; /* the number that stands for null, if has_null */
	uint32_t has_null;
	uint32_t pad;
	const uint32_t *counts;
	const uint8_t *addresses;
	const uint8_t *families;
	const uint8_t *words;
	const uint64_t *starts;
};

struct wm_json_rows {
	const struct wm_json_column *columns;
	size_t columns_count;
	const uint8_t *after; /* each row; the next begins with its first column's `before` */
	size_t after_bytes;
};

struct writer {
	uint8_t *at;
	const uint8_t *end;
};

/* Whether there was room. */
static int put(struct writer *to, const uint8_t *text, size_t bytes)
{
	if ((size_t)(to->end - to->at) < bytes)
		return 0;
	memcpy(to->at, text, bytes);
	to->at += bytes;
	return 1;
}

static int put_number(struct writer *to, uint64_t number)
{
	uint8_t digits[20], *first = digits + sizeof(digits);

	do
		*--first = (uint8_t)('0' + number % 10);
	while (number /= 10);
	return put(to, first, (size_t)(digits + sizeof(digits) - first));
}

static int put_ipv4(struct writer *to, const uint8_t *address)
{
	int fits = put(to, (const uint8_t *)"\"", 1);

	for (int i = 0; i < 4; i++) {
		fits = fits && put_number(to, address[i]);
		fits = fits && put(to, (const uint8_t *)(i < 3 ? "." : "\""), 1);
	}
	return fits;
}

static int put_ipv6(struct writer *to, const uint8_t *address)
{
	char text[INET6_ADDRSTRLEN + 2] = "\"";

	if (!inet_ntop(AF_INET6, address, text + 1, INET6_ADDRSTRLEN))
		return 0;
	strcat(text, "\"");
	return put(to, (const uint8_t *)text, strlen(text));
}

static int put_word(struct writer *to, const struct wm_json_column *column, uint64_t number)
{
	return put(to, column->words + column->starts[number], column->starts[number + 1] - column->starts[number]);
}

static int put_list(struct writer *to, const struct wm_json_column *column, size_t row)
{
	int fits = put(to, (const uint8_t *)"[", 1);

	for (uint32_t i = 0; fits && i < column->counts[row]; i++)
		fits = (!i || put(to, (const uint8_t *)",", 1)) && put_word(to, column, column->values[row] + i);
	return fits && put(to, (const uint8_t *)"]", 1);
}

static int put_value(struct writer *to, const struct wm_json_column *column, size_t row)
{
	switch (column->kind) {
	case WM_JSON_NUMBER:
		if (column->has_null && column->values[row] == column->null)
			return put(to, (const uint8_t *)"null", 4);
		return put_number(to, column->values[row]);
	case WM_JSON_WORD:
		return put_word(to, column, column->values[row]);
	case WM_JSON_LIST:
		return put_list(to, column, row);
	default:
		if (column->families[row] == 4)
			return put_ipv4(to, column->addresses + 16 * row + 12);
		return put_ipv6(to, column->addresses + 16 * row);
	}
}

static int put_row(struct writer *to, const struct wm_json_rows *rows, size_t row)
{
	for (size_t i = 0; i < rows->columns_count; i++) {
		const struct wm_json_column *column = &rows->columns[i];

		if (!put(to, column->before, column->before_bytes) || !put_value(to, column, row))
			return 0;
	}
	return put(to, rows->after, rows->after_bytes);
}

/* Writes rows from number `first` on, up to but without `end`, as long as whole ones find room. Returns the number of
 * the next; `used` says how many bytes were written. */
size_t wm_json_write(const struct wm_json_rows *rows, size_t first, size_t end, uint8_t *out, size_t room, size_t *used)
{
	struct writer to = {out, out + room};
	size_t row = first;

	for (*used = 0; row < end && put_row(&to, rows, row); row++)
		*used = (size_t)(to.at - out);
	return row;
}
