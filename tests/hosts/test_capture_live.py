"""Metering by packet sockets: what `--attach capture` can lose, what it needs, and what it sees that others do not."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from benchmarks.cpus import measured_cpu
from benchmarks.generator import Generator
from benchmarks.loads import dns_heavy, imix, small
from benchmarks.namespaces import RECEIVER, SENDER, Namespace, ifindex, veth_with_napi

from wiremeter.datapath.capture import CaptureEngine
from wiremeter.datapath.drain import Drain
from wiremeter.datapath.engine import Hook
from wiremeter.datapath.layout import plan_tables
from wiremeter.datapath.packet_ring import BLOCK_BYTES
from wiremeter.errors import InputError, KernelError
from wiremeter.metering.monitor import Monitor

from . import devices, senders
from .measure import metering

pytestmark = pytest.mark.kernel

PR_CAP_AMBIENT = 47  # linux/prctl.h


@contextmanager
def capturing(namespace: Namespace, *, ring_bytes: int, lines: int = 1 << 14) -> Iterator[CaptureEngine]:
    """An engine with one attachment: what RECEIVER takes in."""
    with CaptureEngine(plan_tables(1, lines, attachments=2), ring_bytes=ring_bytes) as engine:
        hook = Hook(RECEIVER, ifindex(namespace, RECEIVER), "rx", "capture")
        with namespace.entered():
            engine.attach(hook)
        yield engine


def seen(drain: Drain) -> tuple[int, int]:
    """Packets and bytes that a drain counts."""
    packets, length, _ = map(int, drain.counters[0].sum(axis=0))
    return packets, length


def test_what_finds_the_ring_full_is_counted_as_lost() -> None:
    with (
        veth_with_napi() as (sending, receiving),
        capturing(receiving, ring_bytes=4 * BLOCK_BYTES) as engine,
        Generator(small(100), sending, SENDER, measured_cpu()) as generator,
    ):
        generator.send(50_000)
        first, again = engine.flip(), engine.flip()
    assert first.dropped[0] > 20_000
    assert seen(first)[0] + first.dropped[0] == 50_000
    assert (seen(again), again.dropped) == ((0, 0), {})


def test_what_fits_the_ring_is_counted_to_the_last_byte_and_once() -> None:
    load = imix()
    with (
        veth_with_napi() as (sending, receiving),
        capturing(receiving, ring_bytes=16 * BLOCK_BYTES) as engine,
        Generator(load, sending, SENDER, measured_cpu()) as generator,
    ):
        for _ in range(3):
            generator.send(12_000)
            drain = engine.flip()
            assert (seen(drain), drain.dropped) == ((12_000, load.bytes_of(12_000)), {})


def test_a_table_that_fills_asks_for_a_flip_and_loses_nothing() -> None:
    with (
        veth_with_napi() as (sending, receiving),
        capturing(receiving, ring_bytes=16 * BLOCK_BYTES, lines=256) as engine,
        Generator(small(5_000), sending, SENDER, measured_cpu()) as generator,
    ):
        generator.send(20_000)
        drains = []
        time.sleep(0.1)
        while engine.take():
            drains.append(engine.flip())
        drains.append(engine.flip())
    assert sum(seen(drain)[0] for drain in drains) == 20_000
    assert sum(int(rows["packets"].sum()) for drain in drains for rows in drain.flows) == 20_000


class NoRoom:
    """As select.epoll is where the user's watches are used up (epoll(7), max_user_watches)."""

    closed = False

    def register(self, ring: object, events: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        self.closed = True


def test_a_socket_that_cannot_be_waited_for_is_refused_and_flips_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with veth_with_napi() as (_, receiving), receiving.entered():
        hook = Hook(RECEIVER, ifindex(receiving, RECEIVER), "rx", "capture")
        with CaptureEngine(plan_tables(1, 1 << 12, attachments=2), ring_bytes=4 * BLOCK_BYTES) as engine:
            with monkeypatch.context() as patch:
                patch.setattr(engine, "_waiting", NoRoom())
                for _ in range(3):  # nor does it take a slot of two
                    with pytest.raises(KernelError, match="No space left on device"):
                        engine.attach(hook)
            assert engine.attachments == []
            assert seen(engine.flip()) == (0, 0)
            assert engine.attach(hook).is_attached()


def test_the_audit_names_what_the_capture_lost() -> None:
    """While nobody reads the ring, the kernel drops what it has no room for."""
    with (
        veth_with_napi() as (sending, receiving),
        Generator(small(100), sending, SENDER, measured_cpu()) as generator,
        receiving.entered(),
        Monitor(RECEIVER, attach="capture", interval=0.1, flow_table=1 << 14) as monitor,
    ):
        batches = iter(monitor)
        next(batches)
        assert monitor._session
        with monitor._session._early.paused():
            generator.send(200_000)
        audits = [audit for _ in range(2) for audit in next(batches).audit if audit.direction == "rx"]
    lost, nothing = (audit.capture_dropped for audit in audits)
    assert lost > 80_000
    assert nothing == 0
    assert sum(audit.seen.packets for audit in audits) + lost == 200_000
    assert audits[0].remainders["capture_dropped"] == lost
    assert sum(sum(audit.remainders.values()) for audit in audits) == lost


def test_what_a_qdisc_drops_never_came_past() -> None:
    """Packet sockets are behind the qdisc, where programs at tc are before it."""
    with devices.pair() as (client, server), senders.sinks(server):
        devices.limit_rate(client)
        devices.settle(client, server)
        with metering(client.host, "eth0", attach="capture") as ours:
            ours.wait_counted()
            senders.udp_packets(client, server.ipv4, 2000)
            ours.wait_counted()
        dropped = devices.qdisc_counts(client)["drops"]
    assert dropped > 1000
    assert ours["eth0", "tx"].total.packets <= 2000 - dropped
    assert ours["eth0", "tx"].remainders == {}


def test_cap_net_raw_is_enough() -> None:
    def count_as_nobody() -> int:
        _keep_only(13)
        with Monitor("eth0", attach="capture", interval=0.2, flow_table=1 << 12) as monitor:
            return len(next(iter(monitor)).audit)

    with devices.pair() as (client, _):
        assert client.host.run(count_as_nobody) == 2


def test_there_is_no_program_to_choose_or_to_time() -> None:
    options: list[dict[str, Any]] = [{"program": "any.o"}, {"bpf_stats": True}]
    for wrong in options:
        with pytest.raises(InputError, match="runs no program"):
            Monitor("eth0", attach="capture", **wrong)


def _keep_only(capability: int) -> None:
    """This process becomes another user with one capability (capset(2)), which it keeps over that change."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(8, 1) == 0  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    sets = (ctypes.c_uint32 * 6)(1 << capability, 1 << capability, 0, 0, 0, 0)
    assert libc.capset(head, sets) == 0


@pytest.mark.parametrize("attach", ["tcx", "capture"])
def test_names_are_read_as_by_the_programs(attach: Literal["tcx", "capture"]) -> None:
    load = dns_heavy(200)
    with (
        veth_with_napi() as (sending, receiving),
        Generator(load, sending, SENDER, measured_cpu()) as generator,
        receiving.entered(),
        Monitor(RECEIVER, attach=attach, interval=0.5, flow_table=1 << 14) as monitor,
    ):
        batches = iter(monitor)
        next(batches)
        generator.send(800, 4_000)
        found = [next(batches) for _ in range(2)]
    assert sum(audit.seen.packets for batch in found for audit in batch.audit) == 800
    assert sum(batch.health.lost_payloads.get("dns", 0) for batch in found[-1:]) == 0
    questions = [question for batch in found for question in batch.transactions.dns]
    assert {question.query.rstrip(".") for question in questions} == {
        "www.example.com",
        "cdn.example.net",
        "missing.example.com",
        "example.com",
        "api.example.org",
        "example.net",
        "7.100.51.198.in-addr.arpa",
    }
    assert len(questions) == 400
