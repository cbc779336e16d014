/* Heads are read as robust recipients do (RFC 9112, sections 2.2 and 3): lines may end with LF alone, empty lines may
 * stand before a head, and any whitespace separates the parts of its first line.
 */
#include "http1.h"
#include "streams.h"

#include <string.h>

/* Positions in a stream are known modulo 2^32 only, so a gap in a body as long as that may be longer than it seems. */
#define AMBIGUOUS_BYTES (1ULL << 32)
#define LENGTH_DIGITS	18

/* What the next byte of a direction belongs to. */
enum state {
	HEAD,
	BODY, /* of known length */
	CHUNK_SIZE,
	CHUNK,
	TRAILER,
	SKIP, /* anything up to a packet that begins like a head */
};

/* How much of "\n\r?\n" is there. */
enum head_ends {
	IN_LINE,
	AFTER_LINE,
	AFTER_RETURN,
};

/* A request that waits for its response, in one cell. */
struct request {
	uint64_t time_ns;
	uint64_t last_ns;
	struct wm_bytes path;
	uint32_t next;
	uint8_t version;
	uint8_t method_bytes;
	uint8_t host_bytes;
	uint8_t method[WM_HTTP_METHOD_BYTES];
	uint8_t host[WM_HTTP_HOST_BYTES];
};
_Static_assert(sizeof(struct request) <= WM_CELL_BYTES - 8, "fits a cell");

struct text {
	const uint8_t *at, *end;
};

/* What of a head's fields matters here. */
struct fields {
	struct text host;
	struct text upgrade;
	int64_t length; /* -1: none */
	uint8_t is_chunked;
	uint8_t has_other_coding;
};

struct request_line {
	struct text method, target;
	uint8_t version;
};

static struct request *request_at(const struct wm_http_to *to, uint32_t number)
{
	return wm_cell_data(to->cells, number);
}

/* --- text */

static int is_blank(uint8_t byte)
{
	return byte == ' ' || byte == '\t';
}

/* What separates the parts of a first line (section 3); a return that does not end it counts as a space. */
static int is_separator(uint8_t byte)
{
	return byte == ' ' || byte == '\t' || byte == '\v' || byte == '\f' || byte == '\r';
}

static int is_digit(uint8_t byte)
{
	return byte >= '0' && byte <= '9';
}

static int is_letter(uint8_t byte)
{
	return (byte | 0x20) >= 'a' && (byte | 0x20) <= 'z';
}

static uint8_t lower(uint8_t byte)
{
	return byte >= 'A' && byte <= 'Z' ? byte + 32 : byte;
}

/* RFC 9110, section 5.6.2. */
static int is_token(uint8_t byte)
{
	return is_letter(byte) || is_digit(byte) || (byte && strchr("!#$%&'*+-.^_`|~", byte));
}

static size_t size_of(struct text text)
{
	return (size_t)(text.end - text.at);
}

static struct text stripped(struct text text)
{
	while (text.at < text.end && is_separator(*text.at))
		text.at++;
	while (text.at < text.end && is_separator(text.end[-1]))
		text.end--;
	return text;
}

/* Whether they are equal but for case. */
static int is_word(struct text text, const char *word)
{
	size_t bytes = strlen(word);

	if (size_of(text) != bytes)
		return 0;
	for (size_t i = 0; i < bytes; i++) {
		if (lower(text.at[i]) != (uint8_t)word[i])
			return 0;
	}
	return 1;
}

static int ends_with(struct text text, const char *word)
{
	size_t bytes = strlen(word);

	return size_of(text) >= bytes && is_word((struct text){text.end - bytes, text.end}, word);
}

/* Methods are told apart by case (RFC 9110, section 9.1). */
static int is_method(struct text text, const char *method)
{
	return size_of(text) == strlen(method) && !memcmp(text.at, method, size_of(text));
}

/* The line that begins there, without its end; `*next` is behind that. Without an end, all there is. */
static struct text line_at(const uint8_t *at, const uint8_t *end, const uint8_t **next)
{
	const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
	struct text line = {at, newline ? newline : end};

	*next = newline ? newline + 1 : end;
	if (newline && line.end > line.at && line.end[-1] == '\r')
		line.end--;
	return line;
}

