/* Capture files, record by record. Formats: pcap (draft-ietf-opsawg-pcap), pcapng (draft-ietf-opsawg-pcapng); old and
 * odd kinds of pcap as libpcap's sf-pcap.c reads them, IXIA's as Wireshark's wiretap/libpcap.c. */
#include "capture.h"
#include "host.h"
#include "../records.h"
#include "../lib/headers.h"

#include <string.h>

#define PCAP_HEADER	   24
#define PCAP_RECORD_HEADER 16
#define PCAP_DG_UX	   543	       /* its major version number, for what is 2.2 elsewhere */
#define PCAP_LINKTYPE_MASK 0x03ffffffU /* above: the length of the frame check sequence, if frames have it */
#define RESOLUTION_MICRO   6
#define RESOLUTION_NANO	   9
#define RESOLUTION_BINARY  0x80

#define NG_SECTION	    0x0a0d0d0aU
#define NG_BYTE_ORDER_MAGIC 0x1a2b3c4dU
#define NG_INTERFACE	    1U
#define NG_PACKET	    2U /* obsolete, but there are files */
#define NG_SIMPLE_PACKET    3U
#define NG_ENHANCED_PACKET  6U
#define NG_BLOCK_MIN	    12 /* type, length, length again */
#define NG_SECTION_MIN	    28
#define NG_INTERFACE_MIN    20
#define NG_SIMPLE_MIN	    16
#define NG_PACKET_MIN	    32
#define NG_OPTION_TSRESOL   9
#define NG_OPTION_TSOFFSET  14

/* Linux's values for frames without an ethertype, in the protocol field of cooked captures (if_ether.h). */
#define SLL_ETHERTYPE_MAX 1536 /* up to here they are not ethertypes */
#define SLL_ETHERNET	  3
#define SLL_LLC		  4
#define SLL_HEADER	  16
#define SLL2_HEADER	  20
#define ARPHRD_NETLINK	  824

static const struct pcap_kind {
	uint32_t magic;
	uint8_t header;	       /* bytes before the first record */
	uint8_t record_header; /* bytes before a frame */
	uint8_t resolution;
} pcap_kinds[] = {
	{0xa1b2c3d4U, PCAP_HEADER, PCAP_RECORD_HEADER, RESOLUTION_MICRO},
	{0xa1b23c4dU, PCAP_HEADER, PCAP_RECORD_HEADER, RESOLUTION_NANO},
	/* Kuznetzov's modified pcap: a record has the device's number, the ethertype and the kind of packet besides. */
	{0xa1b2cd34U, PCAP_HEADER, PCAP_RECORD_HEADER + 8, RESOLUTION_MICRO},
	/* IXIA's lcap, by hardware and by software: the header ends with the length of all records. */
	{0x1c0001acU, PCAP_HEADER + 4, PCAP_RECORD_HEADER, RESOLUTION_NANO},
	{0x1c0001abU, PCAP_HEADER + 4, PCAP_RECORD_HEADER, RESOLUTION_MICRO},
};

static uint16_t be16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t be32(const uint8_t *at)
{
	return (uint32_t)be16(at) << 16 | be16(at + 2);
}

static uint16_t file_u16(const struct wm_capture *capture, const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return capture->swapped ? __builtin_bswap16(value) : value;
}

static uint32_t file_u32(const struct wm_capture *capture, const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return capture->swapped ? __builtin_bswap32(value) : value;
}

/* Ethertype of a BSD loopback header's address family. The writer's byte order need not be the file's, nor need the
 * family stand in all four bytes; families and ethertypes are below 2^16, so both can be told. */
static uint32_t link_of_family(uint32_t family)
{
	if (family & 0xffff0000U) {
		if (family < 0x00060000U)
			family >>= 16;
		else
			family = __builtin_bswap32(family);
	} else if (!(family & 0xffU) && family < WM_ETHERTYPE_MIN) {
		family = __builtin_bswap16((uint16_t)family);
	}
	switch (family) {
	case 2: /* AF_INET everywhere */
	case WM_ETHERTYPE_IPV4:
		return WM_ETHERTYPE_IPV4;
	case 24: /* AF_INET6 of NetBSD and OpenBSD, */
	case 28: /* of FreeBSD, */
	case 30: /* of Darwin */
	case WM_ETHERTYPE_IPV6:
		return WM_ETHERTYPE_IPV6;
	default:
		return WM_ETHERTYPE_NONE;
	}
}

