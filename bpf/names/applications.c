/* One predicate for each protocol, and which of them the first byte leaves. */
#include "applications.h"

#include <string.h>

const char *const wm_application_names[WM_APPLICATIONS] = {
	"unknown",    "tls",  "http", "dns",	   "ssh",     "postgresql", "mysql",	 "redis", "smtp", "ftp",
	"imap",	      "pop3", "mqtt", "amqp",	   "mongodb", "smb",	    "rdp",	 "ldap",  "sip",  "rtsp",
	"bittorrent", "vnc",  "xmpp", "memcached", "kafka",   "stun",	    "telnet",	 "quic",  "mdns", "llmnr",
	"dtls",	      "ntp",  "dhcp", "dhcpv6",	   "snmp",    "ssdp",	    "wireguard",
};

/* The beginnings of both directions of a connection, and the server's port; or a datagram and both ports. */
struct tcp {
	struct wm_said client, server;
	uint16_t server_port;
};

struct udp {
	struct wm_said said;
	uint16_t src_port, dst_port;
};

/* --- bytes */

/* An unsigned number in network order; of bytes that are not there, as if they were cut off. */
static uint32_t number(struct wm_said said, size_t at, size_t bytes)
{
	uint32_t value = 0;

	for (size_t i = at; i < at + bytes && i < said.bytes; i++)
		value = value << 8 | said.data[i];
	return value;
}

/* The same with the lowest byte first. */
static uint32_t little(struct wm_said said, size_t at, size_t bytes)
{
	uint32_t value = 0;

	for (size_t i = 0; i < bytes && at + i < said.bytes; i++)
		value |= (uint32_t)said.data[at + i] << 8 * i;
	return value;
}

static struct wm_said from(struct wm_said said, size_t at)
{
	at = at < said.bytes ? at : said.bytes;
	return (struct wm_said){said.data + at, said.bytes - at};
}

static struct wm_said up_to(struct wm_said said, size_t bytes)
{
	return (struct wm_said){said.data, bytes < said.bytes ? bytes : said.bytes};
}

static int has(struct wm_said said, const void *bytes, size_t count)
{
	return said.bytes >= count && !memcmp(said.data, bytes, count);
}

#define BEGINS(said, literal) has(said, literal, sizeof(literal) - 1)

static int contains(struct wm_said said, const char *literal)
{
	size_t count = strlen(literal);

	for (; said.bytes >= count; said = from(said, 1)) {
		if (has(said, literal, count))
			return 1;
	}
	return 0;
}

/* --- text */

static int is_digit(uint8_t byte)
{
	return byte >= '0' && byte <= '9';
}

static int is_capital(uint8_t byte)
{
	return byte >= 'A' && byte <= 'Z';
}

static int is_letter(uint8_t byte)
{
	return is_capital(byte & 0xdf);
}

static int is_capital_or_line(uint8_t byte)
{
	return is_capital(byte) || byte == '_';
}

static int is_word(uint8_t byte)
{
	return is_letter(byte) || is_digit(byte) || byte == '_';
}