/* "HTTP/1." and a digit, which is moved past; its version, as in wm_http_transaction; 0: none. */
static uint8_t take_version(struct text *text)
{
	uint8_t version;

	if (size_of(*text) < 8 || memcmp(text->at, "HTTP/1.", 7) || !is_digit(text->at[7]))
		return 0;
	version = 10 + (text->at[7] - '0');
	text->at += 8;
	return version;
}

/* --- first lines */

static int request_line_read(struct text line, struct request_line *read)
{
	struct text rest = stripped(line);

	read->method.at = rest.at;
	while (rest.at < rest.end && is_token(*rest.at))
		rest.at++;
	read->method.end = rest.at;
	if (!size_of(read->method) || size_of(read->method) > WM_HTTP_METHOD_BYTES || rest.at == rest.end ||
	    !is_separator(*rest.at))
		return 0;
	while (rest.at < rest.end && is_separator(*rest.at))
		rest.at++;
	read->target.at = rest.at;
	while (rest.at < rest.end && *rest.at > ' ')
		rest.at++;
	read->target.end = rest.at;
	if (!size_of(read->target) || rest.at == rest.end || !is_separator(*rest.at))
		return 0;
	rest = stripped(rest);
	read->version = take_version(&rest);
	return read->version && !size_of(rest);
}

/* Its status; 0: it is none. */
static int status_line_read(struct text line, uint8_t *version)
{
	int status;

	*version = take_version(&line);
	if (!*version || line.at == line.end || !is_separator(*line.at))
		return 0;
	while (line.at < line.end && is_separator(*line.at))
		line.at++;
	if (size_of(line) < 3 || line.at[0] < '1' || line.at[0] > '5' || !is_digit(line.at[1]) || !is_digit(line.at[2]))
		return 0;
	status = 100 * (line.at[0] - '0') + 10 * (line.at[1] - '0') + (line.at[2] - '0');
	return size_of(line) == 3 || is_separator(line.at[3]) ? status : 0;
}

/* --- fields */

/* A list of equal values is allowed (section 6.3). Returns whether it is a length. */
static int length_read(struct text value, int64_t *length)
{
	for (;;) {
		const uint8_t *comma = memchr(value.at, ',', size_of(value));
		struct text one = stripped((struct text){value.at, comma ? comma : value.end});
		int64_t number = 0;

		if (!size_of(one) || size_of(one) > LENGTH_DIGITS)
			return 0;
		for (; one.at < one.end; one.at++) {
			if (!is_digit(*one.at))
				return 0;
			number = 10 * number + (*one.at - '0');
		}
		if (*length >= 0 && *length != number)
			return 0;
		*length = number;
		if (!comma)
			return 1;
		value.at = comma + 1;
	}
}

static void coding_read(struct text value, struct fields *fields)
{
	fields->is_chunked = (uint8_t)ends_with(value, "chunked");
	fields->has_other_coding = !fields->is_chunked;
}

/* One value of a field by its name. Returns whether it makes sense. */
static int value_read(struct text name, struct text value, struct fields *fields)
{
	value = stripped(value);
	if (is_word(name, "host")) {
		if (!size_of(fields->host))
			fields->host = value;
	} else if (is_word(name, "transfer-encoding")) {
		coding_read(value, fields);
	} else if (is_word(name, "upgrade")) {
		fields->upgrade = value;
	} else if (is_word(name, "content-length")) {
		return length_read(value, &fields->length);
	}
	return 1;
}

/* The fields of a head, behind its first line. Returns whether they fit together. A line that begins with a blank
 * continues the one before (section 5.2); only values that are there alone are taken from it. */
static int fields_read(const uint8_t *at, const uint8_t *end, struct fields *fields)
{
	struct text name = {at, at};
	int is_open = 0; /* the value so far is empty */

	*fields = (struct fields){.host = {end, end}, .upgrade = {end, end}, .length = -1};
	while (at < end) {
		struct text line = line_at(at, end, &at), value;
		const uint8_t *colon;

		if (line.at < line.end && is_blank(*line.at)) {
			if (is_open || is_word(name, "transfer-encoding")) {
				if (!value_read(name, line, fields))
					return 0;
				is_open = !size_of(stripped(line));
			} else if (is_word(name, "host")) {
				fields->host = line; /* with a space in it: no host */
			} else if (is_word(name, "content-length")) {
				return 0;
			}
			continue;
		}
		colon = memchr(line.at, ':', size_of(line));
		if (!colon) {
			name.end = name.at;
			continue;
		}
		value = (struct text){colon + 1, line.end};
		name = stripped((struct text){line.at, colon});
		is_open = !size_of(stripped(value));
		if (!(is_open && is_word(name, "content-length") && at < end && is_blank(*at)) &&
		    !value_read(name, value, fields))
			return 0;
	}
	return 1;
}

