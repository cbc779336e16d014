/* DNS questions and what became of them: each question of each query, joined with its response by flow, id and name.
 *
 * A question ends by its response; by being asked again, since a response is taken to answer the latest; when whoever
 * calls says that it waited long enough; or early, as the oldest, for want of room. Names match whatever their case,
 * but only an answer that repeats the question to the letter teaches names: an answer of somebody else must guess it
 * (RFC 5452, section 9.1; draft-vixie-dnsext-dns0x20). A response without a question, from a server that could not read
 * the query, ends all questions with its id on its flow. One that no question waits for makes records of its own, and
 * teaches nothing.
 *
 * Where one packet comes past twice (a mirror port, a capture on all devices of a bridge) its copy tells nothing: the
 * same bytes on the same flow within COPY_NS. No resolver asks again so soon.
 *
 * A query to a group is answered by any of its members: of LLMNR, and of mDNS where the asker is no mDNS host itself
 * (RFC 6762, section 6.7). Between mDNS hosts nothing matches: there are no ids and many answer to all, so queries wait
 * for nothing and responses stand alone (section 6).
 */
#include "dns.h"
#include "ends.h"

#define PORT_MDNS 5353
#define COPY_NS	  2000000

/* Of one id on one flow so many questions wait at most: each that comes is compared with all of them. Resolvers put one
 * into a message. */
#define GROUP_MAX 8

enum waiting_flags {
	WAITING_IS_RETRY = WM_DNS_RETRY,
	WAITING_IS_CUT = WM_DNS_CUT,
	WAITING_FOR_ANYONE = 8, /* the destination is a group */
};

struct waiting {
	uint64_t time_ns;
	struct wm_ends flow;
	uint32_t device;
	uint32_t group;	       /* hash of device, flow and id */
	uint32_t question;     /* hash of type and name */
	uint32_t next;	       /* in its bucket, in order of asking; 1 + index */
	uint32_t older, newer; /* of all; 1 + index */
	int32_t type;
	uint16_t id;
	uint8_t flags;
	struct wm_dns_name name;
};

/* Whose questions they are. */
struct asked {
	struct wm_ends flow; /* from client to server */
	uint32_t device;
	uint32_t group;
	uint16_t id;
	uint8_t of_anyone;
};

static uint32_t *buckets_of(struct wm_dns *dns)
{
	return (uint32_t *)(dns + 1);
}

static size_t buckets_bytes(uint32_t buckets)
{
	return (buckets * sizeof(uint32_t) + 7) & ~(size_t)7;
}

static struct waiting *slots_of(struct wm_dns *dns)
{
	return (struct waiting *)((uint8_t *)(dns + 1) + buckets_bytes(dns->buckets_mask + 1));
}

/* The slot that a link leads to, which is not 0. */
static struct waiting *slot_at(struct wm_dns *dns, uint32_t link)
{
	return slots_of(dns) + (link - 1);
}

static uint32_t buckets_for(uint32_t capacity)
{
	uint32_t buckets = 16;

	while (buckets < capacity)
		buckets *= 2;
	return buckets;
}

size_t wm_dns_bytes(uint32_t capacity)
{
	return sizeof(struct wm_dns) + buckets_bytes(buckets_for(capacity)) + capacity * sizeof(struct waiting);
}

void wm_dns_begin(struct wm_dns *dns, uint32_t capacity, uint64_t seed)
{
	dns->seed = seed;
	dns->capacity = capacity;
	dns->buckets_mask = buckets_for(capacity) - 1;
}

/* --- whose question it is */

static struct asked asked_by(const struct wm_dns *dns, uint32_t device, const struct wm_ends *flow, uint16_t id,
			     int of_anyone)
{
	uint64_t hash = wm_mixed(wm_flow_hash(dns->seed, flow, of_anyone), (uint64_t)device << 16 | id);

	return (struct asked){*flow, device, (uint32_t)(hash >> 32), id, (uint8_t)of_anyone};
}

static int is_of(const struct waiting *waiting, const struct asked *asked)
{
	return waiting->group == asked->group && waiting->id == asked->id && waiting->device == asked->device &&
	       !!(waiting->flags & WAITING_FOR_ANYONE) == asked->of_anyone &&
	       waiting->flow.src_port == asked->flow.src_port && waiting->flow.dst_port == asked->flow.dst_port &&
	       waiting->flow.protocol == asked->flow.protocol && waiting->flow.family == asked->flow.family &&
	       !memcmp(waiting->flow.src_addr, asked->flow.src_addr, 16) &&
	       (asked->of_anyone || !memcmp(waiting->flow.dst_addr, asked->flow.dst_addr, 16));
}

