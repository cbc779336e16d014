/* JA4 and JA4S: fingerprints of a TLS client and of its server's answer, from their hellos.
 *
 * After FoxIO's technical descriptions (github.com/FoxIO-LLC/ja4, technical_details). JA4 is under BSD-3-Clause. JA4S
 * is a method under the FoxIO License 1.1, patent pending: free for one's own use, not to be sold without FoxIO's
 * consent. So nobody calls wm_ja4s() unless asked to: wiremeter itself is under MIT, and who sells it on must be able
 * to.
 */
#ifndef WM_JA4_H
#define WM_JA4_H

#include <stddef.h>
#include <stdint.h>

/* Such as t13d1516h2_8daaf6152771_02713d6af862, and t120400_c030_4e8089b08790. */
#define WM_JA4_BYTES  36
#define WM_JA4S_BYTES 25

/* Cipher suites, or extensions, that a client lists at most; IANA knows 400 of the ones and 70 of the others. */
#define WM_JA4_LISTED 1024

/* TLS over TCP, QUIC, or DTLS. */
enum wm_ja4_transport {
	WM_JA4_TLS = 't',
	WM_JA4_QUIC = 'q',
	WM_JA4_DTLS = 'd',
};

/* Bytes of a hello. */
struct wm_span {
	const uint8_t *at;
	size_t bytes;
};

/* The parts of a whole hello as they are on the wire, each checked by who read it. */
struct wm_ja4_hello {
	uint16_t version;	   /* of its head; of a server: with regard to the extension supported_versions */
	uint16_t cipher;	   /* of a server */
	struct wm_span ciphers;	   /* 16-bit numbers */
	struct wm_span extensions; /* each of number, length, and so many bytes */
	struct wm_span versions;   /* 16-bit numbers; of supported_versions */
	struct wm_span algorithms; /* 16-bit numbers; of signature_algorithms */
	struct wm_span protocol;   /* the first of ALPN */
};

/* Writes the fingerprint of a client; returns its bytes, 0 where it lists too much. */
size_t wm_ja4(const struct wm_ja4_hello *hello, enum wm_ja4_transport transport, uint8_t text[WM_JA4_BYTES]);

/* The same of a server over TCP, of which there is always one. */
size_t wm_ja4s(const struct wm_ja4_hello *hello, uint8_t text[WM_JA4S_BYTES]);

/* Whether a number is one of those that are sent to be ignored (GREASE: RFC 8701, section 2). */
int wm_is_grease(uint32_t number);

#endif
