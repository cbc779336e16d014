"""Compiled BPF objects: open, set constants and sizes, load. Mechanism, no policy."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np

from wiremeter.errors import InputError, KernelError, VerifierError
from wiremeter.libbpf._ffi import checked, ffi, lib, messages, refusal, text
from wiremeter.libbpf.btf import KIND_DATASEC, Btf

LOG_BYTES = 1 << 20
PROG_TYPE_XDP = 6  # enum bpf_prog_type

#: Errors that are no verdict of the verifier's: it says what followed from them, or to raise limits not in the way.
_NO_VERDICT = (errno.ENOSYS, errno.EMFILE, errno.ENFILE)


class BpfObject:
    """One opened object file. Close it, or use it as a context manager; file descriptors taken by dup survive."""

    def __init__(self, path: Path) -> None:
        """Opens and parses `path`. Raises InputError if it is missing or no BPF object with BTF."""
        self.path = path
        if not path.is_file():
            raise InputError(
                f"no BPF object at {path}: build it with `make build` in a clone, or install a package that has it,"
                " or name another with --program"
            )
        ffi.errno = 0
        self._object = lib.wm_object_open(os.fsencode(path))
        if self._object == ffi.NULL:
            raise InputError(f"{path} is not a BPF object that libbpf can read: {messages() or os.strerror(ffi.errno)}")
        self._logs: dict[str, Any] = {}
        pointer = lib.bpf_object__btf(self._object)
        if pointer == ffi.NULL:
            self.close()
            raise InputError(f"{path} carries no BTF: compile it with `clang -g`")
        self.btf = Btf(pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the object; its own file descriptors with it."""
        if self._object != ffi.NULL:
            lib.bpf_object__close(self._object)
            self._object = ffi.NULL

    def programs(self) -> dict[str, Any]:
        """Programs by name."""
        found = {}
        program = lib.bpf_object__next_program(self._object, ffi.NULL)
        while program != ffi.NULL:
            found[text(lib.bpf_program__name(program))] = program
            program = lib.bpf_object__next_program(self._object, program)
        return found

    def maps(self) -> dict[str, Any]:
        """Maps by name; the data sections by the end of theirs (`.rodata`, `.data.control`)."""
        found = {}
        bpf_map = lib.bpf_object__next_map(self._object, ffi.NULL)
        while bpf_map != ffi.NULL:
            name = text(lib.bpf_map__name(bpf_map))
            found[name[name.index(".") :] if "." in name else name] = bpf_map
            bpf_map = lib.bpf_object__next_map(self._object, bpf_map)
        return found

    def sections(self) -> dict[str, str]:
        """ELF section of each program."""
        return {name: text(lib.bpf_program__section_name(p)) for name, p in self.programs().items()}

    def set_constants(self, values: Mapping[str, int | np.void]) -> None:
        """Sets `const volatile` variables before load.

        values: integers, or structured scalars of the variable's own dtype. Raises InputError for a name that the
        object does not have or a value that does not fit.
        """
        size = ffi.new("size_t *")
        start = lib.bpf_map__initial_value(self.map(".rodata"), size)
        data = ffi.buffer(ffi.cast("char *", start), size[0])
        variables = {m.name: m for m in self.btf.members(self.btf.find(".rodata", KIND_DATASEC))}
        for name, value in values.items():
            if name not in variables:
                raise InputError(f"{self.path} has no constant {name!r}: it was not built from this version's sources")
            width = self.btf.size(variables[name].type_id)
            try:
                raw = value.tobytes() if isinstance(value, np.void) else np.array([value], f"u{width}").tobytes()
            except OverflowError as error:
                raise InputError(f"{name} = {value} does not fit its {width} bytes") from error
            if len(raw) != width:
                raise InputError(f"{name} is {width} bytes in {self.path}, {len(raw)} here: rebuild with `make build`")
            data[variables[name].offset : variables[name].offset + width] = raw

    def map(self, name: str) -> Any:
        """A map by name. Raises InputError if there is none."""
        maps = self.maps()
        if name not in maps:
            raise InputError(f"{self.path} has no map {name!r}; it has {', '.join(sorted(maps))}")
        return maps[name]

    def set_map_size(self, name: str, *, value_size: int, max_entries: int) -> None:
        """Sizes a map before load."""
        checked(lib.bpf_map__set_value_size(self.map(name), value_size), "bpf_map__set_value_size", name)
        checked(lib.bpf_map__set_max_entries(self.map(name), max_entries), "bpf_map__set_max_entries", name)

    def map_shape(self, name: str) -> tuple[int, ...]:
        """Type, sizes of key and value, entries and flags of a map that is about to be made."""
        shape = ffi.new("struct wm_map_shape *")
        lib.wm_map_shape(self.map(name), shape)
        return shape.type, shape.key_size, shape.value_size, shape.max_entries, shape.flags

    def reuse_map(self, name: str, fd: int) -> None:
        """Takes a map that exists already instead of making one."""
        checked(lib.bpf_map__reuse_fd(self.map(name), fd), "bpf_map__reuse_fd", f"reusing map {name}")

    def map_fd(self, name: str) -> int:
        """A loaded map's file descriptor, duplicated: the caller closes it."""
        return _duplicate(lib.bpf_map__fd(self.map(name)), name)

    def program_fd(self, name: str) -> int:
        """A loaded program's file descriptor, duplicated: the caller closes it."""
        return _duplicate(lib.bpf_program__fd(self.programs()[name]), name)

    def copy_program(self, name: str, mark: int, value: int) -> int:
        """Loads a program that is loaded once more, with another constant; returns its file descriptor, to be closed.

        mark: the immediate operand that stands there exactly once; value: what stands there in the copy; 32 bits each.
        Raises InputError if it does not, VerifierError with the log, PermissionNeeded or KernelError.
        """
        log = ffi.new("char[]", LOG_BYTES)
        result = lib.wm_program_copy(self.programs()[name], _signed(mark), _signed(value), log, LOG_BYTES)
        if result == -errno.ENOENT:
            raise InputError(
                f"{name} of {self.path} has no place for the constant of a copy: it was not built from this version's"
                " sources"
            )
        if result < 0 and (verdict := _verdict(log, -result)):
            messages()
            raise self._refused(name, verdict, -result)
        return checked(result, "BPF_PROG_LOAD", f"copying {name}")

    def load(self, *only: str, bound_to: int = 0, with_frags: bool = False, statistics: bool = False) -> None:
        """Creates the maps and loads the programs named `only` (none: maps alone).

        bound_to: ifindex that an XDP program is bound to, for the driver's metadata functions.
        with_frags: load XDP programs as such that take packets of several buffers (Linux 5.18). The section's name must
        not say it: libbpf would insist.
        statistics: keep what verification cost, for `verifier_log`.
        Raises VerifierError with the log, PermissionNeeded, or KernelError.
        """
        programs = self.programs()
        for name in only:
            if name not in programs:
                raise InputError(f"{self.path} has no program {name!r}; it has {', '.join(sorted(programs))}")
        for name, program in programs.items():
            checked(lib.bpf_program__set_autoload(program, name in only), "bpf_program__set_autoload", name)
            if name not in only:
                continue
            log = self._logs[name] = ffi.new("char[]", LOG_BYTES)
            lib.bpf_program__set_log_buf(program, log, LOG_BYTES)
            lib.bpf_program__set_log_level(program, 4 if statistics else 0)
            flags = lib.bpf_program__flags(program)
            if bound_to:
                lib.bpf_program__set_ifindex(program, bound_to)
                flags |= 1 << 6  # BPF_F_XDP_DEV_BOUND_ONLY
            if with_frags and lib.bpf_program__type(program) == PROG_TYPE_XDP:
                flags |= 1 << 5  # BPF_F_XDP_HAS_FRAGS
            lib.bpf_program__set_flags(program, flags)
        result = lib.bpf_object__load(self._object)
        if result < 0:
            self._explain(-result)
        messages()

    def verifier_log(self, name: str) -> str:
        """What the verifier said of a loaded program; empty unless it was loaded with `statistics`."""
        return text(self._logs[name]).strip()

    def _explain(self, number: int) -> NoReturn:
        said = messages()
        for name, log in self._logs.items():
            if verdict := _verdict(log, number):
                raise self._refused(name, verdict, number)
        if number == errno.ENOMEM:
            raise KernelError(
                f"the kernel has no memory for the flow tables: choose a smaller --flow-table; `wiremeter doctor` "
                f"predicts what each size takes ({said})",
                call="bpf_object__load",
                errno=number,
            )
        why = f" ({said})" if said and number not in (*_NO_VERDICT, errno.EPERM, errno.EACCES) else ""
        raise refusal(f"loading {self.path}: {os.strerror(number)}{why}", "bpf_object__load", number)

    def _refused(self, name: str, verdict: str, number: int) -> VerifierError:
        return VerifierError(
            f"the kernel's verifier refused {name} of {self.path} on Linux {platform.release()}; its last "
            f"words: {_last_words(verdict)!r}. `wiremeter verify --log` shows all of them",
            log=verdict,
            errno=number,
        )


def _duplicate(fd: int, name: str) -> int:
    try:
        return os.dup(fd)
    except OSError as error:
        raise refusal(f"keeping {name} open: {error.strerror}", "dup", error.errno or 0) from error


def _signed(word: int) -> int:
    """32 bits as the operand of an instruction has them."""
    return word - (1 << 32) if word >> 31 else word


def _verdict(log: Any, number: int) -> str:
    """What the verifier said against a program; "" if loading failed for another reason."""
    said = text(log).strip()
    # What it says of a program that it took are statistics.
    return said if number not in _NO_VERDICT and _last_words(said) else ""


def _last_words(log: str) -> str:
    """The line that says why; the log ends with statistics."""
    lines = [
        line for line in log.splitlines() if not line.startswith(("processed ", "verification time", "stack depth"))
    ]
    return lines[-1] if lines else ""
