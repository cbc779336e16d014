"""The catalogue: every setting once, and which command takes which.

Flags, WIREMETER_* variables, keys of the YAML file, `docs/configuration.md`, completion and man pages follow from it.
A command's settings are a class; what several commands take is a base of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wiremeter.settings import values
from wiremeter.settings.setting import option, setting
from wiremeter.settings.values import Listen
from wiremeter.settings.words import (
    AMOUNTS,
    ANSWER_FORMATS,
    ASSUMED_MSS,
    AUTHENTICATIONS,
    DEFAULT_NAME_KINDS,
    ENGINES,
    FLOW_TABLE_LINES_MAX,
    FLOW_TABLE_LINES_MIN,
    FLOWS_MAX,
    LOG_LEVELS,
    NAME_KINDS,
    ONCE,
    OUTPUT_FORMATS,
    PAYLOAD_BYTES_DEFAULT,
    PAYLOAD_BYTES_MAX,
    PROFILE_NAMES,
    REQUESTED_MODES,
    SEARCH_ORDERS,
    SHIPPED_RULES,
    SIMULATED_HOSTS_MAX,
    SIMULATED_MTUS,
    SIMULATED_PROTOCOLS,
    SORT_KEYS,
    TOKEN_RIGHTS,
    VIEWS,
    Amount,
    AnswerFormat,
    Authentication,
    EngineName,
    LogLevel,
    NameKind,
    Once,
    OutputFormat,
    ProfileName,
    RequestedMode,
    SearchOrder,
    ShippedRules,
    SimulatedProtocol,
    SortKey,
    TokenRight,
    View,
)

DEFAULT_LISTEN, DEFAULT_SERVER_LISTEN = Listen("127.0.0.1", 10464), Listen("127.0.0.1", 10465)
#: Flows that are shown: in the interactive view, to be scrolled through, and elsewhere.
INTERACTIVE_TOP = 200
PLAIN_TOP = 10

_SHOWN = "what is shown"
_SERVER_DIR = "the server's own directory: the store, tokens, alerts, and what was refused"
_SERVER_LISTEN_VALUES = values.listen(can_be_off=False)
_SERVER_DIR_VALUES = values.path("a directory, or default", default="default", completes="directory")
_SERVER_DIR_DEFAULT = (
    "what systemd gives (STATE_DIRECTORY), else /var/lib/wiremeter-server or, if not root, ~/.local/share/wiremeter"
)
_STORE = "where flows are stored: a directory, or clickhouse://USER:PASSWORD@HOST (docs/store.md)"
_STORE_VALUES = values.path("a directory, clickhouse://…, or default", default="default", completes="directory")
_INTERFACES = "device, glob such as 'veth*', or auto: what carries the default routes. Repeatable"
_FLOW_TABLE = "lines in each CPU's flow table, a power of two; an IPv4 flow takes one, an IPv6 flow two"
_BLOCKS = "a block or a document for each such time, such as 1s"
# Settings of one name have one kind of values, whatever command they are of.
_URL = values.url()
_FILE_OR_NONE = values.path("a file, or none", default="none")
_FILE_OR_DEFAULT = values.path("a file, or default", default="default")
_LINES = values.power_of_two(FLOW_TABLE_LINES_MIN, FLOW_TABLE_LINES_MAX)


@dataclass(frozen=True, kw_only=True)
class Command:
    """What every command takes."""

    GROUP: ClassVar[str] = ""

    debug: bool = option(values.switch(), False, "show tracebacks", short="-v")


@dataclass(frozen=True, kw_only=True)
class Interfaces:
    """Which devices."""

    GROUP: ClassVar[str] = "what is metered"

    interfaces: tuple[str, ...] = setting(
        values.devices(), ("auto",), _INTERFACES, flag="--interface", short="-i", placeholder="NAME", takes_words=True
    )


@dataclass(frozen=True, kw_only=True)
class Metering(Interfaces):
    """How devices are metered."""

    GROUP: ClassVar[str] = "what is metered"

    interval: float = setting(values.seconds(), 1.0, "time between two batches", placeholder="TIME", shown_default="1s")
    attach: RequestedMode = setting(
        values.choice(*REQUESTED_MODES),
        "auto",
        "the way to attach; `wiremeter doctor` explains",
        placeholder="HOW",
    )
    program: str | None = setting(
        values.path("the path of a compiled object, or default", default="default"),
        None,
        "another compiled object",
        placeholder="FILE",
        shown_default="the one that came with wiremeter",
    )
    flow_table: int | None = setting(
        _LINES, None, _FLOW_TABLE, placeholder="LINES", shown_default="by memory, at most 131072"
    )
    max_devices: int = setting(
        values.whole(1), 32, "most devices at a time; each takes 25 KB on each CPU, twice", placeholder="N"
    )
    max_flows: int = setting(
        values.whole(1024),
        FLOWS_MAX,
        'most flows in a batch, less where memory is short; others count as `unattributed{reason="batch_full"}`',
        placeholder="N",
    )
    bpf_stats: bool = setting(
        values.switch(),
        False,
        "have the kernel time every program run (some 20 ns a packet): `wiremeter_program_*`",
    )


@dataclass(frozen=True, kw_only=True)
class Naming:
    """What is read of payloads."""

    GROUP: ClassVar[str] = "names: what is read of packets' payloads (docs/names.md)"

    names: tuple[NameKind, ...] = setting(
        values.some_of(*NAME_KINDS),
        DEFAULT_NAME_KINDS,
        "what may be read of payloads; ptr is reverse DNS that was seen",
        placeholder="KINDS",
    )
    payload_bytes: int = setting(
        values.whole(0, PAYLOAD_BYTES_MAX),
        PAYLOAD_BYTES_DEFAULT,
        "bytes of one packet's payload that are looked at, at most; 0: none",
        placeholder="N",
    )
    redact_paths: bool = setting(
        values.switch(),
        True,
        "leave the paths of HTTP requests, with their queries, out of everything",
        hidden_shorthands={"--no-redact": "false"},
    )
    ja4s: bool = setting(
        values.switch(),
        False,
        "fingerprint TLS servers' answers (JA4S); FoxIO License 1.1, patent pending, forbids selling it",
    )

    @property
    def reads_payloads(self) -> bool:
        """Whether any payload is looked at; what ptr tells comes with dns."""
        return self.payload_bytes > 0 and bool(set(self.names) - {"ptr"})


@dataclass(frozen=True, kw_only=True)
class Isolated:
    """Who reads it."""

    GROUP: ClassVar[str] = Naming.GROUP

    isolate: bool = setting(
        values.switch(),
        True,
        "read payloads in a process without privileges (docs/security.md); else in the one that meters",
    )


@dataclass(frozen=True, kw_only=True)
class Lasting:
    """What outlives the process."""

    GROUP: ClassVar[str] = Naming.GROUP

    state_dir: str | None = setting(
        values.path("a directory, or none", default="none", completes="directory"),
        None,
        "a directory for what should outlive a restart: what DNS said, the totals of /metrics, batches to be shipped",
        placeholder="DIR",
        shown_default="what systemd gives (STATE_DIRECTORY), else none",
    )


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """What goes on without the process."""

    GROUP: ClassVar[str] = "over restarts (docs/design/restarts.md)"

    pin: str | None = setting(
        values.path("a directory in a bpffs, or none", default="none", completes="directory"),
        None,
        "pin programs and tables there: the kernel goes on counting when the agent ends, the next one takes over",
        placeholder="DIR",
        shown_default="none; the unit of systemd has one",
    )


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What is served to Prometheus."""

    GROUP: ClassVar[str] = "what is told"

    listen: Listen | None = setting(
        values.listen(),
        DEFAULT_LISTEN,
        "where /metrics, /healthz and /readyz are served: host:port, [::]:port, :port, or off",
        placeholder="HOST:PORT",
    )
    web_config_file: str | None = setting(
        values.path("a file, or none", default="none"),
        None,
        "TLS and passwords of what is served, in the format of node_exporter's file of that name (docs/metrics.md)",
        placeholder="FILE",
    )
    domains: int = setting(
        values.whole(0, 10_000), 100, "most domains among the labels of metrics (docs/metrics.md)", placeholder="N"
    )
    dns_servers: int = setting(
        values.whole(0, 1_000), 20, "most DNS servers among the labels of metrics (docs/metrics.md)", placeholder="N"
    )


