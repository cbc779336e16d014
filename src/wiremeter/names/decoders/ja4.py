"""JA4 and JA4S: fingerprints of a TLS client and of its server's answer, from their hellos.

After FoxIO's technical descriptions (github.com/FoxIO-LLC/ja4, technical_details). JA4 is under BSD-3-Clause. JA4S is a
method under the FoxIO License 1.1, patent pending: free for one's own use, not to be sold without FoxIO's consent. So
nobody calls `ja4s` unless asked to: wiremeter itself is under MIT, and who sells it on must be able to.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Literal

from wiremeter.names.decoders.hellos import ClientHello, ServerHello
from wiremeter.names.decoders.tls_registry import is_grease

#: TLS over TCP, QUIC, or DTLS.
Transport = Literal["t", "q", "d"]

_VERSIONS = {
    0x0304: "13",
    0x0303: "12",
    0x0302: "11",
    0x0301: "10",
    0x0300: "s3",
    0x0002: "s2",
    0xFEFF: "d1",
    0xFEFD: "d2",
    0xFEFC: "d3",
}
_SERVER_NAME = 0
_TOLD = ("0000", "0010")  # server_name and application_layer_protocol_negotiation, as they are listed
_NOTHING = "0" * 12


def ja4(hello: ClientHello, transport: Transport) -> str:
    """The fingerprint of a client, such as `t13d1516h2_8daaf6152771_02713d6af862`.

    hello: must be complete; of a part the fingerprint would be another client's.
    """
    ciphers = _hex(hello.ciphers)
    extensions = _hex(hello.extensions)
    # Taken as numbers, so that a draft of TLS 1.3 is above TLS 1.3; it has no name in JA4.
    offered = [version for version in hello.supported_versions if not is_grease(version)]
    version = max(offered, key=_age_key, default=hello.legacy_version)
    name = "d" if _SERVER_NAME in hello.extensions else "i"
    protocol = _first_and_last(hello.alpn[0] if hello.alpn else b"")
    counts = f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}"

    # Without the two that are already told, so that one client is the same for any site and protocol.
    listed = ",".join(sorted(each for each in extensions if each not in _TOLD))
    algorithms = ",".join(_hex(hello.signature_algorithms))
    described = f"{listed}_{algorithms}" if listed and algorithms else listed
    return (
        f"{transport}{_VERSIONS.get(version, '00')}{name}{counts}{protocol}"
        f"_{_digest(','.join(sorted(ciphers)))}_{_digest(described)}"
    )


def ja4s(hello: ServerHello, transport: Transport) -> str:
    """The fingerprint of a server's answer, such as `t120400_c030_4e8089b08790`."""
    extensions = _hex(hello.extensions)
    protocol = _first_and_last(hello.alpn or b"")
    return (
        f"{transport}{_VERSIONS.get(hello.version, '00')}{min(len(extensions), 99):02}{protocol}"
        f"_{hello.cipher:04x}_{_digest(','.join(extensions))}"
    )


def _age_key(version: int) -> int:
    """Orders versions from old to new; those of DTLS count downwards."""
    return -version if version >> 8 == 0xFE else version


def _hex(numbers: Iterable[int]) -> list[str]:
    return [f"{number:04x}" for number in numbers if not is_grease(number)]


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12] if text else _NOTHING


def _first_and_last(protocol: bytes) -> str:
    """The first and last character of a protocol's name, or of its hexadecimal form if one is no letter and no digit.

    >>> _first_and_last(b"http/1.1"), _first_and_last(b"\\x30\\x31\\xab\\xcd"), _first_and_last(b"")
    ('h1', '3d', '00')
    """
    if not protocol:
        return "00"
    text = protocol.decode("latin-1") if protocol[:1].isalnum() and protocol[-1:].isalnum() else protocol.hex()
    return text[0] + text[-1]
