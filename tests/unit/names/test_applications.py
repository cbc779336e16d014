"""Application protocols by what only they can begin with."""

from __future__ import annotations

import random
import socket
import struct
import subprocess

import pytest

from wiremeter.names.decoders.applications import tcp_application, udp_application
from wiremeter.names.decoders.http2 import PREFACE

CLIENT_HELLO = bytes.fromhex("16030100fc010000f80303") + bytes(241)
MYSQL = b"\x4a\0\0\0\x0a8.0.33\0" + bytes(4) + b"abcdefgh\0" + bytes(53)
POSTGRESQL = struct.pack("!II", 25, 196608) + b"user\0me\0database\0"
RDP = bytes.fromhex("0300002a25e00000000000") + b"Cookie: mstshash=x\r\n" + bytes.fromhex("0100080003000000")
LDAP_BIND = bytes.fromhex("300c020101600702010304008000")
LDAP_STARTTLS = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
SMB2 = b"\0\0\0\x44\xfeSMB" + bytes(64)
MONGODB = struct.pack("<iiii", 64, 1, 0, 2013) + bytes(48)
KAFKA = struct.pack("!iHHi", 16, 18, 3, 7) + struct.pack("!H", 6) + b"client"
KAFKA_REPLY = struct.pack("!ii", 20, 7) + bytes(16)
MQTT = b"\x10\x10\0\4MQTT\4\2\0\x3c\0\4test"
STUN = bytes.fromhex("000100002112a442") + bytes(12)
DNS = bytes.fromhex("123401000001000000000000") + b"\3www\0\0\1\0\1"
TELNET = b"\xff\xfd\x18\xff\xfd\x20"


OVER_TCP = (
    ("tls", CLIENT_HELLO, b"", 4433),
    ("http", b"GET / HTTP/1.1\r\n", b"", 9999),
    ("http", b"", b"HTTP/1.1 200 OK\r\n", 9999),
    ("http", PREFACE, b"", 9999),
    ("dns", struct.pack("!H", len(DNS)) + DNS, b"", 53),
    ("ssh", b"", b"SSH-2.0-OpenSSH_9.2\r\n", 2222),
    ("ssh", b"SSH-2.0-PuTTY\r\n", b"", 22),
    ("smtp", b"", b"220 mx.example.com ESMTP Postfix\r\n", 26),
    ("smtp", b"EHLO me\r\n", b"220 ready\r\n", 26),
    ("smtp", b"EHLO me\r\n", b"", 26),
    ("smtp", b"", b"220 ready\r\n", 25),
    ("ftp", b"", b"220 (vsFTPd 3.0.3)\r\n", 2121),
    ("ftp", b"", b"220 ProFTPD FTP Server ready\r\n", 2121),
    ("ftp", b"USER anonymous\r\n", b"220 ready\r\n", 2121),
    ("ftp", b"AUTH TLS\r\n", b"220-hello\r\n220 ready\r\n", 2121),
    ("ftp", b"", b"220 ready\r\n", 21),
    ("imap", b"", b"* OK [CAPABILITY IMAP4rev1] ready\r\n", 1143),
    ("imap", b"a1 LOGIN x y\r\n", b"* OK ready\r\n", 1143),
    ("pop3", b"", b"+OK <1896.697170952@dbc.example>\r\n", 1100),
    ("pop3", b"USER x\r\n", b"+OK ready\r\n", 1100),
    ("mysql", b"", MYSQL, 3307),
    ("postgresql", POSTGRESQL, b"", 5433),
    ("postgresql", struct.pack("!II", 8, 80877103), b"S", 5433),
    ("redis", b"*1\r\n$4\r\nPING\r\n", b"", 6380),
    ("redis", b"PING\r\n", b"+PONG\r\n", 6380),
    ("mqtt", MQTT, b"", 1884),
    ("mqtt", b"\x10\x0e\0\6MQIsdp\3\2\0\x3c\0\0", b"", 1884),
    ("amqp", b"AMQP\0\0\x09\x01", b"", 5673),
    ("mongodb", MONGODB, b"", 27018),
    ("kafka", KAFKA, KAFKA_REPLY, 9093),
    ("memcached", b"get key\r\n", b"END\r\n", 11212),
    ("smb", SMB2, b"", 446),
    ("rdp", RDP, b"", 3390),
    ("rdp", b"", bytes.fromhex("030000130ed000001234000200080002000000"), 3390),
    ("ldap", LDAP_BIND, b"", 390),
    ("ldap", LDAP_STARTTLS, b"", 390),
    ("sip", b"REGISTER sip:example.com SIP/2.0\r\n", b"", 5070),
    ("rtsp", b"OPTIONS rtsp://example.com/x RTSP/1.0\r\n", b"", 555),
    ("bittorrent", b"\x13BitTorrent protocol" + bytes(48), b"", 51413),
    ("vnc", b"", b"RFB 003.008\n", 5999),
    ("xmpp", b"<?xml version='1.0'?><stream:stream to='x'>", b"", 5222),
    ("telnet", b"", TELNET, 2323),
    ("telnet", b"", TELNET[:3], 23),
    ("stun", STUN, b"", 3479),
    ("git", b"0033git-upload-pack /project.git\0host=example.com\0", b"", 9419),
)


