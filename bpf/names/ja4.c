/* The text that both fingerprints are, and the hashes of lists within. */
#include "ja4.h"
#include "sha256.h"

#include <string.h>

#define SERVER_NAME 0
#define ALPN	    16
#define DIGEST_TEXT 12

struct list {
	uint32_t count;
	uint16_t numbers[WM_JA4_LISTED];
};

/* Numbers in hexadecimal with commas between them, as they are hashed. */
struct hashed {
	struct wm_sha256 sha;
	uint8_t separator; /* before the next of them; 0: it is the first */
};

int wm_is_grease(uint32_t number)
{
	return (number & 0x0f0f) == 0x0a0a && number >> 8 == (number & 0xff);
}

static uint16_t number_at(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static uint8_t hex_digit(uint32_t value)
{
	return (uint8_t)"0123456789abcdef"[value & 0xf];
}

static uint8_t *put_number(uint8_t *to, uint32_t number)
{
	for (int shift = 12; shift >= 0; shift -= 4)
		*to++ = hex_digit(number >> shift);
	return to;
}

static uint8_t *put_count(uint8_t *to, size_t count)
{
	count = count < 99 ? count : 99;
	*to++ = (uint8_t)('0' + count / 10);
	*to++ = (uint8_t)('0' + count % 10);
	return to;
}

static uint8_t *put_text(uint8_t *to, const char *text)
{
	size_t bytes = strlen(text);

	memcpy(to, text, bytes);
	return to + bytes;
}

static const char *version_text(uint32_t version)
{
	switch (version) {
	case 0x0304:
		return "13";
	case 0x0303:
		return "12";
	case 0x0302:
		return "11";
	case 0x0301:
		return "10";
	case 0x0300:
		return "s3";
	case 0x0002:
		return "s2";
	case 0xfeff:
		return "d1";
	case 0xfefd:
		return "d2";
	case 0xfefc:
		return "d3";
	default:
		return "00";
	}
}

/* Orders versions from old to new; those of DTLS count downwards. */
static int32_t age(uint32_t version)
{
	return version >> 8 == 0xfe ? -(int32_t)version : (int32_t)version;
}

/* The newest that is offered. Drafts of TLS 1.3 are above it, and have no name. */
static uint32_t newest(const struct wm_ja4_hello *hello)
{
	uint32_t version = hello->version;
	int is_found = 0;

	for (size_t at = 0; at + 2 <= hello->versions.bytes; at += 2) {
		uint32_t offered = number_at(hello->versions.at + at);

		if (wm_is_grease(offered) || (is_found && age(offered) <= age(version)))
			continue;
		version = offered;
		is_found = 1;
	}
	return version;
}

static int is_alphanumeric(uint8_t byte)
{
	return (byte >= '0' && byte <= '9') || ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'z');
}

/* The first and last character of a protocol's name, or of its hexadecimal form if one is no letter and no digit. */
static uint8_t *put_ends(uint8_t *to, struct wm_span protocol)
{
	uint8_t first, last;

	if (!protocol.bytes)
		return put_text(to, "00");
	first = protocol.at[0];
	last = protocol.at[protocol.bytes - 1];
	if (!is_alphanumeric(first) || !is_alphanumeric(last)) {
		first = hex_digit(first >> 4);
		last = hex_digit(last);
	}
	*to++ = first;
	*to++ = last;
	return to;
}

static void hashed_begin(struct hashed *hashed)
{
	wm_sha256_begin(&hashed->sha);
	hashed->separator = 0;
}

static void hashed_add(struct hashed *hashed, uint32_t number)
{
	uint8_t text[5] = {hashed->separator};
	size_t begin = !hashed->separator;

	(void)put_number(text + 1, number);
	wm_sha256_add(&hashed->sha, text + begin, sizeof(text) - begin);
	hashed->separator = ',';
}

static uint8_t *put_hashed(uint8_t *to, struct hashed *hashed)
{
	uint8_t digest[WM_SHA256_BYTES];

	*to++ = '_';
	if (!hashed->separator)
		return put_text(to, "000000000000");
	wm_sha256_end(&hashed->sha, digest);
	for (int i = 0; i < DIGEST_TEXT / 2; i++) {
		*to++ = hex_digit(digest[i] >> 4);
		*to++ = hex_digit(digest[i]);
	}
	return to;
}

/* Returns whether it fits. An honest client has 15 to 20 in each list. */
static int list_add(struct list *list, uint16_t number)
{
	if (list->count == WM_JA4_LISTED)
		return 0;
	list->numbers[list->count++] = number;
	return 1;
}

