/* DNS messages (RFC 1035; mDNS RFC 6762, LLMNR RFC 4795, EDNS RFC 6891): the envelope, names, and the common records.
 *
 * What lies inside other records is left for who wants to see it: the copy of the message that comes with them.
 */
#ifndef WM_DNS_H
#define WM_DNS_H

#include "names.h"

/* Bounds on what one message may cost: answers are read as long as they end within so many bytes of it, and until they
 * have so much text. The rest is stepped over and the message flagged cut. Only zone transfers are so large. */
#define WM_DNS_ANSWER_BYTES 4096
#define WM_DNS_ANSWER_TEXT  16384
#define WM_DNS_QUESTIONS    128

#define WM_DNS_NAME_BYTES 255  /* RFC 1035, section 2.3.4 */
#define WM_DNS_NAME_TEXT  1004 /* each byte escaped */

/* Operation codes as registered (RFC 6895, section 2.2; stateful operations: RFC 8490), a bit each. */
#define WM_DNS_OPCODES (1U << 0 | 1U << 1 | 1U << 2 | 1U << 4 | 1U << 5 | 1U << 6)

enum wm_dns_type {
	WM_DNS_A = 1,
	WM_DNS_NS = 2,
	WM_DNS_CNAME = 5,
	WM_DNS_PTR = 12,
	WM_DNS_AAAA = 28,
	WM_DNS_DNAME = 39,
	WM_DNS_OPT = 41,
	WM_DNS_SVCB = 64,
	WM_DNS_HTTPS = 65,
};

/* A name as it is sent, without compression; bytes 0: it could not be read. */
struct wm_dns_name {
	uint8_t bytes;
	uint8_t wire[WM_DNS_NAME_BYTES];
};

struct wm_dns_question {
	int32_t type;
	uint32_t hash; /* of type and name, in lower case */
	struct wm_dns_name name;
};

struct wm_dns_message {
	uint16_t id;
	uint8_t is_response;
	uint8_t cut;   /* some of what was sent is missing */
	int32_t rcode; /* with the upper bits that EDNS adds (RFC 6891, section 6.1.3) */
	uint32_t questions_count;
	/* Of a response, in `told`. */
	uint32_t answers_at;
	uint32_t answers_count;
	uint32_t copy_at;
	uint32_t copy_bytes;
	struct wm_dns_question questions[WM_DNS_QUESTIONS]; /* each once */
};

/* Reads a message; as wm_dns_take(). The answers of a response go to `told`. */
int wm_dns_read(struct wm_dns_message *message, const uint8_t *data, size_t bytes, int how, struct wm_told *told);

/* Appends the text of a name as in a zone file, without the last dot; returns its bytes. */
uint32_t wm_dns_name_text(struct wm_told *told, const struct wm_dns_name *name);

/* What a message's answers say of addresses: appends it to `told`. query_at, query_bytes: the text of the question they
 * answer; those that do not belong to it are left alone. */
void wm_dns_learn(const struct wm_dns_message *message, const uint8_t client[16], uint64_t time_ns, uint32_t query_at,
		  uint32_t query_bytes, struct wm_told *told);

/* The same of an announcement to all (mDNS), where each record stands for itself. */
void wm_dns_learn_announced(const struct wm_dns_message *message, const uint8_t client[16], uint64_t time_ns,
			    struct wm_told *told);

static inline uint32_t wm_get16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static inline uint32_t wm_get32(const uint8_t *at)
{
	return wm_get16(at) << 16 | wm_get16(at + 2);
}

static inline uint8_t wm_lower(uint8_t byte)
{
	return byte >= 'A' && byte <= 'Z' ? byte + 32 : byte;
}

#endif
