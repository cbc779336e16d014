"""Names of flows that were running before the meter came, where they can still be told."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wiremeter import Monitor, NameOptions

from . import netns
from .test_testing import ask

pytestmark = pytest.mark.kernel

#: Where every name of `ask` leads to.
SERVER = "127.0.0.9"
Said = set[tuple[str, str | None, str | None]]


class Connection:
    """A TCP connection over loopback, open and silent."""

    def __init__(self, client_port: int = 0, server_port: int = 0) -> None:
        self._listening = socket.create_server((SERVER, server_port))
        self.client = socket.create_connection(self._listening.getsockname(), source_address=("127.0.0.1", client_port))
        self._peer, _ = self._listening.accept()

    def say(self, data: bytes) -> None:
        self.client.sendall(data)
        assert self._peer.recv(4096) == data


def names_told(speak: Callable[[], None], state: Path | None = None) -> list[Said]:
    """What the flows of each interval are about, while `speak` is called in each."""
    told = []
    with Monitor("lo", interval=0.3, filter="tcp", names=NameOptions(state=state)) as monitor:
        for batch in monitor:
            told.append({batch.names[at][:3] for at in batch.name_indexes})
            if len(told) == 4:
                break
            speak()
    return told


def a_request_comes_late() -> list[Said]:
    connection = Connection()
    request = b"GET / HTTP/1.1\r\nHost: running.example\r\n\r\n"
    return names_told(lambda: connection.say(request))


def the_agent_has_seen_its_dns(folder: Path, client_port: int, server_port: int) -> list[Said]:
    with Monitor("lo", interval=0.2, names=NameOptions(state=folder)) as agent:
        ask("db.internal")
        next(batch for batch in agent if len(batch.transactions.dns))  # it has been read
    connection = Connection(client_port, server_port)
    time.sleep(0.1)
    return names_told(lambda: connection.say(b"\0opaque"), folder)


def test_a_request_on_a_connection_that_was_there_names_it() -> None:
    with netns.hosts("alone") as (host,):
        first, *later = host.run(a_request_comes_late)
    assert not first
    assert later[-1] == {("http", "running.example", "http_host")}


@pytest.mark.parametrize(("client_port", "server_port"), [(40_000, 50_000), (50_000, 40_000)])
def test_what_an_agent_remembers_of_dns_names_what_runs(tmp_path: Path, client_port: int, server_port: int) -> None:
    """Both directions, whichever port is the higher one."""
    with netns.hosts("alone") as (host,):
        _, *later = host.run(the_agent_has_seen_its_dns, tmp_path, client_port, server_port)
    assert {names[1:] for said in later for names in said} == {("db.internal", "dns_answer")}