/* RFC 3986, section 3.2. Some clients send bytes of UTF-8 as they are. */
static int is_of_name(uint8_t byte)
{
	return is_letter(byte) || is_digit(byte) || byte >= 0x80 || (byte && strchr("_.~%!$&'()*+,;=-", byte));
}

static int is_of_address(uint8_t byte)
{
	return is_digit(byte) || ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'f') || byte == ':' || byte == '.';
}

uint32_t wm_http_host(const uint8_t *authority, size_t bytes, uint8_t host[WM_HTTP_HOST_BYTES])
{
	struct text rest = {authority, authority + bytes};
	const uint8_t *user = bytes ? memchr(authority, '@', bytes) : NULL, *end;

	if (bytes > 2 * WM_HTTP_HOST_BYTES)
		return 0;
	if (user) {
		for (const uint8_t *at = authority; at < user; at++) {
			if (*at <= ' ' || strchr("/?#", *at))
				return 0;
		}
		rest.at = user + 1;
	}
	end = rest.at;
	if (end < rest.end && *end == '[') {
		for (end++; end < rest.end && is_of_address(*end); end++)
			;
		if (end == rest.at + 1 || end == rest.end || *end++ != ']')
			return 0;
	} else {
		while (end < rest.end && is_of_name(*end))
			end++;
	}
	if (end < rest.end) {
		if (*end != ':')
			return 0;
		for (const uint8_t *at = end + 1; at < rest.end; at++) {
			if (!is_digit(*at))
				return 0;
		}
	}
	while (end > rest.at && end[-1] == '.')
		end--;
	bytes = (size_t)(end - rest.at);
	if (bytes > WM_HTTP_HOST_BYTES)
		return 0;
	for (size_t i = 0; i < bytes; i++)
		host[i] = lower(rest.at[i]);
	return (uint32_t)bytes;
}

/* Host and path of a request. The host of an absolute target goes before the field (RFC 9112, section 3.2.2). */
static struct text target_read(const struct request_line *line, struct text host, struct text *path)
{
	static const uint8_t root[] = "/";
	struct text target = line->target, rest = target;
	size_t scheme;

	*path = target;
	if (is_method(line->method, "CONNECT") && !memchr(target.at, '/', size_of(target)))
		return target;
	for (scheme = 7; scheme <= 8; scheme++) {
		rest.at = target.at + scheme;
		if (size_of(target) < scheme ||
		    !is_word((struct text){target.at, rest.at}, scheme == 7 ? "http://" : "https://"))
			continue;
		while (rest.at < rest.end && !strchr("/?#", *rest.at))
			rest.at++;
		*path = rest.at < rest.end ? rest : (struct text){root, root + 1};
		return (struct text){target.at + scheme, rest.at};
	}
	return host;
}

/* --- what is told */

void wm_http_tell(struct wm_told *told, const struct wm_http_transaction *of, const uint8_t *method,
		  const uint8_t *host, const uint8_t *path)
{
	struct wm_http_transaction *one = &told->http[told->http_count];

	if (told->http_count == told->http_room ||
	    told->text_room - told->text_bytes < (uint32_t)of->method_bytes + of->host_bytes + of->path_bytes) {
		told->lost++;
		return;
	}
	told->http_count++;
	*one = *of;
	one->method_at = wm_told_text(told, method, of->method_bytes);
	one->host_at = wm_told_text(told, host, of->host_bytes);
	one->path_at = wm_told_text(told, path, of->path_bytes);
}

static struct wm_http_transaction transaction_of(const struct wm_http_to *to, uint64_t time_ns, uint8_t version)
{
	return (struct wm_http_transaction){
		.time_ns = time_ns,
		.latency_ns = WM_NONE,
		.flow = *to->flow,
		.device = to->device,
		.status = WM_NONE,
		.version = version,
	};
}