@pytest.mark.parametrize(("application", "client", "server", "port"), OVER_TCP)
def test_tcp_protocols_are_known_on_any_port_by_their_beginning(
    application: str, client: bytes, server: bytes, port: int
) -> None:
    assert tcp_application(client, server, port) == application


@pytest.mark.parametrize(
    ("client", "server", "port"),
    [
        (b"", b"", 443),
        (b"", b"220 ready\r\n", 2121),  # smtp or ftp
        (b"", b"+OK\r\n", 6379),  # redis or pop3
        (b"", b"* OK ready\r\n", 1143),
        (b"\0" * 40, b"", 53),
        (b"", TELNET[:3], 2323),
        (b"get key\r\n", b"", 11211),
        (b"random text\r\n", b"", 80),
        (b"\x17\x03\x03\x00\x20" + bytes(32), b"", 443),  # in the middle of TLS
        (b"", MYSQL[:3] + b"\1" + MYSQL[4:], 3306),
        (KAFKA, KAFKA_REPLY[:4] + b"\0\0\0\x08" + bytes(16), 9092),
        (b"\x10\x10\0\4MQTX\4\2", b"", 1883),
    ],
)
def test_weak_evidence_on_tcp_is_none(client: bytes, server: bytes, port: int) -> None:
    assert tcp_application(client, server, port) is None


DHCP = b"\1\1\6\0" + bytes(232) + b"\x63\x82\x53\x63\x35\1\1\xff"
SNMP_V2C = bytes.fromhex("302602010104067075626c6963a01902040000000102010002010030") + bytes.fromhex(
    "0b300906052b060102010500"
)
SNMP_V3 = bytes.fromhex("303e020103301102042bf0f2b5020300ffe3040104020103") + bytes(41)
QUIC = b"\xc0\0\0\0\1\x08" + bytes(8) + b"\0" + bytes(1180)
UTP_SYN = bytes.fromhex("41000001") + bytes([1, 2, 3, 4]) + bytes(4) + bytes.fromhex("00040000") + b"\0\1\0\0"
DTLS = bytes.fromhex("16fefd0000000000000000004a01") + bytes(60)


