/* Applications over TCP: one predicate for each, and which of them the first byte leaves. */
#include "evidence.h"

/* The beginnings of both directions of a connection, and the server's port. */
struct tcp {
	struct wm_said client, server;
	uint16_t server_port;
};

/* --- client speaks first */

static int is_tls(const struct tcp *tcp)
{
	return wm_looks_like_tls(tcp->client) || wm_looks_like_tls(tcp->server);
}

static int is_http(const struct tcp *tcp)
{
	return wm_looks_like_request(tcp->client) || wm_looks_like_http2(tcp->client) ||
	       wm_looks_like_response(tcp->server);
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

/* gitprotocol-pack, "Git Transport": what is asked for in the first pkt-line, whose length stands before it in four
 * hexadecimal digits. */
static int is_git(const struct tcp *tcp)
{
	static const char *const requests[] = {"git-upload-pack /", "git-receive-pack /", "git-upload-archive /", NULL};
	struct wm_said text = tcp->client;

	return take(&text, "0") && take_all(&text, is_hex, 3, 3) && take_one(&text, requests);
}

/* --- server may speak first */

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

static int is_stun_over_tcp(const struct tcp *tcp)
{
	return is_stun_message(tcp->client) || is_stun_message(tcp->server);
}

/* --- which is it */

static const struct {
	enum wm_application application;
	struct begins begins; /* of either direction; one of them is enough */
	int (*is_it)(const struct tcp *tcp);
} of_tcp[] = {
	/* In this order: the first that fits is it. */
	{WM_APP_TLS, {0x80, 0xff, "\x16"}, is_tls},
	{WM_APP_HTTP, {'^', 'z', "\r\n!#$%&'*+-.|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"}, is_http},
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
	{WM_APP_GIT, {'0', '0', NULL}, is_git},
};

_Static_assert(COUNT(of_tcp) <= 32, "a bit for each row");

/* By first byte, which rows are worth asking. */
static uint32_t tcp_rows[256];

__attribute__((constructor)) static void rows_begin(void)
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		for (size_t i = 0; i < COUNT(of_tcp); i++)
			tcp_rows[byte] |= (uint32_t)may_begin(&of_tcp[i].begins, (uint8_t)byte) << i;
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

int wm_tcp_application(struct wm_said client, struct wm_said server, uint16_t server_port)
{
	struct tcp tcp = {client, server, server_port};
	int found = tcp_application(&tcp, client);

	return found ? found : tcp_application(&tcp, server);
}

int wm_tcp_begins(struct wm_said said, uint16_t src_port, uint16_t dst_port)
{
	struct wm_said nothing = {said.data, 0};

	return src_port == 53 || dst_port == 53 || wm_prelude_bytes(said) ||
	       wm_tcp_application(said, nothing, dst_port) || wm_tcp_application(nothing, said, src_port);
}

/* A segment of fewer bytes may be the beginning of anything: a message's length is sometimes sent by itself. */
#define TOO_SHORT 16

static int is_text(uint8_t byte)
{
	return is_printable(byte) || is_space(byte);
}

int wm_tcp_may_begin(struct wm_said said, uint16_t src_port, uint16_t dst_port)
{
	struct wm_said beginning = up_to(said, TOO_SHORT), option = said;

	if (said.bytes < TOO_SHORT || take_all(&beginning, is_text, TOO_SHORT, TOO_SHORT))
		return 1;
	/* What the other side must confirm, or one more segment. */
	if (is_kafka_request(said) || is_mongodb_header(said) || take_telnet_option(&option) ||
	    is_memcached_binary(said, 0x80) || is_memcached_binary(said, 0x81))
		return 1;
	return wm_tcp_begins(said, src_port, dst_port);
}