/* Tells the oldest request that waits, and forgets it. */
static void request_end(struct wm_http *http, const struct wm_http_to *to, int16_t status, int64_t latency_ns)
{
	uint32_t number = http->oldest;
	struct request *request = request_at(to, number);
	struct wm_http_transaction of = transaction_of(to, request->time_ns, request->version);
	uint8_t path[WM_HTTP_PATH_BYTES];

	of.status = status;
	of.latency_ns = latency_ns;
	of.method_bytes = request->method_bytes;
	of.host_bytes = request->host_bytes;
	of.path_bytes = (uint16_t)wm_bytes_copy(to->cells, &request->path, sizeof(path), path);
	wm_http_tell(to->told, &of, request->method, request->host, path);
	http->oldest = request->next;
	if (!http->oldest)
		http->newest = 0;
	if (!--http->waiting)
		http->is_sending = 0;
	wm_bytes_clear(to->cells, &request->path);
	wm_cell_give(to->cells, number);
}

/* --- messages */

static void lose(struct wm_http_half *half, const struct wm_http_to *to)
{
	half->state = SKIP;
	half->is_lost = 1;
	half->is_doubtful = 0;
	half->ends = half->has_line = 0;
	wm_bytes_clear(to->cells, &half->buffer);
}

/* What follows a head (section 6.3). otherwise: bytes where no field tells; negative: up to the end. */
static void body_begin(struct wm_http_half *half, const struct fields *fields, int64_t otherwise)
{
	int64_t left = fields->has_other_coding ? -1 : fields->length >= 0 ? fields->length : otherwise;

	half->line_bytes = 0;
	if (fields->is_chunked) {
		half->state = CHUNK_SIZE;
	} else if (left < 0) {
		half->state = SKIP;
	} else {
		half->left = (uint64_t)left;
		half->state = left ? BODY : HEAD;
	}
}

/* A path is told whole or not at all. */
static void path_keep(struct request *request, const struct wm_http_to *to, struct text path)
{
	uint32_t bytes = (uint32_t)size_of(path);

	if (bytes > WM_HTTP_PATH_BYTES)
		to->told->lost++;
	else if (wm_bytes_add(to->cells, &request->path, path.at, bytes) < bytes)
		wm_bytes_clear(to->cells, &request->path);
}

/* A request's head. Returns 0 if it is none, or its end can't be told (section 6.3). */
static int request_read(struct wm_http *http, const struct wm_http_to *to, struct text head, uint64_t last_ns)
{
	struct wm_http_half *half = &http->halves[1];
	const uint8_t *fields_at;
	struct request_line line;
	struct fields fields;
	struct text host, path;
	struct request *request;
	uint32_t number;

	if (!request_line_read(line_at(head.at, head.end, &fields_at), &line) ||
	    !fields_read(fields_at, head.end, &fields))
		return 0;
	host = target_read(&line, fields.host, &path);
	if (http->waiting >= WM_HTTP_WAITING)
		request_end(http, to, WM_NONE, WM_NONE);
	number = wm_cell_take(to->cells);
	if (!number) {
		body_begin(half, &fields, 0);
		return !fields.has_other_coding;
	}
	request = request_at(to, number);
	*request = (struct request){.time_ns = half->first_ns, .last_ns = last_ns, .version = line.version};
	request->method_bytes = (uint8_t)size_of(line.method);
	memcpy(request->method, line.method.at, size_of(line.method));
	request->host_bytes = (uint8_t)wm_http_host(host.at, size_of(host), request->host);
	if (!to->redact)
		path_keep(request, to, path);
	if (http->newest)
		request_at(to, http->newest)->next = number;
	else
		http->oldest = number;
	http->newest = number;
	http->waiting++;
	http->is_sending = 1;
	wm_known_text(to->known, to->cells, WM_KNOWN_METHOD, request->method, request->method_bytes, last_ns);
	wm_known_host(to->known, to->cells, request->host, request->host_bytes, last_ns);
	if (fields.has_other_coding)
		return 0;
	body_begin(half, &fields, 0);
	return 1;
}

