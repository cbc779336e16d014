/* What the predicates of TCP and of UDP share: messages that go over both, and the table of first bytes. */
#ifndef WM_EVIDENCE_H
#define WM_EVIDENCE_H

#include "dns.h"
#include "said.h"

/* RFC 1035, section 4.1.1; operation codes as registered (RFC 6895, section 2.2). One question; a response may leave it
 * out, and stateful operations (6; RFC 8490) have none. */
static inline int is_dns_header(struct wm_said said)
{
	uint32_t operation, questions = number(said, 4, 2);

	if (said.bytes < 12)
		return 0;
	operation = said.data[2] >> 3 & 15;
	return WM_DNS_OPCODES >> operation & 1 &&
	       (questions == 1 || (!questions && (said.data[2] & 0x80 || operation == 6)));
}

/* RFC 3261, sections 7.1 and 7.2. */
static inline int is_sip_message(struct wm_said said)
{
	struct wm_said text = said;

	if (take(&text, "SIP/2.0 "))
		return text.bytes && text.data[0] >= '1' && text.data[0] <= '6' && take_all(&text, is_digit, 3, 3) &&
		       take(&text, " ");
	return take_all(&text, is_capital, 3, 12) && take(&text, " ") &&
	       (take(&text, "sip:") || take(&text, "sips:") || take(&text, "tel:")) &&
	       take_all(&text, is_not_space, 1, ANY) && take(&text, " SIP/2.0") && take_line_end(&text);
}

/* Whether there is an element with that tag (X.690, section 8.1.3), and what is there of its content. */
static inline int ber_content(struct wm_said said, uint8_t tag, struct wm_said *content)
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

/* RFC 8489, section 5: two zero bits, a length of whole words, the magic cookie. */
static inline int is_stun_message(struct wm_said said)
{
	return said.bytes >= 20 && said.data[0] < 0x40 && !memcmp(said.data + 4, "\x21\x12\xa4\x42", 4) &&
	       !(said.data[3] & 3);
}

/* What a direction may begin with, to ask only the few predicates that can be true: bytes, or a range of them. */
struct begins {
	uint8_t first, last;
	const char *others;
};

static inline int may_begin(const struct begins *begins, uint8_t byte)
{
	return (byte >= begins->first && byte <= begins->last) ||
	       (byte && begins->others && strchr(begins->others, byte));
}

#define NO_RANGE 1, 0

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

#endif
