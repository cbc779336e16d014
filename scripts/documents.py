"""Writes docs/documents.md and docs/document.schema.json from wiremeter.reports.schema (`make docs`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from wiremeter.reports.schema import SCHEMA_VERSION, Document

DOCS = Path(__file__).parents[1] / "docs"
PAGE, SCHEMA = DOCS / "documents.md", DOCS / "document.schema.json"

_HEAD = f"""\
# The JSON document

<!-- Made by `make docs` from src/wiremeter/reports/schema.py: change it there. -->

`wiremeter live`, `replay` and `simulate` print with `--format json` one document for each interval, all by the
definition below. `schema` is its version, {SCHEMA_VERSION}. Keys may be added within a version; a key that goes, or
changes its meaning, makes a new one. The same definition for programs is
[document.schema.json](document.schema.json) (JSON Schema 2020-12).

- `live --format json` prints a document a line, with `--once` one in many lines. Lists hold the first `--top` rows, and
  the sum of the rest stands beside them.
- `replay` and `simulate` print everything, a flow or transaction a line. The same counts give the same bytes. Without
  `--interval` there is one document.
- A key marked *optional* is left out where it has no meaning.
- Times that end in `_ns` are whole nanoseconds. JavaScript and `jq` before 1.7 round numbers above 2^53.

    wiremeter live --once --format json | jq '.devices[] | {{device, direction, bits_per_second}}'
    wiremeter replay --format json traffic.pcap | jq '.protocols.ipv4'
    wiremeter replay --format json traffic.pcap | jq -r '.dns[] | select(.rcode == 3) | .query'
"""


def schema() -> dict[str, Any]:
    """The definition as JSON Schema, the same by each version of msgspec: since 0.23 it also bounds names of keys."""
    made: dict[str, Any] = _without("propertyNames", msgspec.json.schema(Document))
    return made


def _without(key: str, part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _without(key, each) for name, each in part.items() if name != key}
    return [_without(key, each) for each in part] if isinstance(part, list) else part


def page() -> str:
    """docs/documents.md."""
    made = schema()
    definitions: dict[str, Any] = made["$defs"]
    order, waiting = [], ["Document"]
    while waiting:  # in the order in which a reader meets them
        name = waiting.pop(0)
        if name not in order:
            order.append(name)
            waiting += [used for used in _uses(definitions[name]) if used not in order]
    return "\n".join([_HEAD, *(_section(name, definitions[name]) for name in order)])


def schema_text() -> str:
    """docs/document.schema.json."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema()
    return msgspec.json.format(msgspec.json.encode(made), indent=2).decode() + "\n"


def _section(name: str, definition: dict[str, Any]) -> str:
    required = set(definition.get("required", ()))
    lines = [f"## {name}", "", definition["description"], "", "| key | type | |", "|---|---|---|"]
    for key, field in definition["properties"].items():
        is_optional = key not in required and "default" not in field
        note = "*optional*; " if is_optional else ""
        lines.append(f"| `{key}` | {_type(field)} | {note}{field.get('description', '')} |")
    return "\n".join([*lines, ""])


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    match field["type"]:
        case "array":
            return f"list of {_type(field['items'])}"
        case "object":
            return f"object of {_type(field['additionalProperties'])}"
        case kind:
            return str(kind)


def _uses(field: Any) -> list[str]:
    if isinstance(field, dict):
        here = [field["$ref"].rpartition("/")[2]] if "$ref" in field else []
        return here + [name for value in field.values() for name in _uses(value)]
    return [name for value in field for name in _uses(value)] if isinstance(field, list) else []


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    SCHEMA.write_text(schema_text(), "utf-8")
