"""What a proxy says before the connection that it passes on begins: the PROXY protocol, versions 1 and 2.

https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt
"""

from __future__ import annotations

import re

# Section 2.1: a line of at most 107 bytes, its end included.
_VERSION_1 = re.compile(rb"PROXY (?:TCP4|TCP6|UNKNOWN)[^\r\n]{0,92}\r\n")
# Section 2.2: signature, version and command, family and protocol, and the length of the rest.
_VERSION_2 = re.compile(rb"\r\n\r\n\0\r\nQUIT\n[\x20\x21].(..)", re.DOTALL)


def prelude_bytes(data: bytes) -> int:
    """How many of a stream's first bytes are a proxy's; 0 if it does not begin with any.

    >>> prelude_bytes(b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\\r\\nGET / HTTP/1.1\\r\\n"), prelude_bytes(b"GET / ")
    (42, 0)
    """
    if line := _VERSION_1.match(data):
        return line.end()
    if head := _VERSION_2.match(data):
        return head.end() + int.from_bytes(head[1])
    return 0
