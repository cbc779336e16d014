"""Builds the binding of seal.c in API mode: the compiler knows the numbers of system calls."""

from pathlib import Path

from cffi import FFI

ffi = FFI()

ffi.cdef(
    """
    void wm_empty_bounding_set(void);
    int wm_drop_capabilities(void);
    int wm_renounce(void);
    int wm_forbid_calls(void);
    """
)

ffi.set_source(
    "wiremeter.isolation._seal",
    Path(__file__).with_name("seal.c").read_text(),
    extra_compile_args=["-O2", "-g0", "-std=gnu11", "-Wall"],
)
