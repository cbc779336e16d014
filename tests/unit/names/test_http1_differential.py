"""Requests and responses without number, whole and damaged, read here, by h11 and by tshark: the same is said of each.

h11 is strict: all that it reads must be read the same here, up to where it gives up; where it reads all, no more may be
told. tshark is lenient, as this is, each in its own way: where h11 has no doubt, all three say the same.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h11

from wiremeter.names.block_reader import BlockReader
from wiremeter.names.columns import Told
from wiremeter.names.payloads import Payload, packed
from wiremeter.names.records import FlowKey, HttpTransaction
from wiremeter.names.transactions import HttpColumns

#: HTTP_MESSAGES=300000 for a long run.
MESSAGES = int(os.environ.get("HTTP_MESSAGES", "4000"))

SYN, ACK = 0x02, 0x10
#: Connections that are read, and whose frames tshark is given, at a time.
BATCH = 2000

METHODS = (b"GET", b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PROPFIND", b"REPORT", b"M-SEARCH", b"X!y")
#: By tshark.
KNOWN = METHODS[:-1]
HOSTS = (
    b"example.com",
    b"WWW.Example.NET:8080",
    b"a-b.c.example.",
    b"192.0.2.1",
    b"[2001:db8::1]:80",
    b"x_y",
    b"b\xc3\xbc",
)
TARGETS = (
    b"/",
    b"/a/b?c=d&e=%20",
    b"*",
    b"http://Other.example:81/x?y",
    b"https://o.example",
    b"/" + b"long" * 90,
    b"/~;,=()'",
)
FIELDS = (
    b"Accept: */*",
    b"User-Agent: x/1 (y; z)",
    b"Cookie: a=b; c=d",
    b"Connection: keep-alive",
    b"X-Empty:",
    b"X-Colon: a:b:c",
    b"hOsT2: no.example",
    b"Content-Type:text/plain",
)
STATUSES = (200, 200, 201, 204, 206, 301, 304, 400, 404, 500, 503, 599)
SIMPLE_HOST = re.compile(rb"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?(:[0-9]+)?")


class Dialogue(NamedTuple):
    """What both sides of a connection send, in segments of at most so many bytes. methods: of its requests, where these
    are not damaged."""

    client: bytes
    server: bytes
    methods: tuple[bytes, ...]
    segment: int

    def segments(self) -> Iterator[tuple[bool, int, bytes]]:
        """Whether from the client, at which place of its stream, and what."""
        for from_client, data in ((True, self.client), (False, self.server)):
            for at in range(0, len(data), self.segment):
                yield from_client, at, data[at : at + self.segment]


class Read(NamedTuple):
    """A request. host None: not compared."""

    method: str
    path: str
    host: str | None
    version: str


# --- what is sent


def head(chance: random.Random, first: bytes, fields: Sequence[bytes]) -> bytes:
    end = b"\r\n" if chance.random() < 0.9 else b"\n"
    chosen = list(fields) + chance.sample(FIELDS, chance.randrange(4))
    chance.shuffle(chosen)
    return end.join([first, *chosen, b"", b""])


def body(chance: random.Random) -> tuple[list[bytes], bytes]:
    """Fields that tell its length, and the body."""
    data = chance.choice(
        (b"", b"x", b"GET / HTTP/1.1\r\nHost: body.example\r\n\r\n", bytes(300), b"HTTP/1.1 200 OK\r\n\r\n")
    )
    kind = chance.randrange(4)
    if kind == 0 or not data:
        return [b"Content-Length: %d" % len(data)], data
    if kind == 1:
        return [b"Content-Length: %d" % len(data), b"content-length:%d" % len(data)], data
    chunks, at = b"", 0
    while at < len(data):
        size = chance.randrange(1, 200)
        part = data[at : at + size]
        chunks += b"%x%s\r\n%s\r\n" % (len(part), chance.choice((b"", b";a=b", b';a="b"')), part)
        at += size
    trailer = chance.choice((b"", b"X-Sum: 1\r\n"))
    return [
        chance.choice((b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"))
    ], chunks + b"0\r\n" + trailer + b"\r\n"


def some_request(chance: random.Random) -> tuple[bytes, bytes]:
    """Its method, and all of it."""
    method, target = chance.choice(METHODS), chance.choice(TARGETS)
    version = chance.choice((b"1.1", b"1.1", b"1.1", b"1.0"))
    fields, data = body(chance) if method in (b"POST", b"PUT", b"REPORT") else ([], b"")
    blanks = chance.choice((b" ", b" ", b"", b"\t ", b"  "))
    host = chance.choice((b"Host:", b"host:", b"HOST:")) + blanks + chance.choice(HOSTS)
    return method, head(chance, b"%s %s HTTP/%s" % (method, target, version), [host, *fields]) + data


def some_response(chance: random.Random, method: bytes) -> bytes:
    status = chance.choice(STATUSES)
    fields, data = body(chance)
    if status in (204, 304):
        fields, data = [], b""
    if method == b"HEAD":
        data = b""
    first = b"HTTP/1.%d %d%s" % (chance.choice((1, 1, 0)), status, chance.choice((b" OK", b" Not so at all", b" ")))
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" if chance.random() < 0.1 else b""
    return interim + head(chance, first, fields) + data


def damaged(chance: random.Random, data: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
        at, byte = (
            chance.randrange(len(made)),
            chance.choice((0, 9, 10, 13, 32, 44, 58, 65, 255, chance.randrange(256))),
        )
        match chance.randrange(3):
            case 0:
                made[at] = byte
            case 1:
                made.insert(at, byte)
            case _:
                del made[at]
    return bytes(made)


def some_dialogue(chance: random.Random) -> Dialogue:
    """Of one to three requests; what one side sends may be damaged."""
    requests = [some_request(chance) for _ in range(chance.randrange(1, 4))]
    client, methods = b"".join(data for _, data in requests), tuple(method for method, _ in requests)
    segment = chance.choice((4000, 4000, 700, 150, 37))
    if chance.random() < 0.5:
        return Dialogue(damaged(chance, client), b"", (), segment)
    return Dialogue(
        client, damaged(chance, b"".join(some_response(chance, method) for method in methods)), methods, segment
    )


# --- who reads it


def flow_of(number: int) -> FlowKey:
    client = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1 + number // 50_000])
    return FlowKey(client, 1024 + number % 50_000, bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 250]), 80, 6, 4)


def ours(dialogues: Sequence[Dialogue]) -> list[list[HttpTransaction]]:
    """What is told of each connection, in the order of its requests."""
    told: list[Told] = []
    reader = BlockReader(lambda raw: told.append(Told.of(raw)), connections=BATCH, redact=False)
    for number, dialogue in enumerate(dialogues):
        flow = flow_of(number)
        payloads = [
            Payload(
                1000 * (number + 1) + packet, flow if from_client else flow.reversed(), at, len(data), 0, ACK, 2, data
            )
            for packet, (from_client, at, data) in enumerate(dialogue.segments())
        ]
        assert not list(reader.read(packed(payloads)))
    reader.flush(1000 * (len(dialogues) + 2))
    found: list[list[HttpTransaction]] = [[] for _ in dialogues]
    for part in told:
        for one in HttpColumns(part.http, part.text, {}):
            flow = one.flow if one.flow.dst_port == 80 else one.flow.reversed()
            found[flow.src_port - 1024 + 50_000 * (flow.src_addr[15] - 1)].append(one)
    return found


def host_of(authority: bytes) -> str | None:
    if not SIMPLE_HOST.fullmatch(authority):
        return None
    return authority.partition(b":")[0].rstrip(b".").lower().decode()


def read_of(method: bytes, target: bytes, host: bytes, version: str) -> Read:
    """A request as it is told here, by what another has read of it."""
    absolute = re.fullmatch(rb"(?i:https?)://([^/?#]*)(.*)", target, re.DOTALL)
    if absolute:
        host, target = absolute[1], absolute[2] or b"/"
    return Read(method.decode(), target.decode("utf-8", "backslashreplace"), host_of(host), version)


class Theirs(NamedTuple):
    """What h11 reads. is_all: there is no more, and it had no doubt."""

    read: list[Read]
    statuses: list[int]
    is_all: bool


def h11_requests(data: bytes) -> Theirs:
    peer, read = h11.Connection(h11.SERVER), list[Read]()
    peer.receive_data(data)
    try:
        while True:
            event = peer.next_event()
            if isinstance(event, h11.Request):
                if not event.http_version.startswith(b"1."):
                    return Theirs(read, [], False)
                host = next((value for name, value in event.headers if name == b"host"), b"")
                read.append(read_of(event.method, event.target, host, event.http_version.decode()))
            elif isinstance(event, h11.EndOfMessage):
                peer.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                peer.send(h11.EndOfMessage())
                if peer.our_state is not h11.DONE or peer.their_state is not h11.DONE:
                    return Theirs(read, [], False)
                peer.start_next_cycle()
            elif event is h11.NEED_DATA:
                return Theirs(read, [], not peer.trailing_data[0] and peer.their_state is h11.IDLE)
            elif not isinstance(event, h11.Data):
                return Theirs(read, [], False)
    except h11.RemoteProtocolError:
        return Theirs(read, [], False)


def h11_statuses(dialogue: Dialogue) -> Theirs:
    peer, statuses = h11.Connection(h11.CLIENT), list[int]()
    peer.receive_data(dialogue.server)
    try:
        for method in dialogue.methods:
            peer.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
            peer.send(h11.EndOfMessage())
            event: object = None
            while not isinstance(event, h11.EndOfMessage):
                event = peer.next_event()
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    return Theirs([], statuses, False)
                if isinstance(event, h11.Response) and not event.http_version.startswith(b"1."):
                    return Theirs([], statuses, False)
                if isinstance(event, h11.Response):
                    statuses.append(event.status_code)
                elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                    return Theirs([], statuses, False)
            if peer.our_state is not h11.DONE or peer.their_state is not h11.DONE:
                return Theirs([], statuses, False)
            peer.start_next_cycle()
    except h11.RemoteProtocolError:
        return Theirs([], statuses, False)
    return Theirs([], statuses, not peer.trailing_data[0])


def as_read(told: HttpTransaction, like: Read) -> Read:
    """What was told here; the host only where it is compared."""
    return Read(told.method or "", told.path or "", None if like.host is None else told.host or "", told.version)


# --- tshark


FIELDS_OF_TSHARK = {
    "stream": "tcp.stream",
    "port": "tcp.srcport",
    "methods": "http.request.method",
    "targets": "http.request.uri",
    "versions": "http.request.version",
    "statuses": "http.response.code",
}


def write_capture(path: Path, dialogues: Sequence[Dialogue]) -> None:
    """Each as a connection of its own: tshark's stream of the same number. Each side in one segment, since tshark loses
    chunks that are cut within their sizes."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
        for number, dialogue in enumerate(dialogues):
            flow = flow_of(number)
            packets = [(True, 0, SYN, b""), (False, 0, SYN | ACK, b"")]
            packets += [(True, 1, ACK, dialogue.client), (False, 1, ACK, dialogue.server)]
            for from_client, seq, flags, data in packets:
                way = flow if from_client else flow.reversed()
                tcp = struct.pack(">HHIIBBHHH", way.src_port, way.dst_port, seq, 1, 0x50, flags, 64000, 0, 0)
                ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(data), 0, 0, 64, 6, 0)
                frame = ip + way.src_addr[12:] + way.dst_addr[12:] + tcp + data
                file.write(struct.pack("<IIII", number, 0, len(frame), len(frame)) + frame)


