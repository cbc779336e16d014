"""Rules, in YAML as Prometheus writes them, with SQL where PromQL would be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from wiremeter.errors import InputError
from wiremeter.server.alerts.sql import check_placeholders
from wiremeter.server.alerts.templates import check_template
from wiremeter.settings.words import ShippedRules

#: Largest file of rules that is read.
_BYTES_MAX = 4 << 20
#: Of the shipped rules, the group with those that need a threshold which fits the network.
_BY_CHOICE = "wiremeter-thresholds"
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_DURATION = re.compile(r"(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)
_SECONDS = (7 * 86400, 86400, 3600, 60, 1)
_S_NS = 10**9
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. key: what its alerts are kept under; it stays when the rule's text changes.

    expr: a SELECT; each row is an alert, `value` in it is its value, and the other columns are labels. hold_ns: how
    long it must be so before it fires (`for`). keep_ns: how long it still fires when it is so no more
    (`keep_firing_for`). interval_ns: between two evaluations, 0: each time.
    """

    key: str
    group: str
    name: str
    expr: str
    hold_ns: int = 0
    keep_ns: int = 0
    interval_ns: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


class _Alert(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    alert: str
    expr: str
    for_: str = msgspec.field(name="for", default="0s")
    keep_firing_for: str = "0s"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Group(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: str
    interval: str = "0s"
    rules: list[_Alert] = []


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    groups: list[_Group] = []


def read_rules(paths: Iterable[Path], shipped: ShippedRules = "none") -> list[Rule]:
    """The rules of some files, and those that come with wiremeter. Raises InputError, which says what is wrong where.

    shipped: sure, those that cannot be wrong about a network; all, also those with thresholds; none.
    """
    found = shipped_rules(shipped)
    for path in paths:
        found += rules_of(read_yaml(path), str(path))
    counts = Counter(rule.key for rule in found)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise InputError(f"the group {twice[0].split('/')[0]} is in two files of rules; give one of them another name")
    return found


def shipped_rules(which: ShippedRules) -> list[Rule]:
    """Those that come with wiremeter."""
    if which == "none":
        return []
    text = resources.files(__package__).joinpath("shipped.yml").read_text("utf-8")
    rules = rules_of(yaml.safe_load(text), "the shipped rules")
    return [rule for rule in rules if which == "all" or rule.group != _BY_CHOICE]


def rules_of(document: object, where: str) -> list[Rule]:
    """The rules of a document. where: what it is called in messages. Raises InputError.

    >>> rules_of({"groups": [{"name": "g", "rules": [{"alert": "A", "expr": "SELECT 1"}]}]}, "x")[0].key
    'g/A'
    """
    file = converted(document if document is not None else {}, _File, where)
    names: set[str] = set()
    found = []
    for group in file.groups:
        if group.name in names:
            raise InputError(f"{where}: the group {group.name} is there twice")
        names.add(group.name)
        found += list(_rules(group, where))
    return found


def _rules(group: _Group, where: str) -> Iterator[Rule]:
    seen: Counter[str] = Counter()
    for each in group.rules:
        at = f"{where}: the alert {each.alert}"
        if not each.alert.strip():
            raise InputError(f"{where}: an alert of the group {group.name} has no name")
        for name in (*each.labels, *each.annotations):
            if not LABEL_NAME.fullmatch(name):
                raise InputError(f"{at}: {name!r} is no name of a label; those have letters, digits and underscores")
        if "alertname" in each.labels:
            raise InputError(f"{at}: the label alertname is the alert's name, and cannot be given")
        for text in (*each.labels.values(), *each.annotations.values()):
            check_template(text, at)
        check_placeholders(each.expr, at)
        seen[each.alert] += 1
        number = f"#{seen[each.alert]}" if seen[each.alert] > 1 else ""
        yield Rule(
            key=f"{group.name}/{each.alert}{number}",
            group=group.name,
            name=each.alert,
            expr=each.expr.strip().rstrip(";"),
            hold_ns=duration_ns(each.for_, at),
            keep_ns=duration_ns(each.keep_firing_for, at),
            interval_ns=duration_ns(group.interval, at),
            labels=each.labels,
            annotations=each.annotations,
        )


def duration_ns(text: str, where: str) -> int:
    """A length of time as Prometheus writes it, in nanoseconds. Raises InputError.

    >>> duration_ns("1h30m", "x") // 10**9, duration_ns("0", "x")
    (5400, 0)
    """
    matched = _DURATION.fullmatch(text)
    if text == "0":
        return 0
    if not text or not matched:
        raise InputError(f"{where}: {text!r} is no length of time; expected one such as 30s, 5m or 1h30m")
    return sum(int(number or 0) * seconds for number, seconds in zip(matched.groups(), _SECONDS, strict=True)) * _S_NS


def read_yaml(path: Path) -> object:
    """A file's document. Raises InputError."""
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES_MAX + 1)
        if len(content) > _BYTES_MAX:
            raise InputError(f"{path} is larger than {_BYTES_MAX >> 20} MiB, which no file of rules is")
        return yaml.safe_load(content)
    except OSError as error:
        raise InputError(f"{path}: the rules cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path}: this is no YAML: {said}") from error


def converted(document: object, kind: type[_T], where: str) -> _T:
    """A document as a type. Raises InputError, which says where in it something is wrong."""
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InputError(f"{where}: {error}") from error
