"""The agent's settings: what they are, where they come from, and what is wrong with a bad one.

Precedence: flags, then WIREMETER_* environment variables, then the YAML file, then defaults. A source replaces a
setting as a whole: `--interface eth0` is not added to the file's list.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from wiremeter.errors import InputError

Attach = Literal["auto", "xdp", "xdp-generic", "tcx", "capture"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]

#: What names can be read from; the last only where it is asked for.
NAME_KINDS = ("dns", "tls", "http", "quic", "ptr")

ENVIRONMENT_PREFIX = "WIREMETER_"
CONFIG_VARIABLE = "WIREMETER_CONFIG"
#: Where systemd says that a service may keep what should outlive it (StateDirectory= in systemd.exec(5)).
STATE_VARIABLE = "STATE_DIRECTORY"

SHORTEST_INTERVAL = 0.1
LONGEST_INTERVAL = 3600.0

#: Kubernetes adds such variables to a pod for each service of its namespace, one called `wiremeter` included.
_KUBERNETES_SERVICE = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


class Listen(NamedTuple):
    """Where /metrics is served. An empty host is every address of this machine; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


DEFAULT_LISTEN = Listen("127.0.0.1", 10464)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the agent can be told.

    interfaces: device names, globs, or "auto": the devices that carry the default routes.
    interval: seconds between two batches.
    program: path of another compiled object, or None for the one that came with wiremeter.
    attach: how to attach; "auto" never changes offloads.
    flow_table: lines in the flow table of each CPU, a power of two, or None for what suits this machine.
    max_devices: most devices metered at a time; the tables have room for so many counters.
    listen: where /metrics, /healthz and /readyz are served, or None for nowhere.
    debug: log at level debug, and show tracebacks.
    bpf_stats: have the kernel measure the programs' run time, which costs some ns a packet.
    names: what may be read of payloads, of NAME_KINDS; none: nothing is.
    payload_bytes: bytes of one packet's payload that are looked at, at most.
    redact_paths: leave the paths of HTTP requests out of everything.
    state_dir: a directory for what should outlive the agent, or None; by default the one that systemd gives a service.
    domains: most domains among the labels of metrics.
    """

    interfaces: tuple[str, ...] = ("auto",)
    interval: float = 1.0
    program: str | None = None
    attach: Attach = "auto"
    flow_table: int | None = None
    max_devices: int = 32
    listen: Listen | None = DEFAULT_LISTEN
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    debug: bool = False
    bpf_stats: bool = False
    names: tuple[str, ...] = NAME_KINDS[:-1]
    payload_bytes: int = 2048
    redact_paths: bool = True
    state_dir: str | None = None
    domains: int = 100


NAMES = tuple(field.name for field in fields(Settings))


def load_settings(
    flags: Mapping[str, object] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings from flags, environment and file.

    flags: values by setting name, only those given; text is parsed like an environment variable's.
    config: path of the YAML file; without it WIREMETER_CONFIG names one, or there is none.
    Raises InputError for a file that cannot be read, an unknown key or variable, or a value that does not fit.

    >>> load_settings({"interval": "500ms"}, environment={"WIREMETER_INTERFACES": "eth0,veth*"}).interval
    0.5
    """
    path = config if config is not None else environment.get(CONFIG_VARIABLE)
    values = _from_file(Path(path)) if path else {}
    values |= _from_environment(environment)
    values |= {name: _Given(_flag(name), raw) for name, raw in (flags or {}).items()}
    if given := environment.get(STATE_VARIABLE):
        values.setdefault("state_dir", _Given(STATE_VARIABLE, given.split(":")[0]))
    return Settings(**{name: _parse(name, given) for name, given in values.items()})


class _Given(NamedTuple):
    """A value before it is parsed, and the place that a message should name."""

    where: str
    raw: object


def _parse(name: str, given: _Given) -> Any:
    try:
        return _PARSERS[name](given.raw)
    except _Unfit as unfit:
        raise InputError(f"{given.where} is {given.raw!r}, expected {unfit}") from None


def _flag(name: str) -> str:
    return "--interface" if name == "interfaces" else "--" + name.replace("_", "-")


def _from_environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    """Settings among the variables; an empty variable counts as not set."""
    known = {ENVIRONMENT_PREFIX + name.upper(): name for name in NAMES}
    in_kubernetes = "KUBERNETES_SERVICE_HOST" in environment
    found: dict[str, _Given] = {}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable in known:
            if text:
                found[known[variable]] = _Given(variable, text)
        elif not (in_kubernetes and _KUBERNETES_SERVICE.fullmatch(variable)):
            raise InputError(
                f"the environment variable {variable} is no setting of wiremeter; "
                + _nearest(variable, [*known, CONFIG_VARIABLE])
            )
    return found


def _from_file(path: Path) -> dict[str, _Given]:
    """Settings in a YAML mapping. An empty file, or a key without a value, sets nothing."""
    import yaml

    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if root is None or root.tag == "tag:yaml.org,2002:null":
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise InputError(f"{path} holds no settings: expected lines such as `interval: 5s`")
        entries = [
            (f"{path}:{key.start_mark.line + 1}", str(key.value), loader.construct_object(value, deep=True))
            for key, value in root.value
        ]
    except OSError as error:
        raise InputError(f"cannot read the settings file {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} is not YAML that wiremeter can read: {error}") from error
    found: dict[str, _Given] = {}
    for where, key, raw in entries:
        if key not in NAMES:
            raise InputError(f"{where}: {key} is no setting of wiremeter; {_nearest(key, NAMES)}")
        if key in found:
            raise InputError(f"{where}: {key} is set a second time; keep one")
        found[key] = _Given(f"{where}: {key}", raw)
    return {key: given for key, given in found.items() if given.raw is not None}


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"did you mean {near[0]}? (all of them: {', '.join(known)})"


