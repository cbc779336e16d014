"""Application protocols by evidence: what the first bytes of a connection or a datagram can only be.

Ports decide only between what the bytes leave open, and never alone. What fits nothing is nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from wiremeter.names.decoders import http1, http2, tls


class _Tcp(NamedTuple):
    """The beginnings of both directions of a connection, either may be empty, and their ports."""

    client: bytes
    server: bytes
    client_port: int
    server_port: int


class _Udp(NamedTuple):
    """A datagram's payload and ports."""

    data: bytes
    src_port: int
    dst_port: int

    def has_port(self, *ports: int) -> bool:
        return self.src_port in ports or self.dst_port in ports


def tcp_application(client_data: bytes, server_data: bytes, client_port: int, server_port: int) -> str | None:
    """The application protocol of a TCP connection, or None where its bytes prove none.

    client_data, server_data: the first bytes of each direction that were seen, or none of them.

    >>> tcp_application(b"", b"SSH-2.0-OpenSSH_9.2\\r\\n", 50000, 2222)
    'ssh'
    """
    tcp = _Tcp(client_data, server_data, client_port, server_port)
    for data in (client_data, server_data):
        if data:
            for name, is_it in _TCP_BY_FIRST_BYTE[data[0]]:
                if is_it(tcp):
                    return name
    return None


def udp_application(payload: bytes, src_port: int, dst_port: int) -> str | None:
    """The application protocol of a UDP datagram, or None where its bytes prove none.

    >>> udp_application(b"\\x23" + bytes(47), 123, 123), udp_application(b"\\x23" + bytes(47), 4000, 5000)
    ('ntp', None)
    """
    if not payload:
        return None
    udp = _Udp(payload, src_port, dst_port)
    return next((name for name, is_it in _UDP_BY_FIRST_BYTE[payload[0]] if is_it(udp)), None)


def _number(data: bytes, at: int, length: int) -> int:
    """An unsigned number in network order; of bytes that aren't there, as if they were cut off."""
    return int.from_bytes(data[at : at + length], "big")


def _little(data: bytes, at: int, length: int) -> int:
    """The same with the lowest byte first."""
    return int.from_bytes(data[at : at + length], "little")


# --- TCP, client speaks first


def _is_tls(tcp: _Tcp) -> bool:
    """RFC 8446, section 5.1."""
    return tls.looks_like_tls(tcp.client) or tls.looks_like_tls(tcp.server)


def _is_http(tcp: _Tcp) -> bool:
    """RFC 9112, sections 3 and 4; RFC 9113, section 3.4."""
    return (
        http1.looks_like_request(tcp.client)
        or http2.looks_like_http2(tcp.client)
        or http1.looks_like_response(tcp.server)
    )


def _is_dns_over_tcp(tcp: _Tcp) -> bool:
    """RFC 1035, section 4.2.2: a length, then a message."""
    if tcp.server_port != 53:
        return False
    data = tcp.client if len(tcp.client) >= 14 else tcp.server
    return _number(data, 0, 2) >= 12 and _is_dns_header(data[2:])


def _is_dns_header(data: bytes) -> bool:
    """RFC 1035, section 4.1.1; operation codes as registered (RFC 6895, section 2.2).

    One question; a response may leave it out, and stateful operations (6; RFC 8490) have none.
    """
    if len(data) < 12:
        return False
    is_response, operation, questions = data[2] >> 7, data[2] >> 3 & 15, _number(data, 4, 2)
    may_have_none = is_response or operation == 6
    return operation in (0, 1, 2, 4, 5, 6) and (questions == 1 or (not questions and bool(may_have_none)))


_REDIS = re.compile(rb"\*[1-9]\d{0,6}\r\n\$\d{1,9}\r\n")
_REDIS_INLINE = re.compile(rb"(?:PING|AUTH [^\r\n]+|HELLO [23][^\r\n]*)\r\n", re.IGNORECASE)


