"""What is tried on a kernel, from inside: load, attach, count what is sent, leave nothing.

python -m guests.check [--alone]    with --alone also what only a machine of its own may suffer

Prints a JSON object a line; the last says "done".
"""

from __future__ import annotations

import json
import os
import platform
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hosts import devices, leaks, senders
from hosts.devices import Port
from hosts.measure import Attach, metering
from hosts.wire import Conversation

from . import alone

#: Seconds in which a meter is to be attached; a machine in software is slower by an order of magnitude.
INTERVAL_SECONDS = 1.0


def load() -> str:
    """Every program passes this kernel's verifier."""
    from wiremeter.datapath.programs import default_program
    from wiremeter.datapath.verification import verify_object

    checks = verify_object(default_program(), load=True)
    for check in checks:
        if check.passed is False:
            raise AssertionError(f"{check.name}: {check.detail}\n{check.log[-60_000:]}")
    costs = [check.detail.removeprefix("processed ").split()[0] for check in checks if check.name.startswith("load ")]
    return ", ".join(costs)


def count(attach: Attach, send: Callable[[Port, Port], Conversation], **options: Any) -> str:
    """Packets, bytes and flows are the senders', at the receiver; says how it was attached."""
    with devices.pair(v6=True) as (client, server), senders.sinks(server), leaks.nothing_left():
        with metering(server.host, server.device, attach=attach, interval=INTERVAL_SECONDS, **options) as meter:
            sent = send(client, server)
        seen = meter[server.device, "rx"]
        seen.assert_is(sent.to_server)
        meter[server.device, "tx"].assert_is(sent.to_client)
        return f"{'/'.join(seen.modes)}: {sent.to_server.total.packets} packets, {sent.to_server.total.bytes} bytes"


def datagrams(client: Port, server: Port) -> Conversation:
    """Small packets over both versions of IP, fewer than a veth with NAPI has room for (256): none is dropped."""
    v4 = senders.udp_packets(client, server.ipv4, 150)
    return Conversation(v4.plus(senders.udp_packets(client, server.address(6), 100)))


def stream(client: Port, server: Port) -> Conversation:
    """Super-packets that TCP makes."""
    return senders.tcp_bulk(client, server, 500_000)


def gso(client: Port, server: Port) -> Conversation:
    """Super-packets of datagrams."""
    return Conversation(senders.udp_gso(client, server.ipv4, 10, 14_000, 1400))


def name() -> str:
    """A question of DNS is read, and what was answered."""
    from hosts.told import listening

    question = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\4wire\4test\0" + struct.pack("!HH", 1, 1)
    answer = struct.pack("!HHHHHH", 7, 0x8180, 1, 1, 0, 0) + question[12:]
    answer += struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + bytes([10, 0, 0, 1])
    with devices.pair() as (client, server), leaks.nothing_left():
        with (
            listening(server, attach="auto") as listener,
            senders.new_socket(server, socket.AF_INET, socket.SOCK_DGRAM) as far,
            senders.new_socket(client, socket.AF_INET, socket.SOCK_DGRAM) as near,
        ):
            far.bind((server.ipv4, 53))
            near.connect((server.ipv4, 53))
            near.send(question)
            far.sendto(answer, far.recvfrom(512)[1])
            assert near.recv(512) == answer
        (told,) = listener.told.all("dns")
        assert (told.query, told.qtype, told.rcode) == ("wire.test", "A", 0), told
    return "wire.test A NOERROR"


def without_names() -> str:
    """As with --names none, whose programs and maps are others: none has room for payloads."""
    from wiremeter.datapath.naming import NO_NAMES

    return count("auto", datagrams, names=NO_NAMES)


CHECKS: dict[str, Callable[[], str]] = {
    "load": load,
    "auto": lambda: count("auto", datagrams),
    "auto, TCP": lambda: count("auto", stream),
    "auto, UDP GSO": lambda: count("auto", gso),
    "xdp": lambda: count("xdp", datagrams),
    "capture": lambda: count("capture", datagrams),
    "names": name,
    "names off": without_names,
}


@contextmanager
def told(what: str) -> Iterator[dict[str, object]]:
    """Print what became of a check, and how long it took."""
    line: dict[str, object] = {"check": what, "ok": True}
    began = time.monotonic()
    try:
        yield line
    except Exception as error:
        line |= {"ok": False, "said": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    print(json.dumps(line | {"seconds": round(time.monotonic() - began, 1)}), flush=True)


def main() -> None:
    print(json.dumps({"kernel": platform.release(), "machine": platform.machine(), "cpus": os.cpu_count()}), flush=True)
    for what, check in (CHECKS | alone.CHECKS if "--alone" in sys.argv[1:] else CHECKS).items():
        with told(what) as line:
            line["said"] = check()
    print(json.dumps({"done": True}), flush=True)


if __name__ == "__main__":
    main()
