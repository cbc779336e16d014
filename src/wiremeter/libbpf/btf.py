"""BTF, the type information of compiled objects and of the kernel: struct layouts as NumPy dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from wiremeter.errors import InputError
from wiremeter.libbpf._ffi import ffi, lib, text

KIND_INT, KIND_ARRAY, KIND_STRUCT, KIND_ENUM, KIND_FUNC, KIND_DATASEC = 1, 3, 4, 6, 12, 15
_MODIFIERS_MAX = 32
_MODIFIERS = {8, 9, 10, 11, 18}  # typedef, volatile, const, restrict, type tag


class Member(NamedTuple):
    """A struct member, an enum value (`offset` holds it) or a variable of a section. Offsets in bytes."""

    name: str
    type_id: int
    offset: int


class Btf:
    """The types of one object. Borrows the pointer: the object must outlive it."""

    def __init__(self, pointer: Any) -> None:
        self._pointer = pointer

    def find(self, name: str, kind: int) -> int:
        """The id of a named type. Raises InputError if there is none."""
        found = lib.wm_btf_find(self._pointer, name.encode(), kind)
        if found < 0:
            raise InputError(
                f"no type named {name!r} in this object's BTF: it was not built from wiremeter's records.h"
            )
        return int(found)

    def has(self, name: str, kind: int) -> bool:
        """Whether there is such a type."""
        return int(lib.wm_btf_find(self._pointer, name.encode(), kind)) >= 0

    def members(self, type_id: int, *, bits: bool = False) -> Iterator[Member]:
        """The members of a struct, enum or section, in order; `bits` leaves offsets as they are (enum values)."""
        member = ffi.new("struct wm_btf_member *")
        for at in range(self._type(type_id).count):
            lib.wm_btf_member(self._pointer, type_id, at, member)
            yield Member(text(member.name), member.type_id, member.bit_offset if bits else member.bit_offset // 8)

    def enum(self, name: str) -> dict[str, int]:
        """Values of an enum by name."""
        return {m.name: m.offset for m in self.members(self.find(name, KIND_ENUM), bits=True)}

    def dtype(self, name: str) -> np.dtype[Any]:
        """A struct's layout as a structured dtype of the same size and offsets.

        Raises InputError where the struct is missing or has members that NumPy cannot hold.
        """
        try:
            return self._dtype(self.find(name, KIND_STRUCT))
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"the layout of struct {name} in BTF is none ({error}): the file is damaged") from error

    def size(self, type_id: int) -> int:
        """Size of a type in bytes."""
        return self._dtype(type_id).itemsize

    def _type(self, type_id: int) -> Any:
        info = ffi.new("struct wm_btf_type *")
        if lib.wm_btf_type(self._pointer, type_id, info):
            raise InputError(f"this object's BTF has no type {type_id}: the file is damaged, build it again")
        return info

    def _dtype(self, type_id: int) -> np.dtype[Any]:
        type_id = self._unmodified(type_id)
        info = self._type(type_id)
        if info.kind in (KIND_INT, KIND_ENUM):
            return np.dtype(f"u{info.size}")
        if info.kind == KIND_ARRAY:
            return np.dtype((self._dtype(info.type_id), (info.count,)))
        if info.kind == KIND_STRUCT:
            members = list(self.members(type_id))
            return np.dtype(
                {
                    "names": [m.name for m in members],
                    "formats": [self._dtype(m.type_id) for m in members],
                    "offsets": [m.offset for m in members],
                    "itemsize": info.size,
                }
            )
        raise InputError(f"BTF kind {info.kind} has no NumPy equivalent")

    def _unmodified(self, type_id: int) -> int:
        """The type behind typedefs and qualifiers. Raises InputError where they go round in a circle."""
        for _ in range(_MODIFIERS_MAX):
            info = self._type(type_id)
            if info.kind not in _MODIFIERS:
                return type_id
            type_id = info.type_id
        raise InputError("typedefs in this object's BTF go round in a circle: the file is damaged, build it again")


def kernel_functions(*names: str) -> frozenset[str]:
    """Those of these names that the running kernel has as functions for programs to call; none without kernel BTF."""
    pointer = lib.wm_btf_kernel()
    if pointer == ffi.NULL:
        return frozenset()
    try:
        btf = Btf(pointer)
        return frozenset(name for name in names if btf.has(name, KIND_FUNC))
    finally:
        lib.btf__free(pointer)