def _is_redis(tcp: _Tcp) -> bool:
    """Redis serialization protocol specification: an array of bulk strings, or an inline command and its reply."""
    if _REDIS.match(tcp.client):
        return True
    return bool(_REDIS_INLINE.match(tcp.client)) and tcp.server.startswith((b"+PONG\r\n", b"+OK\r\n", b"-NOAUTH", b"%"))


_SIP = re.compile(rb"(?:SIP/2\.0 [1-6]\d\d |[A-Z]{3,12} (?:sips?|tel):[^\s]+ SIP/2\.0\r?\n)")


def _is_sip_message(data: bytes) -> bool:
    """RFC 3261, sections 7.1 and 7.2."""
    return bool(_SIP.match(data))


def _is_sip(tcp: _Tcp) -> bool:
    return _is_sip_message(tcp.client) or _is_sip_message(tcp.server)


_RTSP = re.compile(rb"(?:RTSP/[12]\.0 [1-5]\d\d |[A-Z_]{4,16} (?:rtspu?://[^\s]+|\*) RTSP/[12]\.0\r?\n)")


def _is_rtsp(tcp: _Tcp) -> bool:
    """RFC 2326, sections 6.1 and 7.1."""
    return bool(_RTSP.match(tcp.client) or _RTSP.match(tcp.server))


def _is_mqtt(tcp: _Tcp) -> bool:
    """MQTT 3.1.1 and 5.0, section 3.1: CONNECT, its remaining length, protocol name and level; "MQIsdp" is 3.1."""
    if not tcp.client.startswith(b"\x10"):
        return False
    at = 1
    while at < 5 and tcp.client[at : at + 1] >= b"\x80":
        at += 1
    name = tcp.client[at + 1 : at + 10]
    return name[:7] in (b"\0\4MQTT\4", b"\0\4MQTT\5") or name == b"\0\6MQIsdp\3"


def _is_bittorrent(tcp: _Tcp) -> bool:
    """BEP 3: the handshake."""
    return tcp.client.startswith(b"\x13BitTorrent protocol") or tcp.server.startswith(b"\x13BitTorrent protocol")


_POSTGRESQL_REQUESTS = {80877103: 8, 80877104: 8, 80877102: 16}  # SSL, GSSAPI encryption, cancel


def _is_postgresql(tcp: _Tcp) -> bool:
    """PostgreSQL frontend/backend protocol, section "Message Formats": StartupMessage 3.x and its three siblings."""
    length, code = _number(tcp.client, 0, 4), _number(tcp.client, 4, 4)
    if code in _POSTGRESQL_REQUESTS:
        return length == _POSTGRESQL_REQUESTS[code]
    return code >> 16 == 3 and code & 0xFFFF <= 2 and 8 < length <= 10000 and b"user\0" in tcp.client[8:]


_RDP_COOKIE = (b"Cookie: mstshash=", b"Cookie: msts=")


def _is_rdp(tcp: _Tcp) -> bool:
    """[MS-RDPBCGR], sections 2.2.1.1 and 2.2.1.2: X.224 connection request or confirm in a TPKT, with RDP inside."""
    return _is_x224(tcp.client, 0xE0, (1,)) or _is_x224(tcp.server, 0xD0, (2, 3))


def _is_x224(data: bytes, code: int, negotiations: tuple[int, ...]) -> bool:
    length = _number(data, 2, 2)
    if data[:2] != b"\3\0" or len(data) < 11 or data[4] != length - 5 or data[5] != code:
        return False
    end = data[11:length][-8:]
    return data[11:].startswith(_RDP_COOKIE) or (len(end) == 8 and end[0] in negotiations and end[2:4] == b"\x08\0")