static int is_space(uint8_t byte)
{
	return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static int is_not_space(uint8_t byte)
{
	return !is_space(byte);
}

static int is_in_line(uint8_t byte)
{
	return byte != '\r' && byte != '\n';
}

static int is_blank(uint8_t byte)
{
	return byte == ' ' || byte == '\t';
}

static int is_a_space(uint8_t byte)
{
	return byte == ' ';
}

static int is_graphic(uint8_t byte)
{
	return byte > ' ' && byte < 0x7f;
}

static int is_printable(uint8_t byte)
{
	return byte >= ' ' && byte < 0x7f;
}

/* RFC 9110, section 5.6.2. */
static int is_token(uint8_t byte)
{
	return byte && (is_letter(byte) || is_digit(byte) || strchr("!#$%&'*+-.^_`|~", byte));
}

static int is_target(uint8_t byte)
{
	return byte > ' ';
}

static int is_host(uint8_t byte)
{
	return is_letter(byte) || is_digit(byte) || byte == '.' || byte == '-';
}

static int is_tag(uint8_t byte)
{
	return is_letter(byte) || is_digit(byte) || byte == '.';
}

static int is_lower_or_space(uint8_t byte)
{
	return (byte >= 'a' && byte <= 'z') || byte == ' ';
}

static int is_digit_or_space(uint8_t byte)
{
	return is_digit(byte) || byte == ' ';
}

/* Reads text from left to right; a step that does not fit leaves it where it was. */
static int take(struct wm_said *text, const char *literal)
{
	size_t count = strlen(literal);

	if (!has(*text, literal, count))
		return 0;
	*text = from(*text, count);
	return 1;
}

static int take_whatever_case(struct wm_said *text, const char *capitals)
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
static int take_all(struct wm_said *text, int (*is)(uint8_t), size_t least, size_t most)
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

static int take_line_end(struct wm_said *text)
{
	struct wm_said before = *text;

	(void)take(text, "\r");
	if (take(text, "\n"))
		return 1;
	*text = before;
	return 0;
}

/* One of several literals, which end with NULL; the first that fits. */
static int take_one(struct wm_said *text, const char *const *literals)
{
	for (; *literals; literals++) {
		if (take(text, *literals))
			return 1;
	}
	return 0;
}

static int take_one_whatever_case(struct wm_said *text, const char *const *capitals)
{
	for (; *capitals; capitals++) {
		if (take_whatever_case(text, *capitals))
			return 1;
	}
	return 0;
}

/* Whether a word is somewhere in a text, whatever its case: not within a longer one, if `begins`. */
static int has_word(struct wm_said text, const char *capitals, int begins)
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

/* --- TCP, client speaks first */

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

static int is_tls(const struct tcp *tcp)
{
	return wm_looks_like_tls(tcp->client) || wm_looks_like_tls(tcp->server);
}

/* Methods of more characters than any registered one has are not believed. */
#define METHOD_MAX 32

static int is_request_line(struct wm_said text)
{
	return take_all(&text, is_token, 1, METHOD_MAX) && take_all(&text, is_a_space, 1, ANY) &&
	       take_all(&text, is_target, 1, ANY) && take_all(&text, is_a_space, 1, ANY) && take(&text, "HTTP/1.") &&
	       take_all(&text, is_digit, 1, 1) && take_all(&text, is_blank, 0, ANY) && take_line_end(&text);
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

static int is_http(const struct tcp *tcp)
{
	return wm_looks_like_request(tcp->client) || wm_looks_like_http2(tcp->client) ||
	       wm_looks_like_response(tcp->server);
}

/* RFC 1035, section 4.1.1; operation codes as registered (RFC 6895, section 2.2). One question; a response may leave it
 * out, and stateful operations (6; RFC 8490) have none. */
static int is_dns_header(struct wm_said said)
{
	uint32_t operation, questions = number(said, 4, 2);

	if (said.bytes < 12)
		return 0;
	operation = said.data[2] >> 3 & 15;
	return 0x77 >> operation & 1 && (questions == 1 || (!questions && (said.data[2] & 0x80 || operation == 6)));
}

/* RFC 1035, section 4.2.2: a length, then a message. */
static int is_dns_over_tcp(const struct tcp *tcp)
{
	struct wm_said said = tcp->client.bytes >= 14 ? tcp->client : tcp->server;

	return tcp->server_port == 53 && number(said, 0, 2) >= 12 && is_dns_header(from(said, 2));
}

/* Redis serialization protocol specification: an array of bulk strings, or an inline command and its reply. */
static int is_redis(const struct tcp *tcp)
{
	struct wm_said text = tcp->client, inline_text = tcp->client, reply = tcp->server;
	int is_command;

	if (take(&text, "*") && text.bytes && text.data[0] != '0' && take_all(&text, is_digit, 1, 7) &&
	    take(&text, "\r\n$") && take_all(&text, is_digit, 1, 9) && take(&text, "\r\n"))
		return 1;
	if (take_whatever_case(&inline_text, "PING"))
		is_command = 1;
	else if (take_whatever_case(&inline_text, "AUTH "))
		is_command = take_all(&inline_text, is_in_line, 1, ANY);
	else
		is_command =
			(take_whatever_case(&inline_text, "HELLO 2") || take_whatever_case(&inline_text, "HELLO 3")) &&
			take_all(&inline_text, is_in_line, 0, ANY);
	return is_command && take(&inline_text, "\r\n") &&
	       (BEGINS(reply, "+PONG\r\n") || BEGINS(reply, "+OK\r\n") || BEGINS(reply, "-NOAUTH") ||
		BEGINS(reply, "%"));
}

/* RFC 3261, sections 7.1 and 7.2. */
static int is_sip_message(struct wm_said said)
{
	struct wm_said text = said;

	if (take(&text, "SIP/2.0 "))
		return text.bytes && text.data[0] >= '1' && text.data[0] <= '6' && take_all(&text, is_digit, 3, 3) &&
		       take(&text, " ");
	return take_all(&text, is_capital, 3, 12) && take(&text, " ") &&
	       (take(&text, "sip:") || take(&text, "sips:") || take(&text, "tel:")) &&
	       take_all(&text, is_not_space, 1, ANY) && take(&text, " SIP/2.0") && take_line_end(&text);
}

static int is_sip(const struct tcp *tcp)
{
	return is_sip_message(tcp->client) || is_sip_message(tcp->server);
}

/* RFC 2326, sections 6.1 and 7.1. */
static int is_rtsp_message(struct wm_said said)
{
	struct wm_said text = said;

	if (take(&text, "RTSP/1.0 ") || take(&text, "RTSP/2.0 "))
		return text.bytes && text.data[0] >= '1' && text.data[0] <= '5' && take_all(&text, is_digit, 3, 3) &&
		       take(&text, " ");
	if (!take_all(&text, is_capital_or_line, 4, 16) || !take(&text, " "))
		return 0;
	if (!take(&text, "*") &&
	    !((take(&text, "rtsp://") || take(&text, "rtspu://")) && take_all(&text, is_not_space, 1, ANY)))
		return 0;
	return (take(&text, " RTSP/1.0") || take(&text, " RTSP/2.0")) && take_line_end(&text);
}

static int is_rtsp(const struct tcp *tcp)
{
	return is_rtsp_message(tcp->client) || is_rtsp_message(tcp->server);
}

/* MQTT 3.1.1 and 5.0, section 3.1: CONNECT, its remaining length, protocol name and level; "MQIsdp" is 3.1. */
static int is_mqtt(const struct tcp *tcp)
{
	struct wm_said name;
	size_t at = 1;

	if (!BEGINS(tcp->client, "\x10"))
		return 0;
	while (at < 5 && at < tcp->client.bytes && tcp->client.data[at] & 0x80)
		at++;
	name = from(tcp->client, at + 1);
	return BEGINS(name, "\0\4MQTT\4") || BEGINS(name, "\0\4MQTT\5") || BEGINS(name, "\0\6MQIsdp\3");
}

/* BEP 3: the handshake. */
static int is_bittorrent(const struct tcp *tcp)
{
	return BEGINS(tcp->client, "\x13"
				   "BitTorrent protocol") ||
	       BEGINS(tcp->server, "\x13"
				   "BitTorrent protocol");
}

/* PostgreSQL frontend/backend protocol, section "Message Formats": StartupMessage 3.x and its three siblings. */
static int is_postgresql(const struct tcp *tcp)
{
	uint32_t length = number(tcp->client, 0, 4), code = number(tcp->client, 4, 4);

	for (struct wm_said rest = from(tcp->client, 8); code >> 16 == 3 && rest.bytes; rest = from(rest, 1)) {
		if (BEGINS(rest, "user\0"))
			return (code & 0xffff) <= 2 && length > 8 && length <= 10000;
	}
	/* SSL, GSSAPI encryption, cancel. */
	return (code == 80877103 && length == 8) || (code == 80877104 && length == 8) ||
	       (code == 80877102 && length == 16);
}

/* [MS-RDPBCGR], sections 2.2.1.1 and 2.2.1.2: X.224 connection request or confirm in a TPKT, with RDP inside. */
static int is_x224(struct wm_said said, uint8_t code, uint8_t negotiation, uint8_t other)
{
	uint32_t length = number(said, 2, 2);
	struct wm_said content, end;

	if (!BEGINS(said, "\3\0") || said.bytes < 11 || said.data[4] != length - 5 || said.data[5] != code)
		return 0;
	content = from(said, 11);
	if (BEGINS(content, "Cookie: mstshash=") || BEGINS(content, "Cookie: msts="))
		return 1;
	content = from(up_to(said, length), 11);
	end = from(content, content.bytes > 8 ? content.bytes - 8 : 0);
	return end.bytes == 8 && (end.data[0] == negotiation || end.data[0] == other) && end.data[2] == 8 &&
	       !end.data[3];
}

static int is_rdp(const struct tcp *tcp)
{
	return is_x224(tcp->client, 0xe0, 1, 1) || is_x224(tcp->server, 0xd0, 2, 3);
}

/* Whether there is an element with that tag (X.690, section 8.1.3), and what is there of its content. */
static int ber_content(struct wm_said said, uint8_t tag, struct wm_said *content)
{
	size_t size;

	if (said.bytes < 2 || said.data[0] != tag)
		return 0;
	size = said.data[1] & 0x7f;
	if (said.data[1] < 0x80) {
		*content = up_to(from(said, 2), size);
		return 1;
	}
	if (size < 1 || size > 4 || said.bytes < 2 + size)
		return 0;
	*content = up_to(from(said, 2 + size), number(said, 2, size));
	return 1;
}

/* RFC 4511, section 4.1.1: a message of one of the operations that begin a session (4.2, 4.5, 4.12). */
static int is_ldap(const struct tcp *tcp)
{
	struct wm_said message, operation, content;
	uint32_t size;

	if (!ber_content(tcp->client, 0x30, &message) || !BEGINS(message, "\2"))
		return 0;
	size = number(message, 1, 1);
	if (size < 1 || size > 4)
		return 0;
	operation = from(message, 2 + size);
	switch (number(operation, 0, 1)) {
	case 0x60:
		return ber_content(operation, 0x60, &content) &&
		       (BEGINS(content, "\2\1\2") || BEGINS(content, "\2\1\3"));
	case 0x77:
		return ber_content(operation, 0x77, &content) && BEGINS(content, "\x80") &&
		       BEGINS(from(content, 2), "1.");
	case 0x63:
		return (tcp->server_port == 389 || tcp->server_port == 3268) && ber_content(operation, 0x63, &content);
	default:
		return 0;
	}
}

/* [MS-SMB2], section 2.1, and [MS-CIFS], section 2.2.3.1: a message behind its length. */
static int is_smb_message(struct wm_said said)
{
	return said.bytes >= 8 && !said.data[0] && said.data[4] >= 0xfc && !memcmp(said.data + 5, "SMB", 3);
}

static int is_smb(const struct tcp *tcp)
{
	return is_smb_message(tcp->client) || is_smb_message(tcp->server);
}

/* AMQP 0-9-1, section 4.2.2 (0-8 and 0-9 differed), and 1.0, sections 2.2 and 5: the protocol header. */
static int is_amqp(const struct tcp *tcp)
{
	struct wm_said rest = tcp->client;

	if (!take(&rest, "AMQP"))
		return 0;
	return BEGINS(rest, "\0\0\x09\x01") || BEGINS(rest, "\1\1\x08\0") || BEGINS(rest, "\1\1\0\x09") ||
	       BEGINS(rest, "\1\1\0\x0a") || BEGINS(rest, "\0\1\0\0") || BEGINS(rest, "\2\1\0\0") ||
	       BEGINS(rest, "\3\1\0\0");
}

/* OP_QUERY, OP_COMPRESSED, OP_MSG. */
static int is_mongodb_operation(uint32_t code)
{
	return code == 2004 || code == 2012 || code == 2013;
}

/* MongoDB wire protocol, section "Standard Message Header"; no message has more than 48,000,000 bytes. */
static int is_mongodb_header(struct wm_said said)
{
	uint32_t length = little(said, 0, 4);

	return said.bytes >= 16 && !little(said, 8, 4) && is_mongodb_operation(little(said, 12, 4)) && length >= 26 &&
	       length <= 48000000;
}

static int is_mongodb(const struct tcp *tcp)
{
	struct wm_said said = tcp->client;
	uint32_t length = little(said, 0, 4);

	return said.bytes >= 26 && is_mongodb_header(said) &&
	       (length >= said.bytes || is_mongodb_operation(little(said, length + 12, 4)));
}

/* Kafka protocol guide, "Protocol": ApiVersions (18) or Metadata (3) first, answered with its correlation id. */
static int is_kafka_request(struct wm_said said)
{
	uint32_t key = number(said, 4, 2);
	struct wm_said name = up_to(from(said, 14), number(said, 12, 2));

	return said.bytes >= 14 && (key == 3 || key == 18) && number(said, 6, 2) <= 20 && number(said, 0, 4) >= 10 &&
	       number(said, 0, 4) <= 1 << 16 && take_all(&name, is_printable, name.bytes, ANY);
}

static int is_kafka(const struct tcp *tcp)
{
	return is_kafka_request(tcp->client) && tcp->server.bytes >= 8 && number(tcp->server, 0, 4) >= 4 &&
	       number(tcp->server, 0, 4) <= 1 << 24 && !memcmp(tcp->client.data + 8, tcp->server.data + 4, 4);
}

static int is_memcached_command(struct wm_said said)
{
	static const char *const of_key[] = {"get ",   "gets ", "delete ", "incr ", "decr ",
					     "touch ", "mg ",	"md ",	   NULL};
	static const char *const of_value[] = {"set ", "add ", "replace ", "append ", "prepend ", "cas ", "ms ", NULL};
	struct wm_said text = said;

	if (take_one(&text, of_key))
		return take_all(&text, is_graphic, 1, 1) && take_all(&text, is_printable, 0, ANY) &&
		       take(&text, "\r\n");
	if (take_one(&text, of_value))
		return take_all(&text, is_graphic, 1, 250) && take(&text, " ") &&
		       take_all(&text, is_printable, 1, ANY) && take(&text, "\r\n");
	if (take(&text, "stats"))
		(void)take_all(&text, is_lower_or_space, 0, ANY);
	else if (take(&text, "flush_all"))
		(void)take_all(&text, is_digit_or_space, 0, ANY);
	else if (!take(&text, "version"))
		return 0;
	return take(&text, "\r\n");
}

static int is_memcached_reply(struct wm_said said)
{
	static const char *const words[] = {"END",     "STORED",  "NOT_STORED", "EXISTS", "NOT_FOUND",
					    "DELETED", "TOUCHED", "OK\r",	"EN\r\n", NULL};
	struct wm_said text = said;

	if (take_one(&text, words))
		return 1;
	if (take(&text, "VALUE "))
		return take_all(&text, is_graphic, 1, 250) && take(&text, " ") && take_all(&text, is_digit, 1, ANY) &&
		       take(&text, " ") && take_all(&text, is_digit, 1, 1);
	if (take(&text, "STAT "))
		return take_all(&text, is_graphic, 1, ANY) && take(&text, " ");
	if (take(&text, "VERSION "))
		return take_all(&text, is_digit, 1, 1);
	if (take(&text, "HD"))
		return !text.bytes || !is_word(text.data[0]);
	return take_all(&text, is_digit, 1, ANY) && take(&text, "\r\n");
}

/* A header of the binary protocol: key and extras lie within the body, the data type is 0. */
static int is_memcached_binary(struct wm_said said, uint8_t magic)
{
	return said.bytes >= 24 && said.data[0] == magic && !said.data[5] &&
	       number(said, 2, 2) + said.data[4] <= number(said, 8, 4);
}

/* memcached, doc/protocol.txt: a command and its reply; doc/protocol-binary: the magic numbers of both. */
static int is_memcached(const struct tcp *tcp)
{
	if (is_memcached_binary(tcp->client, 0x80) && is_memcached_binary(tcp->server, 0x81))
		return tcp->client.data[1] == tcp->server.data[1] &&
		       number(tcp->client, 12, 4) == number(tcp->server, 12, 4);
	return is_memcached_command(tcp->client) && is_memcached_reply(tcp->server);
}

/* RFC 6120, section 4.2. */
static int is_xmpp(const struct tcp *tcp)
{
	struct wm_said text = tcp->client;

	if (take(&text, "<?xml ")) {
		size_t at = 0;

		while (at < text.bytes && text.data[at] != '>')
			at++;
		if (at < 2 || at > 101 || at == text.bytes || text.data[at - 1] != '?')
			return 0;
		text = from(text, at + 1);
		(void)take_all(&text, is_space, 0, ANY);
	}
	return take(&text, "<stream:stream") && take_all(&text, is_space, 1, 1);
}

/* --- TCP, server may speak first */

/* RFC 4253, section 4.2; either side may be first. */
static int is_ssh(const struct tcp *tcp)
{
	return BEGINS(tcp->client, "SSH-2.0-") || BEGINS(tcp->client, "SSH-1.") || BEGINS(tcp->server, "SSH-2.0-") ||
	       BEGINS(tcp->server, "SSH-1.");
}

static int is_ready(struct wm_said said)
{
	return BEGINS(said, "220 ") || BEGINS(said, "220-");
}

static int speaks_smtp(struct wm_said said)
{
	return has_word(said, "SMTP", 1) || has_word(said, "ESMTP", 1);
}

static int speaks_ftp(struct wm_said said)
{
	for (struct wm_said rest = said; rest.bytes; rest = from(rest, 1)) {
		struct wm_said text = rest;

		if (take_whatever_case(&text, "FILEZILLA"))
			return 1;
	}
	return has_word(said, "FTP", 1) || has_word(said, "FTPD", 0);
}

/* RFC 5321, sections 3.1 and 4.2: "220" and a greeting, which FTP has as well. */
static int is_smtp(const struct tcp *tcp)
{
	static const char *const commands[] = {"EHLO ", "HELO ", "LHLO ", NULL};
	struct wm_said text = tcp->client;
	int is_it;

	if (tcp->server.bytes && !is_ready(tcp->server))
		return 0;
	if (tcp->client.bytes)
		return take_one_whatever_case(&text, commands) && take_all(&text, is_in_line, 1, ANY) &&
		       take_line_end(&text);
	is_it = speaks_smtp(tcp->server);
	if (is_it || speaks_ftp(tcp->server))
		return is_it;
	return (tcp->server_port == 25 || tcp->server_port == 587 || tcp->server_port == 2525) &&
	       contains(tcp->server, "\n");
}

static int is_ftp_command(struct wm_said text)
{
	static const char *const bare[] = {"FEAT", "SYST", NULL};
	static const char *const longer[] = {"AUTH TLS", "AUTH SSL", "AUTH GSSAPI", "OPTS UTF8", NULL};

	if (take_whatever_case(&text, "USER ")) {
		if (!take_all(&text, is_in_line, 1, ANY))
			return 0;
	} else if (take_one_whatever_case(&text, longer)) {
		(void)take_all(&text, is_in_line, 0, ANY);
	} else if (!take_one_whatever_case(&text, bare)) {
		return 0;
	}
	return take_line_end(&text);
}

/* RFC 959, section 5.4; AUTH: RFC 4217. POP3 has USER too, but another greeting. */
static int is_ftp(const struct tcp *tcp)
{
	int is_it;

	if (!is_ready(tcp->server))
		return 0;
	if (tcp->client.bytes)
		return is_ftp_command(tcp->client);
	is_it = speaks_ftp(tcp->server);
	if (is_it || speaks_smtp(tcp->server))
		return is_it;
	return tcp->server_port == 21 && contains(tcp->server, "\n");
}

static int is_pop3_command(struct wm_said text)
{
	static const char *const bare[] = {"CAPA", "STLS", NULL}, *const of_one[] = {"USER ", "APOP ", NULL};

	if (take_one_whatever_case(&text, of_one)) {
		if (!take_all(&text, is_in_line, 1, ANY))
			return 0;
	} else if (take_whatever_case(&text, "AUTH")) {
		(void)take_all(&text, is_in_line, 0, ANY);
	} else if (!take_one_whatever_case(&text, bare)) {
		return 0;
	}
	return take_line_end(&text);
}

static int is_in_address(uint8_t byte)
{
	return !is_space(byte) && byte != '<' && byte != '>';
}

/* The time stamp of APOP: <…@…>. */
static int has_stamp(struct wm_said said)
{
	for (; said.bytes; said = from(said, 1)) {
		struct wm_said text = said;
		size_t begin, end;

		if (!take(&text, "<") || !take_all(&text, is_in_address, 3, ANY) || !BEGINS(text, ">"))
			continue;
		begin = said.bytes - 1, end = text.bytes; /* what is left from the first byte and after the last */
		for (size_t left = begin - 1; left > end + 1; left--) {
			if (said.data[said.bytes - left] == '@')
				return 1;
		}
	}
	return 0;
}

/* RFC 1939, section 4; the time stamp of APOP in section 7. */
static int is_pop3(const struct tcp *tcp)
{
	if (!BEGINS(tcp->server, "+OK"))
		return 0;
	if (tcp->client.bytes)
		return is_pop3_command(tcp->client);
	return has_word(tcp->server, "POP", 1) || has_word(tcp->server, "POP3", 1) || has_stamp(tcp->server) ||
	       (tcp->server_port == 110 && contains(tcp->server, "\n"));
}

/* RFC 9051, sections 7.1 and 2.2.1. */
static int is_imap(const struct tcp *tcp)
{
	static const char *const greetings[] = {"* OK", "* PREAUTH", "* BYE", NULL};
	static const char *const commands[] = {"CAPABILITY", "LOGIN ", "STARTTLS", "AUTHENTICATE ", "ID ", "NOOP",
					       "ENABLE ",    "LOGOUT", NULL};
	struct wm_said text = tcp->server, command = tcp->client;

	if (!take_one(&text, greetings) || !(BEGINS(text, " ") || BEGINS(text, "\r")))
		return 0;
	if (contains(tcp->server, "IMAP") || tcp->server_port == 143)
		return 1;
	return take_all(&command, is_tag, 1, 20) && take(&command, " ") && take_one_whatever_case(&command, commands);
}

/* MySQL client/server protocol, Protocol::HandshakeV10; instead of it, an error says who is not let in. */
static int is_mysql(const struct tcp *tcp)
{
	struct wm_said said = tcp->server, content = from(said, 4), version;
	uint32_t length = little(said, 0, 3);
	size_t end = 1;

	if (said.bytes < 7 || said.data[3] || length + 4 < said.bytes)
		return 0;
	if (content.data[0] == 0xff)
		return tcp->server_port == 3306 && little(content, 1, 2) >= 1000 && little(content, 1, 2) < 5000;
	while (end < content.bytes && end < 64 && content.data[end])
		end++;
	if (content.data[0] != 10 || end < 2 || end == 64 || end == content.bytes || length < 40)
		return 0;
	version = from(up_to(content, end), 1);
	if (!is_digit(version.data[0]))
		return 0;
	for (size_t i = 0; i < version.bytes; i++) {
		if (version.data[i] & 0x80)
			return 0;
	}
	/* Behind the version: connection id, eight bytes of challenge, a zero. */
	return content.bytes <= end + 13 || !content.data[end + 13];
}

/* RFC 6143, section 7.1.1. */
static int is_vnc(const struct tcp *tcp)
{
	struct wm_said text = tcp->server;

	return take(&text, "RFB ") && take_all(&text, is_digit, 3, 3) && take(&text, ".") &&
	       take_all(&text, is_digit, 3, 3) && take(&text, "\n");
}

/* One option negotiated; moves behind it. */
static int take_telnet_option(struct wm_said *said)
{
	size_t at = 3;

	if (said->bytes < 3 || said->data[0] != 0xff || said->data[2] > 0x31)
		return 0;
	if (said->data[1] >= 0xfb && said->data[1] <= 0xfe) {
		*said = from(*said, 3);
		return 1;
	}
	if (said->data[1] != 0xfa)
		return 0;
	while (at < said->bytes && at < 83 && said->data[at] != 0xff)
		at++;
	if (!BEGINS(from(*said, at), "\xff\xf0"))
		return 0;
	*said = from(*said, at + 2);
	return 1;
}

/* RFC 854, section "Command structure": two options negotiated at once, or one where telnet is expected. */
static int is_telnet(const struct tcp *tcp)
{
	struct wm_said server = tcp->server, client = tcp->client;

	return (take_telnet_option(&server) && (tcp->server_port == 23 || take_telnet_option(&server))) ||
	       (take_telnet_option(&client) && (tcp->server_port == 23 || take_telnet_option(&client)));
}

/* RFC 8489, section 5: two zero bits, a length of whole words, the magic cookie. */
static int is_stun_message(struct wm_said said)
{
	return said.bytes >= 20 && said.data[0] < 0x40 && !memcmp(said.data + 4, "\x21\x12\xa4\x42", 4) &&
	       !(said.data[3] & 3);
}

static int is_stun_over_tcp(const struct tcp *tcp)
{
	return is_stun_message(tcp->client) || is_stun_message(tcp->server);
}

/* --- UDP */

static int has_port(const struct udp *udp, uint16_t port)
{
	return udp->src_port == port || udp->dst_port == port;
}

static int is_stun(const struct udp *udp)
{
	return is_stun_message(udp->said) && number(udp->said, 2, 2) + 20 >= udp->said.bytes;
}

/* RFC 1035, section 4.1.1. */
static int is_dns(const struct udp *udp)
{
	return has_port(udp, 53) && is_dns_header(udp->said);
}

/* RFC 6762, section 18: a DNS message with an operation code and a response code of zero. */
static int is_mdns(const struct udp *udp)
{
	return has_port(udp, 5353) && udp->said.bytes >= 12 && !(udp->said.data[2] & 0x78) &&
	       !(udp->said.data[3] & 0x0f);
}

/* RFC 4795, section 2.1.1. */
static int is_llmnr(const struct udp *udp)
{
	return has_port(udp, 5355) && udp->said.bytes >= 12 && !(udp->said.data[2] & 0x78) &&
	       number(udp->said, 4, 2) == 1;
}

/* RFC 8999, section 5.1: a long header of a version that is in use (RFC 9000, RFC 9369, drafts), both ids. */
static int is_quic(const struct udp *udp)
{
	uint32_t version = number(udp->said, 1, 4);
	size_t destination;

	if (udp->said.bytes < 7 || (udp->said.data[0] & 0xc0) != 0xc0)
		return 0;
	if (version != 1 && version != 0x6b3343cf &&
	    !(version >> 8 == 0xff0000 && (version & 0xff) >= 23 && (version & 0xff) <= 34))
		return 0;
	destination = udp->said.data[5];
	return destination <= 20 && udp->said.bytes > 6 + destination && udp->said.data[6 + destination] <= 20;
}

/* RFC 5905, section 7.3: version 1 to 4, modes of clients and servers, and 7.5: whole words behind the header. Control
 * and private messages (modes 6 and 7: RFC 9327) are shorter. */
static int is_ntp(const struct udp *udp)
{
	uint32_t version = udp->said.data[0] >> 3 & 7, mode = udp->said.data[0] & 7;

	return has_port(udp, 123) && version >= 1 && version <= 4 && mode && !(udp->said.bytes % 4) &&
	       udp->said.bytes >= (mode >= 6 ? 12 : 48);
}

/* RFC 2131, section 2 and 3: operation, and the magic cookie before the options. */
static int is_dhcp(const struct udp *udp)
{
	return udp->said.bytes >= 240 && (udp->said.data[0] == 1 || udp->said.data[0] == 2) &&
	       !memcmp(udp->said.data + 236, "\x63\x82\x53\x63", 4);
}

/* RFC 8415, sections 8, 9 and 21.1: a known type, and options that fill the message exactly. */
static int is_dhcpv6(const struct udp *udp)
{
	struct wm_said said = udp->said;
	size_t at = said.data[0] == 12 || said.data[0] == 13 ? 34 : 4;

	if (!(has_port(udp, 546) || has_port(udp, 547)) || said.data[0] < 1 || said.data[0] > 36)
		return 0;
	while (at + 4 <= said.bytes)
		at += 4 + number(said, at + 2, 2);
	/* The end of a long message may be missing here, within its last option. */
	return at == said.bytes || (at > said.bytes && said.bytes >= 1024);
}

/* RFC 3416, section 3, in messages of RFC 1157, section 4 and RFC 3412, section 6. */
static int is_snmp(const struct udp *udp)
{
	struct wm_said message, community;
	uint32_t operation;

	if (!ber_content(udp->said, 0x30, &message) || !BEGINS(message, "\2\1") || message.bytes < 5)
		return 0;
	if (message.data[2] == 3)
		return message.data[3] == 0x30 && BEGINS(from(message, 5), "\2") &&
		       ber_content(from(message, 3), 0x30, &community);
	if (message.data[2] > 1 || !ber_content(from(message, 3), 0x04, &community))
		return 0;
	operation = number(message, 5 + community.bytes, 1);
	return operation >= 0xa0 && operation <= 0xa8;
}

static int is_sip_over_udp(const struct udp *udp)
{
	return is_sip_message(udp->said);
}

/* UPnP Device Architecture 2.0, section 1. */
static int is_ssdp(const struct udp *udp)
{
	return BEGINS(udp->said, "M-SEARCH * HTTP/1.1\r\n") || BEGINS(udp->said, "NOTIFY * HTTP/1.1\r\n") ||
	       (udp->src_port == 1900 && BEGINS(udp->said, "HTTP/1.1 200 OK\r\n"));
}

/* BEP 29, "header format": ST_SYN of version 1, sequence number 1, nothing to acknowledge, no delay known. */
static int is_utp_syn(struct wm_said said)
{
	size_t at = 20;
	uint8_t kind;

	if (said.bytes < 20 || said.data[0] != 0x41 || said.data[1] > 2)
		return 0;
	if (number(said, 8, 4) || number(said, 16, 2) != 1 || number(said, 18, 2) || !number(said, 12, 4))
		return 0;
	for (kind = said.data[1]; kind && at + 2 <= said.bytes;) {
		kind = said.data[at];
		at += 2 + (size_t)said.data[at + 1];
	}
	return !kind && at == said.bytes;
}

/* BEP 5: a query, response or error of the DHT; BEP 15: a tracker's connection; BEP 29: the first packet of uTP. */
static int is_bittorrent_over_udp(const struct udp *udp)
{
	static const char *const beginnings[] = {"d1:ad2:id20:", "d1:rd2:id20:", "d1:ei2",   "d1:eli2",
						 "d1:rd",	 "d2:ip6:",	 "d2:ip18:", NULL};
	struct wm_said text = udp->said;

	if (take_one(&text, beginnings))
		return contains(udp->said, "1:y1:") || udp->said.bytes >= 1024;
	if (BEGINS(udp->said, "\0\0\4\x17\x27\x10\x19\x80\0\0\0\0"))
		return udp->said.bytes == 16;
	return is_utp_syn(udp->said);
}

/* WireGuard protocol, "Protocol": types and lengths of handshake messages; transport data only on its port. */
static int is_wireguard(const struct udp *udp)
{
	struct wm_said said = udp->said;

	if (said.bytes < 4 || said.data[1] || said.data[2] || said.data[3])
		return 0;
	switch (said.data[0]) {
	case 1:
		return said.bytes == 148;
	case 2:
		return said.bytes == 92;
	case 3:
		return has_port(udp, 51820) && said.bytes == 64;
	default:
		return has_port(udp, 51820) && said.data[0] == 4 && said.bytes >= 32;
	}
}

/* RFC 9147, section 4 and RFC 6347, section 4.1: a handshake record of DTLS 1.0 or 1.2, not encrypted. */
static int is_dtls(const struct udp *udp)
{
	struct wm_said said = udp->said;

	return said.bytes >= 25 && (BEGINS(said, "\x16\xfe\xff\0\0") || BEGINS(said, "\x16\xfe\xfd\0\0")) &&
	       said.data[13] >= 1 && said.data[13] <= 3;
}

/* --- which is it */

/* What a direction may begin with, to ask only the few predicates that can be true: bytes, or a range of them. */
struct begins {
	uint8_t first, last;
	const char *others;
};

static int may_begin(const struct begins *begins, uint8_t byte)
{
	return (byte >= begins->first && byte <= begins->last) ||
	       (byte && begins->others && strchr(begins->others, byte));
}

#define NO_RANGE 1, 0

static const struct {
	enum wm_application application;
	struct begins begins; /* of either direction; one of them is enough */
	int (*is_it)(const struct tcp *tcp);
} of_tcp[] = {
	/* In this order: the first that fits is it. */
	{WM_APP_TLS, {0x80, 0xff, "\x16"}, is_tls},
	{WM_APP_HTTP, {'^', 'z', "!#$%&'*+-.|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"}, is_http},
	{WM_APP_DNS, {0, 0xff, NULL}, is_dns_over_tcp},
	{WM_APP_SSH, {'S', 'S', NULL}, is_ssh},
	{WM_APP_POSTGRESQL, {0, 0, NULL}, is_postgresql},
	{WM_APP_MYSQL, {0, 0xff, NULL}, is_mysql},
	{WM_APP_REDIS, {'A', 'z', "*"}, is_redis},
	{WM_APP_SMTP, {NO_RANGE, "2EeHhLl"}, is_smtp},
	{WM_APP_FTP, {'2', '2', NULL}, is_ftp},
	{WM_APP_IMAP, {'*', '*', NULL}, is_imap},
	{WM_APP_POP3, {'+', '+', NULL}, is_pop3},
	{WM_APP_MQTT, {0x10, 0x10, NULL}, is_mqtt},
	{WM_APP_AMQP, {'A', 'A', NULL}, is_amqp},
	{WM_APP_MONGODB, {0, 0xff, NULL}, is_mongodb},
	{WM_APP_SMB, {0, 0, NULL}, is_smb},
	{WM_APP_RDP, {3, 3, NULL}, is_rdp},
	{WM_APP_LDAP, {'0', '0', NULL}, is_ldap},
	{WM_APP_SIP, {'A', 'Z', NULL}, is_sip},
	{WM_APP_RTSP, {'A', 'Z', NULL}, is_rtsp},
	{WM_APP_BITTORRENT, {0x13, 0x13, NULL}, is_bittorrent},
	{WM_APP_VNC, {'R', 'R', NULL}, is_vnc},
	{WM_APP_XMPP, {'<', '<', NULL}, is_xmpp},
	{WM_APP_MEMCACHED, {'A', 'z', "\x80"}, is_memcached},
	{WM_APP_KAFKA, {0, 0, NULL}, is_kafka},
	{WM_APP_STUN, {0, 1, NULL}, is_stun_over_tcp},
	{WM_APP_TELNET, {0xff, 0xff, NULL}, is_telnet},
};

static const struct {
	enum wm_application application;
	struct begins begins;
	int (*is_it)(const struct udp *udp);
} of_udp[] = {
	{WM_APP_DNS, {0, 0xff, NULL}, is_dns},		{WM_APP_QUIC, {0xc0, 0xff, NULL}, is_quic},
	{WM_APP_MDNS, {0, 0xff, NULL}, is_mdns},	{WM_APP_LLMNR, {0, 0xff, NULL}, is_llmnr},
	{WM_APP_STUN, {0, 1, NULL}, is_stun},		{WM_APP_DTLS, {0x16, 0x16, NULL}, is_dtls},
	{WM_APP_NTP, {0, 0xff, NULL}, is_ntp},		{WM_APP_DHCP, {1, 2, NULL}, is_dhcp},
	{WM_APP_DHCPV6, {1, 36, NULL}, is_dhcpv6},	{WM_APP_SNMP, {'0', '0', NULL}, is_snmp},
	{WM_APP_SSDP, {NO_RANGE, "MNH"}, is_ssdp},	{WM_APP_SIP, {'A', 'Z', NULL}, is_sip_over_udp},
	{WM_APP_WIREGUARD, {1, 4, NULL}, is_wireguard}, {WM_APP_BITTORRENT, {0, 0, "dA"}, is_bittorrent_over_udp},
};

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

/* By first byte, which rows are worth asking. */
static uint32_t tcp_rows[256], udp_rows[256];

__attribute__((constructor)) static void rows_begin(void)
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		for (size_t i = 0; i < COUNT(of_tcp); i++)
			tcp_rows[byte] |= (uint32_t)may_begin(&of_tcp[i].begins, (uint8_t)byte) << i;
		for (size_t i = 0; i < COUNT(of_udp); i++)
			udp_rows[byte] |= (uint32_t)may_begin(&of_udp[i].begins, (uint8_t)byte) << i;
	}
}

