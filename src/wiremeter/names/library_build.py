"""Builds the binding of the decoders in bpf/names in API mode: plain C, on any operating system."""

import re
from pathlib import Path

from cffi import FFI

# Relative to the project's folder, where setup.py runs: setuptools wants it so.
_NAMES = Path("bpf/names")
_SOURCES = sorted(_NAMES.glob("*.c"))
_DEPENDS = (*_NAMES.glob("*.h"), Path("bpf/records.h"), Path("bpf/lib/platform.h"))
#: What Python calls, and its tests, in this order.
_HEADERS = ("names.h", "applications.h", "cells.h", "streams.h", "sha256.h", "ja4.h", "tls.h")


def _declarations(header: str) -> str:
    """A header as cffi's parser takes it: no directive but numbers, whose values the compiler fills in where they are
    more than digits; no assertion; no function's body; no continued line."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    text = re.sub(r"_Static_assert\(.*?\);", "", text, flags=re.DOTALL)
    text = re.sub(r"^static inline .*?^}$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^#define[ \t]+(\w+)[ \t]+(?!\d+$)\S.*$", r"#define \1 ...", text, flags=re.MULTILINE)
    return re.sub(r"^#(?!define[ \t]+\w+[ \t]+\S).*$", "", text, flags=re.MULTILINE)


ffi = FFI()
for name in _HEADERS:
    ffi.cdef(_declarations((_NAMES / name).read_text()))

ffi.set_source(
    "wiremeter.names._library",
    "".join(f'#include "{name}"\n' for name in _HEADERS),
    sources=[str(source) for source in _SOURCES],
    include_dirs=[str(_NAMES)],
    depends=[str(header) for header in _DEPENDS],
    extra_compile_args=["-O2", "-g0", "-std=gnu11", "-Wall"],
)
