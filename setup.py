"""The one thing pyproject.toml cannot say: the libbpf binding is compiled where there is a libbpf, the host engine and
the decoders everywhere."""

import sys

from setuptools import setup

BINDINGS = ["src/wiremeter/datapath/host_build.py:ffi", "src/wiremeter/names/library_build.py:ffi"]
if sys.platform == "linux":
    BINDINGS.append("src/wiremeter/libbpf/build.py:ffi")

setup(cffi_modules=BINDINGS)