@dataclass(frozen=True, kw_only=True)
class Shipping:
    """What goes to a server."""

    GROUP: ClassVar[str] = "a server that batches go to (docs/shipping.md)"

    server: str | None = setting(
        _URL,
        None,
        "the server, http or https",
        placeholder="URL",
        shown_default="none: nothing is sent",
        reloads=True,
    )
    agent_id: str | None = setting(
        values.agent_id(),
        None,
        "what the server knows this agent by",
        placeholder="ID",
        shown_default="what the state directory, the cloud or /etc/machine-id say",
    )
    token_file: str | None = setting(
        _FILE_OR_NONE,
        None,
        "the file that holds the agent's token, and nothing else",
        placeholder="FILE",
        reloads=True,
    )
    server_ca: str | None = setting(
        _FILE_OR_DEFAULT,
        None,
        "certificates that the server's is checked with, PEM",
        placeholder="FILE",
        shown_default="the system's",
        reloads=True,
    )
    client_cert: str | None = setting(
        _FILE_OR_NONE,
        None,
        "a certificate to show to the server, PEM, with those above it",
        placeholder="FILE",
        reloads=True,
    )
    client_key: str | None = setting(
        _FILE_OR_NONE,
        None,
        "its key, PEM, where it is not in the same file",
        placeholder="FILE",
        reloads=True,
    )
    spool_dir: str | None = setting(
        values.spool_directory(),
        None,
        "where batches wait until they have arrived; none: in memory, and lost with the process",
        placeholder="DIR",
        shown_default="`spool` in the state directory; without one, none",
    )
    spool_size: int = setting(
        values.size_in_bytes(1 << 20),
        1 << 30,
        "most bytes of batches that wait there; the oldest make room, and are counted",
        placeholder="BYTES",
        shown_default="1GiB",
        reloads=True,
    )
    ship_memory: int = setting(
        values.size_in_bytes(1 << 16),
        16 << 20,
        "most bytes of batches that wait in memory, without a spool or where the disk is full",
        placeholder="BYTES",
        shown_default="16MiB",
        reloads=True,
    )
    ship_rate: int = setting(
        values.size_in_bytes(1 << 10),
        8 << 20,
        "most bytes a second that are sent, for when many wait",
        placeholder="BYTES",
        shown_default="8MiB",
        reloads=True,
    )
    heartbeat: float = setting(
        values.seconds(1.0),
        30.0,
        "time between two heartbeats",
        placeholder="TIME",
        shown_default="30s",
        reloads=True,
    )
    ignore: tuple[str, ...] = setting(
        values.expressions(),
        (),
        "flows that are not sent, by filter expressions; all totals have them, and what was left out is counted",
        placeholder="EXPRESSIONS",
        shown_default="",
        reloads=True,
    )


