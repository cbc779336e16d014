/* Reading one DNS message, and what its answers say of addresses. */
#include "dns.h"

#include <string.h>

#define HEADER_BYTES   12
#define QUESTION_BYTES 4
#define RECORD_BYTES   10  /* of a record, behind its name */
#define LABELS_MAX     127 /* of one byte each; no name needs more pointers */

#define FLAG_QR 0x8000
#define FLAG_AA 0x0400
#define FLAG_TC 0x0200
#define FLAG_RA 0x0080
#define FLAG_Z	0x0040

#define CLASS_IN 1
/* The highest bit of a class means "cache flush" or "unicast response" in mDNS (RFC 6762, sections 10.2 and 5.4). */
#define CLASS_BITS 0x7fff

#define OPCODE_QUERY  0
#define OPCODE_UPDATE 5

/* Longer names are not those of hosts (RFC 1035, section 2.3.4) but bytes with escapes. */
#define HOST_TEXT_MAX 253
/* CNAMEs that are followed; resolvers give up sooner. */
#define CHAIN_MAX 16

/* One of a message's bytes, or of those that were kept. All places are below 65,536; 0 is none. */
struct bytes {
	const uint8_t *data;
	uint32_t count;
};

static uint32_t opcode_of(uint32_t flags)
{
	return flags >> 11 & 0xf;
}

int wm_dns_may_begin(const uint8_t *data, size_t bytes)
{
	if (bytes >= 3 && !(WM_DNS_OPCODES >> (data[2] >> 3 & 0xf) & 1))
		return 0;
	return bytes < 6 || wm_get16(data + 4) <= WM_DNS_QUESTIONS;
}

/* --- names and records */

static uint32_t name_end(struct bytes in, uint32_t at)
{
	while (at < in.count) {
		uint8_t size = in.data[at];

		if (!size)
			return at + 1;
		if (size >= 0xc0)
			return at + 2;
		if (size >= 0x40) /* not in use (RFC 6891, section 5) */
			return 0;
		at += 1 + size;
	}
	return 0;
}

/* Where a record's data begin, and where they end, given where it begins itself; 0: not within the message. */
static uint32_t record_data(struct bytes in, uint32_t at, uint32_t *end)
{
	at = name_end(in, at);
	if (!at || at + RECORD_BYTES > in.count)
		return 0;
	at += RECORD_BYTES;
	*end = at + wm_get16(in.data + at - 2);
	return *end > in.count ? 0 : at;
}

static uint32_t record_end(struct bytes in, uint32_t at)
{
	uint32_t end;

	return record_data(in, at, &end) ? end : 0;
}

/* The name at `at` (RFC 1035, section 4.1.4); returns what follows it, or 0. Every pointer must point before all that
 * was read of the name so far, so none can lead in a circle. */
static uint32_t name_read(struct bytes in, uint32_t at, struct wm_dns_name *name)
{
	uint32_t after = 0, lowest = at, bytes = 0, hops = 0;

	for (;;) {
		uint8_t size;

		if (at >= in.count)
			return 0;
		size = in.data[at];
		if (size >= 0xc0) {
			if (at + 2 > in.count || ++hops > LABELS_MAX)
				return 0;
			after = after ? after : at + 2;
			at = wm_get16(in.data + at) & 0x3fff;
			if (at >= lowest)
				return 0;
			lowest = at;
			continue;
		}
		/* A label of a kind that is not in use is too long as well. */
		if (bytes + 1 + size + !!size > WM_DNS_NAME_BYTES || size >= 0x40 || at + 1 + size > in.count)
			return 0;
		memcpy(name->wire + bytes, in.data + at, 1U + size);
		bytes += 1U + size;
		at += 1U + size;
		if (!size)
			break;
	}
	name->bytes = (uint8_t)bytes;
	return after ? after : at;
}

/* Bytes that stand for themselves in a zone file's names. */
static int is_plain(uint8_t byte)
{
	switch (byte) {
	case '"':
	case '(':
	case ')':
	case '.':
	case ';':
	case '\\':
	case '@':
	case '$':
		return 0;
	default:
		return byte > 0x20 && byte < 0x7f;
	}
}