def _is_ldap(tcp: _Tcp) -> bool:
    """RFC 4511, section 4.1.1: a message of one of the operations that begin a session (4.2, 4.5, 4.12)."""
    message = _ber_content(tcp.client, 0x30)
    if message is None or message[:1] != b"\2" or not 1 <= _number(message, 1, 1) <= 4:
        return False
    operation = message[2 + message[1] :]
    match operation[:1]:
        case b"\x60":
            content = _ber_content(operation, 0x60)
            return content is not None and content[:2] == b"\2\1" and content[2:3] in (b"\2", b"\3")
        case b"\x77":
            content = _ber_content(operation, 0x77)
            return content is not None and content[:1] == b"\x80" and content[2:].startswith(b"1.")
        case b"\x63":
            return tcp.server_port in (389, 3268) and _ber_content(operation, 0x63) is not None
    return False


def _ber_content(data: bytes, tag: int) -> bytes | None:
    """What is there of the content of the first element, if it has that tag (X.690, section 8.1.3)."""
    if len(data) < 2 or data[0] != tag:
        return None
    if data[1] < 0x80:
        return data[2 : 2 + data[1]]
    size = data[1] & 0x7F
    if not 1 <= size <= 4 or len(data) < 2 + size:
        return None
    return data[2 + size : 2 + size + _number(data, 2, size)]


def _is_smb(tcp: _Tcp) -> bool:
    """[MS-SMB2], section 2.1, and [MS-CIFS], section 2.2.3.1: a message behind its length."""
    for data in (tcp.client, tcp.server):
        if data[:1] == b"\0" and data[4:8] in (b"\xffSMB", b"\xfeSMB", b"\xfdSMB", b"\xfcSMB"):
            return True
    return False


_AMQP = re.compile(rb"AMQP(?:\x00\x00\x09\x01|\x01\x01(?:\x08\x00|\x00[\x09\x0a])|[\x00\x02\x03]\x01\x00\x00)")


def _is_amqp(tcp: _Tcp) -> bool:
    """AMQP 0-9-1, section 4.2.2 (0-8 and 0-9 differed), and 1.0, sections 2.2 and 5: the protocol header."""
    return bool(_AMQP.match(tcp.client))


_MONGODB_REQUESTS = (2004, 2012, 2013)  # OP_QUERY, OP_COMPRESSED, OP_MSG


def _is_mongodb(tcp: _Tcp) -> bool:
    """MongoDB wire protocol, section "Standard Message Header"; no message has more than 48,000,000 bytes."""
    data = tcp.client
    if len(data) < 26 or _little(data, 8, 4) or _little(data, 12, 4) not in _MONGODB_REQUESTS:
        return False
    length = _little(data, 0, 4)
    return 26 <= length <= 48_000_000 and (length >= len(data) or _little(data, length + 12, 4) in _MONGODB_REQUESTS)


def _is_kafka(tcp: _Tcp) -> bool:
    """Kafka protocol guide, "Protocol": ApiVersions (18) or Metadata (3) first, answered with its correlation id."""
    client, server = tcp.client, tcp.server
    if len(client) < 14 or len(server) < 8:
        return False
    key, version, name = _number(client, 4, 2), _number(client, 6, 2), client[14 : 14 + _number(client, 12, 2)]
    return (
        key in (3, 18)
        and version <= 20
        and 10 <= _number(client, 0, 4) <= 1 << 16
        and 4 <= _number(server, 0, 4) <= 1 << 24
        and client[8:12] == server[4:8]
        and name.isascii()
        and (not name or name.decode("ascii").isprintable())
    )


_MEMCACHED = re.compile(
    rb"(?:(?:get|gets|delete|incr|decr|touch|mg|md) [!-~]{1,250}[ !-~]*|(?:set|add|replace|append|prepend|cas|ms) "
    rb"[!-~]{1,250} [ !-~]+|stats[ a-z]*|version|flush_all[ 0-9]*)\r\n"
)
_MEMCACHED_REPLY = re.compile(
    rb"(?:VALUE [!-~]{1,250} \d+ \d+|END|(?:NOT_)?STORED|EXISTS|NOT_FOUND|DELETED|TOUCHED|STAT [!-~]+ |VERSION \d|OK\r"
    rb"|HD\b|EN\r\n|\d+\r\n)"
)


