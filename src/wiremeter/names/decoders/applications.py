"""Application protocols by evidence, in C (bpf/names/applications.h): what first bytes can only be."""

from __future__ import annotations

from typing import Any

from wiremeter.names.library import ffi, lib

_NAMES: tuple[str | None, ...] = (
    None,
    *(ffi.string(lib.wm_application_names[number]).decode() for number in range(1, lib.WM_APPLICATIONS)),
)


#: Their numbers: enum wm_application.
APPLICATIONS = {name: number for number, name in enumerate(_NAMES) if name}


def tcp_application(client_data: bytes, server_data: bytes, server_port: int) -> str | None:
    """The application protocol of a TCP connection, or None where its bytes prove none.

    client_data, server_data: the first bytes of each direction that were seen, or none of them.

    >>> tcp_application(b"", b"SSH-2.0-OpenSSH_9.2\\r\\n", 2222)
    'ssh'
    """
    found: int = lib.wm_tcp_application(_said(client_data), _said(server_data), server_port)
    return _NAMES[found]


def udp_application(payload: bytes, src_port: int, dst_port: int) -> str | None:
    """The application protocol of a UDP datagram, or None where its bytes prove none.

    >>> udp_application(b"\\x23" + bytes(47), 123, 123), udp_application(b"\\x23" + bytes(47), 4000, 5000)
    ('ntp', None)
    """
    found: int = lib.wm_udp_application(_said(payload), src_port, dst_port)
    return _NAMES[found]


def may_begin(data: bytes, src_port: int, dst_port: int) -> bool:
    """Whether a segment may be the beginning, or a part of it, of what one side says in any of them, whatever the other
    side says.

    >>> may_begin(b"SSH-2.0-OpenSSH_9.2\\r\\n", 22, 50000), may_begin(bytes(range(130, 170)), 50000, 9000)
    (True, False)
    """
    return bool(lib.wm_tcp_may_begin(_said(data), src_port, dst_port))


def prelude_bytes(data: bytes) -> int:
    """How many of a stream's first bytes are a proxy's; 0 if it does not begin with any (PROXY protocol, 1 and 2:
    https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt).

    >>> prelude_bytes(b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\\r\\nGET / HTTP/1.1\\r\\n"), prelude_bytes(b"GET / ")
    (42, 0)
    """
    return int(lib.wm_prelude_bytes(_said(data)))


def looks_like_tls(data: bytes) -> bool:
    """Whether the first bytes of a stream are those of a hello. Fewer than six are too few to tell.

    >>> looks_like_tls(bytes.fromhex("16030100fc010000f80303")), looks_like_tls(b"GET / HTTP/1.1")
    (True, False)
    """
    return bool(lib.wm_looks_like_tls(_said(data)))


def looks_like_http1(data: bytes) -> bool:
    """Whether a packet begins like the head of a request or response (RFC 9112, sections 3 and 4).

    >>> looks_like_http1(b"GET / HTTP/1.1\\r\\n"), looks_like_http1(b"HTTP/1.0 200"), looks_like_http1(b"GET me")
    (True, True, False)
    """
    return looks_like_request(data) or looks_like_response(data)


def looks_like_request(data: bytes) -> bool:
    """The same for a request; with an unknown method only if the whole request line is there."""
    return bool(lib.wm_looks_like_request(_said(data)))


def looks_like_response(data: bytes) -> bool:
    """The same for a response."""
    return bool(lib.wm_looks_like_response(_said(data)))


def looks_like_http2(data: bytes) -> bool:
    """Whether a packet begins like the preface of a client (RFC 9113, section 3.4).

    >>> looks_like_http2(b"PRI * HTTP/2.0\\r\\n\\r\\n"), looks_like_http2(b"PRIVMSG")
    (True, False)
    """
    return bool(lib.wm_looks_like_http2(_said(data)))


def _said(data: bytes) -> Any:
    # The buffer is kept by the tuple, for as long as the call takes.
    return (ffi.from_buffer("uint8_t[]", data), len(data))
