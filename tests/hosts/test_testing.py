"""wiremeter.testing with real traffic: as root, and as a user without any privilege."""

from __future__ import annotations

import http.client
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rrset
import pytest

import wiremeter
from wiremeter.errors import InputError, WiremeterError
from wiremeter.testing import Namespace, Traffic, TrafficLost, meter

pytest_plugins = ["pytester", "wiremeter.testing.fixtures"]
pytestmark = pytest.mark.kernel

NOBODY = 65534


def converse(size: int) -> int:
    """A TCP connection over loopback that carries so many bytes; returns the server's port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            peer, _ = server.accept()
            with peer:
                client.sendall(bytes(size))
                while size:
                    size -= len(peer.recv(1 << 16))
        port: int = server.getsockname()[1]
        return port


def ask(*names: str) -> None:
    """DNS over loopback: a server that knows every name, and a client that asks for some."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))

        def answer() -> None:
            for _ in names:
                query, client = server.recvfrom(4096)
                response = dns.message.make_response(dns.message.from_wire(query))
                question = response.question[0]
                response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", "127.0.0.9"))
                server.sendto(response.to_wire(), client)

        answering = threading.Thread(target=answer)
        answering.start()
        for name in names:
            dns.query.udp(dns.message.make_query(name, "A"), "127.0.0.1", timeout=5)
        answering.join()


def fetch(path: str) -> int:
    """An HTTP request over loopback; returns its status."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    serving = threading.Thread(target=server.handle_request)
    serving.start()
    client = http.client.HTTPConnection("127.0.0.1", server.server_port)
    client.request("GET", path, headers={"Host": "api.internal"})
    status = client.getresponse().status
    client.close()
    serving.join()
    server.server_close()
    return status


def test_dns_is_told_by_name(metered_network: Namespace) -> None:
    metered_network.call(ask, "db.internal", "cache.internal", "www.example")
    traffic = metered_network.traffic
    assert traffic.dns(name="db.internal").count == 1
    assert traffic.dns(name="DB.internal.", qtype="A", rcode=0).count == 1
    assert traffic.dns("*.internal").count == 2
    assert traffic.dns(name="nobody.asked").count == 0
    assert [one.answers[0].data for one in traffic.dns(name="www.example")] == ["127.0.0.9"]
    traffic.clear()
    assert traffic.dns().count == 0
    metered_network.call(ask, "db.internal")
    assert traffic.dns().count == 1


def test_totals_are_those_of_the_wire_and_count_once_on_loopback(metered_network: Namespace) -> None:
    port = metered_network.call(converse, 1000)
    total = metered_network.traffic.total(f"tcp port {port}")
    assert total.flows == 2
    # Ethernet, IPv4 and TCP with timestamps are 66 bytes; the two SYNs have 8 more of options.
    assert total.bytes == 66 * total.packets + 2 * 8 + 1000
    assert metered_network.traffic.total("udp") == (0, 0, 0)
    assert metered_network.traffic.total() == total


def test_http_is_told_with_its_path(metered_network: Namespace) -> None:
    status = metered_network.call(fetch, "/nothing/here?secret")
    traffic = metered_network.traffic
    assert traffic.http(host="api.internal", method="GET", status=status, path="/nothing/*").count == 1
    assert traffic.http(host="telemetry.example").count == 0


def test_commands_run_in_the_network_and_end_with_it() -> None:
    script = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x' * 100, ('127.0.0.1', 9))"
    with Namespace() as network:
        listed = network.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
        assert [line.split()[1] for line in listed.splitlines()] == ["lo:"]
        network.run([sys.executable, "-c", script])
        assert network.traffic.total("udp") == (1, 142, 1)
        with pytest.raises(subprocess.CalledProcessError):
            network.run(["false"])
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            network.call(divmod, 1, 0)
        sleeping = network.start(["sleep", "60"])
    assert sleeping.returncode is not None


def test_the_network_of_a_process_is_metered(traffic_of: Callable[..., Traffic]) -> None:
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "up\n"
            traffic = traffic_of(process.pid)
            script = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 9))"
            subprocess.run(["nsenter", "-n", "-t", str(process.pid), sys.executable, "-c", script], check=True)
            assert traffic.total("udp port 9").packets == 1
        finally:
            process.kill()


def test_what_is_not_there_is_a_fault_of_the_test_and_no_skip() -> None:
    with pytest.raises(InputError, match="no-such-namespace"), meter("no-such-namespace"):
        pass
    with pytest.raises(InputError, match="no-such-device"), meter(None, "no-such-device"):
        pass


def test_a_meter_that_died_gives_no_numbers() -> None:
    with Namespace() as network:
        network.call(converse, 1000)
        assert network.traffic.total("tcp").flows == 2
        os.kill(network._pid, signal.SIGKILL)
        with pytest.raises(WiremeterError, match="ended, with status -9: nothing can be said"):
            network.traffic.total("tcp")
    with pytest.raises(WiremeterError, match="nothing can be said"):
        network.traffic.dns()


def test_all_traffic_is_told_after_the_end_too() -> None:
    with Namespace() as network:
        network.call(converse, 1000)
    assert network.traffic.total("tcp").flows == 2


def test_loss_is_an_error_and_no_number(metered_network: Namespace) -> None:
    metered_network.call(send_damaged)
    with pytest.raises(TrafficLost, match="1 packets are in no flow"):
        metered_network.traffic.total()


def send_damaged() -> None:
    """An IPv4 ethertype with nothing like IPv4 behind it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("lo", 0))
        sock.send(bytes(12) + b"\x08\x00" + b"\xff" * 20)


def test_it_needs_no_privilege_where_the_kernel_allows(tmp_path: Path) -> None:
    """The same questions, asked by a user without any rights."""
    source = Path(wiremeter.__file__).parents[1]
    packages = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
    (tmp_path / "test_as_nobody.py").write_text(
        textwrap.dedent(
            """
            from hosts.test_testing import ask, converse

            def test_dns(metered_network):
                assert not metered_network._is_privileged
                metered_network.call(ask, "db.internal")
                assert metered_network.traffic.dns(name="db.internal").count == 1
                port = metered_network.call(converse, 100)
                assert metered_network.traffic.total(f"port {port}").flows == 2
            """
        )
    )
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["wiremeter.testing.fixtures"]\n')
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.name.startswith("pytest-"):
            folder.chmod(0o755)
    tmp_path.chmod(0o777)
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    path = os.pathsep.join(map(str, (source, source.parent / "tests", packages)))
    environment = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    candidates = [sys.executable, shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")]
    probe = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import numpy'], check=True)"
    for python in filter(None, candidates):
        if not subprocess.run([*as_nobody, python, "-c", probe], env=environment, capture_output=True).returncode:
            break
    else:
        pytest.skip("no Python here that another user may run")
    command = [*as_nobody, python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_fixture_skips_with_the_reason(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["wiremeter.testing.fixtures"]')
    pytester.makepyfile(
        """
        from wiremeter.testing import CannotMeter, Namespace

        def test_it(monkeypatch, request):
            def refuse(self):
                raise CannotMeter("user namespaces are off")
            monkeypatch.setattr(Namespace, "__enter__", refuse)
            request.getfixturevalue("metered_network")
        """
    )
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*cannot meter here: user namespaces are off*"])
