"""Builds the binding of json_rows.c in API mode."""

from pathlib import Path

from cffi import FFI

ffi = FFI()

ffi.cdef(
    """
    enum wm_json_kind { WM_JSON_NUMBER, WM_JSON_WORD, WM_JSON_LIST, WM_JSON_ADDRESS };
    struct wm_json_column {
        const uint8_t *before;
        uint32_t before_bytes;
        uint32_t kind;
        const uint64_t *values;
        uint64_t null;
        uint32_t has_null;
        uint32_t pad;
        const uint32_t *counts;
        const uint8_t *addresses;
        const uint8_t *families;
        const uint8_t *words;
        const uint64_t *starts;
    };
    struct wm_json_rows {
        const struct wm_json_column *columns;
        size_t columns_count;
        const uint8_t *after;
        size_t after_bytes;
    };
    size_t wm_json_write(const struct wm_json_rows *rows, size_t first, size_t end, uint8_t *out, size_t room,
                         size_t *used);
    """
)

ffi.set_source(
    "wiremeter.reports._json_rows",
    Path(__file__).with_name("json_rows.c").read_text(),
    extra_compile_args=["-O2", "-g0", "-std=gnu11", "-Wall"],
)