static int is_question(const struct waiting *waiting, const struct wm_dns_question *question)
{
	if (waiting->question != question->hash || waiting->type != question->type ||
	    waiting->name.bytes != question->name.bytes)
		return 0;
	for (uint32_t i = 0; i < question->name.bytes; i++) {
		if (wm_lower(waiting->name.wire[i]) != wm_lower(question->name.wire[i]))
			return 0;
	}
	return 1;
}

/* Follows a bucket from a link on, to the next question of `asked`: the link that leads to it, or the last, which is 0.
 */
static uint32_t *next_of(struct wm_dns *dns, uint32_t *link, const struct asked *asked)
{
	while (*link && !is_of(slot_at(dns, *link), asked))
		link = &slot_at(dns, *link)->next;
	return link;
}

static uint32_t *first_of(struct wm_dns *dns, const struct asked *asked)
{
	return next_of(dns, &buckets_of(dns)[asked->group & dns->buckets_mask], asked);
}

/* --- what waits */

/* Takes a question out of the table; its slot stays as it is until another takes it. */
static struct waiting *waiting_remove(struct wm_dns *dns, uint32_t *link)
{
	uint32_t number = *link;
	struct waiting *waiting = slot_at(dns, number);

	*link = waiting->next;
	*(waiting->older ? &slot_at(dns, waiting->older)->newer : &dns->oldest) = waiting->newer;
	*(waiting->newer ? &slot_at(dns, waiting->newer)->older : &dns->newest) = waiting->older;
	waiting->next = dns->free;
	dns->free = number;
	dns->count--;
	return waiting;
}

/* The link that leads to a question. */
static uint32_t *link_to(struct wm_dns *dns, uint32_t number)
{
	uint32_t *link = &buckets_of(dns)[slot_at(dns, number)->group & dns->buckets_mask];

	while (*link != number)
		link = &slot_at(dns, *link)->next;
	return link;
}

static struct waiting *waiting_add(struct wm_dns *dns, const struct asked *asked)
{
	uint32_t number = dns->free ? dns->free : ++dns->slots_used, *link;
	struct waiting *waiting = slot_at(dns, number);

	if (dns->free)
		dns->free = waiting->next;
	waiting->flow = asked->flow;
	waiting->device = asked->device;
	waiting->group = asked->group;
	waiting->id = asked->id;
	waiting->next = waiting->newer = 0;
	waiting->older = dns->newest;
	*(dns->newest ? &slot_at(dns, dns->newest)->newer : &dns->oldest) = number;
	dns->newest = number;
	for (link = &buckets_of(dns)[asked->group & dns->buckets_mask]; *link;)
		link = &slot_at(dns, *link)->next;
	*link = number;
	dns->count++;
	return waiting;
}

/* --- what is told */

static uint8_t flags_of(const struct wm_dns_message *message)
{
	return message->cut ? WM_DNS_CUT : 0;
}

static struct wm_dns_transaction *tell(struct wm_told *told, uint32_t device, uint64_t time_ns,
				       const struct wm_ends *flow, const struct wm_dns_name *name, int32_t type)
{
	struct wm_dns_transaction *told_of = &told->transactions[told->transactions_count++];

	*told_of = (struct wm_dns_transaction){
		.time_ns = time_ns,
		.latency_ns = WM_NONE,
		.flow = *flow,
		.rcode = WM_NONE,
		.qtype = type,
		.query_at = told->text_bytes,
		.device = device,
	};
	told_of->query_bytes = (uint16_t)wm_dns_name_text(told, name);
	return told_of;
}

static struct wm_dns_transaction *tell_waiting(struct wm_told *told, const struct waiting *waiting)
{
	return tell(told, waiting->device, waiting->time_ns, &waiting->flow, &waiting->name, waiting->type);
}

static void tell_response(struct wm_dns_transaction *told_of, const struct wm_dns_message *message)
{
	told_of->rcode = message->rcode;
	told_of->answers_at = message->answers_at;
	told_of->answers = (uint16_t)message->answers_count;
	told_of->message_at = message->copy_at;
	told_of->message_bytes = (uint16_t)message->copy_bytes;
	told_of->flags |= flags_of(message);
}

static void tell_unanswered(struct wm_told *told, const struct waiting *waiting)
{
	struct wm_dns_transaction *told_of = tell_waiting(told, waiting);

	told_of->flags = (waiting->flags & (WM_DNS_RETRY | WM_DNS_CUT)) | WM_DNS_HAS_QUERY;
}