static uint8_t *put_escaped(uint8_t *to, uint8_t byte)
{
	*to++ = '\\';
	if (byte > 0x20 && byte < 0x7f) {
		*to++ = byte;
		return to;
	}
	*to++ = '0' + byte / 100;
	*to++ = '0' + byte / 10 % 10;
	*to++ = '0' + byte % 10;
	return to;
}

uint32_t wm_dns_name_text(struct wm_told *told, const struct wm_dns_name *name)
{
	uint8_t *begin = told->text + told->text_bytes, *to = begin;
	uint32_t at = 0;

	if (!name->bytes)
		return 0;
	if (name->bytes == 1)
		*to++ = '.';
	while (name->wire[at]) {
		uint32_t end = at + 1 + name->wire[at];

		if (at)
			*to++ = '.';
		for (at++; at < end; at++) {
			if (is_plain(name->wire[at]))
				*to++ = name->wire[at];
			else
				to = put_escaped(to, name->wire[at]);
		}
	}
	told->text_bytes += (uint32_t)(to - begin);
	return (uint32_t)(to - begin);
}

static uint32_t question_hash(const struct wm_dns_question *question)
{
	uint32_t hash = 0x811c9dc5U ^ (uint32_t)question->type;

	for (uint32_t i = 0; i < question->name.bytes; i++) /* FNV-1a */
		hash = (hash ^ wm_lower(question->name.wire[i])) * 0x01000193U;
	return hash;
}

/* --- sections of a message */

static uint32_t questions_read(struct wm_dns_message *message, struct bytes in, uint32_t count, uint32_t *read)
{
	uint32_t at = HEADER_BYTES;

	for (; count; count--) {
		struct wm_dns_question *question = &message->questions[message->questions_count];
		uint32_t i = 0;

		if (*read == WM_DNS_QUESTIONS) {
			at = name_end(in, at);
			if (!at || at + QUESTION_BYTES > in.count)
				return 0;
			at += QUESTION_BYTES;
			continue;
		}
		at = name_read(in, at, &question->name);
		if (!at || at + QUESTION_BYTES > in.count)
			return 0;
		question->type = (int32_t)wm_get16(in.data + at);
		question->hash = question_hash(question);
		at += QUESTION_BYTES;
		++*read;
		while (i < message->questions_count &&
		       (message->questions[i].hash != question->hash ||
			message->questions[i].name.bytes != question->name.bytes ||
			memcmp(message->questions[i].name.wire, question->name.wire, question->name.bytes)))
			i++;
		message->questions_count += i == message->questions_count;
	}
	return at;
}

static void put_bytes(struct wm_told *told, const uint8_t *data, uint32_t count)
{
	memcpy(told->text + told->text_bytes, data, count);
	told->text_bytes += count;
}

/* What a record's data are, from `at` to `end`; its place in a copy of the message is put right later. */
static void data_read(struct wm_dns_answer *answer, struct bytes in, uint32_t at, uint32_t end, struct wm_told *told)
{
	struct wm_dns_name name;

	answer->data_at = told->text_bytes;
	answer->data_bytes = (uint16_t)(end - at);
	if (answer->class == CLASS_IN && answer->type == WM_DNS_A && end - at == 4) {
		answer->form = WM_DNS_IPV4;
		put_bytes(told, in.data + at, 4);
		return;
	}
	if (answer->class == CLASS_IN && answer->type == WM_DNS_AAAA && end - at == 16) {
		answer->form = WM_DNS_IPV6;
		put_bytes(told, in.data + at, 16);
		return;
	}
	switch (answer->type) {
	case WM_DNS_CNAME:
	case WM_DNS_PTR:
	case WM_DNS_NS:
	case WM_DNS_DNAME:
		if (name_read(in, at, &name) != end)
			break;
		answer->form = WM_DNS_NAME;
		answer->data_bytes = (uint16_t)wm_dns_name_text(told, &name);
		return;
	}
	answer->form = WM_DNS_WIRE;
	answer->data_at = at;
}

/* Most characters that an answer's data are likely to take as text. */
static uint32_t text_cost(const struct wm_dns_answer *answer)
{
	return answer->form == WM_DNS_NAME ? answer->data_bytes : 16 + 4U * answer->data_bytes;
}

