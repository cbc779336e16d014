"""Real servers of names and of what bears them: knotd, nginx and redis, each in a host, with a folder of its own."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .netns import Host, Job, wait_until

HTTP, HTTP2, HTTPS, REDIS = 80, 81, 443, 6379  # ports
_BACKEND = 8080  # on loopback


def tool(name: str) -> str:
    """The path of a program that `scripts/setup test` installs; skips the running test where it is missing."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not path:
        pytest.skip(f"{name} is not installed")
    return path


def start(host: Host, folder: Path, *argv: str, listens: tuple[str, ...] = ()) -> Job:
    """Run a server in the foreground inside `host` until that is removed.

    listens: its sockets as `ss` shows them, such as "tcp 80": waited for. Raises AssertionError with what it printed
    if it ended instead.
    """
    log = folder / f"{argv[0]}.out"
    job = host.start(_become, tool(argv[0]), argv, log)

    def is_ready() -> bool:
        assert os.waitid(os.P_PID, job.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, log.read_text()
        return set(listens) <= listening_sockets(host)

    wait_until(is_ready, f"{argv[0]} listens")
    return job


def _become(program: str, argv: tuple[str, ...], log: Path) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execv(program, argv)


def listening_sockets(host: Host) -> set[str]:
    """Protocol and port of each, such as "udp 53"; of IPv6 with a 6, "tcp6 443"."""
    found = set()
    for line in host.command("ss", "-Htuln").splitlines():
        protocol, _, _, _, local, *_ = line.split()
        address, _, port = local.rpartition(":")
        found.add(f"{protocol}{'6' if address.startswith('[') else ''} {port}")
    return found


# --- DNS


def dns_server(host: Host, folder: Path, addresses: tuple[str, ...], zones: Mapping[str, str]) -> None:
    """knotd with authority over `zones`: text of each, as in a zone file. It knows nothing else, and says so."""
    for name, text in zones.items():
        (folder / f"{name}.zone").write_text(text)
    listen = ", ".join(f"{address}@53" for address in addresses)
    entries = "".join(f"  - domain: {name}\n" for name in zones)
    (folder / "knot.conf").write_text(
        f"server:\n  rundir: {folder}\n  listen: [ {listen} ]\n"
        "  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n"
        f"log:\n  - target: stdout\n    any: info\n"
        f"database:\n  storage: {folder}/db\n"
        f"template:\n  - id: default\n    storage: {folder}\n    file: %s.zone\n"
        "    journal-content: none\n    zonefile-sync: -1\n"
        f"zone:\n{entries}"
    )
    sockets = {f"{kind}{'6' if ':' in address else ''} 53" for address in addresses for kind in ("udp", "tcp")}
    start(host, folder, "knotd", "-c", str(folder / "knot.conf"), listens=tuple(sockets))
    wait_until(lambda: _answers(host, addresses[0], zones), "knotd has loaded its zones")


def _answers(host: Host, address: str, zones: Mapping[str, str]) -> bool:
    """Whether each zone is there, asked from inside the host, where no meter of a test sees it."""
    import dns.message
    import dns.query
    import dns.rcode

    with host.entered(), suppress(Exception):
        return all(
            dns.query.udp(dns.message.make_query(name, "SOA"), address, timeout=1).rcode() == dns.rcode.NOERROR
            for name in zones
        )
    return False


def silent_server(host: Host, address: str, port: int = 53) -> socket.socket:
    """A socket that takes datagrams and never answers; the caller closes it."""
    with host.entered():
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


# --- HTTP and TLS


def web_server(host: Host, folder: Path, sites: tuple[str, ...]) -> Path:
    """nginx: `sites` over HTTP/1, over HTTP/2 without TLS, and with a certificate each over TLS. Returns its log.

    /new answers 201, /gone 410, /file the same long text compressed in chunks; /upload reads the whole body first.
    """
    (folder / "file").write_text("All work and no play makes wires dull.\n" * 1000)
    for site in sites:
        self_signed(folder, site)
    fields = {
        "client": '"$remote_addr"',
        "port": "$remote_port",
        "method": '"$request_method"',
        "host": '"$http_host"',
        "path": '"$request_uri"',
        "status": "$status",
        "protocol": '"$server_protocol"',
        "received": "$request_length",
        "sent": "$bytes_sent",
        "server_port": "$server_port",
        "sni": '"$ssl_server_name"',
        "tls": '"$ssl_protocol"',
        "cipher": '"$ssl_cipher"',
    }
    line = ", ".join(f'"{key}": {value}' for key, value in fields.items())
    temporary = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    places = (
        'location / { default_type text/plain; return 200 "$request_method of $host\\n"; }\n'
        "location = /missing { return 404; }\n"
        "location = /new { return 201; }\n"
        "location = /gone { return 410; }\n"
        f"location = /file {{ root {folder}; gzip on; gzip_types *; gzip_min_length 1; }}\n"
        f"location = /upload {{ proxy_pass http://127.0.0.1:{_BACKEND}; }}\n"
    )
    secure = "".join(
        f"server {{ listen {HTTPS} ssl http2; listen [::]:{HTTPS} ssl http2; server_name {site};\n"
        f"ssl_certificate {folder}/{site}.pem; ssl_certificate_key {folder}/{site}.key;\n{places}}}\n"
        for site in sites
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
        f"events {{ worker_connections 256; }}\nhttp {{\n{temporary}"
        f"  log_format line escape=json '{{{line}}}';\n  access_log {folder}/access.log line;\n"
        "  client_max_body_size 0; ssl_protocols TLSv1.2 TLSv1.3;\n"
        f"server {{ listen {HTTP}; listen [::]:{HTTP};\n{places}}}\n"
        f"server {{ listen {HTTP2} http2; listen [::]:{HTTP2} http2;\n{places}}}\n"
        f'server {{ listen 127.0.0.1:{_BACKEND}; access_log off; location / {{ return 200 "taken\\n"; }} }}\n'
        f"{secure}}}\n"
    )
    sockets = [f"tcp{six} {port}" for six in ("", "6") for port in (HTTP, HTTP2, HTTPS)]
    start(host, folder, "nginx", "-c", str(folder / "nginx.conf"), listens=tuple(sockets))
    return folder / "access.log"


def access_log(path: Path, *, lines: int) -> list[dict[str, Any]]:
    """The entries, once there are so many: nginx writes them after it has answered."""
    wait_until(lambda: len(path.read_text().splitlines()) >= lines, f"nginx has logged {lines} requests")
    return [json.loads(line) for line in path.read_text().splitlines()]


def self_signed(folder: Path, site: str) -> tuple[Path, Path]:
    """A certificate of `site` by itself, and its key: the paths of both."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(site)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{site}.pem", folder / f"{site}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


# --- others


def redis_server(host: Host, folder: Path, address: str) -> None:
    """redis-server that writes nothing down."""
    arguments = f"--bind {address} --port {REDIS} --protected-mode no --save  --appendonly no --dir {folder}"
    start(host, folder, "redis-server", *arguments.split(" "), listens=(f"tcp {REDIS}",))