def _is_memcached(tcp: _Tcp) -> bool:
    """memcached, doc/protocol.txt: a command and its reply; doc/protocol-binary: the magic numbers of both."""
    if tcp.client[:1] == b"\x80" and tcp.server[:1] == b"\x81":
        return len(tcp.server) >= 24 and tcp.client[1] == tcp.server[1] and tcp.client[12:16] == tcp.server[12:16]
    return bool(_MEMCACHED.match(tcp.client) and _MEMCACHED_REPLY.match(tcp.server))


_XMPP = re.compile(rb"(?:<\?xml [^>]{1,100}\?>\s*)?<stream:stream\s")


def _is_xmpp(tcp: _Tcp) -> bool:
    """RFC 6120, section 4.2."""
    return bool(_XMPP.match(tcp.client))


# --- TCP, server may speak first


def _is_ssh(tcp: _Tcp) -> bool:
    """RFC 4253, section 4.2; either side may be first."""
    return any(data.startswith((b"SSH-2.0-", b"SSH-1.")) for data in (tcp.client, tcp.server))


_SMTP_COMMAND = re.compile(rb"(?:EHLO|HELO|LHLO) [^\r\n]+\r?\n", re.IGNORECASE)
_FTP_COMMAND = re.compile(
    rb"(?:USER [^\r\n]+|AUTH (?:TLS|SSL|GSSAPI)[^\r\n]*|FEAT|SYST|OPTS UTF8[^\r\n]*)\r?\n", re.IGNORECASE
)
_SMTP_WORD = re.compile(rb"\bE?SMTP\b", re.IGNORECASE)
_FTP_WORD = re.compile(rb"\bFTP\b|FTPd\b|FileZilla", re.IGNORECASE)
_READY = re.compile(rb"220[ -]")


def _is_smtp(tcp: _Tcp) -> bool:
    """RFC 5321, sections 3.1 and 4.2: "220" and a greeting, which FTP has as well."""
    if tcp.server and not _READY.match(tcp.server):
        return False
    if tcp.client:
        return bool(_SMTP_COMMAND.match(tcp.client))
    words = _SMTP_WORD.search(tcp.server), _FTP_WORD.search(tcp.server)
    return bool(words[0]) if any(words) else tcp.server_port in (25, 587, 2525) and b"\n" in tcp.server


def _is_ftp(tcp: _Tcp) -> bool:
    """RFC 959, section 5.4; AUTH: RFC 4217. POP3 has USER too, but another greeting."""
    if not _READY.match(tcp.server):
        return False
    if tcp.client:
        return bool(_FTP_COMMAND.match(tcp.client))
    words = _FTP_WORD.search(tcp.server), _SMTP_WORD.search(tcp.server)
    return bool(words[0]) if any(words) else tcp.server_port == 21 and b"\n" in tcp.server


_POP3_COMMAND = re.compile(rb"(?:USER [^\r\n]+|CAPA|APOP [^\r\n]+|AUTH[^\r\n]*|STLS)\r?\n", re.IGNORECASE)
_POP3_WORD = re.compile(rb"\bPOP3?\b|<[^<>\s]+@[^<>\s]+>", re.IGNORECASE)


def _is_pop3(tcp: _Tcp) -> bool:
    """RFC 1939, section 4; the time stamp of APOP in section 7."""
    if not tcp.server.startswith(b"+OK"):
        return False
    if tcp.client:
        return bool(_POP3_COMMAND.match(tcp.client))
    return bool(_POP3_WORD.search(tcp.server)) or (tcp.server_port == 110 and b"\n" in tcp.server)


_IMAP_GREETING = re.compile(rb"\* (?:OK|PREAUTH|BYE)[ \r]")
_IMAP_COMMAND = re.compile(
    rb"[A-Za-z0-9.]{1,20} (?:CAPABILITY|LOGIN |STARTTLS|AUTHENTICATE |ID |NOOP|ENABLE |LOGOUT)", re.IGNORECASE
)