static uint32_t link_of_version(const uint8_t *packet, uint32_t captured)
{
	uint8_t version = captured ? packet[0] >> 4 : 0;

	return version == 4 ? WM_ETHERTYPE_IPV4 : version == 6 ? WM_ETHERTYPE_IPV6 : WM_ETHERTYPE_NONE;
}

static uint32_t link_of_cooked(uint16_t hardware, uint16_t protocol)
{
	if (hardware == ARPHRD_NETLINK)
		return WM_ETHERTYPE_NONE;
	if (protocol > SLL_ETHERTYPE_MAX)
		return protocol;
	if (protocol == SLL_ETHERNET)
		return WM_LINK_ETHERNET;
	return protocol == SLL_LLC ? WM_ETHERTYPE_LLC : WM_ETHERTYPE_NONE;
}

/* What a frame begins with once `*header` bytes are taken off; a frame shorter than that counts as a truncated one. */
static uint32_t link_of_frame(uint32_t linktype, const uint8_t *frame, uint32_t captured, uint32_t *header)
{
	uint32_t family;

	*header = 0;
	switch (linktype) {
	case WM_LINKTYPE_RAW:
	case WM_LINKTYPE_RAW_BSD:
	case WM_LINKTYPE_RAW_OPENBSD:
		return link_of_version(frame, captured);
	case WM_LINKTYPE_IPV4:
		return WM_ETHERTYPE_IPV4;
	case WM_LINKTYPE_IPV6:
		return WM_ETHERTYPE_IPV6;
	case WM_LINKTYPE_NULL:
	case WM_LINKTYPE_LOOP:
		*header = sizeof(family);
		return captured < *header ? 0 : link_of_family(be32(frame));
	case WM_LINKTYPE_LINUX_SLL:
		*header = SLL_HEADER;
		return captured < *header ? 0 : link_of_cooked(be16(frame + 2), be16(frame + 14));
	case WM_LINKTYPE_LINUX_SLL2:
		*header = SLL2_HEADER;
		return captured < *header ? 0 : link_of_cooked(be16(frame + 8), be16(frame));
	default:
		return WM_LINK_ETHERNET;
	}
}

int wm_capture_linktype_bit(uint32_t linktype)
{
	static const uint16_t read[] = {
		WM_LINKTYPE_NULL, WM_LINKTYPE_ETHERNET,	  WM_LINKTYPE_RAW_BSD,	 WM_LINKTYPE_RAW_OPENBSD,
		WM_LINKTYPE_RAW,  WM_LINKTYPE_LOOP,	  WM_LINKTYPE_LINUX_SLL, WM_LINKTYPE_IPV4,
		WM_LINKTYPE_IPV6, WM_LINKTYPE_LINUX_SLL2,
	};

	for (size_t i = 0; i < sizeof(read) / sizeof(read[0]); i++)
		if (read[i] == linktype)
			return (int)i;
	return -1;
}