/* Whether a request waits that a response may belong to: the oldest (section 9.3.2). After a loss, responses may be
 * missing too: the latest that was sent by then, since clients that send the next request before the response are rare,
 * and one that is off by one would stay so. */
static int is_answered(struct wm_http *http, const struct wm_http_to *to, const struct wm_http_half *half)
{
	while (half->is_lost && http->waiting > 1) {
		uint32_t second = request_at(to, http->oldest)->next;

		if (request_at(to, second)->time_ns > half->first_ns)
			break;
		request_end(http, to, WM_NONE, WM_NONE);
	}
	return http->waiting && request_at(to, http->oldest)->time_ns <= half->first_ns;
}

/* A response's head. Returns 0 if it is none. */
static int response_read(struct wm_http *http, const struct wm_http_to *to, struct text head, uint64_t time_ns)
{
	struct wm_http_half *half = &http->halves[0];
	int has_request, is_sound, is_head = 0, is_connect = 0, status;
	const uint8_t *fields_at;
	struct wm_http_transaction alone;
	struct fields fields;
	uint8_t version;

	status = status_line_read(line_at(head.at, head.end, &fields_at), &version);
	if (!status)
		return 0;
	if (status < 200 && status != 101)
		return 1; /* interim: the final response follows (RFC 9110, section 15.2) */
	has_request = is_answered(http, to, half);
	half->is_lost = 0;
	is_sound = fields_read(fields_at, head.end, &fields);
	if (status == 101 && has_request && is_word(fields.upgrade, "h2c")) {
		http->is_h2c = http->done = 1;
		return 1;
	}
	wm_known_number(to->known, &to->known->status, (int16_t)status, time_ns);
	if (!has_request) {
		alone = transaction_of(to, half->first_ns, version);
		alone.status = (int16_t)status;
		wm_http_tell(to->told, &alone, NULL, NULL, NULL);
	} else {
		const struct request *request = request_at(to, http->oldest);
		struct text method = {request->method, request->method + request->method_bytes};

		is_head = is_method(method, "HEAD");
		is_connect = is_method(method, "CONNECT");
		request_end(http, to, (int16_t)status,
			    half->first_ns > request->last_ns ? (int64_t)(half->first_ns - request->last_ns) : 0);
	}
	if (status == 101 || (is_connect && status < 300)) {
		http->done = 1;
	} else if (is_head || status == 204 || status == 304) {
		half->state = HEAD;
	} else {
		half->is_doubtful = !has_request; /* it may have answered a HEAD */
		body_begin(half, &fields, -1);
		return is_sound;
	}
	return 1;
}

static int head_read(struct wm_http *http, const struct wm_http_to *to, int from_client, struct text head,
		     uint64_t time_ns)
{
	return from_client ? request_read(http, to, head, time_ns) : response_read(http, to, head, time_ns);
}

/* --- bytes */

static void note_body(struct wm_http *http, const struct wm_http_to *to, int from_client, uint64_t time_ns)
{
	struct request *request;

	if (!from_client || !http->is_sending)
		return;
	request = request_at(to, http->newest);
	if (time_ns > request->last_ns)
		request->last_ns = time_ns;
}

static void body_end(struct wm_http_half *half)
{
	half->state = half->state == CHUNK ? CHUNK_SIZE : HEAD;
	half->is_doubtful = half->is_doubtful && half->state != HEAD;
	half->line_bytes = 0;
}

/* Where the empty line that ends a head ends, or NULL; what is there of it is remembered. */
static const uint8_t *head_end(struct wm_http_half *half, const uint8_t *at, const uint8_t *end)
{
	while (at < end) {
		if (half->ends == AFTER_LINE && *at == '\r') {
			half->ends = AFTER_RETURN;
			at++;
			continue;
		}
		if (half->ends && *at == '\n')
			return at + 1;
		half->ends = IN_LINE;
		at = memchr(at, '\n', (size_t)(end - at));
		if (!at)
			return NULL;
		half->ends = AFTER_LINE;
		at++;
	}
	return NULL;
}

static int is_method_beginning(struct text text)
{
	const uint8_t *at = text.at;

	while (at < text.end && is_token(*at) && at - text.at <= WM_HTTP_METHOD_BYTES)
		at++;
	return at > text.at && at - text.at <= WM_HTTP_METHOD_BYTES && (at == text.end || is_separator(*at));
}