/* Of a response that seems to come before its query: 0. */
static int64_t since(uint64_t then_ns, uint64_t time_ns)
{
	uint64_t passed_ns = time_ns > then_ns ? time_ns - then_ns : 0;

	return passed_ns > INT64_MAX ? INT64_MAX : (int64_t)passed_ns;
}

static void tell_answered(struct wm_told *told, const struct waiting *waiting, uint64_t time_ns,
			  const struct wm_dns_message *message, const struct wm_dns_question *question)
{
	struct wm_dns_transaction *told_of = tell_waiting(told, waiting);

	told_of->flags = (waiting->flags & WM_DNS_RETRY) | WM_DNS_HAS_QUERY;
	told_of->latency_ns = since(waiting->time_ns, time_ns);
	tell_response(told_of, message);
	if (message->rcode || message->questions_count != 1 || !message->answers_count || !question ||
	    memcmp(question->name.wire, waiting->name.wire, question->name.bytes))
		return;
	if (waiting->flow.dst_port == PORT_MDNS)
		wm_dns_learn_announced(message, waiting->flow.src_addr, time_ns, told);
	else
		wm_dns_learn(message, waiting->flow.src_addr, time_ns, told_of->query_at, told_of->query_bytes, told);
}

static void end_early(struct wm_dns *dns, uint32_t *link, struct wm_told *told)
{
	tell_unanswered(told, waiting_remove(dns, link));
	dns->ended_early++;
}

/* --- messages */

static int is_multicast(const uint8_t address[16])
{
	static const uint8_t v4_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	/* RFC 4291, section 2.7; RFC 5771. */
	return address[0] == 0xff || (address[12] >> 4 == 0xe && !memcmp(address, v4_mapped, sizeof(v4_mapped)));
}

static void ask_one(struct wm_dns *dns, const struct asked *asked, uint64_t time_ns,
		    const struct wm_dns_question *question, uint8_t flags, struct wm_told *told)
{
	uint32_t of_group = 0, *first = first_of(dns, asked);
	struct waiting *waiting;

	for (uint32_t *link = first; *link; link = next_of(dns, &slot_at(dns, *link)->next, asked)) {
		of_group++;
		if (is_question(slot_at(dns, *link), question)) {
			tell_unanswered(told, waiting_remove(dns, link));
			flags |= WAITING_IS_RETRY;
			of_group = 0;
			break;
		}
	}
	if (of_group >= GROUP_MAX)
		end_early(dns, first, told);
	if (dns->count == dns->capacity)
		end_early(dns, link_to(dns, dns->oldest), told);
	waiting = waiting_add(dns, asked);
	waiting->time_ns = time_ns;
	waiting->question = question->hash;
	waiting->type = question->type;
	waiting->flags = flags;
	waiting->name.bytes = question->name.bytes;
	memcpy(waiting->name.wire, question->name.wire, question->name.bytes);
}

static void ask(struct wm_dns *dns, uint32_t device, uint64_t time_ns, const struct wm_ends *flow,
		const struct wm_dns_message *message, struct wm_told *told)
{
	int to_all = is_multicast(flow->dst_addr);
	struct asked asked = asked_by(dns, device, flow, message->id, to_all);
	uint8_t flags = flags_of(message) | (to_all ? WAITING_FOR_ANYONE : 0);

	for (uint32_t i = 0; i < message->questions_count; i++) {
		const struct wm_dns_question *question = &message->questions[i];

		if (to_all && flow->dst_port == PORT_MDNS && flow->src_port == PORT_MDNS)
			tell(told, device, time_ns, flow, &question->name, question->type)->flags =
				WM_DNS_HAS_QUERY | flags_of(message);
		else
			ask_one(dns, &asked, time_ns, question, flags, told);
	}
}

/* The record of a response whose query was not seen. */
static void tell_alone(struct wm_told *told, uint32_t device, uint64_t time_ns, const struct wm_ends *flow,
		       const struct wm_dns_message *message, const struct wm_dns_question *question)
{
	tell_response(tell(told, device, time_ns, flow, &question->name, question->type), message);
}

/* A response whose queries were not seen. One without a question is named by its first answer, if it has one. */
static void stand_alone(uint32_t device, uint64_t time_ns, const struct wm_ends *flow,
			const struct wm_dns_message *message, struct wm_told *told)
{
	const struct wm_dns_answer *answer = told->answers + message->answers_at;
	const struct wm_dns_name nameless = {0};
	struct wm_dns_transaction *told_of;

	for (uint32_t i = 0; i < message->questions_count; i++)
		tell_alone(told, device, time_ns, flow, message, &message->questions[i]);
	if (message->questions_count)
		return;
	told_of = tell(told, device, time_ns, flow, &nameless, WM_NONE);
	tell_response(told_of, message);
	if (message->answers_count) {
		told_of->query_at = answer->name_at;
		told_of->query_bytes = answer->name_bytes;
		told_of->qtype = answer->type;
	}
}