static uint64_t multiply(uint64_t a, uint64_t b)
{
	uint64_t product;

	return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t add(uint64_t a, uint64_t b)
{
	return a + b < a ? UINT64_MAX : a + b;
}

/* 10^power; UINT64_MAX beyond 10^19. */
static uint64_t power_of_ten(unsigned int power)
{
	uint64_t value = 1;

	while (power--)
		value = multiply(value, 10);
	return value;
}

/* Nanoseconds of `ticks` of 2^-power seconds, rounded down. */
static uint64_t binary_ticks_to_ns(uint64_t ticks, unsigned int power)
{
	const uint64_t second = 1000000000U;
	uint64_t fraction, low, high;

	if (power >= 64)
		return 0;
	fraction = power ? ticks & ((1ULL << power) - 1) : 0;
	low = (fraction & 0xffffffffU) * second;
	high = (fraction >> 32) * second + (low >> 32);
	if (power >= 32)
		fraction = high >> (power - 32);
	else
		fraction = low >> power;
	return add(multiply(ticks >> power, second), fraction);
}

static uint64_t ticks_to_ns(const struct wm_capture_interface *interface, uint64_t ticks)
{
	unsigned int power = interface->resolution & ~RESOLUTION_BINARY;
	uint64_t ns, offset;

	if (interface->resolution & RESOLUTION_BINARY)
		ns = binary_ticks_to_ns(ticks, power);
	else if (power <= 9)
		ns = multiply(ticks, power_of_ten(9 - power));
	else
		ns = ticks / power_of_ten(power - 9);
	if (!interface->offset_seconds)
		return ns;
	if (interface->offset_seconds > 0)
		return add(ns, multiply((uint64_t)interface->offset_seconds, 1000000000U));
	offset = multiply(0 - (uint64_t)interface->offset_seconds, 1000000000U);
	return ns > offset ? ns - offset : 0;
}

static void record_add(struct wm_capture_records *records, const uint8_t *data, size_t at, uint32_t linktype,
		       uint32_t captured, uint32_t wire, uint64_t time_ns)
{
	size_t i = records->count++;
	uint32_t header = 0, link = WM_LINK_ETHERNET;

	if (linktype != WM_LINKTYPE_ETHERNET) {
		link = link_of_frame(linktype, data + at, captured, &header);
		if (captured < header) { /* no bytes of Ethernet count as truncated too */
			link = WM_LINK_ETHERNET;
			header = captured;
		}
	}
	records->offsets[i] = at + header;
	records->captured[i] = captured - header;
	records->wire[i] = wire;
	records->times_ns[i] = time_ns;
	records->links[i] = link;
}

static enum wm_capture_state fail(struct wm_capture *capture, enum wm_capture_state state, uint32_t detail)
{
	capture->detail = detail;
	return state;
}

/* Notes that a frame of this link type has come; 0 if it cannot be read. */
static int linktype_take(struct wm_capture *capture, uint32_t linktype)
{
	int bit = wm_capture_linktype_bit(linktype);

	if (bit < 0)
		return 0;
	capture->linktypes_seen |= 1U << bit;
	return 1;
}

/* Each of the following reads one thing at `*at` and moves it behind that. WM_CAPTURE_WANTS_MORE where that is not
 * whole, and `*at` stays; WM_CAPTURE_FULL, their usual answer, means: go on. */
#define GO_ON WM_CAPTURE_FULL

static const struct pcap_kind *pcap_kind_of(uint32_t magic)
{
	for (size_t i = 0; i < sizeof(pcap_kinds) / sizeof(pcap_kinds[0]); i++)
		if (pcap_kinds[i].magic == magic)
			return &pcap_kinds[i];
	return NULL;
}

static enum wm_capture_state pcap_header(struct wm_capture *capture, const struct pcap_kind *kind, const uint8_t *data,
					 size_t bytes, size_t *at)
{
	struct wm_capture_interface *interface = &capture->interfaces[0];
	uint16_t major, minor;

	if (bytes < kind->header)
		return WM_CAPTURE_WANTS_MORE;
	major = file_u16(capture, data + 4);
	minor = file_u16(capture, data + 6);
	if (major != 2 && !(major == PCAP_DG_UX && !minor))
		return fail(capture, WM_CAPTURE_VERSION, (uint32_t)major << 16 | minor);
	if (major == PCAP_DG_UX || minor < 3)
		capture->lengths_swapped = WM_CAPTURE_LENGTHS_SWAPPED;
	else if (minor == 3)
		capture->lengths_swapped = WM_CAPTURE_LENGTHS_EITHER;
	capture->record_header = kind->record_header;
	interface->linktype = file_u32(capture, data + 20) & PCAP_LINKTYPE_MASK;
	interface->resolution = kind->resolution;
	if (!linktype_take(capture, interface->linktype))
		return fail(capture, WM_CAPTURE_LINKTYPE, interface->linktype);
	capture->is_pcap = 1;
	*at = kind->header;
	return GO_ON;
}

static enum wm_capture_state file_header(struct wm_capture *capture, const uint8_t *data, size_t bytes, size_t *at)
{
	const struct pcap_kind *kind;
	uint32_t magic;

	if (bytes < sizeof(magic))
		return WM_CAPTURE_WANTS_MORE;
	if (be32(data) == NG_SECTION) {
		capture->is_pcapng = 1;
		return GO_ON;
	}
	memcpy(&magic, data, sizeof(magic));
	kind = pcap_kind_of(magic);
	capture->swapped = !kind;
	if (!kind)
		kind = pcap_kind_of(__builtin_bswap32(magic));
	return kind ? pcap_header(capture, kind, data, bytes, at) : fail(capture, WM_CAPTURE_UNKNOWN, be32(data));
}

static enum wm_capture_state pcap_records(struct wm_capture *capture, const uint8_t *data, size_t bytes, size_t *at,
					  struct wm_capture_records *records)
{
	const uint32_t linktype = capture->interfaces[0].linktype;
	const uint64_t tick_ns = capture->interfaces[0].resolution == RESOLUTION_NANO ? 1 : 1000;
	const size_t header = capture->record_header;

	while (bytes - *at >= header) {
		const uint8_t *record = data + *at;
		uint32_t captured = file_u32(capture, record + 8), wire = file_u32(capture, record + 12);

		if (capture->lengths_swapped == WM_CAPTURE_LENGTHS_SWAPPED ||
		    (capture->lengths_swapped == WM_CAPTURE_LENGTHS_EITHER && captured > wire)) {
			uint32_t other = captured;

			captured = wire;
			wire = other;
		}
		if (captured > WM_CAPTURE_FRAME_MAX)
			return fail(capture, WM_CAPTURE_LENGTH, captured);
		if (bytes - *at - header < captured)
			break;
		if (records->count == records->capacity)
			return WM_CAPTURE_FULL;
		record_add(records, data, *at + header, linktype, captured, wire,
			   file_u32(capture, record) * 1000000000ULL + file_u32(capture, record + 4) * tick_ns);
		*at += header + captured;
	}
	return WM_CAPTURE_WANTS_MORE;
}

/* A block's bytes from the type on, its length checked against the format and its repetition. */
static enum wm_capture_state ng_block(struct wm_capture *capture, const uint8_t *block, size_t bytes, uint32_t length)
{
	if (length > WM_CAPTURE_BLOCK_MAX)
		return fail(capture, WM_CAPTURE_LENGTH, length);
	if (bytes < length)
		return WM_CAPTURE_WANTS_MORE;
	if (file_u32(capture, block + length - 4) != length)
		return fail(capture, WM_CAPTURE_LENGTH, length);
	return GO_ON;
}

static enum wm_capture_state ng_section(struct wm_capture *capture, const uint8_t *data, size_t bytes, size_t *at)
{
	const uint8_t *block = data + *at;
	uint32_t magic, length;
	uint16_t major;

	if (bytes - *at < 16)
		return WM_CAPTURE_WANTS_MORE;
	memcpy(&magic, block + 8, sizeof(magic));
	if (magic != NG_BYTE_ORDER_MAGIC && magic != __builtin_bswap32(NG_BYTE_ORDER_MAGIC))
		return fail(capture, WM_CAPTURE_BYTE_ORDER, be32(block + 8));
	capture->swapped = magic != NG_BYTE_ORDER_MAGIC;
	length = file_u32(capture, block + 4);
	major = file_u16(capture, block + 12);
	if (length < NG_SECTION_MIN || length % 4)
		return fail(capture, WM_CAPTURE_LENGTH, length);
	if (major != 1)
		return fail(capture, WM_CAPTURE_VERSION, (uint32_t)major << 16 | file_u16(capture, block + 14));
	capture->interfaces_used = 0;
	capture->trailer = length;
	capture->skip = length - 16 - 4;
	*at += 16;
	return GO_ON;
}

static void ng_interface_options(struct wm_capture *capture, struct wm_capture_interface *interface,
				 const uint8_t *options, size_t bytes)
{
	while (bytes >= 4) {
		uint16_t code = file_u16(capture, options), length = file_u16(capture, options + 2);
		size_t padded = ((size_t)length + 3) & ~(size_t)3;
		const uint8_t *value = options + 4;

		if (!code || padded > bytes - 4)
			return;
		if (code == NG_OPTION_TSRESOL && length == 1)
			interface->resolution = value[0];
		if (code == NG_OPTION_TSOFFSET && length == 8) {
			memcpy(&interface->offset_seconds, value, 8);
			if (capture->swapped)
				interface->offset_seconds =
					(int64_t)__builtin_bswap64((uint64_t)interface->offset_seconds);
		}
		options += 4 + padded;
		bytes -= 4 + padded;
	}
}

static enum wm_capture_state ng_interface(struct wm_capture *capture, const uint8_t *block, uint32_t length)
{
	struct wm_capture_interface *interface = &capture->interfaces[capture->interfaces_used];

	if (length < NG_INTERFACE_MIN)
		return fail(capture, WM_CAPTURE_LENGTH, length);
	if (capture->interfaces_used == WM_CAPTURE_INTERFACES_MAX)
		return fail(capture, WM_CAPTURE_INTERFACES, WM_CAPTURE_INTERFACES_MAX);
	*interface = (struct wm_capture_interface){
		.linktype = file_u16(capture, block + 8),
		.snaplen = file_u32(capture, block + 12),
		.resolution = RESOLUTION_MICRO,
	};
	ng_interface_options(capture, interface, block + 16, length - NG_INTERFACE_MIN);
	capture->interfaces_used++;
	return GO_ON;
}

static enum wm_capture_state ng_packet(struct wm_capture *capture, const uint8_t *data, size_t at, uint32_t length,
				       uint32_t type, struct wm_capture_records *records)
{
	uint32_t number = 0, captured, wire, offset = 28;
	const struct wm_capture_interface *interface;
	const uint8_t *block = data + at;
	uint64_t time_ns = 0;

	if (length < (type == NG_SIMPLE_PACKET ? NG_SIMPLE_MIN : NG_PACKET_MIN))
		return fail(capture, WM_CAPTURE_LENGTH, length);
	if (type == NG_ENHANCED_PACKET)
		number = file_u32(capture, block + 8);
	else if (type == NG_PACKET)
		number = file_u16(capture, block + 8);
	if (number >= capture->interfaces_used)
		return fail(capture, WM_CAPTURE_INTERFACE, number);
	interface = &capture->interfaces[number];
	if (type == NG_SIMPLE_PACKET) {
		wire = file_u32(capture, block + 8);
		captured = interface->snaplen && interface->snaplen < wire ? interface->snaplen : wire;
		offset = 12;
	} else {
		uint64_t ticks = (uint64_t)file_u32(capture, block + 12) << 32 | file_u32(capture, block + 16);

		time_ns = ticks_to_ns(interface, ticks);
		captured = file_u32(capture, block + 20);
		wire = file_u32(capture, block + 24);
	}
	if (captured > WM_CAPTURE_FRAME_MAX || captured > length - offset - 4)
		return fail(capture, WM_CAPTURE_LENGTH, captured);
	if (!linktype_take(capture, interface->linktype))
		return fail(capture, WM_CAPTURE_LINKTYPE, interface->linktype);
	record_add(records, data, at + offset, interface->linktype, captured, wire, time_ns);
	return GO_ON;
}

/* The rest of a block of no interest, and the length behind it. */
static enum wm_capture_state ng_skip(struct wm_capture *capture, const uint8_t *data, size_t bytes, size_t *at)
{
	size_t there = bytes - *at < capture->skip ? bytes - *at : (size_t)capture->skip;

	*at += there;
	capture->skip -= there;
	if (capture->skip || bytes - *at < 4)
		return WM_CAPTURE_WANTS_MORE;
	if (file_u32(capture, data + *at) != capture->trailer)
		return fail(capture, WM_CAPTURE_LENGTH, capture->trailer);
	*at += 4;
	capture->trailer = 0;
	return GO_ON;
}

static enum wm_capture_state ng_next(struct wm_capture *capture, const uint8_t *data, size_t bytes, size_t *at,
				     struct wm_capture_records *records)
{
	enum wm_capture_state state;
	uint32_t type, length;

	if (capture->trailer)
		return ng_skip(capture, data, bytes, at);
	if (bytes - *at < 8)
		return WM_CAPTURE_WANTS_MORE;
	type = file_u32(capture, data + *at);
	if (type == NG_SECTION)
		return ng_section(capture, data, bytes, at);
	length = file_u32(capture, data + *at + 4);
	if (length < NG_BLOCK_MIN || length % 4)
		return fail(capture, WM_CAPTURE_LENGTH, length);
	switch (type) {
	case NG_INTERFACE:
	case NG_PACKET:
	case NG_SIMPLE_PACKET:
	case NG_ENHANCED_PACKET:
		break;
	default:
		capture->trailer = length;
		capture->skip = length - NG_BLOCK_MIN;
		*at += 8;
		return GO_ON;
	}
	state = ng_block(capture, data + *at, bytes - *at, length);
	if (state == GO_ON && type == NG_INTERFACE)
		state = ng_interface(capture, data + *at, length);
	else if (state == GO_ON)
		state = ng_packet(capture, data, *at, length, type, records);
	if (state == GO_ON)
		*at += length;
	return state;
}

size_t wm_capture_read(struct wm_capture *capture, const uint8_t *data, size_t bytes,
		       struct wm_capture_records *records, enum wm_capture_state *state)
{
	size_t at = 0;

	records->count = 0;
	*state = GO_ON;
	if (!capture->is_pcap && !capture->is_pcapng)
		*state = file_header(capture, data, bytes, &at);
	if (*state == GO_ON && capture->is_pcap)
		*state = pcap_records(capture, data, bytes, &at, records);
	else
		while (*state == GO_ON && records->count < records->capacity)
			*state = ng_next(capture, data, bytes, &at, records);
	return at;
}
