"""`wiremeter alert`: what fires, what did, silences; and rules tried before a server has them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from wiremeter.cli.asking import opened
from wiremeter.cli.errors import EXIT_ERROR
from wiremeter.errors import InputError
from wiremeter.settings.catalogue import AlertCommand


def run(settings: AlertCommand) -> int:
    """Does what the words say. Raises InputError, PermissionNeeded or WiremeterError."""
    if settings.format not in ("text", "json"):
        raise InputError(f"--format {settings.format}: `wiremeter alert` prints text, or json")
    match settings.do:
        case ("test", _, *_):
            return _test(settings)
        case ("check", _, *_):
            return _check(settings)
        case ("list",):
            _print(_ask(settings, "GET", "alerts"), settings, _of_alert, "no alert is pending or firing")
        case ("history",):
            path = f"alerts/history?limit={settings.limit}"
            _print(_ask(settings, "GET", path), settings, _of_change, "no alert has fired yet")
        case ("rules",):
            _print(_ask(settings, "GET", "alerts/rules"), settings, _of_rule, "there are no rules")
        case ("silences",):
            _print(_ask(settings, "GET", "alerts/silences"), settings, _of_silence, "there are no silences")
        case ("silence", _, *_):
            document = {"matchers": settings.do[1:], "for": settings.silence_for, "comment": settings.comment}
            _print([_ask(settings, "POST", "alerts/silences", document)], settings, _of_silence, "")
        case ("unsilence", id):
            _print([_ask(settings, "DELETE", f"alerts/silences/{quote(id, safe='')}")], settings, _of_silence, "")
        case _:
            raise InputError(
                f'"{" ".join(settings.do)}": expected list, history, rules, test FILE..., check FILE..., silences, '
                "silence MATCHER..., or unsilence ID (`wiremeter alert --help`)"
            )
    return 0


def _ask(settings: AlertCommand, method: Any, path: str, document: object = None) -> Any:
    with opened(settings) as server:
        return server.call(method, path, document)


def _test(settings: AlertCommand) -> int:
    try:
        from wiremeter.server.alerts.trial import run_tests
    except ImportError as error:
        raise _missing(error) from error
    logging.getLogger("wiremeter").addHandler(logging.NullHandler())  # what fires here is told below
    failed = 0
    for name in settings.do[1:]:
        for outcome in run_tests(Path(name)):
            failed += bool(outcome.problems)
            if settings.format == "json":
                document = {"file": name, "test": outcome.name, "problems": outcome.problems}
                print(json.dumps(document, ensure_ascii=False), flush=True)
                continue
            print(f"{name}: {outcome.name}: {'FAILED' if outcome.problems else 'ok'}", flush=True)
            for problem in outcome.problems:
                print(f"    {problem}", flush=True)
    return EXIT_ERROR if failed else 0


def _check(settings: AlertCommand) -> int:
    try:
        from wiremeter.server.alerts.trial import check_rules
    except ImportError as error:
        raise _missing(error) from error
    failed = 0
    for file, problems in check_rules(list(map(Path, settings.do[1:]))):
        failed += bool(problems)
        if settings.format == "json":
            print(json.dumps({"file": str(file), "problems": problems}, ensure_ascii=False), flush=True)
        else:
            print("\n".join([f"{file}: {'FAILED' if problems else 'ok'}", *(f"    {each}" for each in problems)]))
    return EXIT_ERROR if failed else 0


def _missing(error: ImportError) -> InputError:
    text = f"rules are tried by the server's engine, which needs {error.name}: pip install 'wiremeter[server]'"
    return InputError(text)


def _print(found: Any, settings: AlertCommand, line_of: Any, without: str) -> None:
    if settings.format == "json":
        print(json.dumps(found, ensure_ascii=False))
    else:
        print("\n".join(map(line_of, found)) or without)


def _of_alert(alert: Mapping[str, Any]) -> str:
    silenced = f"  silenced by {', '.join(alert['silenced_by'])}" if alert["silenced_by"] else ""
    since = alert["resolved"] or alert["fired"] or alert["active_since"]
    return f"{alert['state']:8}  {since}  {_about(alert)}{silenced}"


def _of_change(change: Mapping[str, Any]) -> str:
    return f"{change['time']}  {change['state']:8}  {_about(change)}"


def _of_rule(rule: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{rule[state]} {state}" for state in ("firing", "pending") if rule[state])
    state = rule["problem"] or counts or ("quiet" if rule["evaluated"] else "not evaluated yet")
    return f"{rule['rule']}: {state}"


def _of_silence(silence: Mapping[str, Any]) -> str:
    ended = "" if silence["active"] else "  (over)"
    comment = f"  {silence['comment']}" if silence["comment"] else ""
    matchers = " ".join(silence["matchers"])
    return f"{silence['id']}  until {silence['ends']}  {matchers}  by {silence['by']}{comment}{ended}"


def _about(alert: Mapping[str, Any]) -> str:
    """Its summary, else its labels; on one line, whatever is in them."""
    labels = ", ".join(f"{name}={text}" for name, text in sorted(alert["labels"].items()) if name != "alertname")
    text = f"{alert['alert']}: {alert['annotations'].get('summary') or labels}"
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