/* Whether an unfinished head, of `before` bytes until now, may still be one. */
static int may_be_head(struct wm_http_half *half, const struct wm_http_to *to, int from_client, uint32_t before,
		       int has_new_line)
{
	struct text head = {to->room, to->room};
	struct request_line line;
	const uint8_t *next;
	uint8_t version;

	if (before < 40) {
		head.end += wm_bytes_copy(to->cells, &half->buffer, 48, to->room);
		if (from_client ? !is_method_beginning(head)
				: memcmp(head.at, "HTTP/1.", size_of(head) < 7 ? size_of(head) : 7))
			return 0;
	}
	if (half->has_line || !has_new_line)
		return 1;
	half->has_line = 1;
	head.end = to->room + wm_bytes_copy(to->cells, &half->buffer, WM_HTTP_HEAD_BYTES, to->room);
	head = line_at(head.at, head.end, &next);
	return from_client ? request_line_read(head, &line) : status_line_read(head, &version) != 0;
}

/* Takes a head, or a part of it; returns what follows, or NULL if it is none. */
static const uint8_t *head_take(struct wm_http *http, const struct wm_http_to *to, int from_client, const uint8_t *at,
				const uint8_t *end, uint64_t time_ns)
{
	struct wm_http_half *half = &http->halves[from_client];
	uint32_t before = half->buffer.count;
	const uint8_t *head_ends;
	struct text head;

	if (!before) {
		while (at < end && (*at == '\r' || *at == '\n')) /* ignored (section 2.2) */
			at++;
		if (at == end)
			return at;
		half->first_ns = time_ns;
		half->ends = half->has_line = 0;
	}
	head_ends = head_end(half, at, end);
	if (before + (uint32_t)((head_ends ? head_ends : end) - at) > WM_HTTP_HEAD_BYTES) {
		to->told->lost++;
		return NULL;
	}
	if (head_ends && !before) {
		head = (struct text){at, head_ends};
	} else {
		uint32_t bytes = (uint32_t)((head_ends ? head_ends : end) - at);

		if (wm_bytes_add(to->cells, &half->buffer, at, bytes) < bytes)
			return NULL;
		if (!head_ends)
			return may_be_head(half, to, from_client, before, memchr(at, '\n', bytes) != NULL) ? end : NULL;
		head.at = to->room;
		head.end = to->room + wm_bytes_copy(to->cells, &half->buffer, WM_HTTP_HEAD_BYTES, to->room);
		wm_bytes_clear(to->cells, &half->buffer);
	}
	return head_read(http, to, from_client, head, time_ns) ? head_ends : NULL;
}

/* The size of a chunk (section 7.1); negative: it is none. */
static int64_t chunk_size(struct text line)
{
	int64_t size = 0;
	size_t digits = 0;

	while (line.at < line.end && is_blank(*line.at))
		line.at++;
	for (; line.at < line.end && is_of_address(*line.at) && *line.at != ':' && *line.at != '.'; line.at++) {
		if (++digits > 15)
			return -1;
		size = size << 4 | (is_digit(*line.at) ? *line.at - '0' : (*line.at | 0x20) - 'a' + 10);
	}
	while (line.at < line.end && is_separator(*line.at))
		line.at++;
	return digits && (line.at == line.end || *line.at == ';') ? size : -1;
}

/* Takes a line of the chunked coding, or a part of it; returns what follows, or NULL if it is none. */
static const uint8_t *line_take(struct wm_http_half *half, const struct wm_http_to *to, const uint8_t *at,
				const uint8_t *end)
{
	const uint8_t *newline = memchr(at, '\n', (size_t)(end - at)), *rest = newline ? newline + 1 : end;
	uint32_t bytes = (uint32_t)(rest - at);
	struct text line;
	int64_t size;

	half->line_bytes += bytes;
	if (half->line_bytes > WM_HTTP_HEAD_BYTES) {
		to->told->lost++;
		return NULL;
	}
	/* Of longer lines only the beginning matters. */
	if (half->buffer.count < 128 &&
	    wm_bytes_add(to->cells, &half->buffer, at, bytes < 128 ? bytes : 128) < (bytes < 128 ? bytes : 128))
		return NULL;
	if (!newline)
		return end;
	line.at = to->room;
	line.end = to->room + wm_bytes_copy(to->cells, &half->buffer, 256, to->room);
	wm_bytes_clear(to->cells, &half->buffer);
	line = line_at(line.at, line.end, &newline);
	if (half->state == TRAILER) {
		if (!size_of(line))
			half->state = HEAD;
	} else if (size_of(line)) { /* the line that ends the data of the chunk before is empty */
		size = chunk_size(line);
		if (size < 0)
			return NULL;
		half->left = (uint64_t)size;
		half->state = size ? CHUNK : TRAILER;
		half->line_bytes = 0;
	}
	return rest;
}