/* Appends the answers within the bounds; returns where the section ends, or 0 where it is damaged. */
static uint32_t answers_read(struct wm_dns_message *message, struct bytes in, uint32_t at, uint32_t count,
			     struct wm_told *told)
{
	uint32_t cost = 0, pointer = 0, name_at = 0, name_bytes = 0, wire_end = 0;
	struct wm_dns_answer *answers = told->answers + told->answers_count;
	struct wm_dns_name name;

	for (uint32_t i = 0; i < count && at; i++) {
		struct wm_dns_answer *answer = &answers[message->answers_count];
		uint32_t end, begin = record_data(in, at, &end);

		/* The records of one name follow each other, most with the same pointer to it. */
		if (!begin) {
			at = 0;
			break;
		}
		if (cost >= WM_DNS_ANSWER_TEXT || end > WM_DNS_ANSWER_BYTES) {
			at = end;
			continue;
		}
		if (in.data[at] < 0xc0 || wm_get16(in.data + at) != pointer) {
			if (!name_read(in, at, &name)) {
				at = 0;
				break;
			}
			pointer = wm_get16(in.data + at);
			name_at = told->text_bytes;
			name_bytes = wm_dns_name_text(told, &name);
		}
		*answer = (struct wm_dns_answer){
			.name_at = name_at,
			.name_bytes = (uint16_t)name_bytes,
			.type = (uint16_t)wm_get16(in.data + begin - 10),
			.class = wm_get16(in.data + begin - 8) & CLASS_BITS,
			.ttl = wm_get32(in.data + begin - 6),
		};
		if (answer->ttl > 0x7fffffff) /* RFC 2181, section 8 */
			answer->ttl = 0;
		data_read(answer, in, begin, end, told);
		if (answer->form == WM_DNS_WIRE)
			wire_end = end;
		cost += name_bytes + text_cost(answer);
		message->answers_count++;
		at = end;
	}
	message->copy_at = told->text_bytes;
	message->copy_bytes = wire_end;
	put_bytes(told, in.data, wire_end);
	for (uint32_t i = 0; i < message->answers_count && wire_end; i++)
		answers[i].data_at += answers[i].form == WM_DNS_WIRE ? message->copy_at : 0;
	told->answers_count += message->answers_count;
	return at;
}

static uint32_t records_skip(struct bytes in, uint32_t at, uint32_t count)
{
	for (; count && at; count--)
		at = record_end(in, at);
	return at;
}

/* The upper eight bits of the response code, from the OPT record if there is one; returns where the section ends. */
static uint32_t extended_rcode_read(struct bytes in, uint32_t at, uint32_t count, int32_t *extended)
{
	for (; count && at; count--) {
		uint32_t end = record_end(in, at);

		if (end && !in.data[at] && wm_get16(in.data + at + 1) == WM_DNS_OPT)
			*extended = in.data[at + 5]; /* the first byte of what is the TTL elsewhere */
		at = end;
	}
	return at;
}

int wm_dns_read(struct wm_dns_message *message, const uint8_t *data, size_t bytes, int how, struct wm_told *told)
{
	struct bytes in = {data, bytes > 0xffff ? 0xffff : (uint32_t)bytes};
	uint32_t flags, questions, answers, authorities, read = 0, at;
	int32_t extended = 0;

	if (bytes < HEADER_BYTES)
		return -1;
	flags = wm_get16(data + 2);
	questions = wm_get16(data + 4), answers = wm_get16(data + 6), authorities = wm_get16(data + 8);
	if (opcode_of(flags) == OPCODE_UPDATE) { /* conditions in the place of answers (RFC 2136, section 2) */
		authorities += answers;
		answers = 0;
	}
	message->id = (uint16_t)wm_get16(data);
	message->is_response = !!(flags & FLAG_QR);
	message->cut = !!(how & WM_DNS_IS_CUT);
	message->questions_count = 0;
	message->answers_at = told->answers_count;
	message->answers_count = 0;
	message->copy_bytes = message->copy_at = 0;
	at = questions_read(message, in, questions, &read);
	if (questions && !read) {
		if (!(how & WM_DNS_LENIENT) || !wm_dns_may_begin(data, bytes))
			return -1;
		message->questions[0].type = WM_NONE;
		message->questions[0].name.bytes = 0;
		message->questions[0].hash = 0;
		message->questions_count = 1;
	}
	if (message->is_response && at)
		at = answers_read(message, in, at, answers, told);
	else
		at = records_skip(in, at, answers);
	at = records_skip(in, at, authorities);
	at = extended_rcode_read(in, at, wm_get16(data + 10), &extended);
	message->rcode = (at ? extended << 4 : 0) | (int32_t)(flags & 0xf);
	message->cut |= !at || read < questions || (message->is_response && message->answers_count < answers);
	return 0;
}