@dataclass(frozen=True, kw_only=True)
class Logs:
    """The log."""

    GROUP: ClassVar[str] = Metrics.GROUP

    log_level: LogLevel = setting(
        values.choice(*LOG_LEVELS), "info", "what is logged, this and graver", placeholder="LEVEL", reloads=True
    )
    log_format: OutputFormat = setting(
        values.choice(*OUTPUT_FORMATS), "text", "form of the log, a line a record", placeholder="FORMAT", reloads=True
    )
    debug: bool = setting(values.switch(), False, "log at level debug, and show tracebacks", short="-v", reloads=True)


@dataclass(frozen=True, kw_only=True)
class Settings(Logs, Metrics, Shipping, Pinned, Lasting, Isolated, Naming, Metering, Command):
    """`wiremeter agent`: everything that the daemon can be told."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What of the flows is shown, and how a row looks."""

    GROUP: ClassVar[str] = _SHOWN

    filter: str = option(
        values.text(), "", "only flows that match, such as 'tcp and port 443'", short="-f", placeholder="EXPRESSION"
    )
    conversations: bool = option(values.switch(), False, "a flow and its reverse in one line")
    bytes: bool = option(values.switch(), False, "byte/s instead of bit/s")
    services: bool = option(
        values.switch(), False, "services by name instead of port numbers (-n: numbers)", shorthands={"-n": "false"}
    )