uint64_t wm_http_optional(const struct wm_http *http, int from_client)
{
	const struct wm_http_half *half = &http->halves[from_client];

	if (half->state == SKIP)
		return AMBIGUOUS_BYTES;
	return half->state == BODY || half->state == CHUNK ? half->left : 0;
}

/* Takes some of what comes; returns what follows, or NULL if it is no HTTP. */
static const uint8_t *step(struct wm_http *http, const struct wm_http_to *to, int from_client, const uint8_t *at,
			   const uint8_t *end, uint64_t time_ns)
{
	struct wm_http_half *half = &http->halves[from_client];
	uint64_t taken;

	if (half->state == HEAD)
		return head_take(http, to, from_client, at, end, time_ns);
	note_body(http, to, from_client, time_ns);
	if (half->state == SKIP)
		return end;
	if (half->state == CHUNK_SIZE || half->state == TRAILER)
		return line_take(half, to, at, end);
	taken = half->left < (uint64_t)(end - at) ? half->left : (uint64_t)(end - at);
	half->left -= taken;
	if (!half->left)
		body_end(half);
	return at + taken;
}

uint32_t wm_http_data(struct wm_http *http, const struct wm_http_to *to, int from_client, const uint8_t *data,
		      uint32_t bytes, uint64_t time_ns)
{
	struct wm_http_half *half = &http->halves[from_client];
	const uint8_t *at = data, *end = data + bytes;
	struct wm_said said = {data, bytes};

	if (half->state == SKIP || (half->is_doubtful && half->state != HEAD)) {
		if (from_client ? wm_looks_like_request(said) : wm_looks_like_response(said)) {
			half->state = HEAD;
			half->is_doubtful = 0;
			wm_bytes_clear(to->cells, &half->buffer);
		}
	}
	while (at < end && !http->done) {
		at = step(http, to, from_client, at, end, time_ns);
		if (!at) {
			lose(half, to);
			return bytes;
		}
	}
	return (uint32_t)(at - data);
}

void wm_http_gap(struct wm_http *http, const struct wm_http_to *to, int from_client, int64_t missing)
{
	struct wm_http_half *half = &http->halves[from_client];
	struct text head = {to->room, to->room};

	if ((half->state == BODY || half->state == CHUNK) && half->left < AMBIGUOUS_BYTES && missing >= 0 &&
	    (uint64_t)missing <= half->left) {
		half->left -= (uint64_t)missing;
		if (!half->left)
			body_end(half);
		return;
	}
	if (half->state == HEAD && half->buffer.count) {
		/* The rest of the head is missing; what is there tells the method or status and, mostly, the host. */
		head.end += wm_bytes_copy(to->cells, &half->buffer, WM_HTTP_HEAD_BYTES, to->room);
		while (head.end > head.at && head.end[-1] != '\n')
			head.end--;
		if (size_of(head))
			(void)head_read(http, to, from_client, head, half->first_ns);
	}
	lose(half, to);
}

int wm_http_is_lost(const struct wm_http *http, int from_client)
{
	return http->halves[from_client].is_lost;
}

uint64_t wm_http_last_ns(const struct wm_http *http, struct wm_cells *cells)
{
	return http->oldest ? ((const struct request *)wm_cell_data(cells, http->oldest))->last_ns : 0;
}

void wm_http_end(struct wm_http *http, const struct wm_http_to *to)
{
	while (http->waiting)
		request_end(http, to, WM_NONE, WM_NONE);
	for (int i = 0; i < 2; i++)
		wm_bytes_clear(to->cells, &http->halves[i].buffer);
}
