"""Traffic as fast as the kernel can make it, or at a rate: live XDP frames out of a device, counted exactly.

A test run (BPF_PROG_TEST_RUN) of benchmarks/generator.bpf.c makes the frames and the kernel transmits them, with
no socket and no copy. The device's peer must have NAPI, which a veth has with GRO on: then frames come in as from a
network card, in the same softirq and on the same CPU, so that a meter that slows the receiver slows the sender.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import mmap
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from benchmarks.cpus import pinned
from benchmarks.loads import FRAME_MAX, TEMPLATE, TEMPLATES_MAX, Load
from benchmarks.namespaces import Namespace, ifindex
from wiremeter.errors import InputError, KernelError
from wiremeter.libbpf.maps import map_memory
from wiremeter.libbpf.objects import BpfObject

OBJECT = Path(__file__).parents[1] / "build" / "generator.bpf.o"
BATCH = 64  # in generator.bpf.c too
LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES
PACKETS_MAX = (1 << 31) - 1  # the kernel's repeat count is an int

#: `progress` in generator.bpf.c.
PROGRESS = np.dtype(
    [
        ("packets", "u8"),
        ("bytes", "u8"),
        ("wait_ns", "u8"),
        ("first_ns", "u8"),
        ("last_ns", "u8"),
        ("interval_fp", "u8"),
        ("flow", "u4"),
        ("held", "u4"),
        ("template", "u4"),
    ]
)


class _Context(ctypes.Structure):
    """struct xdp_md (linux/bpf.h)."""

    _fields_ = tuple(
        (name, ctypes.c_uint32)
        for name in ("data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index", "egress_ifindex")
    )


class _Options(ctypes.Structure):
    """struct bpf_test_run_opts (bpf/bpf.h, libbpf 0.8)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


class Sent(NamedTuple):
    """What was offered to the device, and what offering it took.

    seconds: by the clock on the wall, 0 for a single batch; the test run's own beginning and end, some 25 ms, are left
    out. cpu_seconds: of the sending thread,
    receiving included, waiting for the next packet's time left out.
    """

    packets: int
    bytes: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Packets a second."""
        return self.packets / self.seconds if self.seconds else 0.0


class Generator:
    """A load, ready to be sent out of `device` on one CPU. A context manager."""

    def __init__(self, load: Load, namespace: Namespace, device: str, cpu: int) -> None:
        """Raises InputError if the program is not built, KernelError or PermissionNeeded if it cannot be loaded."""
        if len(load.templates) > TEMPLATES_MAX:
            raise InputError(f"{load.name} has {len(load.templates)} templates; there is room for {TEMPLATES_MAX}")
        if not OBJECT.is_file():
            raise InputError(f"no {OBJECT}: `make compare` builds it")
        self.load = load
        self._namespace, self._cpu = namespace, cpu
        self._libbpf = _libbpf()
        self._resources = ExitStack()
        with ExitStack() as opening, BpfObject(OBJECT) as program:
            program.set_constants(
                {
                    "gen_templates": len(load.templates),
                    "gen_flows": load.flows,
                    "gen_stride": load.stride,
                    "gen_hold": load.hold,
                }
            )
            program.load("generate")
            self._program_fd = program.program_fd("generate")
            opening.callback(os.close, self._program_fd)
            for name in ("templates", ".data.progress"):
                fd = program.map_fd(name)
                opening.callback(os.close, fd)
                memory = map_memory(fd, TEMPLATES_MAX * TEMPLATE.itemsize if name == "templates" else mmap.PAGESIZE)
                if name == "templates":
                    np.frombuffer(memory, TEMPLATE, len(load.templates))[:] = load.table()
                else:
                    self._progress = np.frombuffer(memory, PROGRESS, 1)
            self._resources = opening.pop_all()
        self._frame = ctypes.create_string_buffer(bytes(FRAME_MAX), FRAME_MAX)
        self._longest = max(len(template.frame) for template in load.templates)
        self._context = _Context(data_end=self._longest, ingress_ifindex=ifindex(namespace, device))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    def send(self, packets: int, rate: float | None = None) -> Sent:
        """Sends `packets` from the load's beginning on, at `rate` packets a second or as fast as they go.

        At a rate they go out in groups of BATCH, each at its time. Raises KernelError if the kernel refuses; what a
        signal interrupts ends early, and Sent says how many went out.
        """
        if not 0 < packets <= PACKETS_MAX:
            raise InputError(f"{packets} packets; from 1 to {PACKETS_MAX} can be sent at once")
        self._progress[:] = 0
        self._progress["interval_fp"] = 0 if rate is None else round((1 << 16) * 1e9 / rate)
        options = _Options(
            sz=ctypes.sizeof(_Options),
            data_in=ctypes.addressof(self._frame),
            data_size_in=self._longest,
            ctx_in=ctypes.addressof(self._context),
            ctx_size_in=ctypes.sizeof(self._context),
            repeat=packets,
            flags=LIVE_FRAMES,
            batch_size=BATCH,
        )
        with self._namespace.entered(), pinned(self._cpu):
            cpu_ns = time.thread_time_ns()
            result = self._libbpf.bpf_prog_test_run_opts(self._program_fd, ctypes.byref(options))
            cpu_ns = time.thread_time_ns() - cpu_ns
        if result < 0 and -result != errno.EINTR:
            raise KernelError(
                f"sending {self.load.name}: {os.strerror(-result)}", call="BPF_PROG_TEST_RUN", errno=-result
            )
        sent = self._progress[0]
        packets = int(sent["packets"])
        # Between the first batch's beginning and the last one's all but the last batch went out.
        before_last = (packets - 1) // BATCH * BATCH
        seconds = (int(sent["last_ns"]) - int(sent["first_ns"])) / 1e9 * packets / before_last if before_last else 0.0
        return Sent(packets, int(sent["bytes"]), seconds, (cpu_ns - int(sent["wait_ns"])) / 1e9)


def _libbpf() -> ctypes.CDLL:
    name = ctypes.util.find_library("bpf")
    if name is None:
        raise InputError("no libbpf to send with: `make setup` installs it")
    return ctypes.CDLL(name)
