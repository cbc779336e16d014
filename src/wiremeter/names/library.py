"""The decoders in C (bpf/names), bound."""

from __future__ import annotations

from typing import Any

from wiremeter.errors import InputError

try:
    from wiremeter.names import _library  # type: ignore[attr-defined,unused-ignore]
except ImportError as error:  # pragma: no cover - only without a build
    raise InputError(f"the decoders are not built ({error}): run `make build`, or `pip install .`") from error

ffi: Any = _library.ffi
lib: Any = _library.lib
