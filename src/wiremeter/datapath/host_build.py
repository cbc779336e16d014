"""Builds the host engine's binding in API mode: bpf/host over bpf/lib as a plain C library, on any operating system."""

from pathlib import Path

from cffi import FFI

# Relative to the project's folder, where setup.py runs: setuptools wants it so.
_HOST = Path("bpf/host")
_SOURCES = ("host.c", "rows.c", "capture.c", "packet_ring.c", "super_packets.c")
_HEADERS = (*_HOST.glob("*.h"), *Path("bpf/lib").glob("*.h"), Path("bpf/records.h"))

ffi = FFI()

ffi.cdef(
    """
    #define WM_LINK_ETHERNET ...

    struct wm_host_offload { uint16_t vlan; uint16_t gso_size; uint16_t l4_at; uint16_t segments_are; };
    struct wm_host_frames {
        size_t count;
        const uint8_t *data;
        size_t data_bytes;
        const uint64_t *offsets;
        const uint32_t *captured;
        const uint32_t *wire;
        const uint64_t *times_ns;
        const uint32_t *links;
        const struct wm_host_offload *offloads;
    };
    enum wm_host_stop { WM_HOST_DONE, WM_HOST_FLIP_DUE, WM_HOST_OUTSIDE_DATA, WM_HOST_PAYLOADS_DUE };
    struct wm_table_shape;
    struct wm_recent;
    struct wm_host_payloads {
        struct wm_recent *recent;
        uint32_t limit;
        uint32_t sources;
        uint32_t attachment;
        uint8_t *data;
        size_t capacity;
        size_t used;
        uint64_t *offsets;
        size_t offsets_capacity;
        size_t count;
    };
    size_t wm_host_count(void *region, const struct wm_table_shape *shape, uint32_t attachment,
                         const struct wm_host_frames *frames, size_t first, struct wm_host_payloads *payloads,
                         enum wm_host_stop *stop);

    struct wm_flow_row;
    struct wm_ethertype_row;
    struct wm_rows_taken { size_t flows; size_t ethertypes; };
    struct wm_rows_taken wm_rows_take(void *region, const struct wm_table_shape *shape, struct wm_flow_row *flows,
                                      struct wm_ethertype_row *ethertypes, uint64_t tick_ns, uint64_t origin_ns,
                                      int keep);
    void wm_rows_clear(void *region, const struct wm_table_shape *shape);
    void wm_counters_take(void *region, const uint32_t *attachments, size_t count, uint64_t *sums, int keep);
    void wm_counters_clear(void *region, size_t attachments);
    void wm_rows_copy(struct wm_flow_row *to, const struct wm_flow_row *rows, size_t count, const uint16_t *places);
    void wm_rows_tally(const struct wm_flow_row *rows, size_t count, uint64_t *sums, size_t attachments);
    #define WM_ROWS_HASH_KEYS ...
    void wm_rows_conversation_hashes(const struct wm_flow_row *rows, size_t count, const uint64_t *keys,
                                     uint64_t *hashes);
    size_t wm_rows_merge(struct wm_flow_row *rows, size_t count, uint64_t *index, uint64_t index_mask);

    #define WM_CAPTURE_KEEP_BYTES ...
    #define WM_CAPTURE_FRAME_MAX ...
    #define WM_CAPTURE_INTERFACES_MAX ...

    struct wm_capture {
        uint64_t skip;
        uint32_t trailer;
        uint32_t detail;
        uint32_t linktypes_seen;
        uint8_t is_pcap;
        uint8_t is_pcapng;
        ...;
    };
    struct wm_capture_records {
        size_t capacity;
        size_t count;
        uint64_t *offsets;
        uint32_t *captured;
        uint32_t *wire;
        uint64_t *times_ns;
        uint32_t *links;
    };
    enum wm_capture_state {
        WM_CAPTURE_WANTS_MORE, WM_CAPTURE_FULL, WM_CAPTURE_UNKNOWN, WM_CAPTURE_VERSION, WM_CAPTURE_LINKTYPE,
        WM_CAPTURE_LENGTH, WM_CAPTURE_INTERFACE, WM_CAPTURE_INTERFACES, WM_CAPTURE_BYTE_ORDER
    };
    size_t wm_capture_read(struct wm_capture *capture, const uint8_t *data, size_t bytes,
                           struct wm_capture_records *records, enum wm_capture_state *state);
    int wm_capture_linktype_bit(uint32_t linktype);

    #define WM_SUPER_MTU_USUAL ...
    struct wm_super_packets {
        uint32_t assumed_mss;
        uint32_t mtu;
        uint32_t *ip_bytes;
        struct wm_host_offload *offloads;
    };
    size_t wm_super_packets_find(const struct wm_host_frames *frames, struct wm_super_packets *found);

    struct wm_ring_frames {
        size_t capacity;
        uint64_t *offsets;
        uint32_t *captured;
        uint32_t *wire;
        uint64_t *times_ns;
        uint32_t *links;
        struct wm_host_offload *offloads;
    };
    struct wm_ring_place { uint32_t at; uint32_t left; };
    int wm_ring_is_ours(const uint8_t *block);
    uint32_t wm_ring_frames_open(const uint8_t *block);
    void wm_ring_release(uint8_t *block);
    struct wm_ring_place wm_ring_begin(const uint8_t *block);
    size_t wm_ring_read(const uint8_t *ring, size_t block_at, size_t block_bytes, struct wm_ring_place place,
                        int ethernet, uint64_t until_ns, struct wm_ring_frames *frames);
    void wm_ring_skip(const uint8_t *block, size_t block_bytes, struct wm_ring_place *place, size_t count);
    """
)

ffi.set_source(
    "wiremeter.datapath._host",
    "".join(f'#include "{name}.h"\n' for name in ("host", "rows", "capture", "packet_ring", "super_packets")),
    sources=[str(_HOST / name) for name in _SOURCES],
    include_dirs=[str(_HOST)],
    depends=[str(header) for header in _HEADERS],
    extra_compile_args=["-O2", "-g0", "-std=gnu11", "-Wall"],
)
