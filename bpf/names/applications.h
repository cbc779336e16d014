/* Application protocols by evidence: what the first bytes of a connection or a datagram can only be.
 *
 * Ports decide only between what the bytes leave open, and never alone. What fits nothing is nothing.
 */
#ifndef WM_APPLICATIONS_H
#define WM_APPLICATIONS_H

#include <stddef.h>
#include <stdint.h>

/* The names are in applications.c. */
enum wm_application {
	WM_APP_UNKNOWN,
	WM_APP_TLS,
	WM_APP_HTTP,
	WM_APP_DNS,
	WM_APP_SSH,
	WM_APP_POSTGRESQL,
	WM_APP_MYSQL,
	WM_APP_REDIS,
	WM_APP_SMTP,
	WM_APP_FTP,
	WM_APP_IMAP,
	WM_APP_POP3,
	WM_APP_MQTT,
	WM_APP_AMQP,
	WM_APP_MONGODB,
	WM_APP_SMB,
	WM_APP_RDP,
	WM_APP_LDAP,
	WM_APP_SIP,
	WM_APP_RTSP,
	WM_APP_BITTORRENT,
	WM_APP_VNC,
	WM_APP_XMPP,
	WM_APP_MEMCACHED,
	WM_APP_KAFKA,
	WM_APP_STUN,
	WM_APP_TELNET,
	WM_APP_QUIC,
	WM_APP_MDNS,
	WM_APP_LLMNR,
	WM_APP_DTLS,
	WM_APP_NTP,
	WM_APP_DHCP,
	WM_APP_DHCPV6,
	WM_APP_SNMP,
	WM_APP_SSDP,
	WM_APP_WIREGUARD,
	WM_APP_GRPC, /* within HTTP/2 */
	WM_APP_GIT,
	WM_APPLICATIONS,
};

extern const char *const wm_application_names[WM_APPLICATIONS];

struct wm_said {
	const uint8_t *data;
	size_t bytes;
};

/* enum wm_application of a TCP connection: client, server: the first bytes of each direction that were seen, or none of
 * them. */
int wm_tcp_application(struct wm_said client, struct wm_said server, uint16_t server_port);

/* The same of a datagram. */
int wm_udp_application(struct wm_said said, uint16_t src_port, uint16_t dst_port);

/* How many of a stream's first bytes are a proxy's that passes it on (PROXY protocol, versions 1 and 2, as haproxy.org
 * has it); 0 if it does not begin with any. They may be more than are there. */
size_t wm_prelude_bytes(struct wm_said said);

/* Whether a segment may be the beginning, or a part of it, of what one side says in any of them, whatever the other
 * side says. What may not is opaque. */
int wm_tcp_may_begin(struct wm_said said, uint16_t src_port, uint16_t dst_port);

/* Whether a segment looks like the beginning of what one side says. */
int wm_tcp_begins(struct wm_said said, uint16_t src_port, uint16_t dst_port);

/* Whether the first bytes of a stream are those of a hello (RFC 8446, section 5.1). Fewer than six are too few to tell.
 */
int wm_looks_like_tls(struct wm_said said);

/* Whether a packet begins like the head of a request or response (RFC 9112, sections 3 and 4): of a request with an
 * unknown method only if the whole request line is there. */
int wm_looks_like_request(struct wm_said said);
int wm_looks_like_response(struct wm_said said);

/* Whether a packet begins like the preface of a client (RFC 9113, section 3.4). */
int wm_looks_like_http2(struct wm_said said);

#endif
