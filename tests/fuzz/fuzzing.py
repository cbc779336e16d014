"""Building the fuzzers with sanitizers, making their seeds, and running them for a bounded time."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from wiremeter.captures.file import CaptureFile
from wiremeter.datapath.host import LINK_ETHERNET, HostEngine
from wiremeter.datapath.layout import TablePlan
from wiremeter.errors import InputError
from wiremeter.names.payloads import Payload

ROOT = Path(__file__).parents[2]
#: Captures of other projects, beside the repository where they are.
CAPTURES = ROOT.parent / "shared" / "captures"
#: And the folder of bpf/ whose sources each holds.
FUZZERS = {"frame": "host", "capture": "host", "names": "names", "tls": "names", "domains": "names"}
CLANGS = [f"clang-{version}" for version in range(19, 13, -1)] + ["clang"]  # as the Makefile looks for them
FLAGS = ["-g", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"]
SANITIZERS = "-fsanitize=address,undefined,fuzzer"

MAX_INPUT_BYTES = 4096
TIMEOUT_SECONDS = 10  # one input takes some 50 µs
MEMORY_MB = 1024  # of which the address sanitizer keeps 256 MB of freed memory back

# tests/fuzz/fuzz_frame.c: struct recipe, and the places in LINKS whose frames are not all Ethernet.
RECIPE = struct.Struct("<HBBB3s")
LINKS = {LINK_ETHERNET: 0, 0x0800: 2, 0x86DD: 3, 0x8100: 4, 0x88A8: 5}
#: tests/fuzz/fuzz_names.c: struct recipe.
MESSAGE = struct.Struct("<HBB")
#: tests/fuzz/fuzz_domains.c: struct head.
DOMAINS = struct.Struct("<BBBB")
#: tests/fuzz/fuzz_tls.c: struct packet.
PACKET = struct.Struct("<HB")
LINK_OTHER = 6  # WM_ETHERTYPE_LLC; at odd places a frame is Ethernet whatever stands there


def find_clang() -> str:
    """The newest clang, which must bring libFuzzer."""
    clang = next(filter(None, map(shutil.which, CLANGS)), None)
    if not clang:
        raise InputError(f"no clang found of {CLANGS}: run `make setup-test`")
    return clang


def build(name: str, folder: Path, *, bpf: Path = ROOT / "bpf") -> Path:
    """Compile one fuzzer with its sources of `bpf` into `folder`. Raises InputError with the compiler's words."""
    program = folder / f"fuzz_{name}"
    library = bpf / FUZZERS[name]
    sources = [ROOT / "tests" / "fuzz" / f"fuzz_{name}.c", *sorted(library.glob("*.c"))]
    command = [find_clang(), *FLAGS, SANITIZERS, f"-I{library}", *map(str, sources), "-o", str(program)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise InputError(f"fuzz_{name} does not compile; is libFuzzer there (`make setup-test`)?\n{made.stderr}")
    return program


def captures() -> list[Path]:
    """Capture files to take seeds from; none where there are none."""
    return sorted(file for file in CAPTURES.glob("*.pcap*") if file.suffix in (".pcap", ".pcapng"))


def make_seeds(name: str, folder: Path) -> Path:
    """Fill `folder` with seeds for a fuzzer: from captures, and from a few frames made here."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = {
        "frame": frame_seeds,
        "capture": capture_seeds,
        "names": names_seeds,
        "tls": tls_seeds,
        "domains": domains_seeds,
    }[name]
    for number, (origin, seed) in enumerate(seeds()):
        (folder / f"seed-{number:04}-{origin}").write_bytes(seed[:MAX_INPUT_BYTES])
    return folder


def frame_seeds() -> Iterator[tuple[str, bytes]]:
    """Inputs of a few frames each, every one of them whole."""
    for limit in range(4):  # of payload bytes, in the upper bits: fuzz_frame.c's LIMITS
        yield f"made-{limit}", bytes([limit << 6]) + b"".join(map(recipe, MADE_FRAMES))
    yield "made-many", bytes([0xC1]) + b"".join(recipe(frame, repeat=63, vary=29) for frame in MADE_FRAMES)
    for path in captures():
        seed = b"\xc0"
        for link, frame in first_frames(path, 30):
            one = recipe(frame, link=LINKS.get(link, LINK_OTHER))
            if len(seed) + len(one) > MAX_INPUT_BYTES:
                break
            seed += one
        yield path.name, seed


def first_frames(path: Path, most: int) -> Iterator[tuple[int, bytes]]:
    """The first frames of a capture, each with its link."""
    try:
        with CaptureFile(str(path)) as file:
            for frames in file.frames():
                for i in range(min(most, len(frames))):
                    at = int(frames.offsets[i])
                    data = bytes(memoryview(frames.data)[at : at + int(frames.captured[i])])
                    yield int(frames.links[i]), data
                return
    except InputError:
        return  # of a link type that is not read: there are some on purpose


def recipe(frame: bytes, *, link: int = 0, repeat: int = 0, vary: int = 255) -> bytes:
    """One frame as fuzz_frame.c takes it."""
    return RECIPE.pack(len(frame), link, repeat, vary, b"\0\0\0") + frame


def capture_seeds() -> Iterator[tuple[str, bytes]]:
    """Inputs of a byte of settings and a file, cut where it is too long."""
    for endian in "<>":
        for magic in (0xA1B2C3D4, 0xA1B23C4D):
            for link in (0, 1, 101, 108, 113, 228, 229, 276):
                header = struct.pack(f"{endian}IHHIIII", magic, 2, 4, 0, 0, 65535, link)
                records = b"".join(
                    struct.pack(f"{endian}IIII", i, i, len(frame), len(frame)) + frame
                    for i, frame in enumerate(MADE_FRAMES)
                )
                yield f"pcap-{link}", b"\x0d" + header + records
        yield "pcapng", b"\x0d" + pcapng(endian)
    for path in captures():
        yield path.name, b"\x07" + path.read_bytes()[: MAX_INPUT_BYTES - 1]


def domains_seeds() -> Iterator[tuple[str, bytes]]:
    """Names of all pairs of a client and an address, or of some, and flows between all of them."""
    pairs = [bytes((client, address, 7 * client + address)) for client in range(8) for address in range(8)]
    for step in (1, 2, 5):
        names = pairs[::step][:63]
        for own in range(4):
            for time in (0, 20, 200):
                yield f"made-{step}-{own}-{time}", DOMAINS.pack(len(names), own, own, time) + b"".join(names + pairs)


def names_seeds() -> Iterator[tuple[str, bytes]]:
    """Inputs of a byte of settings and DNS messages, each with how it came."""
    for ends in range(0, 256, 7):
        for how in (0, 2, 4, 5, 6):
            made = ((message, ends ^ (4 if message[2] & 0x80 else 0)) for message in MADE_MESSAGES)
            yield (
                f"made-{ends}-{how}",
                b"\x03" + b"".join(MESSAGE.pack(len(message), ends, how) + message for message, ends in made),
            )
    for number, (client, server) in enumerate(MADE_BEGINNINGS):
        for ends in (0x33, 0x53, 0x23):  # TCP on port 4000 of two clients, UDP
            both = ((client, ends), (server, ends ^ 4))
            yield (
                f"beginning-{number}-{ends}",
                b"\x03"
                + b"".join(
                    MESSAGE.pack(len(data), side, how | (0x40 if side & 4 else 0)) + data
                    for how in (4, 0x24)
                    for data, side in both
                ),
            )
        # An answer that ends early, and all that is there of it lies in memory of just that length.
        for bytes_there in (3, 5, 7):
            pieces = (client, server[:bytes_there])
            yield f"short-{number}-{bytes_there}", b"\x07" + b"".join(MESSAGE.pack(len(p), 0x33, 4) + p for p in pieces)
    yield "host", b"a" * 300
    yield (
        "comes-and-goes",
        bytes(range(12)) + bytes(range(0x80, 0x8C, 3)) + bytes(range(12, 40)) + bytes(range(0x80, 0xA0)),
    )
    hello = MADE_BEGINNINGS[0][0]
    many = [MESSAGE.pack(len(hello), ends, how) + hello for how in (4, 0x24, 4) for ends in range(0x10, 0x100, 0x13)]
    yield "many", b"\x03" + b"".join(many)
    for name, data, over_tcp in (("tcp", MADE_BEGINNINGS[1][0], 0x10), ("udp", MADE_BEGINNINGS[-1][1], 0)):
        each = [MESSAGE.pack(len(data), ends, 4) + data for ends in range(256) if ends & 0x10 == over_tcp]
        gone = [MESSAGE.pack(len(data), ends, 0x24) + data for ends in range(0, 256, 5) if ends & 0x10 == over_tcp]
        yield f"everyone-{name}", b"\x03" + b"".join(each[:60])
        yield f"some-gone-{name}", b"\x03" + b"".join(each[:30:3] + gone + each[:30:3])
    for path in captures():
        seed = b"\x3f"
        for payload in first_payloads(path, 60, "dns", 17):
            is_response = len(payload.data) > 2 and payload.data[2] & 0x80
            one = MESSAGE.pack(len(payload.data), 0x24 if is_response else 0x20, 2) + payload.data
            if len(seed) + len(one) > MAX_INPUT_BYTES:
                break
            seed += one
        if len(seed) > 1:
            yield path.name, seed


def tls_seeds() -> Iterator[tuple[str, bytes]]:
    """Inputs of a byte of settings and the packets of a connection, each with how it came."""
    for number, (client, server) in enumerate(MADE_HANDSHAKES):
        for size in (MAX_INPUT_BYTES, 40, 7):
            for settings in (0x00, 0x82, 0xFF):
                pieces = [(client[at : at + size], 1) for at in range(0, len(client), size)]
                pieces += [(server[at : at + size], 0) for at in range(0, len(server), size)]
                yield (
                    f"made-{number}-{size}-{settings:02x}",
                    bytes([settings]) + b"".join(PACKET.pack(len(data), side) + data for data, side in pieces),
                )
        gap = PACKET.pack(len(client) // 2, 1) + client[: len(client) // 2] + PACKET.pack(0, 3)
        yield f"gap-{number}", b"\x80" + gap + PACKET.pack(len(server), 0) + server
        yield f"message-{number}", client[9:]
    for path in captures():
        seed, first = b"\xff", None
        for payload in first_payloads(path, 60, "tls", 6):
            first = first or payload.flow
            if payload.flow in (first, first.reversed()):
                seed += PACKET.pack(len(payload.data), payload.flow == first) + payload.data
        if first:
            yield path.name, seed


def first_payloads(path: Path, most: int, source: str, protocol: int) -> list[Payload]:
    """The first payloads of a capture from one source, of one protocol."""
    found: list[Payload] = []
    engine = HostEngine(
        TablePlan(1 << 12, 1, 2), payload_limit=MAX_INPUT_BYTES, payload_sources=(source,), on_payloads=found.extend
    )
    slot = engine.attach("capture")
    try:
        with CaptureFile(str(path)) as file:
            for frames in file.frames():
                columns = (frames.offsets, frames.captured, frames.wire, frames.times_ns, frames.links)
                engine.count(slot, frames.data, *columns)
                if len(found) >= most:
                    break
    except InputError:
        pass  # of a link type that is not read: there are some on purpose
    return [payload for payload in found[:most] if payload.flow.protocol == protocol]


def pcapng(endian: str) -> bytes:
    """A section with an interface of each resolution, a frame in each kind of block, and one of no interest."""

    def block(kind: int, body: bytes) -> bytes:
        padded = body + bytes(-len(body) % 4)
        length = struct.pack(f"{endian}I", 12 + len(padded))
        return struct.pack(f"{endian}I", kind) + length + padded + length

    def packed(form: str, *values: int) -> bytes:
        return struct.pack(endian + form, *values)

    frame = MADE_FRAMES[0]
    file = block(0x0A0D0D0A, packed("IHHq", 0x1A2B3C4D, 1, 0, -1))
    for resolution in (6, 9, 3, 12, 0x80 | 20, 0x80 | 40):
        option = packed("HHB3x", 9, 1, resolution) + packed("HHq", 14, 8, -3600) + packed("HH", 0, 0)
        file += block(1, packed("HHI", 1, 0, 65535) + option)
    for interface in range(6):
        file += block(6, packed("IIIII", interface, 1, 2, len(frame), len(frame)) + frame)
    file += block(5, bytes(20)) + block(2, packed("HHIIII", 1, 0, 1, 2, len(frame), len(frame)) + frame)
    return file + block(3, packed("I", len(frame)) + frame)


def _made_frames() -> tuple[bytes, ...]:
    macs = bytes.fromhex("027700000002027700000001")
    ports, tcp = struct.pack("!HH", 40001, 443), bytes(8) + b"\x50\x12" + bytes(6)
    four = bytes.fromhex("450000280000400040060000c0000201c6336407")
    six = bytes.fromhex("60000000001c0040") + bytes(32)
    chain = bytes([43, 0, 1, 4, 0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0, 51, 0, 0, 0, 0, 0, 0, 7, 17, 4]) + bytes(22)
    return (
        macs + b"\x08\x00" + four + ports + tcp,
        macs + b"\x86\xdd" + six[:6] + b"\x11" + six[7:] + ports + bytes(20),
        macs + b"\x86\xdd" + six[:4] + b"\0\x40\0" + six[7:] + chain + ports + bytes(12),
        macs + b"\x88\xa8\0\x07\x81\x00\0\x4d\x08\x00" + four + ports + tcp,
        macs + b"\x08\x06" + bytes(28),
        macs + b"\x00\x26\x42\x42\x03" + bytes(35),
        four + ports + tcp,
    )


MADE_FRAMES = _made_frames()


def _made_messages() -> tuple[bytes, ...]:
    """A query and its response of each shape that is read in its own way."""
    head, question = struct.Struct("!HHHHHH"), b"\3www\7example\3com\0"

    def exchange(rdtype: int, *records: bytes) -> tuple[bytes, bytes]:
        asked = question + struct.pack("!HH", rdtype, 1)
        opt = b"\0" + struct.pack("!HHIH", 41, 1232, 1 << 24, 0)
        return (
            head.pack(7, 0x0100, 1, 0, 0, 1) + asked + opt,
            head.pack(7, 0x8180, 1, len(records), 0, 1) + asked + b"".join(records) + opt,
        )

    def record(rdtype: int, data: bytes, owner: bytes = b"\xc0\x0c") -> bytes:
        return owner + struct.pack("!HHIH", rdtype, 1, 300, len(data)) + data

    hints = b"\0\1\0" + struct.pack("!HH", 4, 4) + bytes(4) + struct.pack("!HH", 6, 16) + bytes(16)
    pointer = b"\x011\x010\x010\x0210\7in-addr\4arpa\0"
    return (
        *exchange(1, record(5, b"\3cdn\xc0\x10"), record(1, bytes(4), b"\3cdn\xc0\x10")),
        *exchange(28, record(28, bytes(16)), record(16, b"\3abc")),
        *exchange(5, record(5, (b"\x3f" + bytes(63)) * 4 + b"\0"), record(5, (b"\x3f" + bytes(63)) * 5 + b"\0")),
        *exchange(65, record(65, hints)),
        *exchange(12, record(12, b"\4host\5local\0", pointer), record(1, bytes(4), b"\4host\5local\0")),
        head.pack(7, 0x0100, 2, 0, 0, 0) + (question + b"\0\1\0\1") * 2,
        head.pack(7, 0x8182, 0, 0, 0, 0),
        exchange(1, record(1, bytes(4)))[1][:-12],  # its OPT record and the last byte of the address are missing
    )


MADE_MESSAGES = _made_messages()

#: What client and server say first, in protocols that are told apart by it.
MADE_BEGINNINGS = (
    (bytes.fromhex("16030100fc010000f80303") + bytes(40), bytes.fromhex("160303002a0200002603") + bytes(40)),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
    (
        b"POST http://u@h.example:80/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n"
        b"HEAD / HTTP/1.0\n\n",
        b"HTTP/1.1 100 x\r\n\r\nHTTP/1.1 200\r\nContent-Length: 3, 3\r\n\r\nabcHTTP/1.1 204 x\r\n\r\n",
    ),
    (bytes.fromhex("0000000b 0012 0003 00000007 0001 63"), bytes.fromhex("00000006 00000007 0000")),  # Kafka
    (
        b"G" * 36 + b" / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HTTP/1.1 200 x\r\n\r\n",
    ),
    (
        b"GET / HTTP/1.1\r\nHost: " + b"a" * 300 + b"\r\n\r\n",
        b"HTTP/1.1 200 x\r\n\r\n",
    ),
    (
        b"GET /up HTTP/1.1\r\nHost:\r\n a.example\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\n\r\n" + bytes(9),
    ),
    (
        b"CONNECT a.example:443 HTTP/1.1\r\n\r\n" + bytes.fromhex("16030100fc010000f80303") + bytes(40),
        b"HTTP/1.1 200 x\r\n\r\n" + bytes.fromhex("160303002a0200002603") + bytes(40),
    ),
    (b"\0\x1d\x12\x34\1\0\0\1\0\0\0\0\0\0\3www\7example\0\0\1\0\1" * 2, b"\0\x1d\x12\x34\x81\x83\0\1\0\0"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"SSH-2.0-x\r\n"),
    (b"PING\r\n", b"+PONG\r\n"),
    (b"PIN", b"220 FILEZ"),
    (b"a LOG", b"* OK"),
    (b"USE", b"220 ESMT"),
    (b"USER x\r\n", b"220 FTP ready\r\n"),
    (b"a LOGIN x y\r\n", b"* OK IMAP4rev1 ready\r\n"),
    (b"set key 0 0 1\r\n1\r\n", b"STORED\r\n"),
    (b"<?xml version='1.0'?> <stream:stream to='x'>", b"+OK <1@x>\r\n"),
    (bytes.fromhex("0300002a25e00000000000") + b"Cookie: mstshash=x\r\n" + bytes(8), b"\xff\xfd\x18\xff\xfa\1\xff\xf0"),
    (bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037", b"\x4a\0\0\0\x0a8.0.33\0" + bytes(67)),
    (struct.pack("<iiii", 64, 1, 0, 2013) + bytes(48), b"RFB 003.008\n"),
    (struct.pack("!iHHiH", 16, 18, 3, 7, 6) + b"client", struct.pack("!ii", 20, 7) + bytes(16)),
    (struct.pack("!II", 25, 196608) + b"user\0me\0database\0", bytes(range(128, 200))),
    (b"REGISTER sip:example.com SIP/2.0\r\n", b"OPTIONS rtsp://example.com/x RTSP/1.0\r\n"),
    (b"\x80\1" + bytes(6) + b"\0\0\0\4" + bytes(20), b"\x81\1" + bytes(30)),
    (b"\xc0\0\0\0\1\x08" + bytes(60), b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"),
    (bytes.fromhex("302602010104067075626c6963a019") + bytes(25), bytes.fromhex("000100002112a442") + bytes(12)),
)


def _made_handshakes() -> tuple[tuple[bytes, bytes], ...]:
    """What a client and a server say, of each shape that is read in its own way."""

    def vector(data: bytes, length: int = 2) -> bytes:
        return len(data).to_bytes(length, "big") + data

    def extension(number: int, data: bytes) -> bytes:
        return number.to_bytes(2, "big") + vector(data)

    def records(message: bytes, size: int = 1 << 14) -> bytes:
        return b"".join(b"\x16\3\1" + vector(message[at : at + size]) for at in range(0, len(message), size))

    def client(*extensions: bytes, ciphers: bytes = bytes.fromhex("0a0a1301c02f")) -> bytes:
        body = b"\3\3" + bytes(32) + b"\0" + vector(ciphers) + b"\1\0"
        return b"\1" + vector(body + vector(b"".join(extensions)), 3)

    def server(random: bytes, *extensions: bytes) -> bytes:
        body = b"\3\3" + random + b"\0\x13\1\0" + vector(b"".join(extensions))
        return b"\2" + vector(body, 3)

    retry = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
    alpn = extension(16, vector(b"\2h2\x08http/1.1"))
    offer = client(
        extension(0x0A0A, b""),
        extension(0, vector(b"\0" + vector(b"WWW.example.com."))),
        extension(13, vector(bytes.fromhex("0a0a04030804"))),
        alpn,
        extension(43, vector(bytes.fromhex("0a0a03040303"), 1)),
        extension(51, bytes(40)),
        extension(0xFE0D, bytes(20)),
    )
    chosen = server(bytes(32), extension(43, b"\3\4"), extension(16, vector(b"\2h2")))
    old = bytes.fromhex("802e0103010015000000100000390000380000350000160000ff0700c0010080") + b"\x42" * 16
    return (
        (records(offer), records(chosen)),
        (records(offer, 50), b"\x15\3\3\0\2\1\x70" + records(chosen, 9)),
        (records(offer), records(server(retry, extension(43, b"\3\4"))) + b"\x14\3\3\0\1\1" + records(chosen)),
        (old, records(server(bytes(32)))),
        (records(b"\0\0\0\0\x63\0\0\x05abcde" + offer), records(chosen + b"\x0b\0\1\0" + bytes(256))),
        (records(client(ciphers=b"\x13\1" * 1030)), records(chosen)),
        (records(client(*(extension(number, b"") for number in range(0x200, 0x290)))), b"HTTP/1.1 400\r\n"),
    )


MADE_HANDSHAKES = _made_handshakes()


def run(
    program: Path, corpus: Path, seeds: Path, seconds: float, *, watched: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a fuzzer for a time. New inputs go to `corpus`; one that fails, into the folder of `program`.

    watched: progress goes to the terminal, and each run differs; for a long one.
    """
    arguments = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={TIMEOUT_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={program.parent}/",
        "-print_final_stats=1",
        *([] if watched else ["-seed=7", "-verbosity=0"]),
    ]
    corpus.mkdir(parents=True, exist_ok=True)
    # A shell starts it: by getrusage(), which libFuzzer asks for its memory, a program has had the most of the process
    # that it was started from, and a worker that ran three thousand tests is beyond the limit before the first input.
    command = ["sh", "-c", '"$@" & wait $!', "sh", str(program), *arguments, str(corpus), str(seeds)]
    return subprocess.run(command, capture_output=not watched, text=True, errors="replace")