/* --- DNS or not */

/* Types and classes of questions that are in use (IANA, "Domain Name System (DNS) Parameters"). */
static int is_question_type(uint32_t type)
{
	if (type == WM_DNS_OPT || !type)
		return 0;
	return type <= 68 || (type >= 99 && type <= 109) || (type >= 128 && type <= 130) ||
	       (type >= 249 && type <= 263) || type == 32768 || type == 32769;
}

static int is_class(uint32_t class)
{
	return class == CLASS_IN || class == 3 || class == 4 || class == 255;
}

static int is_plain_name(const struct wm_dns_name *name)
{
	for (uint32_t at = 0; name->wire[at];) {
		uint32_t end = at + 1 + name->wire[at];

		for (at++; at < end; at++) {
			if (!is_plain(name->wire[at]))
				return 0;
		}
	}
	return 1;
}

int wm_dns_looks_like(const uint8_t *data, size_t bytes, int cut)
{
	struct bytes in = {data, bytes > 0xffff ? 0xffff : (uint32_t)bytes};
	uint32_t flags, records, at;
	struct wm_dns_name name;

	if (bytes < HEADER_BYTES || wm_get16(data + 4) != 1)
		return 0;
	flags = wm_get16(data + 2);
	if (opcode_of(flags) != OPCODE_QUERY || flags & FLAG_Z)
		return 0;
	records = wm_get16(data + 6) + wm_get16(data + 8) + wm_get16(data + 10);
	if (!(flags & FLAG_QR) &&
	    (flags & (FLAG_AA | FLAG_TC | FLAG_RA | 0xf) || wm_get16(data + 6) || wm_get16(data + 8) || records > 2))
		return 0;
	at = name_read(in, HEADER_BYTES, &name);
	if (!at || at + QUESTION_BYTES > in.count || !is_plain_name(&name) || !is_question_type(wm_get16(data + at)) ||
	    !is_class(wm_get16(data + at + 2)))
		return 0;
	return cut || records_skip(in, at + QUESTION_BYTES, records) == bytes;
}

/* --- what answers say of addresses */

struct text {
	const uint8_t *at;
	uint32_t bytes;
};

static struct text text_of(const struct wm_told *told, uint32_t at, uint32_t bytes)
{
	return (struct text){told->text + at, bytes};
}

static int is_same(struct text a, struct text b)
{
	if (a.bytes != b.bytes)
		return 0;
	for (uint32_t i = 0; i < a.bytes && a.at != b.at; i++) {
		if (wm_lower(a.at[i]) != wm_lower(b.at[i]))
			return 0;
	}
	return 1;
}

static int ends_with(struct text name, const char *end)
{
	uint32_t bytes = (uint32_t)strlen(end);

	return name.bytes >= bytes &&
	       is_same((struct text){name.at + name.bytes - bytes, bytes}, (struct text){(const uint8_t *)end, bytes});
}

/* A decimal number of at most three digits, as in addresses: without zeros before it. */
static int number_read(struct text *from)
{
	uint32_t digits = 0;
	int number = 0;

	while (from->bytes && digits < 3 && from->at[0] >= '0' && from->at[0] <= '9') {
		number = number * 10 + from->at[0] - '0';
		from->at++, from->bytes--, digits++;
		if (!number)
			break;
	}
	return digits && number < 256 ? number : -1;
}