/* Shell's, with the gaps of Ciura: at most so many are sorted in 40 µs, whatever their order. */
static void list_sort(struct list *list)
{
	static const uint32_t gaps[] = {301, 132, 57, 23, 10, 4, 1};

	for (size_t g = 0; g < sizeof(gaps) / sizeof(gaps[0]); g++) {
		uint32_t gap = gaps[g];

		for (uint32_t i = gap; i < list->count; i++) {
			uint16_t number = list->numbers[i];
			uint32_t at = i;

			for (; at >= gap && list->numbers[at - gap] > number; at -= gap)
				list->numbers[at] = list->numbers[at - gap];
			list->numbers[at] = number;
		}
	}
}

/* The number of the extension at `at`, which is moved behind it; -1 at the end. */
static int32_t next_extension(struct wm_span extensions, size_t *at)
{
	const uint8_t *extension = extensions.at + *at;

	if (*at + 4 > extensions.bytes)
		return -1;
	*at += 4U + number_at(extension + 2);
	return number_at(extension);
}

static int ciphers_list(const struct wm_ja4_hello *hello, struct list *list)
{
	list->count = 0;
	for (size_t at = 0; at + 2 <= hello->ciphers.bytes; at += 2) {
		uint16_t cipher = number_at(hello->ciphers.at + at);

		if (!wm_is_grease(cipher) && !list_add(list, cipher))
			return 0;
	}
	return 1;
}

/* Without name and protocols, which are told already, so that one client is the same for any site. Those count. */
static int extensions_list(const struct wm_ja4_hello *hello, struct list *list, size_t *count, int *has_name)
{
	size_t at = 0;
	int32_t number;

	list->count = 0;
	*count = 0;
	*has_name = 0;
	while ((number = next_extension(hello->extensions, &at)) >= 0) {
		if (wm_is_grease((uint32_t)number))
			continue;
		++*count;
		*has_name |= number == SERVER_NAME;
		if (number != SERVER_NAME && number != ALPN && !list_add(list, (uint16_t)number))
			return 0;
	}
	return 1;
}

size_t wm_ja4(const struct wm_ja4_hello *hello, enum wm_ja4_transport transport, uint8_t text[WM_JA4_BYTES])
{
	struct list ciphers, extensions;
	struct hashed hashed;
	uint8_t *to = text;
	size_t count;
	int has_name;

	if (!ciphers_list(hello, &ciphers) || !extensions_list(hello, &extensions, &count, &has_name))
		return 0;
	*to++ = (uint8_t)transport;
	to = put_text(to, version_text(newest(hello)));
	*to++ = has_name ? 'd' : 'i';
	to = put_count(to, ciphers.count);
	to = put_count(to, count);
	to = put_ends(to, hello->protocol);

	list_sort(&ciphers);
	hashed_begin(&hashed);
	for (uint32_t i = 0; i < ciphers.count; i++)
		hashed_add(&hashed, ciphers.numbers[i]);
	to = put_hashed(to, &hashed);

	/* The algorithms follow in the client's order; without an extension they are left out, too. */
	list_sort(&extensions);
	hashed_begin(&hashed);
	for (uint32_t i = 0; i < extensions.count; i++)
		hashed_add(&hashed, extensions.numbers[i]);
	if (hashed.separator)
		hashed.separator = '_';
	for (size_t at = 0; hashed.separator && at + 2 <= hello->algorithms.bytes; at += 2) {
		uint16_t algorithm = number_at(hello->algorithms.at + at);

		if (!wm_is_grease(algorithm))
			hashed_add(&hashed, algorithm);
	}
	to = put_hashed(to, &hashed);
	return (size_t)(to - text);
}

size_t wm_ja4s(const struct wm_ja4_hello *hello, uint8_t text[WM_JA4S_BYTES])
{
	struct hashed hashed;
	size_t at = 0, count = 0;
	uint8_t *to = text;
	int32_t number;

	hashed_begin(&hashed);
	while ((number = next_extension(hello->extensions, &at)) >= 0) {
		if (wm_is_grease((uint32_t)number))
			continue;
		hashed_add(&hashed, (uint32_t)number);
		count++;
	}
	*to++ = WM_JA4_TLS;
	to = put_text(to, version_text(hello->version));
	to = put_count(to, count);
	to = put_ends(to, hello->protocol);
	*to++ = '_';
	to = put_number(to, hello->cipher);
	to = put_hashed(to, &hashed);
	return (size_t)(to - text);
}