@dataclass(frozen=True, kw_only=True)
class Shown(Chosen):
    """The same, and in which order."""

    GROUP: ClassVar[str] = _SHOWN

    sort: SortKey = option(values.choice(*SORT_KEYS), "bytes", "order of flows", placeholder="KEY")
    view: View = option(values.choice(*VIEWS), "flows", "what the interactive table begins with", placeholder="VIEW")


@dataclass(frozen=True, kw_only=True)
class Printed:
    """How it is printed."""

    GROUP: ClassVar[str] = _SHOWN

    format: OutputFormat = option(
        values.choice(*OUTPUT_FORMATS),
        "text",
        "form of what is printed",
        placeholder="FORMAT",
        shorthands={"--json": "json"},
    )


@dataclass(frozen=True, kw_only=True)
class Top:
    """How much of it."""

    GROUP: ClassVar[str] = _SHOWN

    top: int = option(values.whole(0), PLAIN_TOP, "flows that the text shows", placeholder="N")


@dataclass(frozen=True, kw_only=True)
class Live(Metrics, Lasting, Isolated, Naming, Metering, Shown, Command):
    """`wiremeter live`."""

    GROUP: ClassVar[str] = _SHOWN

    format: OutputFormat | None = option(
        values.choice(*OUTPUT_FORMATS),
        None,
        "print this instead of the interactive view",
        placeholder="FORMAT",
        shorthands={"--json": "json"},
    )
    top: int | None = option(
        values.whole(1),
        None,
        "flows to show",
        placeholder="N",
        shown_default=f"{PLAIN_TOP}; interactive {INTERACTIVE_TOP}",
    )
    once: bool = option(values.switch(), False, "print one interval and end")
    count: int | None = option(values.whole(1), None, "print N intervals and end", short="-c", placeholder="N")
    listen: Listen | None = option(
        values.listen(),
        None,
        "also serve /metrics, /healthz and /readyz there",
        placeholder="HOST:PORT",
        shown_default="off",
    )
    screenshot: str | None = option(
        values.path("a file"),
        None,
        "write an SVG of the view after --count intervals",
        placeholder="FILE",
        is_hidden=True,
    )
    screenshot_size: tuple[int, int] = option(
        values.size(), (120, 36), "columns and lines", placeholder="COLSxLINES", is_hidden=True
    )