static int hex_digit(uint8_t byte)
{
	byte = wm_lower(byte);
	if (byte >= '0' && byte <= '9')
		return byte - '0';
	return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static void map_ipv4(uint8_t address[16])
{
	memset(address, 0, 10);
	address[10] = address[11] = 0xff;
}

/* The address of a name in in-addr.arpa (RFC 1035, section 3.5) or ip6.arpa (RFC 3596, section 2.5). */
static int address_of_pointer(struct text name, uint8_t address[16])
{
	if (ends_with(name, ".in-addr.arpa")) {
		name.bytes -= 13;
		map_ipv4(address);
		for (int i = 15; i >= 12; i--) {
			int number = number_read(&name);

			if (number < 0 || (i > 12 && (!name.bytes || name.at[0] != '.')) || (i == 12 && name.bytes))
				return 0;
			address[i] = (uint8_t)number;
			name.at++, name.bytes -= i > 12;
		}
		return 1;
	}
	if (!ends_with(name, ".ip6.arpa") || name.bytes != 63 + 9)
		return 0;
	for (int i = 0; i < 16; i++) {
		int low = hex_digit(name.at[4 * i]), high = hex_digit(name.at[4 * i + 2]);

		if (low < 0 || high < 0 || name.at[4 * i + 1] != '.' || name.at[4 * i + 3] != '.')
			return 0;
		address[15 - i] = (uint8_t)(high << 4 | low);
	}
	return 1;
}

/* The host that a record is about: names of HTTPS and SVCB records may have the port and the scheme before it (RFC
 * 9460, section 2.3). bytes 0: the name can be no host's. */
static struct text host_of(struct text name, uint32_t type)
{
	while ((type == WM_DNS_HTTPS || type == WM_DNS_SVCB) && name.bytes && name.at[0] == '_') {
		while (name.bytes && name.at[0] != '.')
			name.at++, name.bytes--;
		if (name.bytes)
			name.at++, name.bytes--;
	}
	if (name.bytes > HOST_TEXT_MAX || (name.bytes == 1 && name.at[0] == '.'))
		name.bytes = 0;
	return name;
}

/* What is learnt of one name: its text in lower case is written once. */
struct lesson {
	struct wm_told *told;
	const uint8_t *client;
	uint64_t time_ns;
	struct text host;
	uint32_t host_at; /* UINT32_MAX: not written yet */
};

static struct lesson lesson_on(struct wm_told *told, const uint8_t *client, uint64_t time_ns, struct text host)
{
	return (struct lesson){told, client, time_ns, host, UINT32_MAX};
}

static void lesson_add(struct lesson *lesson, const uint8_t address[16], uint32_t ttl, int is_pointer)
{
	struct wm_told *told = lesson->told;
	struct wm_dns_address *learnt = &told->addresses[told->addresses_count];

	if (!lesson->host.bytes)
		return;
	if (lesson->host_at == UINT32_MAX) {
		lesson->host_at = told->text_bytes;
		for (uint32_t i = 0; i < lesson->host.bytes; i++)
			told->text[told->text_bytes++] = wm_lower(lesson->host.at[i]);
	}
	*learnt = (struct wm_dns_address){
		.time_ns = lesson->time_ns,
		.ttl = ttl,
		.name_at = lesson->host_at,
		.name_bytes = (uint16_t)lesson->host.bytes,
		.is_pointer = (uint8_t)is_pointer,
	};
	memcpy(learnt->client, lesson->client, 16);
	memcpy(learnt->address, address, 16);
	told->addresses_count++;
}

/* The hints in the data of an HTTPS or SVCB record (RFC 9460, sections 2.2 and 7.3). */
static void hints_learn(struct lesson *lesson, struct bytes data, uint32_t ttl)
{
	uint32_t at = data.count > 2 ? name_end(data, 2) : 0;
	uint8_t address[16];

	while (at && at + 4 <= data.count) {
		uint32_t key = wm_get16(data.data + at), end = at + 4 + wm_get16(data.data + at + 2);

		at += 4;
		if (end > data.count)
			return;
		for (; key == 4 && at + 4 <= end; at += 4) {
			map_ipv4(address);
			memcpy(address + 12, data.data + at, 4);
			lesson_add(lesson, address, ttl, 0);
		}
		for (; key == 6 && at + 16 <= end; at += 16)
			lesson_add(lesson, data.data + at, ttl, 0);
		at = end;
	}
}

static void answer_learn(struct lesson *lesson, const struct wm_dns_answer *answer)
{
	const uint8_t *data = lesson->told->text + answer->data_at;
	uint8_t address[16];

	switch (answer->form) {
	case WM_DNS_IPV4:
		map_ipv4(address);
		memcpy(address + 12, data, 4);
		lesson_add(lesson, address, answer->ttl, 0);
		return;
	case WM_DNS_IPV6:
		lesson_add(lesson, data, answer->ttl, 0);
		return;
	case WM_DNS_WIRE:
		if (answer->type == WM_DNS_HTTPS || answer->type == WM_DNS_SVCB)
			hints_learn(lesson, (struct bytes){data, answer->data_bytes}, answer->ttl);
		return;
	}
}

static void pointer_learn(struct wm_told *told, const struct wm_dns_answer *answer, const uint8_t client[16],
			  uint64_t time_ns, struct text asked)
{
	struct text owner = text_of(told, answer->name_at, answer->name_bytes);
	struct lesson lesson = lesson_on(told, client, time_ns,
					 host_of(text_of(told, answer->data_at, answer->data_bytes), WM_DNS_PTR));
	uint8_t address[16];

	/* A reverse zone of less than 256 addresses lies behind a CNAME (RFC 2317): then the question has the address.
	 */
	if (answer->form == WM_DNS_NAME && (address_of_pointer(owner, address) || address_of_pointer(asked, address)))
		lesson_add(&lesson, address, answer->ttl, 1);
}

/* Whether a name is the one that was asked for, or one it stands for by CNAMEs. */
static int is_in_chain(struct text name, const struct text *chain, uint32_t count)
{
	while (count--) {
		if (is_same(name, chain[count]))
			return 1;
	}
	return 0;
}

/* The name that was asked for and those it stands for by CNAMEs, in whatever order (RFC 1034, section 3.6.2). */
static uint32_t chain_follow(const struct wm_dns_message *message, const struct wm_told *told, struct text *chain)
{
	const struct wm_dns_answer *answers = told->answers + message->answers_at;
	uint32_t count = 1, i = 0;

	while (count < CHAIN_MAX && i < message->answers_count) {
		const struct wm_dns_answer *answer = &answers[i++];
		struct text target = text_of(told, answer->data_at, answer->data_bytes);

		if (answer->type != WM_DNS_CNAME || answer->form != WM_DNS_NAME ||
		    !is_same(text_of(told, answer->name_at, answer->name_bytes), chain[count - 1]))
			continue;
		if (is_in_chain(target, chain, count))
			break;
		chain[count++] = target;
		i = 0;
	}
	return count;
}

void wm_dns_learn(const struct wm_dns_message *message, const uint8_t client[16], uint64_t time_ns, uint32_t query_at,
		  uint32_t query_bytes, struct wm_told *told)
{
	const struct wm_dns_answer *answers = told->answers + message->answers_at;
	struct text chain[CHAIN_MAX] = {text_of(told, query_at, query_bytes)};
	struct lesson plain = lesson_on(told, client, time_ns, host_of(chain[0], WM_DNS_A));
	struct lesson service = lesson_on(told, client, time_ns, host_of(chain[0], WM_DNS_SVCB));
	uint32_t count = chain_follow(message, told, chain);

	for (uint32_t i = 0; i < message->answers_count; i++) {
		const struct wm_dns_answer *answer = &answers[i];

		if (answer->type == WM_DNS_PTR)
			pointer_learn(told, answer, client, time_ns, chain[0]);
		else if (is_in_chain(text_of(told, answer->name_at, answer->name_bytes), chain, count))
			answer_learn(answer->form == WM_DNS_WIRE ? &service : &plain, answer);
	}
}

void wm_dns_learn_announced(const struct wm_dns_message *message, const uint8_t client[16], uint64_t time_ns,
			    struct wm_told *told)
{
	const struct wm_dns_answer *answers = told->answers + message->answers_at;

	for (uint32_t i = 0; i < message->answers_count; i++) {
		const struct wm_dns_answer *answer = &answers[i];
		struct text owner = text_of(told, answer->name_at, answer->name_bytes);
		struct text said = answer->type == WM_DNS_PTR && answer->form == WM_DNS_NAME
					   ? text_of(told, answer->data_at, answer->data_bytes)
					   : owner;

		/* Without a TTL it is withdrawn (RFC 6762, section 10.1). Other names than those of the link are not
		 * its hosts' to announce (section 3). */
		if (!answer->ttl || !ends_with(said, ".local"))
			continue;
		if (answer->type == WM_DNS_PTR) {
			pointer_learn(told, answer, client, time_ns, owner);
		} else {
			struct lesson lesson = lesson_on(told, client, time_ns, host_of(owner, answer->type));

			answer_learn(&lesson, answer);
		}
	}
}
