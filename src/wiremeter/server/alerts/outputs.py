"""Who is told of alerts: Alertmanager, webhooks, and by Apprise mail, chats and telephones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from wiremeter import __version__
from wiremeter.errors import InputError, WiremeterError
from wiremeter.server.alerts.states import Alert, shown

_TIMEOUT = Timeout(connect=5, read=10)
#: How long Alertmanager holds an alert of which it hears no more: a server that is restarted must not end it.
_HELD_NS = 15 * 60 * 10**9
#: Alerts in a text for people; of more, their number is told.
_SHOWN = 20


class NotTold(WiremeterError):
    """An output was not reached, or refused."""


class Output(Protocol):
    """One of them. name: what was told is kept under it. kind: for metrics. is_refreshed: it wants to hear of what
    fires at each round, and not only when something changes."""

    name: str
    kind: str
    is_refreshed: bool

    def send(self, group: Mapping[str, str], firing: Sequence[Alert], over: Sequence[Alert], now_ns: int) -> None:
        """Tells of a group's alerts. Raises NotTold."""


class Alertmanager:
    """Alertmanager's API, version 2. It groups and repeats by itself, and wants to hear of alerts at each round."""

    kind = "alertmanager"
    is_refreshed = True

    def __init__(self, url: str, public_url: str) -> None:
        self.name = f"alertmanager {url}"
        self._url = f"{url}/api/v2/alerts"
        self._public_url = public_url

    def send(self, group: Mapping[str, str], firing: Sequence[Alert], over: Sequence[Alert], now_ns: int) -> None:
        alerts = [
            {
                "labels": alert.labels,
                "annotations": alert.annotations,
                "startsAt": rfc3339(alert.fired_ns),
                "endsAt": rfc3339(alert.resolved_ns or now_ns + _HELD_NS),
                "generatorURL": generator_url(self._public_url, alert),
            }
            for alert in (*firing, *over)
        ]
        _post(self._url, alerts, {})


class Webhook:
    """A URL that takes what Alertmanager's webhooks send (version 4 of it)."""

    kind = "webhook"
    is_refreshed = False

    def __init__(self, url: str, public_url: str) -> None:
        self.name = f"webhook {url}"
        self._url = url
        self._public_url = public_url

    def send(self, group: Mapping[str, str], firing: Sequence[Alert], over: Sequence[Alert], now_ns: int) -> None:
        alerts = [*firing, *over]
        document = {
            "version": "4",
            "groupKey": shown(group),
            "truncatedAlerts": 0,
            "status": "firing" if firing else "resolved",
            "receiver": "wiremeter",
            "groupLabels": dict(group),
            "commonLabels": _common([alert.labels for alert in alerts]),
            "commonAnnotations": _common([alert.annotations for alert in alerts]),
            "externalURL": self._public_url,
            "alerts": [
                {
                    "status": "resolved" if alert.resolved_ns else "firing",
                    "labels": alert.labels,
                    "annotations": alert.annotations,
                    "startsAt": rfc3339(alert.fired_ns),
                    "endsAt": rfc3339(alert.resolved_ns) if alert.resolved_ns else "0001-01-01T00:00:00Z",
                    "generatorURL": generator_url(self._public_url, alert),
                    "fingerprint": alert.fingerprint,
                }
                for alert in alerts
            ],
        }
        _post(self._url, document, {"Idempotency-Key": _key(firing, over)})


class Apprise:
    """All that Apprise knows, by a file of its own format. Raises InputError if it is not installed, or knows none."""

    kind = "apprise"
    is_refreshed = False

    def __init__(self, file: str) -> None:
        try:
            import apprise
        except ImportError as error:
            raise InputError(
                "--alert-apprise needs apprise, which is not installed: pip install 'wiremeter[alerts]'"
            ) from error
        self.name = f"apprise {file}"
        configuration = apprise.AppriseConfig()
        # What the file says is secret, and so is what Apprise would say of it.
        if not configuration.add(file) or not (servers := configuration.services()):
            raise InputError(f"{file}: Apprise finds nothing in it that it could tell; one URL a line is its format")
        self._apprise = apprise.Apprise()
        for server in servers:
            self._apprise.add(server)
        self._types = {True: apprise.NotifyType.WARNING, False: apprise.NotifyType.SUCCESS}

    def send(self, group: Mapping[str, str], firing: Sequence[Alert], over: Sequence[Alert], now_ns: int) -> None:
        title, body = message(group, firing, over)
        if not self._apprise.notify(body=body, title=title, notify_type=self._types[bool(firing)]):
            raise NotTold(f"{self.name}: at least one of its services did not take the message")


def message(group: Mapping[str, str], firing: Sequence[Alert], over: Sequence[Alert]) -> tuple[str, str]:
    """Title and text for people."""
    counts = ", ".join(f"{len(each)} {word}" for each, word in ((firing, "firing"), (over, "resolved")) if each)
    lines = []
    for alert in [*firing, *over][:_SHOWN]:
        about = alert.annotations.get("summary") or shown(alert.labels)
        lines.append(f"{'resolved' if alert.resolved_ns else 'firing'}: {about}")
        for name in ("description", "action", "runbook_url"):
            if (text := alert.annotations.get(name)) and not alert.resolved_ns:
                lines.append(f"  {text}")
    if (more := len(firing) + len(over) - _SHOWN) > 0:
        lines.append(f"and {more} more")
    return f"wiremeter: {shown(group)} ({counts})", "\n".join(map(_plain, lines))


def _plain(text: str) -> str:
    """Without characters that could do more than be shown: names of domains are anybody's text."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def generator_url(public_url: str, alert: Alert) -> str:
    """Where an alert is shown."""
    return f"{public_url}/v1/alerts?fingerprint={alert.fingerprint}"


def rfc3339(time_ns: int) -> str:
    """A time as APIs have it.

    >>> rfc3339(1_500_000_000)
    '1970-01-01T00:00:01.500Z'
    """
    at = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{time_ns % 10**9 // 10**6:03d}Z"


def _common(dictionaries: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first, *others = dictionaries
    return {name: text for name, text in first.items() if all(each.get(name) == text for each in others)}


def _key(firing: Sequence[Alert], over: Sequence[Alert]) -> str:
    """The same for the same message, so that who gets it twice can tell."""
    what = sorted([*alert.identity, alert.state] for alert in (*firing, *over))
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def _post(url: str, document: Any, headers: Mapping[str, str]) -> None:
    shown_url = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"  # what follows may be a secret
    try:
        with urllib3.PoolManager(retries=False, timeout=_TIMEOUT) as pool:
            response = pool.request(
                "POST",
                url,
                body=json.dumps(document).encode(),
                headers={"Content-Type": "application/json", "User-Agent": f"wiremeter/{__version__}", **headers},
                redirect=False,
                preload_content=False,
            )
            said = response.read(500)
            response.close()
    except (HTTPError, OSError) as error:
        raise NotTold(f"{shown_url} is not reached: {error}") from error
    if not 200 <= response.status < 300:
        raise NotTold(f"{shown_url} answers {response.status}: {said.decode(errors='replace')!r}")
