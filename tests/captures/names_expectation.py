"""What payloads told in others' captures, by the reference and by us, as values that can be compared.

Entries that the reference is sure of (`firm`) must be ours; those it is not may be. What is in tunnels, or behind a
link layer that is not read, is outside what the meter looks at.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import dns.rdatatype


class Key(NamedTuple):
    """A conversation from client to server."""

    protocol: int
    client: str
    client_port: int
    server: str
    server_port: int


def key_of_ours(flow: dict[str, Any]) -> Key:
    return Key(
        flow["protocol"],
        str(ipaddress.ip_address(flow["src_addr"])),
        flow["src_port"],
        str(ipaddress.ip_address(flow["dst_addr"])),
        flow["dst_port"],
    )


def key_of_theirs(flow: dict[str, Any], *, from_server: bool = False) -> Key:
    sender = str(ipaddress.ip_address(flow["a"])), flow["a_port"]
    receiver = str(ipaddress.ip_address(flow["b"])), flow["b_port"]
    client, server = (receiver, sender) if from_server else (sender, receiver)
    return Key(flow["proto"], *client, *server)


def firm(expected: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    """The entries that must be ours."""
    for entry in expected[kind]:
        if entry["firm"] and not entry.get("tunneled") and not entry.get("behind"):
            yield entry


#: How the reference writes names that are none.
_UNREADABLE = ("<", "\ufffd")


def missing_dns(expected: dict[str, Any], ours: list[dict[str, Any]]) -> list[str]:
    """Questions and responses of the reference that are not among our transactions.

    Where the reference has no latency or could not read the name, ours may have one.
    """
    questions = Counter((key_of_ours(t["flow"]), t["query"].lower(), t["qtype"]) for t in ours)
    responses: dict[tuple[Key, str, str], list[tuple[int, int | None, int]]] = {}
    for t in ours:
        asked = key_of_ours(t["flow"]), t["query"].lower(), t["qtype"]
        if t["rcode"] is not None:
            responses.setdefault(asked, []).append((t["rcode"], t["latency_ns"], len(t["answers"])))
    conversations = {key for key, _, _ in questions}
    wrong = []
    for entry in firm(expected, "dns"):
        is_response = entry["kind"] == "response"
        to_group = ipaddress.ip_address(entry["flow"]["b"]).is_multicast
        key = key_of_theirs(entry["flow"], from_server=is_response and not to_group)
        readable = [q for q in entry["questions"] if not any(mark in q["name"] for mark in _UNREADABLE)]
        if len(readable) < len(entry["questions"]) or not readable:
            if not {key, key_of_theirs(entry["flow"])} & conversations and not _answers_group(key, conversations):
                wrong.append(f"{entry['kind']} in frame {entry['frame']} of {key}")
            continue
        for question in readable:
            asked = key, question["name"].lower(), dns.rdatatype.to_text(question["type"])
            if not is_response:
                questions[asked] -= 1
                if questions[asked] < 0:
                    wrong.append(f"query in frame {entry['frame']}: {asked}")
                continue
            answer = entry["rcode"], entry.get("latency_ns"), entry["answers"]
            for candidates in (responses.get(asked, []), *_of_group(asked, responses)):
                found = next((a for a in candidates if _same_answer(answer, a)), None)
                if found:
                    candidates.remove(found)
                    break
            else:
                wrong.append(f"response in frame {entry['frame']}: {asked} {answer}")
    return wrong


def _same_answer(theirs: tuple[int, int | None, int], ours: tuple[int, int | None, int]) -> bool:
    return theirs[0] == ours[0] and theirs[2] == ours[2] and theirs[1] in (None, ours[1])


def _answers_group(key: Key, conversations: set[Key]) -> bool:
    return any((c.client, c.client_port) == (key.client, key.client_port) for c in conversations)


def _of_group(
    asked: tuple[Key, str, str], responses: dict[tuple[Key, str, str], list[tuple[int, int | None, int]]]
) -> Iterator[list[tuple[int, int | None, int]]]:
    """A query to a group (LLMNR) is answered by one of its members: ours is the transaction that the client began."""
    key, name, qtype = asked
    for (other, *rest), answers in responses.items():
        same_client = (other.client, other.client_port) == (key.client, key.client_port)
        if same_client and ipaddress.ip_address(other.server).is_multicast and rest == [name, qtype]:
            yield answers


def missing_hellos(expected: dict[str, Any], kind: str, ours: list[dict[str, Any]]) -> list[str]:
    """ClientHellos of the reference (kind `tls_client_hello` or `quic_client_hello`) that are not among ours."""
    found = Counter((key_of_ours(t["flow"]), t["sni"], tuple(t["alpn"]), t["ech"]) for t in ours)
    wrong = []
    for entry in firm(expected, kind):
        hello = key_of_theirs(entry["flow"]), entry["sni"], tuple(entry["alpn"]), entry["ech"]
        found[hello] -= 1
        if found[hello] < 0:
            wrong.append(f"hello in frame {entry['frame']}: {hello}")
    return wrong


def missing_http(expected: dict[str, Any], ours: list[dict[str, Any]]) -> list[str]:
    """Well-formed requests of the reference that are not among ours.

    The reference knows a status only where it has the whole body: where it has none, ours may have one.
    """
    found = Counter((key_of_ours(t["flow"]), t["method"], t["host"], t["path"], t["status"]) for t in ours)
    whatever_status = Counter((key_of_ours(t["flow"]), t["method"], t["host"], t["path"]) for t in ours)
    wrong = []
    for entry in firm(expected, "http_requests"):
        if entry["version"] not in ("HTTP/1.0", "HTTP/1.1"):
            continue
        host = (entry.get("host") or "").partition(":")[0] or None
        request = key_of_theirs(entry["flow"]), entry["method"], host, entry["path"]
        whatever_status[request] -= 1
        if entry.get("status"):
            found[*request, entry["status"]] -= 1
        if whatever_status[request] < 0 or found[*request, entry.get("status")] < 0:
            wrong.append(f"request in frame {entry['frame']}: {request} {entry.get('status')}")
    return wrong


def wrong_latencies(expected: dict[str, Any], ours: list[dict[str, Any]]) -> list[str]:
    """Requests whose latency differs from the reference's."""
    latencies = {(key_of_ours(t["flow"]), t["time_ns"]): t["latency_ns"] for t in ours}
    wrong = []
    for entry in firm(expected, "http_requests"):
        began = int(entry.get("first_time", entry["time"]))
        ours_ns = latencies.get((key_of_theirs(entry["flow"]), began))
        if "latency_ns" in entry and ours_ns is not None and ours_ns != entry["latency_ns"]:
            wrong.append(f"frame {entry['frame']}: {entry['latency_ns']} ns, ours {ours_ns}")
    return wrong
