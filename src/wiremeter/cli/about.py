"""What `--help` says of each command, and its man page; the flags follow from the catalogue of settings."""

from __future__ import annotations

from typing import NamedTuple

from wiremeter.settings import CONFIG_VARIABLE, DEFAULT_LISTEN, ENVIRONMENT_PREFIX
from wiremeter.synthetic.profiles import PROFILES


class About(NamedTuple):
    """summary: a few words. description: sentences. more: what comes after the flags."""

    summary: str
    description: str
    more: str = ""


_PROFILES = "\n".join(f"  {name:18} {profile.summary}" for name, profile in PROFILES.items())

ABOUT = {
    "live": About(
        "show live what crosses the wire: devices, flows, names",
        """Show live what crosses the wire: device rates, top flows, protocols, domains and DNS, and what
was not counted.""",
        """\
In a terminal it is interactive: ? shows the keys, q quits. Without a terminal, or with --once, --count or --format,
it prints a block of lines each interval; each begins with the time and what it is: interval, device, alarm, note,
protocol, application, domain, dns, flow, conversation. --format json prints a JSON document a line (with --once,
one document).

filters, as in tcpdump (pcap-filter):
  host 10.0.0.1      net 10.0.0.0/8     port 443 or 80     portrange 8000-8099
  src host ...       dst net ...        tcp dst port 22    proto 47
  tcp udp icmp6 ...  ip ip6             vlan, vlan 77      dev eth0    rx tx
  domain example.com (and all beneath it)    domain '*cdn*'    app tls or http
  and or not ( )     from left to right; parentheses to group

Totals over stacked devices (a bridge and its ports, VXLAN over eth0) add up to more than the wire: a packet
counts on each device it passes.

examples:
  wiremeter live --filter 'tcp and not port 22' --sort packets
  wiremeter live --once --format json | jq '.devices[] | {device, direction, bits_per_second}'
  wiremeter live --format text --interval 10 | grep ' alarm '
""",
    ),
    "agent": About(
        "meter in the background and serve /metrics to Prometheus",
        "Meter the devices' traffic and serve it to Prometheus: /metrics, /healthz and /readyz.",
        f"""\
Each setting also comes from the environment, such as {ENVIRONMENT_PREFIX}INTERVAL=5s or
{ENVIRONMENT_PREFIX}INTERFACES=eth0,veth*, and from a YAML file (--config, or {CONFIG_VARIABLE}):

    interfaces: [eth0, "veth*"]
    interval: 5s
    listen: "[::]:{DEFAULT_LISTEN.port}"

A flag comes before the environment, the environment before the file. Totals over
stacked devices (a bridge and its ports, VXLAN over eth0) add up to more than the wire.

It ends cleanly, with nothing left attached, on SIGTERM and SIGINT, and when its
terminal is closed. On SIGHUP it reads its settings again, as far as that is possible
without a restart; the log says what was taken.
""",
    ),
    "replay": About(
        "meter capture files, without privileges",
        "Meter capture files through the datapath that meters live traffic.",
        """\
Files are pcap or pcapng, plain or compressed (gzip, bzip2, xz, zstd, lz4); - is standard input. Link types: Ethernet,
RAW, IPV4, IPV6, NULL, LOOP, LINUX_SLL and LINUX_SLL2. Packets cut by a snapshot length count with the length they had
on the wire. A file that ends in the middle of a record is counted up to there, and says so on standard error and in
the document.

--engine kernel runs the kernel's programs on each frame without attaching them anywhere (BPF_PROG_TEST_RUN); it
needs root, is slower, and prints the same.

examples:
  wiremeter replay traffic.pcap
  wiremeter replay --format json traffic.pcap.gz | jq .protocols
  tcpdump -i eth0 -w - | wiremeter replay --interval 1s -
  wiremeter replay --assume-mss 1460 offloaded.pcap
  wiremeter replay --filter 'domain example.com' --conversations --view flows traffic.pcap
  wiremeter replay --interval 10s --write flows.parquet traffic.pcap.zst
""",
    ),
    "simulate": About(
        "meter synthetic traffic with known totals, without privileges",
        "Meter synthetic traffic with known totals through the datapath that meters live traffic.",
        f"""\
profiles:
{_PROFILES}

The same arguments make the same frames, byte for byte. What was made is known by plain sums that share nothing with
the datapath; each interval is checked against them, and a difference ends the command with status 1. Simulated time
goes as fast as it can, with --listen as time goes. All output says `simulated`.

examples:
  wiremeter simulate
  wiremeter simulate --profile syn-flood --packets-per-second 100000 --format json | jq .source.expected
  wiremeter simulate --profile iot --seed 7 --vlan 77 --write iot.pcap && wiremeter replay iot.pcap
""",
    ),
    "doctor": About(
        "say what this host can do, what would be attached, and why",
        """Look at this host and its devices, attach nothing, and say whether metering will work, at which
hooks and why, what other choices would cost, and what memory the flow tables would take. Takes the
agent's settings, from the same places. Needs no privilege. With the privilege of metering it also loads the
programs, and frees them. Ends with 0 if metering will work, else with 1.""",
    ),
    "verify": About(
        "check compiled objects: ELF, programs, maps, BTF, and a trial load",
        """Checks compiled BPF objects: ELF type and machine, programs and their sections, maps, the shared
records by BTF, and as root a trial load of every program by the running kernel's verifier.
Exit status 1 if any check fails.""",
    ),
    "detach": About(
        "remove filters that a killed wiremeter left on devices",
        """Links for XDP and tcx end with the process that made them. Only clsact filters, used on kernels
before 6.6, can outlive it; this removes those that no running process holds. Needs root.""",
    ),
    "server": About(
        "collect what agents send, store it, answer questions",
        """Collect the batches of agents (`wiremeter agent --server URL`), store each once, and answer questions
about them: HTTP with an OpenAPI description at /openapi.json, /metrics of the fleet for Prometheus.""",
        """\
By default only this host can connect. To let others in, the server wants TLS and tokens:

  wiremeter token create web-1 --for-agent web-1 > web-1.token
  wiremeter server --listen :10465 --tls-cert server.pem --tls-key server.key

It needs more packages than an agent: pip install 'wiremeter[server]'.
""",
    ),
    "up": About(
        "agent and server in one command, with the live table",
        """Meter this host, show it live, and store it: an agent and a server of its own in one command, on loopback.
What is stored stays for the next time, and for `wiremeter server`.""",
        """\
It needs the server's packages: pip install 'wiremeter[server]'.
""",
    ),
    "token": About(
        "make, list and revoke the tokens of a server",
        """Make, list and revoke the tokens that agents and clients show to a server. A token is shown once, as it
is made; the server keeps a hash of it.""",
        """\
examples:
  wiremeter token create web-1 --for-agent web-1      # an agent's, which can write for no other
  wiremeter token create alice --rights read
  wiremeter token list
  wiremeter token revoke 1f2e3d4c                     # counts no more within a second
""",
    ),
    "top": About(
        "what was largest of a server's flows, by any dimensions",
        """Ask a server what was largest of the flows that it has, by any dimensions, with the remainder: the rows add
up to the total.""",
        """\
examples:
  wiremeter top domain
  wiremeter top agent application --since 1h --filter 'tcp and net 10.0.0.0/8'
  wiremeter top src_addr --once observer --format csv
""",
    ),
    "flows": About(
        "flows that a server has stored, as table, JSON, CSV, Parquet",
        """Ask a server for the flows that it has stored.""",
        """\
examples:
  wiremeter flows --filter 'agent web-1 and port 443'
  wiremeter flows --since 1d --limit 0 --format parquet > flows.parquet
""",
    ),
    "query": About(
        "SQL over a server's store",
        """Ask a server by SQL: one SELECT in ClickHouse's dialect, which only reads, within limits.""",
        """\
examples:
  wiremeter query 'SELECT application, sum(bytes) AS bytes FROM flows GROUP BY application ORDER BY bytes DESC'
""",
    ),
    "alert": About(
        "alerts of a server: list, history, silences; try rules",
        """See what a server's alert rules found, silence it, and try rules before a server has them.""",
        """\
list: what is pending, firing, or over since a short while. history: what fired and was over. rules: those in force,
and why one cannot be evaluated. silence MATCHER...: tell nobody of alerts that all matchers fit, for a while (--for);
a matcher is LABEL=VALUE, LABEL!=VALUE, LABEL=~PATTERN or LABEL!~PATTERN. unsilence ID ends one.
test FILE...: run rules on made data, as `promtool test rules` does. check FILE...: run each rule of a file once on a
store without rows. Both need the server's packages, and no server.

examples:
  wiremeter alert
  wiremeter alert history --limit 20
  wiremeter alert silence alertname=AgentAway 'agent=~web-.*' --for 2h --comment 'new kernel'
  wiremeter alert test rules.test.yml
""",
    ),
    "store": About(
        "look at a server's store, compact it, export it, back it up",
        """Look at a server's store, compact it, export it as Parquet files, back it up and restore it. The server
must not run meanwhile: one process has a store open at a time.""",
        """\
info: tables with their rows and size, and how far rollups are. compact: merge what the engine would merge in time.
export DIRECTORY: each table as a Parquet file. backup FILE: all of it as one tar. restore FILE: a backup, into a
store that does not exist yet. Stores on ClickHouse servers are compacted and backed up with ClickHouse's own tools.

examples:
  wiremeter store info
  wiremeter store export /tmp/flows --store /srv/wiremeter/store
  wiremeter store backup /backup/wiremeter.tar
  wiremeter store restore /backup/wiremeter.tar --store /srv/wiremeter/restored
""",
    ),
}

EXAMPLES = """\
examples:
  wiremeter doctor                     what this host can do, and what will be attached
  wiremeter live                       a live table of devices, flows and protocols
  wiremeter live eth0 --once --json    one interval of one device, for scripts
  wiremeter agent eth0                 meter eth0 and serve /metrics to Prometheus
  wiremeter replay traffic.pcap        meter a capture file
  wiremeter simulate --profile dns     meter synthetic traffic with known totals

`wiremeter help COMMAND` has the details. Metering devices needs root.
"""

ABOUT_COMPLETION = """\
Prints a script for bash, zsh or fish. To have it at each login:

  wiremeter completion bash > /etc/bash_completion.d/wiremeter
  wiremeter completion zsh > /usr/local/share/zsh/site-functions/_wiremeter
  wiremeter completion fish > ~/.config/fish/completions/wiremeter.fish"""