def _is_imap(tcp: _Tcp) -> bool:
    """RFC 9051, sections 7.1 and 2.2.1."""
    if not _IMAP_GREETING.match(tcp.server):
        return False
    return b"IMAP" in tcp.server or bool(_IMAP_COMMAND.match(tcp.client)) or tcp.server_port == 143


def _is_mysql(tcp: _Tcp) -> bool:
    """MySQL client/server protocol, Protocol::HandshakeV10; instead of it, an error says who is not let in."""
    data = tcp.server
    length, content = _little(data, 0, 3), data[4:]
    if len(data) < 7 or data[3] or length + 4 < len(data):
        return False
    if content[0] == 0xFF:
        return tcp.server_port == 3306 and 1000 <= _little(content, 1, 2) < 5000
    end = content.find(b"\0", 1, 64)
    if content[0] != 10 or end < 2 or length < 40:
        return False
    version = content[1:end]
    # Behind the version: connection id, eight bytes of challenge, a zero.
    return version[:1].isdigit() and version.isascii() and content[end + 13 : end + 14] in (b"\0", b"")


_VNC = re.compile(rb"RFB \d{3}\.\d{3}\n")


def _is_vnc(tcp: _Tcp) -> bool:
    """RFC 6143, section 7.1.1."""
    return bool(_VNC.match(tcp.server))


_TELNET = re.compile(rb"\xff(?:[\xfb-\xfe][\x00-\x31]|\xfa[\x00-\x31][^\xff]{0,80}\xff\xf0)")


def _is_telnet(tcp: _Tcp) -> bool:
    """RFC 854, section "Command structure": two options negotiated at once, or one where telnet is expected."""
    for data in (tcp.server, tcp.client):
        first = _TELNET.match(data)
        if first and (tcp.server_port == 23 or _TELNET.match(data, first.end())):
            return True
    return False


def _is_stun_over_tcp(tcp: _Tcp) -> bool:
    return _is_stun_message(tcp.client) or _is_stun_message(tcp.server)


# --- UDP


def _is_stun_message(data: bytes) -> bool:
    """RFC 8489, section 5: two zero bits, a length of whole words, the magic cookie."""
    return len(data) >= 20 and data[0] < 0x40 and data[4:8] == b"\x21\x12\xa4\x42" and not data[3] & 3


def _is_stun(udp: _Udp) -> bool:
    return _is_stun_message(udp.data) and _number(udp.data, 2, 2) + 20 >= len(udp.data)


def _is_dns(udp: _Udp) -> bool:
    """RFC 1035, section 4.1.1."""
    return udp.has_port(53) and _is_dns_header(udp.data)


def _is_mdns(udp: _Udp) -> bool:
    """RFC 6762, section 18: a DNS message with an operation code and a response code of zero."""
    return udp.has_port(5353) and len(udp.data) >= 12 and not udp.data[2] & 0x78 and not udp.data[3] & 0x0F


def _is_llmnr(udp: _Udp) -> bool:
    """RFC 4795, section 2.1.1."""
    return udp.has_port(5355) and len(udp.data) >= 12 and not udp.data[2] & 0x78 and _number(udp.data, 4, 2) == 1


_QUIC_VERSIONS = (1, 0x6B3343CF)
_QUIC_DRAFTS = 0xFF000000


def _is_quic(udp: _Udp) -> bool:
    """RFC 8999, section 5.1: a long header of a version that is in use (RFC 9000, RFC 9369, drafts), both ids."""
    data = udp.data
    if len(data) < 7 or data[0] & 0xC0 != 0xC0:
        return False
    version = _number(data, 1, 4)
    if version not in _QUIC_VERSIONS and not (version & 0xFFFFFF00 == _QUIC_DRAFTS and 23 <= version & 0xFF <= 34):
        return False
    return data[5] <= 20 and len(data) > 6 + data[5] and data[6 + data[5]] <= 20