OVER_UDP = (
    ("dns", DNS, 53),
    ("mdns", bytes(4) + DNS[4:], 5353),
    ("llmnr", DNS[:2] + bytes(2) + DNS[4:], 5355),
    ("quic", QUIC, 4433),
    ("quic", QUIC[:1] + b"\x6b\x33\x43\xcf" + QUIC[5:], 4433),
    ("ntp", b"\x23" + bytes(47), 123),
    ("ntp", b"\x16\x02" + bytes(10), 123),
    ("dhcp", DHCP, 67),
    ("dhcpv6", bytes.fromhex("01123456000600040017001800080002ffff"), 547),
    ("snmp", SNMP_V2C, 1161),
    ("snmp", SNMP_V3, 161),
    ("sip", b"SIP/2.0 200 OK\r\n", 5070),
    ("ssdp", b"M-SEARCH * HTTP/1.1\r\n", 1900),
    ("stun", STUN, 3479),
    ("dtls", DTLS, 5684),
    ("wireguard", b"\1\0\0\0" + bytes(144), 12345),
    ("wireguard", b"\2\0\0\0" + bytes(88), 12345),
    ("wireguard", b"\4\0\0\0" + bytes(60), 51820),
    ("bittorrent", b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", 6881),
    ("bittorrent", bytes.fromhex("0000041727101980") + bytes(8), 6969),
    ("bittorrent", UTP_SYN, 6881),
)


def test_a_client_of_git_is_known_by_what_it_asks() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = ["git", "ls-remote", f"git://127.0.0.1:{port}/project.git"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
            asking, _ = listener.accept()
            with asking:
                said = b""
                while not said.endswith(b"\0") and (more := asking.recv(4096)):
                    said += more
            client.wait(60)
    assert said.endswith(b"\0")
    assert tcp_application(said, b"", port) == "git"


@pytest.mark.parametrize(("application", "data", "port"), OVER_UDP)
def test_udp_protocols_are_known_by_their_datagrams(application: str, data: bytes, port: int) -> None:
    assert udp_application(data, 50000, port) == application
    assert udp_application(data, port, 50000) == application


@pytest.mark.parametrize(
    ("data", "port"),
    [
        (b"", 53),
        (DNS[:11], 53),
        (b"\x23" + bytes(47), 124),
        (b"\x23" + bytes(46), 123),
        (b"\4\0\0\0" + bytes(60), 51821),
        (b"\1\0\0\0" + bytes(145), 12345),
        (QUIC[:1] + b"\0\0\0\3" + QUIC[5:], 443),
        (DHCP[:236] + bytes(8), 67),
        (bytes.fromhex("01123456000600050017001800080002ffff"), 547),
        (SNMP_V2C[:13] + b"\x30" + SNMP_V2C[14:], 161),
        (UTP_SYN[:16] + b"\0\2\0\0", 6881),
        (b"text", 5060),
    ],
)
def test_weak_evidence_on_udp_is_none(data: bytes, port: int) -> None:
    assert udp_application(data, 50000, port) is None


@pytest.mark.parametrize(("application", "client", "server", "port"), OVER_TCP)
def test_a_beginning_that_is_cut_is_told_right_or_not_at_all(
    application: str, client: bytes, server: bytes, port: int
) -> None:
    for at in range(len(client) + 1):
        assert tcp_application(client[:at], server, port) in (application, None)
    for at in range(len(server) + 1):
        assert tcp_application(client, server[:at], port) in (application, None)


@pytest.mark.parametrize(("application", "data", "port"), OVER_UDP)
def test_a_datagram_that_is_cut_is_told_right_or_not_at_all(application: str, data: bytes, port: int) -> None:
    assert {udp_application(data[:at], 50000, port) for at in range(len(data) + 1)} <= {application, None}


def test_random_bytes_prove_nothing() -> None:
    """On ports of no meaning, of either side, and of both."""
    chance = random.Random(5)
    for _ in range(30_000):
        one, other = chance.randbytes(64), chance.randbytes(64)
        told = tcp_application(one, b"", 50001), tcp_application(b"", one, 50001), tcp_application(one, other, 50001)
        assert told == (None, None, None), one.hex()
        assert udp_application(one, 50000, 50001) is None, one.hex()
