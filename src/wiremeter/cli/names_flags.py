"""The flags of commands that read names from payloads."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wiremeter.datapath.naming import NameOptions

NONE = "none"


def add_name_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --names, --payload-bytes and --no-redact."""
    group = parser.add_argument_group("names", "what is read of packets' payloads (docs/names.md)")
    group.add_argument(
        "--names",
        type=names_list,
        metavar="KINDS",
        help="some of dns,tls,http,quic (default: all), with ptr also reverse DNS that was seen; or none",
    )
    group.add_argument(
        "--payload-bytes",
        type=int,
        metavar="N",
        help="bytes of one packet's payload that are looked at, at most (default 2048; 0: none)",
    )
    group.add_argument("--no-redact", action="store_true", help="show the paths of HTTP requests, with their queries")


def names_list(text: str) -> tuple[str, ...]:
    """ "dns,tls" as a tuple; "none" as an empty one."""
    return () if text == NONE else tuple(dict.fromkeys(filter(None, text.replace(",", " ").split())))


def name_options(args: argparse.Namespace) -> NameOptions:
    """What the flags ask for. Raises InputError for a kind that is not known, or a limit out of range."""
    from wiremeter.datapath.naming import NameOptions

    given = {
        "kinds": args.names,
        "payload_bytes": args.payload_bytes,
        "redact_paths": False if args.no_redact else None,
    }
    return NameOptions(**{name: value for name, value in given.items() if value is not None})