@dataclass(frozen=True, kw_only=True)
class Replay(Naming, Chosen, Printed, Command):
    """`wiremeter replay`."""

    GROUP: ClassVar[str] = _SHOWN

    sort: SortKey | None = option(
        values.choice(*SORT_KEYS),
        None,
        "order of flows",
        placeholder="KEY",
        shown_default="bytes; in the document by address and port",
    )
    view: View | None = option(
        values.choice(*VIEWS), None, "only this list in the text", placeholder="VIEW", shown_default="all of them"
    )
    top: int = option(values.whole(0), PLAIN_TOP, "rows of each list in the text", placeholder="N")
    write: str | None = option(
        values.path("a file"),
        None,
        "also write the flows to this file, a row for each flow and interval: .parquet, .csv or .jsonl",
        placeholder="FILE",
    )

    files: tuple[str, ...] = option(
        values.paths(),
        (),
        "capture file, or - for standard input",
        flag="--read",
        short="-r",
        placeholder="FILE",
        takes_words=True,
    )
    engine: EngineName = option(values.choice(*ENGINES), "host", "what counts", placeholder="ENGINE")
    interval: float | None = option(
        values.duration(), None, f"{_BLOCKS}; the text ends with a table of all of them", placeholder="TIME"
    )
    flow_table: int | None = option(
        _LINES, None, "lines of the flow table, a power of two", placeholder="LINES", shown_default="as needed"
    )
    assume_mss: int | None = option(
        values.whole(*ASSUMED_MSS),
        None,
        "cut TCP packets with more payload into segments of so many bytes; the result says that it is computed",
        placeholder="BYTES",
    )
    no_progress: bool = option(values.switch(), False, "no progress bar, even on a terminal")


