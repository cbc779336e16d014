"""The bench programs: the datapath over an engine's tables, between what a benchmark puts before it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wiremeter.datapath.engine import Hook
from wiremeter.datapath.kernel import KernelEngine
from wiremeter.errors import InputError
from wiremeter.flows.columns import AttachMode, Direction
from wiremeter.libbpf.objects import BpfObject

OBJECT = Path(__file__).parents[1] / "build" / "bench.bpf.o"


@contextmanager
def loaded(engine: KernelEngine, name: str, **constants: int) -> Iterator[int]:
    """A bench program over the tables of an engine that was made with the bench object; its file descriptor.

    It goes on to the engine's meter, which is as it was loaded with the engine.
    """
    fd = engine._load_named(name, dict(constants))
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def entry(engine: KernelEngine, direction: Direction, mode: AttachMode = "tcx") -> Iterator[int]:
    """An engine's program for one attachment, attached to nothing; its file descriptor."""
    attachment = engine.attach(Hook("bench", 0, direction, mode, load_only=True))
    try:
        yield attachment.program_fd
    finally:
        engine.release(attachment)


@contextmanager
def loaded_alone(name: str) -> Iterator[int]:
    """A program of the bench object that needs no tables; its file descriptor."""
    require_object()
    with BpfObject(OBJECT) as bench:
        bench.load(name)
        fd = bench.program_fd(name)
    try:
        yield fd
    finally:
        os.close(fd)


def fill(engine: KernelEngine, send_all: Callable[[], object]) -> None:
    """Has `send_all` send one packet of every flow, twice: an engine lays its table out by what it held before."""
    send_all()
    engine.flip()
    engine.flip()
    send_all()


def require_object() -> None:
    """Raises InputError if the bench object was not built."""
    if not OBJECT.is_file():
        raise InputError(f"no {OBJECT}: `make bench` builds it")
