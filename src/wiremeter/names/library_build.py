"""Builds the binding of the decoders in bpf/names in API mode: plain C, on any operating system."""

from pathlib import Path

from cffi import FFI

# Relative to the project's folder, where setup.py runs: setuptools wants it so.
_NAMES = Path("bpf/names")
_SOURCES = sorted(_NAMES.glob("*.c"))
_HEADERS = (*_NAMES.glob("*.h"), Path("bpf/records.h"), Path("bpf/lib/platform.h"))

ffi = FFI()

# The structs are written out, so that the compiler compares them and columns.py can take their layouts from here.
ffi.cdef(
    """
    #define WM_TOLD_TRANSACTIONS ...
    #define WM_TOLD_ANSWERS ...
    #define WM_TOLD_HEARD ...
    #define WM_TOLD_ADDRESSES ...
    #define WM_TOLD_TEXT ...
    #define WM_BEGAN_WAYS ...

    enum wm_dns_flags { WM_DNS_RETRY, WM_DNS_HAS_QUERY, WM_DNS_CUT, ... };
    enum wm_dns_form { WM_DNS_IPV4, WM_DNS_IPV6, WM_DNS_NAME, WM_DNS_WIRE };
    enum wm_dns_how { WM_DNS_IS_CUT, WM_DNS_LENIENT, ... };

    struct wm_ends {
        uint8_t src_addr[16]; uint8_t dst_addr[16];
        uint16_t src_port; uint16_t dst_port; uint8_t protocol; uint8_t family; uint8_t pad[2];
    };
    struct wm_dns_transaction {
        uint64_t time_ns; int64_t latency_ns; struct wm_ends flow; int32_t rcode; int32_t qtype;
        uint32_t query_at; uint32_t answers_at; uint32_t message_at;
        uint16_t query_bytes; uint16_t answers; uint16_t message_bytes; uint8_t flags; uint8_t pad; uint32_t device;
    };
    struct wm_dns_answer {
        uint32_t name_at; uint32_t data_at; uint32_t ttl;
        uint16_t name_bytes; uint16_t data_bytes; uint16_t type; uint16_t class; uint8_t form; uint8_t pad[3];
    };
    struct wm_dns_heard {
        uint64_t time_ns; uint64_t hash; struct wm_ends flow; uint32_t query_at; int16_t query_bytes; int16_t rcode;
    };
    struct wm_dns_address {
        uint8_t client[16]; uint8_t address[16]; uint64_t time_ns; uint32_t ttl; uint32_t name_at;
        uint16_t name_bytes; uint8_t is_pointer; uint8_t pad[5];
    };
    struct wm_told {
        struct wm_dns_transaction *transactions;
        struct wm_dns_answer *answers;
        struct wm_dns_heard *heard;
        struct wm_dns_address *addresses;
        uint8_t *text;
        uint32_t transactions_room, transactions_count;
        uint32_t answers_room, answers_count;
        uint32_t heard_room, heard_count;
        uint32_t addresses_room, addresses_count;
        uint32_t text_room, text_bytes;
    };
    int wm_told_has_room(const struct wm_told *told);

    struct wm_dns { uint64_t ended_early; uint64_t copies; uint32_t count; ...; };
    size_t wm_dns_bytes(uint32_t capacity);
    void wm_dns_begin(struct wm_dns *dns, uint32_t capacity, uint64_t seed);
    int wm_dns_take(struct wm_dns *dns, uint32_t device, uint64_t time_ns, const struct wm_ends *flow,
                    const uint8_t *data, size_t bytes, int how, struct wm_told *told);
    int wm_dns_expire(struct wm_dns *dns, uint64_t until_ns, struct wm_told *told);
    int wm_dns_may_begin(const uint8_t *data, size_t bytes);
    int wm_dns_looks_like(const uint8_t *data, size_t bytes, int cut);

    #define WM_LATE_PACKETS ...
    struct wm_listening;
    size_t wm_listening_bytes(uint32_t capacity);
    void wm_listening_begin(struct wm_listening *listening, uint32_t capacity, uint64_t seed);
    void wm_listening_forget(struct wm_listening *listening, uint32_t device, const struct wm_ends *flow);
    size_t wm_late_offset(uint32_t number);

    struct wm_names_block {
        const uint8_t *data;
        size_t data_bytes;
        const uint64_t *offsets;
        size_t count;
        uint64_t origin_ns;
        const int32_t *devices;
        size_t devices_count;
        uint32_t *others;
        size_t others_count;
        uint32_t late[...];
        size_t late_count;
        size_t opaque_count;
    };
    size_t wm_names_read(struct wm_dns *dns, struct wm_listening *listening, struct wm_names_block *block, size_t first,
                         struct wm_told *told);

    #define WM_APPLICATIONS ...
    extern const char *const wm_application_names[];
    struct wm_said { const uint8_t *data; size_t bytes; };
    int wm_tcp_application(struct wm_said client, struct wm_said server, uint16_t client_port, uint16_t server_port);
    int wm_udp_application(struct wm_said said, uint16_t src_port, uint16_t dst_port);
    int wm_tcp_may_begin(struct wm_said said, uint16_t src_port, uint16_t dst_port);
    size_t wm_prelude_bytes(struct wm_said said);
    int wm_looks_like_tls(struct wm_said said);
    int wm_looks_like_request(struct wm_said said);
    int wm_looks_like_response(struct wm_said said);
    int wm_looks_like_http2(struct wm_said said);

    struct wm_began_set;
    void wm_began_find(struct wm_began_set *sets, uint32_t sets_mask, uint32_t round, const uint64_t *hashes,
                       const uint64_t *first_ns, const uint8_t *is_new, size_t count, uint64_t *began_ns);
    """
)

ffi.set_source(
    "wiremeter.names._library",
    '#include "names.h"\n#include "applications.h"\n',
    sources=[str(source) for source in _SOURCES],
    include_dirs=[str(_NAMES)],
    depends=[str(header) for header in _HEADERS],
    extra_compile_args=["-O2", "-std=gnu11", "-Wall"],
)
