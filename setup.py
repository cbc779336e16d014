"""The one thing pyproject.toml cannot say: the libbpf binding is compiled where there is a libbpf."""

import sys

from setuptools import setup

setup(cffi_modules=["src/wiremeter/libbpf/build.py:ffi"] if sys.platform == "linux" else [])
