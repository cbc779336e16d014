/* Reading the two hellos. */
#include "tls.h"

#include <stddef.h>
#include <string.h>

/* Extensions that are looked into (IANA, "TLS ExtensionType Values"). */
enum extension {
	SERVER_NAME = 0,
	SIGNATURE_ALGORITHMS = 13,
	ALPN = 16,
	SUPPORTED_VERSIONS = 43,
	ENCRYPTED_CLIENT_HELLO = 0xfe0d,
};

#define RANDOM_BYTES 32
#define TLS13	     0x0304

/* The random of a ServerHello that is a HelloRetryRequest: SHA-256 of that word (RFC 8446, section 4.1.3). */
static const uint8_t retry_random[RANDOM_BYTES] = {
	0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
	0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
};

/* Numbers and vectors (RFC 8446, section 3.4), read from left to right. What is not there whole is not taken, and
 * nothing behind it is. */
struct cursor {
	const uint8_t *at, *end;
	int has_ended; /* there should have been more */
};

static struct cursor cursor_on(struct wm_span span)
{
	return (struct cursor){span.at, span.at + span.bytes, 0};
}

static size_t left(const struct cursor *from)
{
	return (size_t)(from->end - from->at);
}

static struct wm_span take(struct cursor *from, size_t bytes)
{
	struct wm_span taken = {from->at, bytes};

	if (from->has_ended || bytes > left(from)) {
		from->has_ended = 1;
		return (struct wm_span){from->at, 0};
	}
	from->at += bytes;
	return taken;
}

static uint32_t take_number(struct cursor *from, size_t bytes)
{
	struct wm_span taken = take(from, bytes);
	uint32_t number = 0;

	for (size_t i = 0; i < taken.bytes; i++)
		number = number << 8 | taken.at[i];
	return number;
}

/* The bytes whose count stands before them in `length` bytes. */
static struct wm_span take_vector(struct cursor *from, size_t length)
{
	return take(from, take_number(from, length));
}

/* The numbers of 16 bits that an extension, or its first vector, consists of. */
static int numbers_read(struct wm_span data, size_t length, struct wm_span *numbers)
{
	struct cursor from = cursor_on(data);

	*numbers = take_vector(&from, length);
	return from.has_ended || numbers->bytes % 2 ? -1 : 0;
}

static uint32_t released(uint32_t version)
{
	/* Drafts: 0x7f and their number, or 0xfb and that number as Facebook's clients sent it. */
	return version >> 8 == 0x7f || version >> 8 == 0xfb ? TLS13 : version;
}

/* The newest version of those offered; `otherwise` where GREASE is all there is. */
static uint16_t newest(struct wm_span versions, uint32_t otherwise)
{
	uint32_t found = 0;
	int is_found = 0;

	for (size_t at = 0; at < versions.bytes; at += 2) {
		uint32_t version = (uint32_t)versions.at[at] << 8 | versions.at[at + 1];

		if (wm_is_grease(version))
			continue;
		found = released(version) > found ? released(version) : found;
		is_found = 1;
	}
	return (uint16_t)(is_found ? found : otherwise);
}

/* What a host name may look like: printable ASCII without space. The DNS would take more, a screen or a label less. */
static uint8_t name_put(struct wm_span name, uint8_t to[WM_TLS_NAME_BYTES])
{
	if (name.bytes && name.at[name.bytes - 1] == '.')
		name.bytes--;
	if (name.bytes > WM_TLS_NAME_BYTES)
		return 0;
	for (size_t i = 0; i < name.bytes; i++) {
		uint8_t byte = name.at[i];

		if (byte <= ' ' || byte >= 0x7f)
			return 0;
		to[i] = byte >= 'A' && byte <= 'Z' ? byte + 32 : byte;
	}
	return (uint8_t)name.bytes;
}

/* The first host name of a server_name extension (RFC 6066, section 3); A-labels stay as they are. */
static int server_name_read(struct wm_span data, struct wm_client_hello *hello)
{
	struct cursor from = cursor_on(data), names;

	if (!data.bytes) /* some clients send it so, as only servers should */
		return 0;
	names = cursor_on(take_vector(&from, 2));
	while (left(&names) && !names.has_ended) {
		uint32_t kind = take_number(&names, 1);
		struct wm_span name = take_vector(&names, 2);

		if (kind || names.has_ended)
			continue;
		hello->sni_bytes = name_put(name, hello->sni);
		break;
	}
	return from.has_ended || names.has_ended ? -1 : 0;
}

/* The list of an extension (RFC 7301, section 3.1), and the first of it. */
static int protocols_read(struct wm_span data, struct wm_span *list, struct wm_span *first)
{
	struct cursor from = cursor_on(data), names;

	*list = take_vector(&from, 2);
	names = cursor_on(*list);
	*first = left(&names) ? take_vector(&names, 1) : *list;
	while (left(&names) && !names.has_ended)
		(void)take_vector(&names, 1);
	return from.has_ended || names.has_ended ? -1 : 0;
}

