"""`wiremeter token`: makes, lists and revokes the tokens that agents and clients show to a server."""

from __future__ import annotations

import json
import time

from wiremeter.errors import InputError
from wiremeter.settings.catalogue import Token


def run(settings: Token) -> int:
    """Does what the words say. Raises InputError or PermissionNeeded."""
    from wiremeter.server.access.tokens import TokenFile
    from wiremeter.server.directory import TOKENS_FILE, data_directory

    tokens = TokenFile(data_directory(settings.data_dir) / TOKENS_FILE)
    is_json = settings.format == "json"
    match settings.do:
        case ("create", name):
            token, text = tokens.create(name, settings.rights, settings.for_agent)
            if is_json:
                print(json.dumps({"id": token.id, "token": text}))
            else:
                print(text)
        case ("list",):
            rows: list[dict[str, object]] = [
                {
                    "id": token.id,
                    "name": token.name,
                    "rights": list(token.rights),
                    "agent": token.agent,
                    "created": _time(token.created),
                    "revoked": _time(token.revoked),
                }
                for token in tokens.all()
            ]
            print(json.dumps(rows) if is_json else _table(rows))
        case ("revoke", id):
            token = tokens.revoke(id)
            if is_json:
                print(json.dumps({"id": token.id, "revoked": _time(token.revoked)}))
            else:
                print(f"revoked {token.id} ({token.name})")
        case _:
            raise InputError(
                f'"{" ".join(settings.do)}": expected create NAME, list, or revoke ID (`wiremeter token --help`)'
            )
    return 0


def _time(seconds: int | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _table(rows: list[dict[str, object]]) -> str:
    if not rows:
        return "no tokens; `wiremeter token create NAME` makes one"
    lines = [("ID", "NAME", "RIGHTS", "AGENT", "CREATED", "REVOKED")]
    for row in rows:
        rights = row["rights"]
        assert isinstance(rights, list)
        cells = (row["id"], row["name"], ",".join(rights), row["agent"] or "any", row["created"], row["revoked"] or "")
        lines.append(tuple(map(str, cells)))  # type: ignore[arg-type]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
