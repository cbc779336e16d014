"""A real Prometheus scrapes what an agent serves, and its queries give what was put in."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from wiremeter.agent.http import make_app
from wiremeter.agent.http_server import serve
from wiremeter.agent.vitals import Vitals
from wiremeter.flows.batch import FlowBatch
from wiremeter.flows.columns import FLOW
from wiremeter.names.records import NAMELESS, DnsTransaction, FlowKey, FlowName, Transactions
from wiremeter.settings import Listen
from wiremeter.sinks.prometheus import PrometheusSink

from ..fabricated import fabricate_batch

pytestmark = pytest.mark.skipif(not shutil.which("prometheus"), reason="needs prometheus (Debian package prometheus)")

KEY = FlowKey(bytes(16), 1, bytes(16), 2, 17, 4)
NAMES = (NAMELESS, *(FlowName("tls", f"{n}.example") for n in range(6)))
#: Seconds until a server must have started and scraped a few times.
PATIENCE = 60.0

#: Values by labels, and what gives them for a query.
Result = dict[tuple[str, ...], float]
Query = Callable[[str], Result]


def batch(number: int) -> FlowBatch:
    """A tenth of a second: 20 answers of 20 ms and one of 2 s; traffic of a few domains, others with each batch."""
    flows = np.zeros(4, FLOW)
    flows["bytes"], flows["packets"] = (1000, 100, 10, 10**number), 1
    dns = [DnsTransaction(0, KEY, "a.example", "A", 0, ns) for ns in [20_000_000] * 20 + [2 * 10**9]]
    return fabricate_batch(
        [(0, 4, 6, 4, int(flows["bytes"].sum()), 4)],
        flows=flows,
        names=NAMES,
        flow_names=np.array([0, 1, 2, 1 + number % 6], np.uint32),
        transactions=Transactions(dns=tuple(dns)),
    )


@pytest.fixture
def agent() -> Iterator[Listen]:
    """A sink that is fed ten times a second, as an agent serves it."""
    sink = PrometheusSink("1", domains=3)
    registry = CollectorRegistry()
    registry.register(sink)
    stop = threading.Event()

    def feed() -> None:
        number = 0
        while not stop.wait(0.1):
            sink.write(batch(number % 9))
            number += 1

    feeder = threading.Thread(target=feed)
    with serve(Listen("127.0.0.1", 0), make_app(registry, Vitals(1.0))) as address:
        feeder.start()
        yield address
        stop.set()
        feeder.join()


@contextlib.contextmanager
def prometheus(tmp_path: Path, address: Listen, *arguments: str) -> Iterator[Query]:
    """A server that scrapes `address` each second; gives a function that queries it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "prometheus.yml"
    scrape = {"job_name": "wiremeter", "static_configs": [{"targets": [str(address)]}]}
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}))  # JSON is YAML
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", *arguments]
    with open(tmp_path / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            yield lambda query: ask(port, query)
        finally:
            server.kill()


def ask(port: int, query: str) -> Result:
    """Label values but for those of the scrape, and value, of each result; nothing while the server starts."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
    except OSError:
        return {}
    ours = [{k: v for k, v in one["metric"].items() if k not in ("job", "instance", "__name__")} for one in found]
    return {tuple(sorted(labels.values())): float(one["value"][1]) for labels, one in zip(ours, found, strict=True)}


def wait_for(query: Callable[[], Result], condition: Callable[[Result], bool]) -> Result:
    """The query's result, once it is as it should be."""
    deadline = time.monotonic() + PATIENCE
    while not condition(result := query()):
        assert time.monotonic() < deadline, result
        time.sleep(0.5)
    return result


def test_native_histograms_are_scraped_and_quantiles_come_out_of_them(agent: Listen, tmp_path: Path) -> None:
    with prometheus(tmp_path, agent, "--enable-feature=native-histograms") as ask:
        rate = "sum(rate(network_dns_latency_seconds[10s]))"
        median = wait_for(lambda: ask(f"histogram_quantile(0.5, {rate})"), lambda found: found.get((), 0) > 0)
        assert 0.02 / 2**0.125 <= median[()] <= 0.02 * 2**0.125
        assert ask(f"histogram_quantile(0.99, {rate})")[()] == pytest.approx(2, rel=0.1)
        assert ask(f"histogram_sum({rate}) / histogram_count({rate})")[()] == pytest.approx(2.4 / 21)
        assert not ask("network_dns_latency_seconds_bucket"), "Prometheus takes one kind of a histogram or the other"
        check_totals(ask)


def test_without_native_histograms_the_classic_buckets_are_scraped(agent: Listen, tmp_path: Path) -> None:
    with prometheus(tmp_path, agent) as ask:
        rate = "sum by (le) (rate(network_dns_latency_seconds_bucket[10s]))"
        median = wait_for(lambda: ask(f"histogram_quantile(0.5, {rate})"), lambda found: found.get((), 0) > 0)
        assert 0.01 <= median[()] <= 0.025
        check_totals(ask)


def check_totals(ask: Query) -> None:
    """Sums over domains are all traffic at every scrape, while domains come and go, and no scrape had an error."""
    traffic = 'sum(network_bytes_total{protocol="tcp"})'
    by_domain = 'sum(network_domain_bytes_total{direction="rx"})'
    wait_for(lambda: ask(f"count_over_time({traffic}[20s:1s])"), lambda found: found.get((), 0) >= 4)
    wait_for(lambda: ask('network_domain_bytes_total{domain="former"}'), bool)
    assert ask(f"max_over_time(abs({by_domain} - {traffic})[20s:1s])") == {(): 0}
    assert ask("count(count by (domain) (network_domain_bytes_total))")[()] <= 5
    assert ask('rate(network_application_bytes_total{application="tls",direction="rx"}[10s]) > 0')
    assert set(ask("min_over_time(up[30s])").values()) == {1}