def _is_ntp(udp: _Udp) -> bool:
    """RFC 5905, section 7.3: version 1 to 4, modes of clients and servers, and 7.5: whole words behind the header.

    Control and private messages (modes 6 and 7: RFC 9327) are shorter.
    """
    data = udp.data
    if not udp.has_port(123) or not 1 <= data[0] >> 3 & 7 <= 4:
        return False
    mode = data[0] & 7
    return mode > 0 and not len(data) % 4 and len(data) >= (12 if mode in (6, 7) else 48)


def _is_dhcp(udp: _Udp) -> bool:
    """RFC 2131, section 2 and 3: operation, and the magic cookie before the options."""
    return len(udp.data) >= 240 and udp.data[0] in (1, 2) and udp.data[236:240] == b"\x63\x82\x53\x63"


def _is_dhcpv6(udp: _Udp) -> bool:
    """RFC 8415, sections 8, 9 and 21.1: a known type, and options that fill the message exactly."""
    data = udp.data
    if not udp.has_port(546, 547) or not 1 <= data[0] <= 36:
        return False
    at = 34 if data[0] in (12, 13) else 4
    while at + 4 <= len(data):
        at += 4 + _number(data, at + 2, 2)
    # The end of a long message may be missing here, within its last option.
    return at == len(data) or at > len(data) >= 1024


def _is_snmp(udp: _Udp) -> bool:
    """RFC 3416, section 3, in messages of RFC 1157, section 4 and RFC 3412, section 6."""
    message = _ber_content(udp.data, 0x30)
    if message is None or message[:2] != b"\2\1" or len(message) < 5:
        return False
    if message[2] == 3:
        return message[3] == 0x30 and message[5:6] == b"\2" and _ber_content(message[3:], 0x30) is not None
    community = _ber_content(message[3:], 0x04)
    return message[2] in (0, 1) and community is not None and 0xA0 <= _number(message, 5 + len(community), 1) <= 0xA8


def _is_sip_over_udp(udp: _Udp) -> bool:
    return _is_sip_message(udp.data)


def _is_ssdp(udp: _Udp) -> bool:
    """UPnP Device Architecture 2.0, section 1."""
    return udp.data.startswith((b"M-SEARCH * HTTP/1.1\r\n", b"NOTIFY * HTTP/1.1\r\n")) or (
        udp.src_port == 1900 and udp.data.startswith(b"HTTP/1.1 200 OK\r\n")
    )


_DHT = re.compile(rb"d1:(?:[ar]d2:id20:|el?i2|rd)|d2:ip(?:6|18):")


def _is_bittorrent_over_udp(udp: _Udp) -> bool:
    """BEP 5: a query, response or error of the DHT; BEP 15: a tracker's connection; BEP 29: the first packet of uTP."""
    data = udp.data
    if _DHT.match(data):
        return b"1:y1:" in data or len(data) >= 1024
    if data.startswith(b"\0\0\4\x17\x27\x10\x19\x80\0\0\0\0"):
        return len(data) == 16
    return _is_utp_syn(data)


def _is_utp_syn(data: bytes) -> bool:
    """BEP 29, "header format": ST_SYN of version 1, sequence number 1, nothing to acknowledge, no delay known."""
    if len(data) < 20 or data[0] != 0x41 or data[1] > 2:
        return False
    if _number(data, 8, 4) or _number(data, 16, 2) != 1 or _number(data, 18, 2) or not _number(data, 12, 4):
        return False
    at, kind = 20, data[1]
    while kind and at + 2 <= len(data):
        kind, at = data[at], at + 2 + data[at + 1]
    return not kind and at == len(data)


def _is_wireguard(udp: _Udp) -> bool:
    """WireGuard protocol, "Protocol": types and lengths of handshake messages; transport data only on its port."""
    data = udp.data
    if data[1:4] != b"\0\0\0":
        return False
    if (data[0], len(data)) in ((1, 148), (2, 92)):
        return True
    if not udp.has_port(51820):
        return False
    return (data[0], len(data)) == (3, 64) or (data[0] == 4 and len(data) >= 32)


