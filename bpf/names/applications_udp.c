/* Applications over UDP: one predicate for each, and which of them the first byte leaves. */
#include "evidence.h"

/* A datagram and both ports. */
struct udp {
	struct wm_said said;
	uint16_t src_port, dst_port;
};

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

_Static_assert(COUNT(of_udp) <= 32, "a bit for each row");

/* By first byte, which rows are worth asking. */
static uint32_t udp_rows[256];

__attribute__((constructor)) static void rows_begin(void)
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		for (size_t i = 0; i < COUNT(of_udp); i++)
			udp_rows[byte] |= (uint32_t)may_begin(&of_udp[i].begins, (uint8_t)byte) << i;
	}
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
