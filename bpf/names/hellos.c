/* How TLS, HTTP, and the preludes of proxies begin. */
#include "said.h"

#define LONGEST_RECORD ((1U << 14) + 2048) /* RFC 5246, section 6.2.3 */
#define LONGEST_HELLO  (1U << 16)
#define SHORTEST_HELLO 38 /* a ServerHello of version, random, empty session id, suite and compression method */

/* A ClientHello in the form of SSL 2.0 that offers SSL 3.0 or TLS (RFC 5246, appendix E.2). */
static int is_old_hello(struct wm_said said)
{
	uint32_t ciphers = number(said, 5, 2), session = number(said, 7, 2), challenge = number(said, 9, 2);

	return said.bytes >= 11 && said.data[0] & 0x80 && said.data[2] == 1 && said.data[3] == 3 && said.data[4] <= 3 &&
	       (number(said, 0, 2) & 0x7fff) == 9 + ciphers + session + challenge && ciphers && !(ciphers % 3) &&
	       (!session || session == 16) && challenge >= 16 && challenge <= 32;
}

int wm_looks_like_tls(struct wm_said said)
{
	uint32_t record = number(said, 3, 2), message = number(said, 6, 3);

	if (is_old_hello(said))
		return 1;
	if (said.bytes < 6 || said.data[0] != 22 || said.data[1] != 3 || said.data[2] > 4)
		return 0;
	if (!record || record > LONGEST_RECORD || (said.data[5] != 1 && said.data[5] != 2))
		return 0;
	if (record < 4 || said.bytes < 9) /* the message's own length is still to come */
		return 1;
	return message >= SHORTEST_HELLO && message <= LONGEST_HELLO;
}

/* Methods of more characters than any registered one has are not believed. */
#define METHOD_MAX 32

/* What robust recipients take for a space (RFC 9112, section 3); a return that does not end the line is one. */
static int is_separator(uint8_t byte)
{
	return is_blank(byte) || byte == '\v' || byte == '\f' || byte == '\r';
}

static int is_of_line_end(uint8_t byte)
{
	return byte == '\r' || byte == '\n';
}

static int is_request_line(struct wm_said text)
{
	return take_all(&text, is_token, 1, METHOD_MAX) && take_all(&text, is_separator, 1, ANY) &&
	       take_all(&text, is_target, 1, ANY) && take_all(&text, is_separator, 1, ANY) && take(&text, "HTTP/1.") &&
	       take_all(&text, is_digit, 1, 1) && take_all(&text, is_separator, 0, ANY) && take(&text, "\n");
}

/* The beginning of a request line without its end, with a method of RFC 9110, WebDAV (RFC 4918) or UPnP. */
static int is_request_beginning(struct wm_said text)
{
	static const char *const methods[] = {
		"GET ",	   "HEAD ",	"POST ",      "PUT ",	 "DELETE ",    "CONNECT ",     "OPTIONS ", "TRACE ",
		"PATCH ",  "PROPFIND ", "PROPPATCH ", "MKCOL ",	 "COPY ",      "MOVE ",	       "LOCK ",	   "UNLOCK ",
		"REPORT ", "SEARCH ",	"M-SEARCH ",  "NOTIFY ", "SUBSCRIBE ", "UNSUBSCRIBE ", NULL};
	static const char *const targets[] = {"/", "*", "http://", "https://", NULL};
	static const char version[] = " HTTP/1.0\r";
	size_t count;

	if (!take_one(&text, methods))
		return 0;
	if (!take_one(&text, targets) &&
	    !(take_all(&text, is_host, 1, ANY) && take(&text, ":") && take_all(&text, is_digit, 1, 1)))
		return 0;
	(void)take_all(&text, is_target, 0, ANY);
	count = text.bytes;
	if (count >= sizeof(version))
		return 0;
	for (size_t i = 0; i < count; i++) {
		if (i == 8 ? !is_digit(text.data[i]) : text.data[i] != (uint8_t)version[i])
			return 0;
	}
	return 1;
}

int wm_looks_like_request(struct wm_said said)
{
	(void)take_all(&said, is_of_line_end, 0, ANY); /* section 2.2 */
	return is_request_line(said) || is_request_beginning(said);
}

int wm_looks_like_response(struct wm_said said)
{
	struct wm_said text = said;
	int is_tight;

	if (!take(&text, "HTTP/1.") || !take_all(&text, is_digit, 1, 1))
		return 0;
	is_tight = text.bytes >= 2 && text.data[0] == ' ' && text.data[1] != ' ';
	if (!take_all(&text, is_a_space, 1, ANY) || !text.bytes || text.data[0] < '1' || text.data[0] > '5' ||
	    !take_all(&text, is_digit, 3, 3))
		return 0;
	if (take_all(&text, is_blank, 1, 1))
		(void)take_all(&text, is_in_line, 0, ANY);
	if (take_line_end(&text))
		return 1;
	(void)take(&text, "\r");
	return is_tight && !text.bytes;
}

int wm_looks_like_http2(struct wm_said said)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	size_t whole = sizeof(preface) - 1;

	return said.bytes >= 16 && !memcmp(said.data, preface, said.bytes < whole ? said.bytes : whole);
}

size_t wm_prelude_bytes(struct wm_said said)
{
	static const char *const families[] = {"TCP4", "TCP6", "UNKNOWN", NULL};
	struct wm_said text = said;

	/* Section 2.1: a line of at most 107 bytes, its end included. */
	if (take(&text, "PROXY ") && take_one(&text, families) && take_all(&text, is_in_line, 0, 92) &&
	    take(&text, "\r\n"))
		return said.bytes - text.bytes;
	/* Section 2.2: signature, version and command, family and protocol, and the length of the rest. */
	if (said.bytes >= 16 && BEGINS(said, "\r\n\r\n\0\r\nQUIT\n") &&
	    (said.data[12] == 0x20 || said.data[12] == 0x21))
		return 16 + number(said, 14, 2);
	return 0;
}