/* By what one side said first. */
static int tcp_application(const struct tcp *tcp, struct wm_said said)
{
	for (uint32_t rows = said.bytes ? tcp_rows[said.data[0]] : 0; rows; rows &= rows - 1) {
		int row = __builtin_ctz(rows);

		if (of_tcp[row].is_it(tcp))
			return of_tcp[row].application;
	}
	return WM_APP_UNKNOWN;
}

int wm_tcp_application(struct wm_said client, struct wm_said server, uint16_t client_port, uint16_t server_port)
{
	struct tcp tcp = {client, server, server_port};
	int found = tcp_application(&tcp, client);

	(void)client_port;
	return found ? found : tcp_application(&tcp, server);
}

int wm_udp_application(struct wm_said said, uint16_t src_port, uint16_t dst_port)
{
	struct udp udp = {said, src_port, dst_port};

	for (uint32_t rows = said.bytes ? udp_rows[said.data[0]] : 0; rows; rows &= rows - 1) {
		int row = __builtin_ctz(rows);

		if (of_udp[row].is_it(&udp))
			return of_udp[row].application;
	}
	return WM_APP_UNKNOWN;
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

/* A segment of fewer bytes may be the beginning of anything: a message's length is sometimes sent by itself. */
#define TOO_SHORT 16

static int is_text(uint8_t byte)
{
	return is_printable(byte) || is_space(byte);
}

int wm_tcp_may_begin(struct wm_said said, uint16_t src_port, uint16_t dst_port)
{
	struct wm_said beginning = up_to(said, TOO_SHORT), option = said, nothing = {said.data, 0};

	if (said.bytes < TOO_SHORT || src_port == 53 || dst_port == 53 || wm_prelude_bytes(said) ||
	    take_all(&beginning, is_text, TOO_SHORT, TOO_SHORT))
		return 1;
	/* What the other side must confirm, or one more segment. */
	if (is_kafka_request(said) || is_mongodb_header(said) || take_telnet_option(&option) ||
	    is_memcached_binary(said, 0x80) || is_memcached_binary(said, 0x81))
		return 1;
	return wm_tcp_application(said, nothing, src_port, dst_port) ||
	       wm_tcp_application(nothing, said, dst_port, src_port);
}