def tshark(capture: Path, connections: int) -> list[dict[str, list[str]]]:
    """What it finds in each connection, of each field all values: statuses of the server, all else of the client."""
    program = shutil.which("tshark")
    assert program, "no tshark here: run `make setup-test`"
    fields = [word for name in FIELDS_OF_TSHARK.values() for word in ("-e", name)]
    form = ["-T", "fields", "-E", "separator=/t", "-E", "aggregator=\x1f"]
    command = [program, "-n", "-r", str(capture), *form, *fields]
    found: list[dict[str, list[str]]] = [{name: [] for name in FIELDS_OF_TSHARK} for _ in range(connections)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout.split("\n")
    for line in lines[:-1]:
        values = dict(zip(FIELDS_OF_TSHARK, line.split("\t"), strict=True))
        of_client = ("methods", "targets", "versions")
        for name in of_client if values["port"] != "80" else ("statuses",):
            value = values[name]
            found[int(values["stream"])][name] += [each for each in value.split("\x1f") if each]
    return found


def is_comparable(data: bytes) -> bool:
    """Whether tshark means the same by it: it does not know chunked in capitals and quoted extensions,
    takes lengths that are said twice for others, ends a head at some lines that continue another, and shows other bytes
    than ASCII in its own way."""
    return (
        data.isascii()
        and b"Chunked" not in data
        and b'"' not in data
        and data.lower().count(b"content-length") < 2
        and not re.search(rb"[\r\n][ \t]", data)
    )


# --- the comparison


def batches(seed: int) -> Iterator[list[Dialogue]]:
    chance = random.Random(seed)
    for begin in range(0, MESSAGES, BATCH):
        yield [some_dialogue(chance) for _ in range(min(BATCH, MESSAGES - begin))]


def test_what_h11_reads_is_read_the_same() -> None:
    requests = responses = 0
    for dialogues in batches(seed=3):
        for dialogue, told in zip(dialogues, ours(dialogues), strict=True):
            theirs = h11_requests(dialogue.client)
            asked = [one for one in told if one.method is not None]
            like = zip(asked, theirs.read, strict=False)
            assert [as_read(one, other) for one, other in like] == theirs.read, dialogue
            assert len(asked) == len(theirs.read) or not theirs.is_all, dialogue
            requests += theirs.is_all
            if not dialogue.server:
                continue
            answered = h11_statuses(dialogue)
            assert [one.status for one in asked][: len(answered.statuses)] == answered.statuses, dialogue
            if answered.is_all:
                assert [one.status for one in told] == answered.statuses, dialogue
            responses += len(answered.statuses)
    assert requests > MESSAGES * 0.35
    assert responses > MESSAGES * 0.3


def test_what_tshark_reads_is_read_the_same(tmp_path: Path) -> None:
    requests = responses = 0
    for dialogues in batches(seed=4):
        write_capture(tmp_path / "http.pcap", dialogues)
        read_by_tshark = tshark(tmp_path / "http.pcap", len(dialogues))
        for dialogue, told, shark in zip(dialogues, ours(dialogues), read_by_tshark, strict=True):
            strict = h11_requests(dialogue.client)
            if not strict.is_all or not is_comparable(dialogue.client):
                continue
            if not all(one.method.encode() in KNOWN for one in strict.read):
                continue
            requests += 1
            said = zip(shark["methods"], shark["targets"], shark["versions"], strict=True)
            theirs = [read_of(a.encode(), b.encode(), b"", c.removeprefix("HTTP/")) for a, b, c in said]
            assert [as_read(one, strict.read[0]._replace(host=None)) for one in told if one.method is not None] == [
                one._replace(host=None) for one in theirs
            ], dialogue
            if not dialogue.server or b"HEAD" in dialogue.methods or not is_comparable(dialogue.server):
                continue
            answered = h11_statuses(dialogue)
            if answered.is_all:
                responses += 1
                final = [int(status) for status in shark["statuses"] if int(status) >= 200]
                assert [one.status for one in told] == final, dialogue
    assert requests > MESSAGES * 0.1
    assert responses > MESSAGES * 0.01
