"""A libpcap monitor in Python as people write it: `python -m benchmarks.compare.python_loops scapy|dpkt DEVICE`.

Packets and bytes of each flow in a dict. On SIGUSR1, and at the end, it prints a line of JSON: what it has counted,
and what libpcap says was dropped, where the library hands that on.
"""

from __future__ import annotations

import json
import select
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

flows: dict[tuple[object, ...], list[int]] = {}
totals = {"packets": 0, "bytes": 0}


def count(key: tuple[object, ...], length: int) -> None:
    """Adds one packet."""
    totals["packets"] += 1
    totals["bytes"] += length
    flow = flows.get(key)
    if flow is None:
        flow = flows[key] = [0, 0]
    flow[0] += 1
    flow[1] += length


def with_scapy(device: str) -> None:
    """scapy.sniff with a callback."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.sendrecv import sniff

    def on_packet(packet: Any) -> None:
        length = len(packet)
        if IP not in packet:
            count(("non-ip",), length)
            return
        ip = packet[IP]
        l4 = next((packet[layer] for layer in (TCP, UDP) if layer in packet), None)
        ports = (l4.sport, l4.dport) if l4 is not None else (0, 0)
        count((ip.src, ip.dst, ip.proto, *ports), length)

    _tell_on_signals(lambda: None)
    sniff(iface=device, prn=on_packet, store=False)


def with_dpkt(device: str) -> None:
    """libpcap by pcapy, parsed by dpkt."""
    import dpkt  # type: ignore[import-untyped,import-not-found,unused-ignore]
    import pcapy  # type: ignore[import-untyped,import-not-found,unused-ignore]

    capture = pcapy.open_live(device, 65535, 0, 100)
    capture.setnonblock(1)

    def on_packet(header: Any, data: bytes) -> None:
        packet = dpkt.ethernet.Ethernet(data)
        ip = packet.data
        if not isinstance(ip, dpkt.ip.IP):
            count(("non-ip",), header.getlen())
            return
        l4 = ip.data
        ports = (l4.sport, l4.dport) if isinstance(l4, dpkt.tcp.TCP | dpkt.udp.UDP) else (0, 0)
        count((ip.src, ip.dst, ip.p, *ports), header.getlen())

    _tell_on_signals(lambda: capture.stats()[1])
    while True:  # a blocking read would keep signals waiting
        select.select([capture.getfd()], [], [], 0.1)
        capture.dispatch(-1, on_packet)


def _tell_on_signals(dropped: Callable[[], int | None]) -> None:
    def tell(number: int, frame: FrameType | None) -> None:
        print(json.dumps(totals | {"flows": len(flows), "dropped": dropped()}), flush=True)
        if number != signal.SIGUSR1:
            sys.exit(0)

    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    print("ready", flush=True)


if __name__ == "__main__":
    {"scapy": with_scapy, "dpkt": with_dpkt}[sys.argv[1]](sys.argv[2])