static void answer(struct wm_dns *dns, uint32_t device, uint64_t time_ns, const struct wm_ends *flow,
		   const struct wm_dns_message *message, struct wm_told *told)
{
	struct asked asked = asked_by(dns, device, flow, message->id, 0);
	uint32_t *link = first_of(dns, &asked);

	if (!*link) {
		asked = asked_by(dns, device, flow, message->id, 1);
		link = first_of(dns, &asked);
	}
	if (!*link) {
		stand_alone(device, time_ns, flow, message, told);
		return;
	}
	for (; !message->questions_count && *link; link = next_of(dns, link, &asked))
		tell_answered(told, waiting_remove(dns, link), time_ns, message, NULL);
	for (uint32_t i = 0; i < message->questions_count; i++) {
		const struct wm_dns_question *question = &message->questions[i];

		link = first_of(dns, &asked);
		while (*link && !is_question(slot_at(dns, *link), question))
			link = next_of(dns, &slot_at(dns, *link)->next, &asked);
		if (*link)
			tell_answered(told, waiting_remove(dns, link), time_ns, message, question);
		else
			tell_alone(told, device, time_ns, flow, message, question);
	}
}

/* What names the flows of a conversation until more is said. */
static void tell_heard(const struct wm_dns *dns, uint64_t time_ns, const struct wm_ends *flow,
		       const struct wm_dns_message *message, struct wm_told *told)
{
	struct wm_dns_heard *heard = &told->heard[told->heard_count++];

	*heard = (struct wm_dns_heard){
		.time_ns = time_ns,
		.hash = wm_flow_hash(dns->seed, flow, 0),
		.flow = *flow,
		.query_at = told->text_bytes,
		.query_bytes = WM_NONE,
		.rcode = message->is_response ? (int16_t)message->rcode : WM_NONE,
	};
	if (message->questions_count)
		heard->query_bytes = (int16_t)wm_dns_name_text(told, &message->questions[0].name);
}

/* --- copies */

static struct wm_dns_seen *seen_at(struct wm_dns *dns, uint64_t hash)
{
	return &dns->seen[hash & (WM_DNS_SEEN - 1)];
}

static int is_copy(struct wm_dns *dns, uint64_t hash, uint64_t time_ns)
{
	const struct wm_dns_seen *seen = seen_at(dns, hash);

	return seen->hash == hash && time_ns - seen->time_ns < COPY_NS;
}

int wm_dns_take(struct wm_dns *dns, uint32_t device, uint64_t time_ns, const struct wm_ends *flow, const uint8_t *data,
		size_t bytes, int how, struct wm_told *told)
{
	static const uint8_t everyone[16];
	struct wm_dns_message message;
	struct wm_ends from_client = *flow;
	uint64_t hash = wm_mixed_bytes(wm_mixed(wm_flow_hash(dns->seed, flow, 0), device), data, bytes);

	if (flow->protocol == WM_NAMES_UDP && is_copy(dns, hash, time_ns)) {
		dns->copies++;
		return 0;
	}
	if (wm_dns_read(&message, data, bytes, how, told))
		return -1;
	*seen_at(dns, hash) = (struct wm_dns_seen){hash, time_ns};
	if (!message.is_response) {
		ask(dns, device, time_ns, flow, &message, told);
	} else if (is_multicast(flow->dst_addr)) {
		stand_alone(device, time_ns, flow, &message, told);
		if (!message.rcode && flow->src_port == PORT_MDNS && flow->dst_port == PORT_MDNS)
			wm_dns_learn_announced(&message, everyone, time_ns, told);
		from_client = wm_reversed(flow);
	} else {
		from_client = wm_reversed(flow);
		answer(dns, device, time_ns, &from_client, &message, told);
	}
	if (flow->protocol == WM_NAMES_UDP)
		tell_heard(dns, time_ns, &from_client, &message, told);
	return 0;
}

int wm_dns_expire(struct wm_dns *dns, uint64_t until_ns, struct wm_told *told)
{
	while (dns->oldest && slot_at(dns, dns->oldest)->time_ns <= until_ns) {
		if (!wm_told_has_room(told, 1))
			return 0;
		tell_unanswered(told, waiting_remove(dns, link_to(dns, dns->oldest)));
	}
	return 1;
}
