"""Senders, and what each has put on the wire: packets, and bytes with the Ethernet header, by arithmetic.

Each sends from one port to another and returns the Traffic of its direction. How the arithmetic is known to be true
is said in each; test_senders.py compares all of them with captures made where offloads are off.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import mmap
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal, NamedTuple

from . import frames
from .devices import Port, wait_up
from .netns import fork, wait_until
from .wire import (
    ETHER,
    IPV4,
    IPV6,
    TCP,
    TCP_HEADER,
    UDP,
    UDP_HEADER,
    Conversation,
    Count,
    Flow,
    Traffic,
    decode,
    flow_traffic,
)

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
IP_HEADERS = {4: IPV4, 6: IPV6}
SOL_PACKET = 263
PACKET_TX_RING, PACKET_VERSION, PACKET_VNET_HDR, PACKET_QDISC_BYPASS = 13, 10, 15, 20  # linux/if_packet.h
UDP_SEGMENT = 103  # linux/udp.h
TCP_TIMESTAMP_BYTES = 12  # option and padding on every segment but the first two
SYN_OPTION_BYTES = 20  # MSS, SACK or padding, timestamps, window scale

UDP_PORTS = (5001, 5101, 5201, 5301)  # where the senders of UDP below send to

_libc = ctypes.CDLL(None, use_errno=True)


def new_socket(port: Port, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket in the port's namespace."""
    with port.host.entered():
        return socket.socket(family, kind, protocol)


def frames_traffic(frame: bytes, times: int) -> Traffic:
    """What `times` times this frame is on the wire."""
    key, tally = decode(frame), Count(times, times * len(frame))
    return Traffic({key: tally}) if isinstance(key, Flow) else Traffic({}, {key: tally})


# Frames as they are --------------------------------------------------------------------------------------------------


def raw_frames(port: Port, frame: bytes, times: int, *, bypass_qdisc: bool = False) -> Traffic:
    """`times` times one frame through AF_PACKET.

    Truth: a send that succeeds hands one frame of just these bytes to the device; veth pads nothing.
    `bypass_qdisc` hands it to the driver past the stack (PACKET_QDISC_BYPASS), where nothing at tc can see it.
    """
    with new_socket(port, socket.AF_PACKET, socket.SOCK_RAW) as packets:
        if bypass_qdisc:
            packets.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        packets.bind((port.device, 0))
        for _ in range(times):
            assert packets.send(frame) == len(frame)
    return frames_traffic(frame, times)


def raw_frame_list(port: Port, several: list[bytes]) -> Traffic:
    """These frames, each once, through AF_PACKET. Truth as for raw_frames."""
    with new_socket(port, socket.AF_PACKET, socket.SOCK_RAW) as packets:
        packets.bind((port.device, 0))
        sent = Traffic()
        for frame in several:
            assert packets.send(frame) == len(frame)
            sent = sent.plus(frames_traffic(frame, 1))
    return sent


TPACKET2_HEADER = struct.Struct("=IIIHHIIHH4x")  # struct tpacket2_hdr
TP_STATUS_SEND_REQUEST, TP_STATUS_WRONG_FORMAT = 1, 4
TPACKET2_DATA = 32  # where the kernel looks for the frame: TPACKET2_HDRLEN less struct sockaddr_ll


