/* What was said, as bytes and as text: readers that never leave it. */
#ifndef WM_SAID_H
#define WM_SAID_H

#include "applications.h"

#include <string.h>

/* --- bytes */

/* An unsigned number in network order; of bytes that are not there, as if they were cut off. */
static inline uint32_t number(struct wm_said said, size_t at, size_t bytes)
{
	uint32_t value = 0;

	for (size_t i = at; i < at + bytes && i < said.bytes; i++)
		value = value << 8 | said.data[i];
	return value;
}

/* The same with the lowest byte first. */
static inline uint32_t little(struct wm_said said, size_t at, size_t bytes)
{
	uint32_t value = 0;

	for (size_t i = 0; i < bytes && at + i < said.bytes; i++)
		value |= (uint32_t)said.data[at + i] << 8 * i;
	return value;
}

static inline struct wm_said from(struct wm_said said, size_t at)
{
	at = at < said.bytes ? at : said.bytes;
	return (struct wm_said){said.data + at, said.bytes - at};
}

static inline struct wm_said up_to(struct wm_said said, size_t bytes)
{
	return (struct wm_said){said.data, bytes < said.bytes ? bytes : said.bytes};
}

static inline int has(struct wm_said said, const void *bytes, size_t count)
{
	return said.bytes >= count && !memcmp(said.data, bytes, count);
}

#define BEGINS(said, literal) has(said, literal, sizeof(literal) - 1)

static inline int contains(struct wm_said said, const char *literal)
{
	size_t count = strlen(literal);

	for (; said.bytes >= count; said = from(said, 1)) {
		if (has(said, literal, count))
			return 1;
	}
	return 0;
}

/* --- text */

static inline int is_digit(uint8_t byte)
{
	return byte >= '0' && byte <= '9';
}

static inline int is_hex(uint8_t byte)
{
	return is_digit(byte) || (byte >= 'a' && byte <= 'f');
}

static inline int is_capital(uint8_t byte)
{
	return byte >= 'A' && byte <= 'Z';
}

static inline int is_letter(uint8_t byte)
{
	return is_capital(byte & 0xdf);
}

static inline int is_capital_or_line(uint8_t byte)
{
	return is_capital(byte) || byte == '_';
}

static inline int is_word(uint8_t byte)
{
	return is_letter(byte) || is_digit(byte) || byte == '_';
}

static inline int is_space(uint8_t byte)
{
	return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static inline int is_not_space(uint8_t byte)
{
	return !is_space(byte);
}

static inline int is_in_line(uint8_t byte)
{
	return byte != '\r' && byte != '\n';
}

static inline int is_blank(uint8_t byte)
{
	return byte == ' ' || byte == '\t';
}

static inline int is_a_space(uint8_t byte)
{
	return byte == ' ';
}

static inline int is_graphic(uint8_t byte)
{
	return byte > ' ' && byte < 0x7f;
}

static inline int is_printable(uint8_t byte)
{
	return byte >= ' ' && byte < 0x7f;
}

/* RFC 9110, section 5.6.2. */
static inline int is_token(uint8_t byte)
{
	return byte && (is_letter(byte) || is_digit(byte) || strchr("!#$%&'*+-.^_`|~", byte));
}

static inline int is_target(uint8_t byte)
{
	return byte > ' ';
}

static inline int is_host(uint8_t byte)
{
	return is_letter(byte) || is_digit(byte) || byte == '.' || byte == '-';
}

static inline int is_tag(uint8_t byte)
{
	return is_letter(byte) || is_digit(byte) || byte == '.';
}

static inline int is_lower_or_space(uint8_t byte)
{
	return (byte >= 'a' && byte <= 'z') || byte == ' ';
}

static inline int is_digit_or_space(uint8_t byte)
{
	return is_digit(byte) || byte == ' ';
}

/* Reads text from left to right; a step that does not fit leaves it where it was. */
static inline int take(struct wm_said *text, const char *literal)
{
	size_t count = strlen(literal);

	if (!has(*text, literal, count))
		return 0;
	*text = from(*text, count);
	return 1;
}

static inline int take_whatever_case(struct wm_said *text, const char *capitals)
{
	size_t count = strlen(capitals);

	if (text->bytes < count)
		return 0;
	for (size_t i = 0; i < count; i++) {
		uint8_t byte = text->data[i];

		if ((is_letter(byte) ? byte & 0xdf : byte) != (uint8_t)capitals[i])
			return 0;
	}
	*text = from(*text, count);
	return 1;
}

/* As many as there are, which must be `least` to `most`; further ones are left. */
static inline int take_all(struct wm_said *text, int (*is)(uint8_t), size_t least, size_t most)
{
	size_t count = 0;

	while (count < most && count < text->bytes && is(text->data[count]))
		count++;
	if (count < least)
		return 0;
	*text = from(*text, count);
	return 1;
}

#define ANY SIZE_MAX

static inline int take_line_end(struct wm_said *text)
{
	struct wm_said before = *text;

	(void)take(text, "\r");
	if (take(text, "\n"))
		return 1;
	*text = before;
	return 0;
}

/* One of several literals, which end with NULL; the first that fits. */
static inline int take_one(struct wm_said *text, const char *const *literals)
{
	for (; *literals; literals++) {
		if (take(text, *literals))
			return 1;
	}
	return 0;
}

static inline int take_one_whatever_case(struct wm_said *text, const char *const *capitals)
{
	for (; *capitals; capitals++) {
		if (take_whatever_case(text, *capitals))
			return 1;
	}
	return 0;
}

/* Whether a word is somewhere in a text, whatever its case: not within a longer one, if `begins`. */
static inline int has_word(struct wm_said text, const char *capitals, int begins)
{
	for (size_t at = 0; at < text.bytes; at++) {
		struct wm_said rest = from(text, at);

		if (begins && at && is_word(text.data[at - 1]))
			continue;
		if (take_whatever_case(&rest, capitals) && (!rest.bytes || !is_word(rest.data[0])))
			return 1;
	}
	return 0;
}

#endif
