"""Synthetic traffic as a source: frames made from a seed, through the datapath, and checked against what was made."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from wiremeter.captures.meter import HostMeter
from wiremeter.captures.replay import CaptureReplay
from wiremeter.errors import InputError, WiremeterError
from wiremeter.flows.batch import Attachment, FlowBatch
from wiremeter.settings.words import FLOWS_MAX, SIMULATED_HOSTS_MAX, SIMULATED_MTUS, SIMULATED_PROTOCOLS
from wiremeter.synthetic.expected import Expected
from wiremeter.synthetic.frames import NO_VLAN, FrameBuilder, Packets, pcap_header
from wiremeter.synthetic.profiles import Exchange, find_profile
from wiremeter.synthetic.traffic import Traffic

log = logging.getLogger(__name__)

#: When simulated traffic begins: always then, so that the same seed gives the same output.
START_NS = 1_700_000_000 * 10**9
DEFAULT_HOSTS = 100
DEFAULT_MTU = 1500
_MOST_PACKETS = (1 << 32) - 1


class Simulation(CaptureReplay):
    """Synthetic traffic of a profile; yields a batch for each interval, of mode "simulated".

    >>> sum(batch.audit[0].seen.packets for batch in Simulation("dns", seconds=1, packets_per_second=500))
    500
    """

    def __init__(
        self,
        profile: str = "web",
        seed: int = 0,
        *,
        seconds: float = 10.0,
        packets_per_second: float = 10_000.0,
        hosts: int = DEFAULT_HOSTS,
        protocols: Sequence[str] = (),
        ipv6: float | None = None,
        vlan: int | None = None,
        mtu: int = DEFAULT_MTU,
        interval: float | str | None = 1.0,
        filter: str = "",
        write: str | os.PathLike[str] | None = None,
        table_lines: int | None = None,
        max_flows: int = FLOWS_MAX,
    ) -> None:
        """Nothing is made yet.

        profile: one of profiles.PROFILES. seed: not negative; the same arguments give the same frames, byte for byte.
        seconds: of simulated time; it takes as long as it takes. hosts: clients, from 1 to 65,536; there is a server
        for every four. protocols: only those of tcp, udp, icmp and arp. ipv6: part of conversations from 0 to 1, None
        as the profile has it. vlan: a tag of all frames, 0 to 4094. mtu: bytes of the largest IP packet, 576 to 9,216.
        interval: seconds, or text such as "500ms"; None for one batch of all. filter: only
        flows that match are in the batches. write: a pcap file to write the frames to.
        table_lines, max_flows: as for CaptureReplay.
        Raises InputError for a value out of range.
        """
        super().__init__(["simulated"], interval=interval, filter=filter, table_lines=table_lines, max_flows=max_flows)
        self._attachments = (Attachment(0, "simulated", 0, direction="rx", mode="none"),)
        self.profile = find_profile(profile)
        self.seed = _within("seed", seed, 0, (1 << 64) - 1)
        self.packets = _packet_count(seconds, packets_per_second)
        self._rate = packets_per_second
        self._hosts = _within("hosts", hosts, 1, SIMULATED_HOSTS_MAX)
        self._mtu = _within("mtu", mtu, *SIMULATED_MTUS)
        self._vlan = NO_VLAN if vlan is None else _within("vlan", vlan, 0, 4094)
        self._ipv6 = self.profile.ipv6 if ipv6 is None else ipv6
        if not 0 <= self._ipv6 <= 1:
            raise InputError(f"ipv6 is {ipv6}: it is a part of all conversations, from 0 to 1")
        self._exchanges = _chosen(self.profile.name, self.profile.exchanges, protocols)
        self._write = None if write is None else os.fspath(write)
        #: What was made in the interval that the last batch is of.
        self.expected = self._nothing()

    def _nothing(self) -> Expected:
        return Expected(is_tagged=self._vlan != NO_VLAN)

    def traffic(self) -> Iterator[Packets]:
        """All packets as columns, in order of time, some thousand at a time."""
        return Traffic(
            self._exchanges,
            seed=self.seed,
            packets=self.packets,
            packets_per_second=self._rate,
            start_ns=START_NS,
            hosts=self._hosts,
            ipv6=self._ipv6,
            mtu=self._mtu,
        ).slices()

    def _batches(self) -> Iterator[FlowBatch]:
        """All batches; the traffic is made as they are asked for.

        Raises WiremeterError for a batch that does not hold what was made: the meter or the generator has a fault.
        InputError if the file to write to cannot be written.
        """
        log.info("simulating traffic", extra={"mode": "simulated", "profile": self.profile.name, "seed": self.seed})
        builder = FrameBuilder(self._mtu, self._vlan)
        self.linktypes[:] = ["EN10MB"]
        with contextlib.closing(HostMeter(self.seed, self._table_lines)) as meter, _pcap(self._write) as file:
            expected, current = self._nothing(), -1
            for number, packets in self._by_interval():
                if number != current:
                    if current >= 0:
                        yield self._checked(self._close_interval(meter), expected)
                    expected, current = self._nothing(), number
                    self._begin(None if self._interval_ns is None else START_NS + number * self._interval_ns)
                expected.add(packets)
                for frames in builder.frames(packets):
                    if file:
                        file.write(builder.records(frames))
                    self._count_all(meter, frames)
            yield self._checked(self._close_interval(meter), expected)

    def _by_interval(self) -> Iterator[tuple[int, Packets]]:
        """The packets, with the number of the interval that they are in."""
        for packets in self.traffic():
            if self._interval_ns is None:
                yield 0, packets
                continue
            numbers = (packets.times_ns - np.uint64(START_NS)) // np.uint64(self._interval_ns)
            cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
            for first, end in itertools.pairwise(cuts):
                yield int(numbers[first]), packets.part(slice(first, end))

    def _checked(self, batch: FlowBatch, expected: Expected) -> FlowBatch:
        differences = list(expected.differences(batch, self._max_flows))
        if differences:
            raise WiremeterError(
                f"the meter did not find what was simulated (profile {self.profile.name}, seed {self.seed}, interval "
                f"from {batch.start_ns}): {'; '.join(differences)}. This is a fault of wiremeter: please report it, "
                "with the command line"
            )
        self.expected = expected
        return dataclasses.replace(batch, mode="simulated", super_packets=None)


def simulate(
    profile: str = "web",
    seed: int = 0,
    *,
    seconds: float = 10.0,
    packets_per_second: float = 10_000.0,
    hosts: int = DEFAULT_HOSTS,
    protocols: Sequence[str] = (),
    ipv6: float | None = None,
    vlan: int | None = None,
    mtu: int = DEFAULT_MTU,
    interval: float | str | None = 1.0,
    filter: str = "",
    write: str | os.PathLike[str] | None = None,
) -> Iterator[FlowBatch]:
    """Batches of synthetic traffic, of mode "simulated"; each has been checked against what was made.

    The arguments are those of Simulation. Raises InputError at once for a value out of range; while it iterates,
    WiremeterError for a batch that does not hold what was made.

    >>> [batch.audit[0].seen.packets for batch in simulate("syn-flood", seconds=2, packets_per_second=250)]
    [250, 250]
    """
    return iter(
        Simulation(
            profile,
            seed,
            seconds=seconds,
            packets_per_second=packets_per_second,
            hosts=hosts,
            protocols=protocols,
            ipv6=ipv6,
            vlan=vlan,
            mtu=mtu,
            interval=interval,
            filter=filter,
            write=write,
        )
    )


def _packet_count(seconds: float, packets_per_second: float) -> int:
    for name, value in (("seconds", seconds), ("packets_per_second", packets_per_second)):
        if not 0 < value < float("inf"):
            raise InputError(f"{name} is {value}: it must be a number above 0")
    count = round(seconds * packets_per_second)
    if not 1 <= count <= _MOST_PACKETS:
        raise InputError(
            f"{seconds} s of {packets_per_second} packets/s are {count} packets: from 1 to {_MOST_PACKETS} can be "
            "simulated. Change seconds or packets_per_second"
        )
    return count


def _within(name: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise InputError(f"{name} is {value}: it must be from {least} to {most}")
    return value


def _chosen(profile: str, exchanges: tuple[Exchange, ...], protocols: Sequence[str]) -> tuple[Exchange, ...]:
    """Those exchanges that use one of `protocols`; without any, all."""
    unknown = [name for name in protocols if name not in SIMULATED_PROTOCOLS]
    if unknown:
        raise InputError(
            f"protocol {unknown[0]!r} cannot be simulated: those that can are {', '.join(SIMULATED_PROTOCOLS)}"
        )
    chosen = tuple(exchange for exchange in exchanges if not protocols or exchange.protocol in protocols)
    if not chosen:
        there = ", ".join(dict.fromkeys(exchange.protocol for exchange in exchanges))
        raise InputError(
            f"profile {profile} has no {' or '.join(protocols)}, only {there}: choose others or leave it out"
        )
    return chosen


@contextlib.contextmanager
def _pcap(path: str | None) -> Iterator[BinaryIO | None]:
    """A new pcap file with its header written; None without a path. Raises InputError if it cannot be written."""
    if path is None:
        yield None
        return
    try:
        with open(path, "wb") as file:
            file.write(pcap_header())
            yield file
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