/* Of extensions that come twice the first counts. */
enum seen {
	SEEN_NAME = 1,
	SEEN_ALGORITHMS = 2,
	SEEN_ALPN = 4,
	SEEN_VERSIONS = 8,
};

static int is_first(int *seen, enum seen what)
{
	int first = !(*seen & (int)what);

	*seen |= (int)what;
	return first;
}

static int client_extension_read(uint32_t number, struct wm_span data, int *seen, struct wm_client_hello *hello,
				 struct wm_ja4_hello *of)
{
	switch (number) {
	case SERVER_NAME:
		return is_first(seen, SEEN_NAME) ? server_name_read(data, hello) : 0;
	case SIGNATURE_ALGORITHMS:
		return is_first(seen, SEEN_ALGORITHMS) ? numbers_read(data, 2, &of->algorithms) : 0;
	case ALPN:
		return is_first(seen, SEEN_ALPN) ? protocols_read(data, &hello->alpn, &of->protocol) : 0;
	case SUPPORTED_VERSIONS:
		return is_first(seen, SEEN_VERSIONS) ? numbers_read(data, 1, &of->versions) : 0;
	case ENCRYPTED_CLIENT_HELLO:
		hello->has_ech = 1;
		return 0;
	default:
		return 0;
	}
}

/* The extensions to the end of a hello, of which one before TLS 1.3 may have none. more: bytes that are missing. */
static int extensions_take(struct cursor *from, struct cursor *extensions, size_t *more)
{
	uint32_t bytes;

	*more = 0;
	*extensions = (struct cursor){from->end, from->end, 0};
	if (from->has_ended || !left(from))
		return 0;
	bytes = take_number(from, 2);
	if (from->has_ended)
		return 0;
	if (bytes < left(from))
		return -1;
	*more = bytes - left(from);
	*extensions = *from;
	return 0;
}

int wm_client_hello_read(struct wm_span body, int is_cut, enum wm_ja4_transport transport,
			 struct wm_client_hello *hello)
{
	struct cursor from = cursor_on(body), extensions;
	struct wm_ja4_hello of = {.version = (uint16_t)take_number(&from, 2)};
	size_t more;
	int seen = 0;

	memset(hello, 0, offsetof(struct wm_client_hello, sni));
	if (from.has_ended)
		return -1;
	(void)take(&from, RANDOM_BYTES);
	(void)take_vector(&from, 1); /* session id */
	of.ciphers = take_vector(&from, 2);
	if (of.ciphers.bytes % 2)
		return -1;
	(void)take_vector(&from, 1); /* compression methods */
	if (extensions_take(&from, &extensions, &more))
		return -1;
	of.extensions = (struct wm_span){extensions.at, left(&extensions)};
	while (left(&extensions) && !extensions.has_ended) {
		uint32_t number = take_number(&extensions, 2);
		struct wm_span data = take_vector(&extensions, 2);

		if (!extensions.has_ended && client_extension_read(number, data, &seen, hello, &of))
			return -1;
	}
	if ((from.has_ended || extensions.has_ended || more) && !is_cut)
		return -1;
	hello->is_cut = !!is_cut;
	hello->version = newest(of.versions, of.version);
	if (!is_cut)
		hello->ja4_bytes = (uint8_t)wm_ja4(&of, transport, hello->ja4);
	return 0;
}

int wm_server_hello_read(struct wm_span body, int with_ja4s, struct wm_server_hello *hello)
{
	struct cursor from = cursor_on(body), extensions;
	struct wm_ja4_hello of = {.version = (uint16_t)take_number(&from, 2)};
	struct wm_span random = take(&from, RANDOM_BYTES);
	size_t more;

	memset(hello, 0, offsetof(struct wm_server_hello, alpn));
	(void)take_vector(&from, 1); /* session id */
	of.cipher = (uint16_t)take_number(&from, 2);
	(void)take(&from, 1); /* compression method */
	if (extensions_take(&from, &extensions, &more))
		return -1;
	of.extensions = (struct wm_span){extensions.at, left(&extensions)};
	while (left(&extensions) && !extensions.has_ended) {
		uint32_t number = take_number(&extensions, 2);
		struct wm_span data = take_vector(&extensions, 2);
		struct cursor version = cursor_on(data);
		struct wm_span list;

		if (extensions.has_ended)
			break;
		if (number == SUPPORTED_VERSIONS)
			of.version = (uint16_t)take_number(&version, 2);
		if (version.has_ended || (number == ALPN && protocols_read(data, &list, &of.protocol)))
			return -1;
	}
	if (from.has_ended || extensions.has_ended || more)
		return -1;
	hello->version = of.version;
	hello->cipher = of.cipher;
	hello->alpn_bytes = (uint8_t)of.protocol.bytes;
	if (of.protocol.bytes)
		memcpy(hello->alpn, of.protocol.at, of.protocol.bytes);
	hello->is_retry = !memcmp(random.at, retry_random, RANDOM_BYTES);
	if (with_ja4s && !hello->is_retry)
		hello->ja4s_bytes = (uint8_t)wm_ja4s(&of, hello->ja4s);
	return 0;
}