@dataclass(frozen=True, kw_only=True)
class Made:
    """What traffic is made."""

    GROUP: ClassVar[str] = "what is made"

    profile: ProfileName = option(values.choice(*PROFILE_NAMES), "web", "kind of traffic", placeholder="NAME")
    seed: int = option(values.whole(0, (1 << 64) - 1), 0, "another seed makes other traffic", placeholder="N")
    seconds: float = option(values.number(), 10.0, "simulated time", placeholder="S")
    packets_per_second: float = option(values.number(), 10_000.0, "rate", placeholder="R")
    hosts: int = option(
        values.whole(1, SIMULATED_HOSTS_MAX), 100, "clients; there is a server for every four", placeholder="N"
    )
    protocols: tuple[SimulatedProtocol, ...] = option(
        values.some_of(*SIMULATED_PROTOCOLS), (), "only these of the profile's", placeholder="LIST", shown_default="all"
    )
    ipv6: float | None = option(
        values.number(),
        None,
        "part of conversations, 0 to 1",
        placeholder="PART",
        shown_default="as the profile has it",
    )
    vlan: int | None = option(values.whole(0, 4094), None, "tag all frames with this VLAN", placeholder="ID")
    mtu: int = option(values.whole(*SIMULATED_MTUS), 1500, "largest IP packet", placeholder="BYTES")
    write: str | None = option(
        values.path("a file"), None, "also write the frames to this pcap file", placeholder="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class Simulate(Top, Printed, Made, Command):
    """`wiremeter simulate`."""

    GROUP: ClassVar[str] = _SHOWN

    interval: float | None = option(values.duration(), None, _BLOCKS, placeholder="TIME")
    listen: Listen | None = option(
        values.listen(),
        None,
        "serve /metrics there, in real time, an interval of 1s if none is given",
        placeholder="HOST:PORT",
        shown_default="off",
    )
    flow_table: int | None = option(
        _LINES, None, "lines of the flow table, a power of two", placeholder="LINES", shown_default="as needed"
    )


@dataclass(frozen=True, kw_only=True)
class Doctor(Printed, Pinned, Lasting, Isolated, Naming, Metering, Command):
    """`wiremeter doctor`: told what the agent is told, it says what would come of it."""


@dataclass(frozen=True, kw_only=True)
class Verify(Printed, Command):
    """`wiremeter verify`."""

    programs: tuple[str, ...] = option(
        values.paths(),
        (),
        "objects to check",
        flag="--program",
        placeholder="FILE",
        shown_default="the one that came with wiremeter",
        takes_words=True,
    )
    no_load: bool = option(values.switch(), False, "look at the file only")
    log: bool = option(values.switch(), False, "print the verifier's whole log where it refuses a program")


@dataclass(frozen=True, kw_only=True)
class Detach(Printed, Pinned, Command):
    """`wiremeter detach`."""

    interfaces: tuple[str, ...] = option(
        values.devices(),
        ("*",),
        "only these devices. Repeatable",
        flag="--interface",
        short="-i",
        placeholder="NAME",
        shown_default="all",
        takes_words=True,
    )


#: Every command that takes settings.
@dataclass(frozen=True, kw_only=True)
class Alerting:
    """What a server watches for, and whom it tells."""

    GROUP: ClassVar[str] = "alerts (docs/alerts.md)"

    alert_rules: tuple[str, ...] = setting(
        values.files(), (), "files with rules of your own; read again on SIGHUP", placeholder="FILE,..."
    )
    alert_shipped: ShippedRules = setting(
        values.choice(*SHIPPED_RULES),
        "sure",
        "which of the rules that come with it are on; all: those with thresholds, too",
        placeholder="WHICH",
    )
    alertmanagers: tuple[str, ...] = setting(
        values.urls(), (), "Alertmanagers that are told, by the API version 2", placeholder="URL,..."
    )
    alert_webhooks: tuple[str, ...] = setting(
        values.urls(), (), "URLs that are told as Alertmanager tells webhooks", placeholder="URL,..."
    )
    alert_apprise: str | None = setting(
        _FILE_OR_NONE, None, "a configuration file of Apprise: mail, chats and others are told", placeholder="FILE"
    )
    alert_group_by: tuple[str, ...] = setting(
        values.label_names(), ("alertname",), "alerts with the same of these are told together", placeholder="LABEL,..."
    )
    alert_repeat: float = setting(
        values.seconds(60, 30 * 86400),
        4 * 3600.0,
        "what still fires is told again after this time; Alertmanagers decide that themselves",
        placeholder="TIME",
        shown_default="4h",
    )
    alert_interval: float = setting(
        values.seconds(1, 3600), 60.0, "time between two evaluations of rules", placeholder="TIME", shown_default="60s"
    )
    public_url: str | None = setting(
        _URL,
        None,
        "where people reach this server, for links in alerts",
        placeholder="URL",
        shown_default="where it listens",
    )


@dataclass(frozen=True, kw_only=True)
class Server(Command, Logs, Alerting):
    """Settings of `wiremeter server`."""

    GROUP: ClassVar[str] = "the server"

    server_listen: Listen = setting(
        _SERVER_LISTEN_VALUES,
        DEFAULT_SERVER_LISTEN,
        "where agents and clients connect: host:port, [::]:port or :port",
        flag="--listen",
        placeholder="HOST:PORT",
    )
    data_dir: str | None = setting(
        _SERVER_DIR_VALUES,
        None,
        _SERVER_DIR,
        placeholder="DIR",
        shown_default=_SERVER_DIR_DEFAULT,
    )
    store: str | None = setting(
        _STORE_VALUES, None, _STORE, placeholder="WHERE", shown_default="store in the data directory"
    )
    keep_days: int | None = setting(
        values.whole(1, 3650),
        None,
        "days that flows are kept; rollups stay longer",
        placeholder="N",
        shown_default="30",
    )
    store_size: int | None = setting(
        values.size_in_bytes(64 << 20),
        None,
        "most bytes of the store on disk; the oldest are dropped, and counted",
        placeholder="SIZE",
        shown_default="what the disk has, less 2 GiB",
    )
    tls_cert: str | None = setting(
        values.path("the path of a PEM file, or none", default="none"),
        None,
        "the server's certificate, with those between it and its CA; read again when it changes",
        placeholder="FILE",
    )
    tls_key: str | None = setting(
        values.path("the path of a PEM file, or none", default="none"), None, "its key", placeholder="FILE"
    )
    tls_client_ca: str | None = setting(
        values.path("the path of a PEM file, or none", default="none"),
        None,
        "whose certificates agents may show instead of a token",
        placeholder="FILE",
    )
    authentication: Authentication = setting(
        values.choice(*AUTHENTICATIONS),
        "auto",
        "whether a token or certificate is needed; auto: unless only this host can connect and no token was made",
        placeholder="WHEN",
    )
    plaintext: bool = setting(
        values.switch(), False, "listen without TLS where other hosts can connect: tokens and flows can be read then"
    )
    agent_rate: int = setting(
        values.size_in_bytes(1 << 10),
        32 << 20,
        "most bytes a second with one token or certificate; above, agents are told to wait",
        placeholder="SIZE",
        shown_default="32 MiB",
    )
    quarantine_size: int = setting(
        values.size_in_bytes(0),
        256 << 20,
        "most bytes of refused batches that are kept for a look at them",
        placeholder="SIZE",
        shown_default="256 MiB",
    )


@dataclass(frozen=True, kw_only=True)
class Up(Shipping, Live):
    """Settings of `wiremeter up`."""

    GROUP: ClassVar[str] = Server.GROUP

    server: str | None = option(values.url(), None, "the server that is started", placeholder="URL", is_hidden=True)
    server_listen: Listen = setting(
        _SERVER_LISTEN_VALUES,
        DEFAULT_SERVER_LISTEN,
        "where the server listens",
        flag="--server-listen",
        placeholder="HOST:PORT",
    )
    data_dir: str | None = setting(
        _SERVER_DIR_VALUES, None, _SERVER_DIR, placeholder="DIR", shown_default=_SERVER_DIR_DEFAULT
    )


@dataclass(frozen=True, kw_only=True)
class Token(Command):
    """Settings of `wiremeter token`."""

    GROUP: ClassVar[str] = "the token"

    do: tuple[str, ...] = option(
        values.paths(), ("list",), "create NAME, list, or revoke ID", placeholder="WHAT", takes_words=True
    )
    data_dir: str | None = setting(
        _SERVER_DIR_VALUES,
        None,
        _SERVER_DIR,
        placeholder="DIR",
        shown_default=_SERVER_DIR_DEFAULT,
    )
    rights: tuple[TokenRight, ...] = option(
        values.some_of(*TOKEN_RIGHTS),
        ("write",),
        "what it permits: write batches, read, or admin",
        placeholder="RIGHTS",
    )
    for_agent: str | None = option(
        values.agent_id(), None, "the only agent that it may write for", placeholder="AGENT", shown_default="any"
    )
    format: OutputFormat = option(
        values.choice(*OUTPUT_FORMATS), "text", "text, or JSON for programs", placeholder="FORMAT"
    )


@dataclass(frozen=True, kw_only=True)
class StoreCommand(Printed, Command):
    """Settings of `wiremeter store`."""

    GROUP: ClassVar[str] = "the store"

    do: tuple[str, ...] = option(
        values.paths(),
        ("info",),
        "info, compact, export DIRECTORY, backup FILE, or restore FILE",
        placeholder="WHAT",
        takes_words=True,
    )
    data_dir: str | None = setting(
        _SERVER_DIR_VALUES,
        None,
        _SERVER_DIR,
        placeholder="DIR",
        shown_default=_SERVER_DIR_DEFAULT,
    )
    store: str | None = setting(
        _STORE_VALUES, None, _STORE, placeholder="WHERE", shown_default="store in the data directory"
    )


@dataclass(frozen=True, kw_only=True)
class Asking(Command):
    """Which server is asked, and how its answer is printed."""

    GROUP: ClassVar[str] = "the server that is asked (docs/query.md)"

    server: str | None = setting(
        _URL,
        None,
        "the server, http or https",
        placeholder="URL",
        shown_default=f"http://{DEFAULT_SERVER_LISTEN}",
    )
    token_file: str | None = setting(
        _FILE_OR_NONE,
        None,
        "the file that holds the token, and nothing else",
        placeholder="FILE",
    )
    server_ca: str | None = setting(
        _FILE_OR_DEFAULT,
        None,
        "certificates that the server's is checked with, PEM",
        placeholder="FILE",
        shown_default="the system's",
    )
    client_cert: str | None = setting(
        _FILE_OR_NONE,
        None,
        "a certificate to show to the server, PEM, with those above it",
        placeholder="FILE",
    )
    client_key: str | None = setting(
        _FILE_OR_NONE,
        None,
        "its key, PEM, where it is not in the same file",
        placeholder="FILE",
    )
    format: AnswerFormat = option(
        values.choice(*ANSWER_FORMATS),
        "text",
        "form of the answer",
        placeholder="FORMAT",
        shorthands={"--json": "json"},
    )


@dataclass(frozen=True, kw_only=True)
class Ranged(Asking):
    """Which flows."""

    GROUP: ClassVar[str] = "what is asked"

    since: str = option(
        values.text(),
        "5m",
        "its beginning: so long ago (s, m, h, d, w), RFC 3339, or Unix seconds",
        placeholder="TIME",
    )
    until: str = option(values.text(), "now", "its end: the same, or now", placeholder="TIME")
    filter: str = option(
        values.text(),
        "",
        "only flows that match, such as 'agent web-1 and port 443'",
        short="-f",
        placeholder="EXPRESSION",
    )


@dataclass(frozen=True, kw_only=True)
class TopCommand(Ranged):
    """Settings of `wiremeter top`."""

    GROUP: ClassVar[str] = Ranged.GROUP

    by: tuple[str, ...] = option(
        values.paths(),
        ("agent", "device"),
        "dimensions, such as domain or src_addr",
        placeholder="NAME",
        takes_words=True,
    )
    amount: Amount = option(values.choice(*AMOUNTS), "bytes", "the amount that is largest", placeholder="AMOUNT")
    limit: int = option(values.whole(1, 10_000), 10, "rows, without the remainder", placeholder="N")
    count_once: Once = option(
        values.choice(*ONCE),
        "none",
        "observer: each flow as one point saw it; none: as often as it was seen",
        flag="--once",
        placeholder="HOW",
    )


@dataclass(frozen=True, kw_only=True)
class FlowsCommand(Ranged):
    """Settings of `wiremeter flows`."""

    GROUP: ClassVar[str] = Ranged.GROUP

    limit: int = option(values.whole(0), 1000, "flows, at most; 0: all of them", placeholder="N")
    order: SearchOrder = option(values.choice(*SEARCH_ORDERS), "newest", "which come first", placeholder="ORDER")


@dataclass(frozen=True, kw_only=True)
class AlertCommand(Asking):
    """Settings of `wiremeter alert`."""

    GROUP: ClassVar[str] = "what is asked"

    do: tuple[str, ...] = option(
        values.paths(),
        ("list",),
        "list, history, rules, test FILE..., check FILE..., silences, silence MATCHER..., or unsilence ID",
        placeholder="WHAT",
        shown_default="list",
        takes_words=True,
    )
    limit: int = option(values.whole(1, 10_000), 100, "of history, at most", placeholder="N")
    silence_for: str = option(
        values.text(), "2h", "how long a silence holds, such as 30m or 7d", flag="--for", placeholder="TIME"
    )
    comment: str = option(values.text(), "", "why it is silenced", placeholder="TEXT")


@dataclass(frozen=True, kw_only=True)
class QueryCommand(Asking):
    """Settings of `wiremeter query`."""

    GROUP: ClassVar[str] = "what is asked"

    sql: tuple[str, ...] = option(
        values.paths(), (), "one SELECT over the store's tables", placeholder="SELECT", takes_words=True
    )


COMMANDS: dict[str, type[Command]] = {
    "live": Live,
    "agent": Settings,
    "replay": Replay,
    "simulate": Simulate,
    "doctor": Doctor,
    "verify": Verify,
    "detach": Detach,
    "server": Server,
    "up": Up,
    "token": Token,
    "store": StoreCommand,
    "top": TopCommand,
    "flows": FlowsCommand,
    "query": QueryCommand,
    "alert": AlertCommand,
}
