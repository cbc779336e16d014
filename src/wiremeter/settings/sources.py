"""Where settings come from: flags, then WIREMETER_* environment variables, then the YAML file, then defaults.

A source replaces a setting as a whole: `--interface eth0` is not added to the file's list.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from wiremeter.errors import InputError
from wiremeter.settings.catalogue import COMMANDS, Command, Settings
from wiremeter.settings.setting import Setting, settings_of
from wiremeter.settings.values import nearest

ENVIRONMENT_PREFIX = "WIREMETER_"
CONFIG_VARIABLE = "WIREMETER_CONFIG"
#: Where systemd says that a service may keep what should outlive it (StateDirectory= in systemd.exec(5)).
STATE_VARIABLE = "STATE_DIRECTORY"

#: A file that is larger holds something else than settings.
_FILE_BYTES_MAX = 1 << 18
#: Of a wrong value a message shows so many characters.
_SHOWN_MAX = 80

#: Kubernetes adds such variables to a pod for each service of its namespace, one called `wiremeter` included.
_KUBERNETES_SERVICE = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)

_Kind = TypeVar("_Kind", bound=Command)


def load_settings(
    flags: Mapping[str, object] | None = None,
    kind: type[_Kind] = Settings,  # type: ignore[assignment]
    *,
    config: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> _Kind:
    """The settings from flags, environment and file.

    flags: values by setting name, only those given. kind: whose settings, by default the agent's; those of other
    commands in environment and file are passed over.
    config: path of the YAML file; without it WIREMETER_CONFIG names one, or there is none.
    Raises InputError for a file that cannot be read, an unknown key or variable, or a value that does not fit.

    >>> load_settings({"interval": "500ms"}, environment={"WIREMETER_INTERFACES": "eth0,veth*"}).interval
    0.5
    """
    own = settings_of(kind)
    given: dict[str, _Given] = {}
    if any(each.is_configurable for each in own.values()):
        path = config if config is not None else environment.get(CONFIG_VARIABLE)
        given |= _from_file(Path(path)) if path else {}
        given |= _from_environment(environment)
        if state := environment.get(STATE_VARIABLE):
            given.setdefault("state_dir", _Given(STATE_VARIABLE, state.split(":")[0]))
        given = {name: each for name, each in given.items() if name in own and own[name].is_configurable}
    given |= {name: _Given(own[name].flag, raw) for name, raw in (flags or {}).items()}
    return kind(**{name: _read(own[name], each) for name, each in given.items()})


@cache
def configurable() -> dict[str, Setting]:
    """What the environment and the file can set, by name: the settings of all commands."""
    return {
        name: each for kind in COMMANDS.values() for name, each in settings_of(kind).items() if each.is_configurable
    }


class _Given(NamedTuple):
    """A value before it is read, and the place that a message should name."""

    where: str
    raw: object


def _read(setting: Setting, given: _Given) -> Any:
    try:
        return setting.values.read(given.raw)
    except ValueError:
        raise InputError(f"{given.where} is {_shown(given.raw)}, expected {setting.values.expected}") from None


def _shown(raw: object) -> str:
    try:
        text = repr(raw)
    except ValueError:  # a whole number too long for Python to write
        text = "a number of thousands of digits"
    text = re.sub(r"//[^/@\s]*@", "//…@", text)  # a URL's password is not to be told
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


def _from_environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    """Settings among the variables; an empty variable counts as not set."""
    known = {ENVIRONMENT_PREFIX + name.upper(): name for name in configurable()}
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
                + _advice(variable, [*known, CONFIG_VARIABLE])
            )
    return found


def _from_file(path: Path) -> dict[str, _Given]:
    """Settings in a YAML mapping. An empty file, or a key without a value, sets nothing."""
    import yaml

    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InputError(f"cannot read the settings file {path}: {error.strerror}") from error
    if len(data) > _FILE_BYTES_MAX:
        raise InputError(f"{path} is larger than {_FILE_BYTES_MAX >> 10} KiB: it holds something else than settings")
    found: dict[str, _Given] = {}
    try:
        for line, key, raw in list(_entries(data.decode())):
            where = f"{path}:{line}"
            if key not in configurable():
                raise InputError(
                    f"{where}: {_shown(key)[1:-1]} is no setting of wiremeter; {_advice(key, [*configurable()])}"
                )
            if key in found:
                raise InputError(f"{where}: {key} is set a second time; keep one")
            found[key] = _Given(f"{where}: {key}", raw)
    except _NoSettings as error:
        raise InputError(f"{path}{error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} is not YAML that wiremeter can read: {error}") from error
    return {key: given for key, given in found.items() if given.raw is not None}


class _NoSettings(Exception):
    """YAML, but not lines of settings; the text goes on behind the file's name."""


def _entries(text: str) -> Iterator[tuple[int, str, str | list[str] | None]]:
    """Line, key and value of each entry; the value is text, a list of texts, or None where nothing is written.

    The events are read as they come, so that whatever is nested deeper, or stands for something else (anchors, tags),
    ends the reading before it costs anything. What a text means is for the setting to say, as with variables.
    """
    import yaml

    events = iter(yaml.parse(text, Loader=yaml.BaseLoader))

    def plain(event: Any) -> str | None:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor or event.tag:
            raise _NoSettings(f":{line}: anchors, aliases and tags of YAML are not taken: write the value itself")
        if not isinstance(event, yaml.ScalarEvent):
            raise _NoSettings(
                f":{line}: nothing is nested in settings: expected lines such as `interfaces: [eth0, wg0]`"
            )
        is_nothing = event.style is None and event.value in ("", "~", "null", "Null", "NULL")
        return None if is_nothing else event.value

    def following() -> Any:
        return next(event for event in events if not isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent))

    top = following()
    if isinstance(top, yaml.StreamEndEvent):
        return
    if isinstance(top, yaml.ScalarEvent) and plain(top) is None:
        return
    if not isinstance(top, yaml.MappingStartEvent):
        raise _NoSettings(" holds no settings: expected lines such as `interval: 5s`")
    for key in iter(following, None):
        if isinstance(key, yaml.MappingEndEvent):
            break
        line, name, value = key.start_mark.line + 1, plain(key), following()
        if isinstance(value, yaml.SequenceStartEvent) and not (value.anchor or value.tag):
            listed = iter(following, None)
            raw: Any = [plain(each) for each in _until(listed, yaml.SequenceEndEvent)]
        else:
            raw = plain(value)
        yield line, name or "", raw
    if not isinstance(following(), yaml.DocumentEndEvent) or not isinstance(following(), yaml.StreamEndEvent):
        raise _NoSettings(": one document is expected, without a second `---`")


def _until(events: Iterator[Any], end: type[Any]) -> Iterator[Any]:
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _advice(name: str, known: list[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near}?" if near else "docs/configuration.md lists all there are"
