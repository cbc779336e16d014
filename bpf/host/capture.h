/* A reader of capture files that takes bytes as they come: pcap in both byte orders, micro- and nanoseconds, with its
 * variants that are told by their magic number, and pcapng.
 *
 * It allocates nothing and holds no bytes: the caller keeps those that it has not taken yet, at most
 * WM_CAPTURE_KEEP_BYTES, and gives them again with more behind them.
 */
#ifndef WM_CAPTURE_H
#define WM_CAPTURE_H

#include <stddef.h>
#include <stdint.h>

#define WM_CAPTURE_FRAME_MAX	  262144    /* bytes of one frame; what libpcap and Wireshark allow */
#define WM_CAPTURE_BLOCK_MAX	  (1 << 20) /* bytes of one pcapng block that must be there as a whole */
#define WM_CAPTURE_KEEP_BYTES	  WM_CAPTURE_BLOCK_MAX
#define WM_CAPTURE_INTERFACES_MAX 4096 /* of one pcapng section */

/* Link types as capture files number them (tcpdump.org/linktypes.html). */
enum wm_linktype {
	WM_LINKTYPE_NULL = 0,
	WM_LINKTYPE_ETHERNET = 1,
	WM_LINKTYPE_RAW_BSD = 12,
	WM_LINKTYPE_RAW_OPENBSD = 14,
	WM_LINKTYPE_RAW = 101,
	WM_LINKTYPE_LOOP = 108,
	WM_LINKTYPE_LINUX_SLL = 113,
	WM_LINKTYPE_IPV4 = 228,
	WM_LINKTYPE_IPV6 = 229,
	WM_LINKTYPE_LINUX_SLL2 = 276,
};

/* Where reading stands when wm_capture_read() returns. After those from WM_CAPTURE_UNKNOWN on it cannot go on. */
enum wm_capture_state {
	WM_CAPTURE_WANTS_MORE, /* no whole record is left */
	WM_CAPTURE_FULL,       /* the arrays are; call again with the bytes not taken */
	WM_CAPTURE_UNKNOWN,    /* neither pcap nor pcapng; detail: the first four bytes, big-endian */
	WM_CAPTURE_VERSION,    /* detail: major << 16 | minor */
	WM_CAPTURE_LINKTYPE,   /* a frame of a link type that is not read; detail: its number */
	WM_CAPTURE_LENGTH,     /* a record's lengths contradict each other or the format; detail: the length */
	WM_CAPTURE_INTERFACE,  /* a frame of an interface that was not described; detail: its number */
	WM_CAPTURE_INTERFACES, /* more interfaces than WM_CAPTURE_INTERFACES_MAX */
	WM_CAPTURE_BYTE_ORDER, /* a pcapng section in neither byte order; detail: what stands there, big-endian */
};

/* In which order a pcap record has the bytes that are there and the bytes on the wire. */
enum wm_capture_lengths {
	WM_CAPTURE_LENGTHS_USUAL,
	WM_CAPTURE_LENGTHS_SWAPPED,
	WM_CAPTURE_LENGTHS_EITHER, /* version 2.3: the smaller one is that of the bytes there */
};

struct wm_capture_interface {
	int64_t offset_seconds;
	uint32_t linktype;
	uint32_t snaplen;   /* 0: no limit */
	uint8_t resolution; /* if_tsresol of the pcapng specification: 10^-n, or 2^-n with the upper bit set */
	uint8_t pad[7];
};

/* All that is kept from one call to the next. All zero at the start of a file. */
struct wm_capture {
	uint64_t skip;	  /* bytes of a block of no interest that are still to come */
	uint32_t trailer; /* the length that must stand behind them; 0 outside a block */
	uint32_t detail;
	uint32_t interfaces_used;
	uint32_t linktypes_seen; /* of frames, one bit each: see wm_capture_linktype_bit() */
	uint8_t is_pcap;
	uint8_t is_pcapng;
	uint8_t swapped;	 /* the file's byte order is not this machine's */
	uint8_t record_header;	 /* bytes of one of pcap */
	uint8_t lengths_swapped; /* enum wm_capture_lengths */
	uint8_t pad[3];
	struct wm_capture_interface interfaces[WM_CAPTURE_INTERFACES_MAX];
};

/* Where frames are told of: arrays of `capacity` elements, as struct wm_host_frames takes them. A frame begins behind
 * the pseudo header of its link type; `wire` holds its length with that. */
struct wm_capture_records {
	size_t capacity;
	size_t count;
	uint64_t *offsets;
	uint32_t *captured;
	uint32_t *wire;
	uint64_t *times_ns; /* since the Unix epoch; 0 where the file does not say */
	uint32_t *links;
};

/* Reads the records that are whole in `data`, from records->count = 0 on; returns how many bytes it has taken. */
size_t wm_capture_read(struct wm_capture *capture, const uint8_t *data, size_t bytes,
		       struct wm_capture_records *records, enum wm_capture_state *state);

/* The place of a link type that is read in `linktypes_seen`; -1 for any other. */
int wm_capture_linktype_bit(uint32_t linktype);

#endif