# ---- one parser a kind of value. Each takes what YAML gives or text, and raises _Unfit saying what it expected.


class _Unfit(Exception):
    """The value does not fit; the text says what would."""


_UNIT_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0}


def _seconds(raw: object) -> float:
    expected = f"seconds from {SHORTEST_INTERVAL} to {LONGEST_INTERVAL:g}, such as 5, 5s or 500ms"
    matched = re.fullmatch(r"([0-9]*\.?[0-9]+|[0-9]+\.)\s*([a-z]*)", _text(raw, expected))
    if not matched or matched[2] not in _UNIT_SECONDS:
        raise _Unfit(expected)
    seconds = float(matched[1]) * _UNIT_SECONDS[matched[2]]
    if not SHORTEST_INTERVAL <= seconds <= LONGEST_INTERVAL:
        raise _Unfit(expected)
    return seconds


def _interfaces(raw: object) -> tuple[str, ...]:
    """A list of names, or text with commas or blanks between them."""
    expected = "device names, globs or auto, such as eth0 or [eth0, veth*]"
    listed = raw.replace(",", " ").split() if isinstance(raw, str) else raw
    if not isinstance(listed, list | tuple) or not listed:
        raise _Unfit(expected)
    if not all(isinstance(name, str) and re.fullmatch(r"[^\s/]+", name) for name in listed):
        raise _Unfit(expected)
    return tuple(dict.fromkeys(listed))


def _kinds(raw: object) -> tuple[str, ...]:
    """A list of kinds, text with commas or blanks between them, or none."""
    expected = f"none, or some of {', '.join(NAME_KINDS)}"
    if raw in ("none", False):  # a bare `off` is False in YAML
        return ()
    listed = raw.replace(",", " ").split() if isinstance(raw, str) else raw
    if not isinstance(listed, list | tuple) or not listed or not set(listed) <= set(NAME_KINDS):
        raise _Unfit(expected)
    return tuple(dict.fromkeys(listed))


def _up_to(most: int) -> Callable[[object], int]:
    def parse(raw: object) -> int:
        expected = f"a whole number from 0 to {most}"
        number = _whole(raw, expected)
        if number > most:
            raise _Unfit(expected)
        return number

    return parse


def _directory(raw: object) -> str | None:
    if raw in ("none", False):
        return None
    if not isinstance(raw, str) or not raw:
        raise _Unfit("a directory, or none")
    return raw


def _power_of_two(raw: object) -> int | None:
    expected = "a power of two, or default"
    if raw == "default":
        return None
    number = _whole(raw, expected)
    if number < 1 or number & (number - 1):
        raise _Unfit(expected)
    return number


def _count(raw: object) -> int:
    expected = "a whole number above 0"
    number = _whole(raw, expected)
    if number < 1:
        raise _Unfit(expected)
    return number


def _path(raw: object) -> str | None:
    if raw == "default":
        return None
    if not isinstance(raw, str) or not raw:
        raise _Unfit("the path of a compiled object, or default")
    return raw


def _listen(raw: object) -> Listen | None:
    expected = "host:port such as 127.0.0.1:10464 or [::]:10464, :10464 for every address, or off"
    if raw is False or raw == "off":  # a bare `off` is False in YAML
        return None
    matched = re.fullmatch(r"(?:\[([\w:.%-]+)\]|([\w.-]*)):([0-9]{1,5})", raw) if isinstance(raw, str) else None
    if not matched or int(matched[3]) > 65535:
        raise _Unfit(expected)
    return Listen(matched[1] or matched[2], int(matched[3]))


def _switch(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    text = raw.lower() if isinstance(raw, str) else ""
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    raise _Unfit("true or false")


def _one_of(*choices: str) -> Callable[[object], str]:
    def parse(raw: object) -> str:
        if raw not in choices:
            raise _Unfit(f"one of {', '.join(choices)}")
        return str(raw)

    return parse


def _whole(raw: object, expected: str) -> int:
    text = _text(raw, expected)
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise _Unfit(expected)
    return int(text)


def _text(raw: object, expected: str) -> str:
    """The text of a number or a string; a bool is neither, though Python says it is an int."""
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise _Unfit(expected)
    return str(raw).strip()


_PARSERS: Mapping[str, Callable[[object], object]] = {
    "interfaces": _interfaces,
    "interval": _seconds,
    "program": _path,
    "attach": _one_of("auto", "xdp", "xdp-generic", "tcx", "capture"),
    "flow_table": _power_of_two,
    "max_devices": _count,
    "listen": _listen,
    "log_level": _one_of("debug", "info", "warning", "error"),
    "log_format": _one_of("text", "json"),
    "debug": _switch,
    "bpf_stats": _switch,
    "names": _kinds,
    "payload_bytes": _up_to(4096),
    "redact_paths": _switch,
    "state_dir": _directory,
    "domains": _up_to(10_000),
}
