"""Messages that names are read from: DNS of as many names as one likes, and a TLS handshake by a real library."""

from __future__ import annotations

import contextlib
import datetime
import ssl
import struct
import tempfile
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_OPT = bytes.fromhex("00002904d0000000000000")
_A, _CNAME, _AAAA = 1, 5, 28


def dns_query(number: int, names: int = 1 << 30) -> bytes:
    """The number-th query, for one of `names` names, with EDNS as resolvers send it."""
    return struct.pack("!HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 1) + _question(number % names) + _OPT


def dns_answer(number: int, names: int = 1 << 30) -> bytes:
    """Its answer: half AAAA, a quarter A behind a CNAME, some A, and one in eight that there is no such name."""
    asked = number % names
    question, kind = _question(asked), asked % 8
    address = struct.pack("!I", asked * 2654435761 & 0xFFFFFFFF)
    count, rcode, answers = 1, 0, b""
    if kind == 7:
        count, rcode = 0, 3
    elif asked % 2:
        answers = _record(0xC00C, _AAAA, address * 4)
    elif kind in (2, 4):
        edge = _labels(f"edge-{asked % 500}.cdn.example")
        count, answers = 2, _record(0xC00C, _CNAME, edge)
        answers += _record(0xC000 | 12 + len(question) + 12, _A, address)
    else:
        answers = _record(0xC00C, _A, address)
    header = struct.pack("!HHHHHH", number & 0xFFFF, 0x8180 | rcode, 1, count, 0, 1)
    return header + question + answers + _OPT


def _question(number: int) -> bytes:
    name = _labels(f"host-{number}.site-{number % 977}.example")
    return name + struct.pack("!HH", _AAAA if number % 2 else _A, 1)


def _labels(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def _record(pointer: int, rdtype: int, data: bytes) -> bytes:
    return struct.pack("!HHHIH", pointer, rdtype, 1, 300, len(data)) + data


def client_hello(name: str) -> bytes:
    """OpenSSL's ClientHello for a server."""
    client, _, sent = _client(name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


@lru_cache(1)
def tls_hellos(name: str = "site.example") -> tuple[bytes, bytes]:
    """OpenSSL's ClientHello and what its server answers at once: a ServerHello, and more that is encrypted."""
    hello = client_hello(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="wm-bench-") as folder:
        context.load_cert_chain(_certificate(Path(folder), name))
    received, answered = ssl.MemoryBIO(), ssl.MemoryBIO()
    received.write(hello)
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(received, answered, server_side=True).do_handshake()
    return hello, answered.read()


def _client(name: str) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    return context.wrap_bio(received, sent, server_hostname=name), received, sent


def _certificate(folder: Path, name: str) -> Path:
    """A file with a key and a certificate that it has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file