def tx_ring_frames(port: Port, frame: bytes, times: int, *, slot: int = 2048, slots: int = 256) -> Traffic:
    """`times` times one frame through a PACKET_TX_RING: only the Ethernet header is linear, the rest lies in pages.

    Truth: the kernel gives each slot back as available when the skb is freed, and marks what it could not send
    as wrong format, which raises here.
    """
    with new_socket(port, socket.AF_PACKET, socket.SOCK_RAW) as packets:
        packets.setsockopt(SOL_PACKET, PACKET_VERSION, 1)  # TPACKET_V2
        block = max(slot, mmap.PAGESIZE)
        packets.setsockopt(SOL_PACKET, PACKET_TX_RING, struct.pack("=IIII", block, slots * slot // block, slot, slots))
        packets.bind((port.device, 0))
        with mmap.mmap(packets.fileno(), slots * slot, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as ring:
            for start in range(0, times, slots):
                _send_ring(packets, ring, frame, slot, min(slots, times - start), slots)
    return frames_traffic(frame, times)


def _send_ring(packets: socket.socket, ring: mmap.mmap, frame: bytes, slot: int, filled: int, slots: int) -> None:
    """Fill the ring's first slots, send them and wait until the kernel is done; only the last round may fill fewer."""
    places = [number * slot for number in range(filled)]
    for at in places:
        ring[at + TPACKET2_DATA : at + TPACKET2_DATA + len(frame)] = frame
        ring[at : at + 8] = struct.pack("=II", TP_STATUS_SEND_REQUEST, len(frame))
    assert packets.send(b"") == filled * len(frame)
    states = {struct.unpack_from("=I", ring, at)[0] for at in places}
    assert not any(state & TP_STATUS_WRONG_FORMAT for state in states), "the kernel refused a frame of the ring"
    wait_until(lambda: not any(struct.unpack_from("=I", ring, at)[0] for at in places), "the ring is empty")


# Super-packets from guests and AF_PACKET ------------------------------------------------------------------------------

VIRTIO_NET_HEADER = struct.Struct("=BBHHHH")  # struct virtio_net_hdr, in the machine's byte order
NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4 = 0, 1, 4, 5


class SuperPacket(NamedTuple):
    """A TCP super-packet as a guest hands it over: virtio_net_hdr and frame; and what it is on the wire."""

    header: bytes
    frame: bytes
    wire: Traffic


def super_packet(
    src: Port,
    dst: Port,
    family: int,
    payload: int,
    gso_size: int,
    *,
    sport: int = 7000,
    tags: tuple[tuple[int, int], ...] = (),
    behind: tuple[int, bytes] | None = None,
) -> SuperPacket:
    """`payload` bytes of TCP to be cut into segments of `gso_size`.

    Truth: ceil(payload / gso_size) segments, each with its own copy of all headers (virtio 1.2, 5.1.6.2). The header
    has no field for the number of segments, so the kernel's gso_segs is 0 until it cuts. behind: an ethertype, and what
    comes before the IP packet then, such as an MPLS label.
    """
    packet = frames.tcp(src.address(family), sport, dst.address(family), 7001, bytes(payload), partial=True)
    kind, shim = behind or (frames.ethertype(packet), b"")
    frame = frames.ethernet(frames.STRANGER, src.mac, kind, shim + packet, tags)
    return SuperPacket(*_with_header(frame, family, payload, gso_size))


def _with_header(frame: bytes, family: int, payload: int, gso_size: int) -> tuple[bytes, bytes, Traffic]:
    head = len(frame) - payload
    kind = GSO_NONE if payload <= gso_size else GSO_TCPV4 if family == 4 else GSO_TCPV6
    header = VIRTIO_NET_HEADER.pack(NEEDS_CSUM, kind, head, gso_size if kind else 0, head - TCP_HEADER, 16)
    segments = max(1, -(-payload // gso_size))
    key, count = decode(frame), Count(segments, payload + segments * head)
    return header, frame, Traffic({key: count}) if isinstance(key, Flow) else Traffic({}, {key: count})


def vnet_frames(port: Port, big: SuperPacket, times: int) -> Traffic:
    """`times` times a super-packet through AF_PACKET with PACKET_VNET_HDR. Truth: super_packet's."""
    with new_socket(port, socket.AF_PACKET, socket.SOCK_RAW) as packets:
        packets.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        packets.bind((port.device, 0))
        for _ in range(times):
            assert packets.send(big.header + big.frame) == len(big.header) + len(big.frame)
    return times_traffic(big.wire, times)


def times_traffic(traffic: Traffic, times: int) -> Traffic:
    """The same traffic `times` times."""
    return Traffic(
        {flow: Count(tally.packets * times, tally.bytes * times) for flow, tally in traffic.flows.items()},
        {kind: Count(tally.packets * times, tally.bytes * times) for kind, tally in traffic.ethertypes.items()},
    )


TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0  # linux/if_tun.h
IFF_TUN, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 1, 2, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4


@contextmanager
def guest(port: Port, *, mode: Literal["tun", "tap"] = "tap", vnet_header: bool = True) -> Iterator[int]:
    """The other side of a tun or tap device, as a descriptor: what is written there the host receives, and back."""
    flags = IFF_NO_PI | (IFF_TAP if mode == "tap" else IFF_TUN) | (IFF_VNET_HDR if vnet_header else 0)
    with port.host.entered():  # a tun file belongs to the namespace where it was opened
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        with port.host.entered():
            fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", port.device.encode(), flags))
        if vnet_header:
            fcntl.ioctl(descriptor, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
        wait_up(port)
        yield descriptor
    finally:
        os.close(descriptor)


def guest_super_packets(descriptor: int, big: SuperPacket, times: int) -> Traffic:
    """`times` times a super-packet from a guest into its tap. Truth: super_packet's; a write is all or nothing."""
    for _ in range(times):
        assert os.write(descriptor, big.header + big.frame) == len(big.header) + len(big.frame)
    return times_traffic(big.wire, times)


def guest_packets(descriptor: int, packet: bytes, times: int) -> None:
    """`times` times these bytes into a tun or tap without vnet header; the host receives each once."""
    for _ in range(times):
        assert os.write(descriptor, packet) == len(packet)


# UDP -----------------------------------------------------------------------------------------------------------------


def udp_flow(src: Port, sport: int, dst: str, dport: int) -> Flow:
    """The key of UDP from a port to an address."""
    family = 6 if ":" in dst else 4
    return Flow(family, UDP, src.address(family), sport, dst, dport)


def udp_packets(
    src: Port, dst: str, times: int, size: int = 18, *, sport: int = 5000, dport: int = 5001, hear_own: bool = False
) -> Traffic:
    """`times` datagrams of `size` bytes that fit the MTU, to a port, a group or (IPv4) the broadcast address.

    Truth: a blocking send that succeeds is one frame; a device without a queue (veth) drops none of its own.
    hear_own: the sending host gets a copy of what goes to a group that it is in, as is the default of IP.
    """
    flow = udp_flow(src, sport, dst, dport)
    with new_socket(src, FAMILIES[flow.family], socket.SOCK_DGRAM) as datagrams:
        bind_to(datagrams, src, flow, hear_own=hear_own)
        data = bytes(size)
        for _ in range(times):
            assert datagrams.send(data) == size
    return flow_traffic(flow, times, times * (ETHER + IP_HEADERS[flow.family] + UDP_HEADER + size))


def bind_to(datagrams: socket.socket, src: Port, flow: Flow, *, hear_own: bool = False) -> None:
    """Fix both ends. Group and broadcast packets leave by the port's device."""
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, src.device.encode())
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if flow.family == 4:
        datagrams.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, hear_own)
    else:
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, hear_own)
    datagrams.bind((flow.src, flow.sport))
    datagrams.connect((flow.dst, flow.dport))


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class _Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Mmsghdr(ctypes.Structure):
    _fields_ = [("header", _Msghdr), ("len", ctypes.c_uint)]


def udp_sendmmsg(
    src: Port,
    dst: str,
    times: int,
    size: int = 18,
    *,
    sport: int = 5100,
    dport: int = 5101,
    flows: int = 1,
    payload: bytes = b"",
    numbered: bool = False,
) -> Traffic:
    """`times` datagrams, up to 1,000 a system call (sendmmsg): small packets at full rate. Truth: the call's answers.

    flows: so many destination ports (IPv4 only), `dport` and those after it, in turn; a divisor of 1,000 and `times`.
    payload: what each holds, in place of `size` zeros. numbered: the first two bytes of each count up.
    """
    size = len(payload) or size
    flow = udp_flow(src, sport, dst, dport)
    batch = 1000
    assert times % flows == 0 == batch % flows, f"{flows} flows do not divide {times} packets evenly"
    data = [ctypes.create_string_buffer(payload, size) for _ in range(batch if numbered else 1)]
    pieces = [_Iovec(ctypes.addressof(each), size) for each in data]
    addresses = [_sockaddr_in(dst, dport + number) for number in range(flows)] if flows > 1 else []
    messages = (_Mmsghdr * batch)()
    for number, message in enumerate(messages):
        message.header.iov = ctypes.pointer(pieces[number % len(pieces)])
        message.header.iovlen = 1
        if addresses:
            message.header.name = ctypes.addressof(addresses[number % flows])
            message.header.namelen = 16
    with new_socket(src, FAMILIES[flow.family], socket.SOCK_DGRAM) as datagrams:
        bind_to(datagrams, src, flow)
        sent = 0
        while sent < times:
            for number, buffer in enumerate(data if numbered else (), sent):
                buffer.raw = (number & 0xFFFF).to_bytes(2, "big") + payload[2:]
            first = ctypes.byref(messages, sent % flows * ctypes.sizeof(_Mmsghdr))
            done = _libc.sendmmsg(datagrams.fileno(), first, min(batch - sent % flows, times - sent), 0)
            if done < 0:
                raise OSError(ctypes.get_errno(), f"sendmmsg: {os.strerror(ctypes.get_errno())}")
            sent += done
    each = times // flows
    length = ETHER + IP_HEADERS[flow.family] + UDP_HEADER + size
    return Traffic({flow._replace(dport=dport + number): Count(each, each * length) for number in range(flows)})


def _sockaddr_in(address: str, port: int) -> ctypes.Array[ctypes.c_char]:
    """struct sockaddr_in (ip(7))."""
    packed = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(address) + bytes(8)
    return ctypes.create_string_buffer(packed, 16)


def udp_gso(
    src: Port, dst: str, times: int, size: int, segment: int, *, sport: int = 5200, dport: int = 5201
) -> Traffic:
    """`times` sends of `size` bytes, cut by the kernel into datagrams of `segment` bytes (UDP_SEGMENT).

    Truth: ceil(size / segment) datagrams, each with its own headers (udp(7)).
    """
    flow = udp_flow(src, sport, dst, dport)
    with new_socket(src, FAMILIES[flow.family], socket.SOCK_DGRAM) as datagrams:
        bind_to(datagrams, src, flow)
        datagrams.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, segment)
        data = bytes(size)
        for _ in range(times):
            assert datagrams.send(data) == size
    packets = times * -(-size // segment)
    return flow_traffic(flow, packets, times * size + packets * (ETHER + IP_HEADERS[flow.family] + UDP_HEADER))


def udp_fragments(
    src: Port, dst: str, times: int, size: int, mtu: int = 1500, *, sport: int = 5300, dport: int = 5301
) -> Traffic:
    """`times` datagrams of `size` bytes, longer than the MTU: IP fragments.

    Truth (RFC 791, section 3.2; RFC 8200, section 4.5): each fragment but the last carries the largest multiple of
    8 bytes that fits; in IPv6 each has a fragment header of 8 bytes. Only the first has ports.
    """
    flow = udp_flow(src, sport, dst, dport)
    with new_socket(src, FAMILIES[flow.family], socket.SOCK_DGRAM) as datagrams:
        bind_to(datagrams, src, flow)
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        data = bytes(size)
        for _ in range(times):
            assert datagrams.send(data) == size
    overhead = IPV4 if flow.family == 4 else IPV6 + 8
    room = (mtu - overhead) & ~7
    carried = size + UDP_HEADER
    pieces = -(-carried // room)
    first = Count(times, times * (ETHER + overhead + room))
    rest = Count(times * (pieces - 1), times * (carried - room + (pieces - 1) * (ETHER + overhead)))
    return Traffic({flow: first, flow._replace(sport=0, dport=0): rest})


# TCP -----------------------------------------------------------------------------------------------------------------

TCP_INFO = 11  # linux/tcp.h, also the offsets in struct tcp_info below
TCP_CLOSED = 7
SEGS_OUT_AT, BYTES_SENT_AT = 136, 200
WINDOW = 256 << 10  # bytes under way at most: fewer packets than the ring of a veth with NAPI has places for
Method = Literal["send", "sendfile", "splice"]


def tcp_bulk(
    client: Port, server: Port, size: int, *, family: int = 4, port: int = 6000, method: Method = "send"
) -> Conversation:
    """`size` bytes over one TCP connection, opened and closed in good order.

    Truth, from the kernel's own count of what TCP sent (TCP_INFO): segments (tcpi_segs_out, super-packets by their
    segments, repeats too) × headers + payload (tcpi_bytes_sent). Headers are constant here: timestamps on every
    segment, SACK off in our namespaces, so that only SYN and SYN-ACK are longer. The SYN-ACK is sent before the
    server's socket exists, so it is added.
    """
    with new_socket(server, FAMILIES[family], socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW // 2)  # the kernel doubles it
        listener.bind((server.address(family), port))
        listener.listen(1)
        with new_socket(client, FAMILIES[family], socket.SOCK_STREAM) as near:
            near.connect((server.address(family), port))
            far = listener.accept()[0]
            with far:
                reader = threading.Thread(target=_drain_and_close, args=(far,))
                reader.start()
                SENDING[method](near, size)
                near.shutdown(socket.SHUT_WR)
                assert near.recv(1) == b""
                reader.join()
                for end in (near, far):
                    wait_until(functools.partial(_is_closed, end), "the connection is closed")
                flow = Flow(family, TCP, *near.getsockname()[:2], *far.getsockname()[:2])
                return Conversation(_tcp_sent(near, flow, 0), _tcp_sent(far, flow.reverse(), 1))


def _drain_and_close(end: socket.socket) -> None:
    room = bytearray(1 << 20)
    while end.recv_into(room):
        pass
    end.shutdown(socket.SHUT_WR)


def _is_closed(end: socket.socket) -> bool:
    return _tcp_info(end)[0] == TCP_CLOSED


def _tcp_info(end: socket.socket) -> bytes:
    return end.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 232)


def _tcp_sent(end: socket.socket, flow: Flow, syn_acks: int) -> Traffic:
    info = _tcp_info(end)
    segments = struct.unpack_from("=I", info, SEGS_OUT_AT)[0] + syn_acks
    payload = struct.unpack_from("=Q", info, BYTES_SENT_AT)[0]
    headers = ETHER + IP_HEADERS[flow.family] + TCP_HEADER
    longer_first = SYN_OPTION_BYTES - TCP_TIMESTAMP_BYTES
    return flow_traffic(flow, segments, segments * (headers + TCP_TIMESTAMP_BYTES) + longer_first + payload)


def _send_all(near: socket.socket, size: int) -> None:
    data = memoryview(bytes(min(size, 1 << 20)))
    for start in range(0, size, len(data)):
        near.sendall(data[: size - start])


def _sendfile(near: socket.socket, size: int) -> None:
    """From the page cache: the pages themselves go into the skb."""
    with open(os.memfd_create("payload"), "wb+") as file:
        file.truncate(size)
        left = size
        while left:
            left -= os.sendfile(near.fileno(), file.fileno(), size - left, left)


def _splice(near: socket.socket, size: int) -> None:
    """Through a pipe, page by page."""
    reading, writing = os.pipe()
    try:
        with open(os.memfd_create("payload"), "wb+") as file:
            file.truncate(size)
            left = size
            while left:
                moved = os.splice(file.fileno(), writing, min(left, 1 << 16))
                left -= moved
                while moved:
                    moved -= os.splice(reading, near.fileno(), moved)
    finally:
        os.close(reading)
        os.close(writing)


SENDING: dict[Method, Callable[[socket.socket, int], None]] = {
    "send": _send_all,
    "sendfile": _sendfile,
    "splice": _splice,
}


def on_every_cpu(send: Callable[[int], Traffic]) -> Traffic:
    """Run `send(cpu)` on all CPUs at once, each in a process bound to its own; returns all they sent."""
    jobs = [fork(_on_cpu, cpu, send) for cpu in sorted(os.sched_getaffinity(0))]
    try:
        parts: list[Traffic] = [job.result(60) for job in jobs]
        return functools.reduce(Traffic.plus, parts)
    finally:
        for job in jobs:
            job.kill()


def _on_cpu(cpu: int, send: Callable[[int], Traffic]) -> Traffic:
    os.sched_setaffinity(0, {cpu})
    return send(cpu)


# Receiving -----------------------------------------------------------------------------------------------------------


@contextmanager
def sinks(port: Port) -> Iterator[dict[int, socket.socket]]:
    """UDP sockets, by number, on all ports that senders here use, so that the host does not answer port unreachable.

    What they have no room for is dropped there, after the device, and changes no count.
    """
    with ExitStack() as stack:
        opened = {}
        for number in UDP_PORTS:
            datagrams = stack.enter_context(new_socket(port, socket.AF_INET6, socket.SOCK_DGRAM))
            datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            datagrams.bind(("::", number))
            opened[number] = datagrams
        yield opened