def _is_dtls(udp: _Udp) -> bool:
    """RFC 9147, section 4 and RFC 6347, section 4.1: a handshake record of DTLS 1.0 or 1.2, not encrypted."""
    data = udp.data
    return len(data) >= 25 and data[:5] in (b"\x16\xfe\xff\0\0", b"\x16\xfe\xfd\0\0") and data[13] in (1, 2, 3)


# What a direction may begin with, to ask only the few predicates that can be true.
_ANY = bytes(range(256))
_CAPITALS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTERS = _CAPITALS + _CAPITALS.lower()

#: Application, first bytes (of either direction; one byte of each is enough), predicate. The first that fits is it.
_TCP_APPLICATIONS: tuple[tuple[str, bytes, Callable[[_Tcp], bool]], ...] = (
    ("tls", b"\x16" + _ANY[0x80:], _is_tls),
    ("http", b"!#$%&'*+-.^_`|~0123456789" + _LETTERS, _is_http),
    ("dns", _ANY, _is_dns_over_tcp),
    ("ssh", b"S", _is_ssh),
    ("postgresql", b"\0", _is_postgresql),
    ("mysql", _ANY, _is_mysql),
    ("redis", b"*" + _LETTERS, _is_redis),
    ("smtp", b"2EeHhLl", _is_smtp),
    ("ftp", b"2", _is_ftp),
    ("imap", b"*", _is_imap),
    ("pop3", b"+", _is_pop3),
    ("mqtt", b"\x10", _is_mqtt),
    ("amqp", b"A", _is_amqp),
    ("mongodb", _ANY, _is_mongodb),
    ("smb", b"\0", _is_smb),
    ("rdp", b"\3", _is_rdp),
    ("ldap", b"0", _is_ldap),
    ("sip", _CAPITALS, _is_sip),
    ("rtsp", _CAPITALS, _is_rtsp),
    ("bittorrent", b"\x13", _is_bittorrent),
    ("vnc", b"R", _is_vnc),
    ("xmpp", b"<", _is_xmpp),
    ("memcached", b"\x80" + _LETTERS, _is_memcached),
    ("kafka", b"\0", _is_kafka),
    ("stun", b"\0\1", _is_stun_over_tcp),
    ("telnet", b"\xff", _is_telnet),
)

_UDP_APPLICATIONS: tuple[tuple[str, bytes, Callable[[_Udp], bool]], ...] = (
    ("dns", _ANY, _is_dns),
    ("quic", _ANY[0xC0:], _is_quic),
    ("mdns", _ANY, _is_mdns),
    ("llmnr", _ANY, _is_llmnr),
    ("stun", b"\0\1", _is_stun),
    ("dtls", b"\x16", _is_dtls),
    ("ntp", _ANY, _is_ntp),
    ("dhcp", b"\1\2", _is_dhcp),
    ("dhcpv6", _ANY[1:37], _is_dhcpv6),
    ("snmp", b"0", _is_snmp),
    ("ssdp", b"MNH", _is_ssdp),
    ("sip", _CAPITALS, _is_sip_over_udp),
    ("wireguard", b"\1\2\3\4", _is_wireguard),
    ("bittorrent", b"d\0A", _is_bittorrent_over_udp),
)

_Evidence = TypeVar("_Evidence")
_Candidates = tuple[tuple[str, Callable[[_Evidence], bool]], ...]


def _by_first_byte(rows: tuple[tuple[str, bytes, Callable[[_Evidence], bool]], ...]) -> list[_Candidates[_Evidence]]:
    """The rows that each byte leaves, in their order."""
    return [tuple((name, is_it) for name, begins, is_it in rows if first in begins) for first in range(256)]


_TCP_BY_FIRST_BYTE = _by_first_byte(_TCP_APPLICATIONS)
_UDP_BY_FIRST_BYTE = _by_first_byte(_UDP_APPLICATIONS)
