"""`wiremeter store`: an operator looks at a store, compacts it, exports it, backs it up and restores it."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from wiremeter.errors import InputError
from wiremeter.reports.units import scale

if TYPE_CHECKING:
    from wiremeter.server.store import Store
    from wiremeter.settings.catalogue import StoreCommand


def run(settings: StoreCommand) -> int:
    """Does what the words say. Raises InputError, and what the store raises."""
    from wiremeter.server.directory import data_directory
    from wiremeter.server.store import maintenance, open_store

    own = data_directory(settings.data_dir)
    where = settings.store or str(own / "store")
    is_json = settings.format == "json"

    def opened() -> Store:
        if "://" not in where and not (Path(where) / "data").is_dir():
            raise InputError(f"{where} holds no store; --store says where it is")
        return open_store(where, directory=str(own / "store") if "://" in where else None)

    match settings.do:
        case ("info",):
            from wiremeter.server.store.sql import shown_url

            with opened() as store:
                _print_info(store, shown_url(where), is_json)
        case ("compact",):
            with opened() as store:
                for name in maintenance.compact(store):
                    _tell({"compacted": name}, f"compacted {name}", is_json)
        case ("export", directory):
            with opened() as store:
                for file, rows in maintenance.export(store, Path(directory)):
                    _tell({"file": str(file), "rows": rows}, f"{file}: {rows:,} rows", is_json)
        case ("backup", file):
            with opened() as store:
                size = maintenance.backup(store, Path(file))
            _tell({"file": file, "bytes": size}, f"{file}: {_size(size)}", is_json)
        case ("restore", file):
            if "://" in where:
                raise InputError("a ClickHouse server is restored with its own tools")
            maintenance.restore(Path(file), Path(where))
            _tell({"restored": where}, f"restored to {where}", is_json)
        case _:
            raise InputError(
                f'"{" ".join(settings.do)}": expected info, compact, export DIRECTORY, backup FILE, or restore FILE '
                "(`wiremeter store --help`)"
            )
    return 0


def _tell(document: dict[str, object], text: str, is_json: bool) -> None:
    print(json.dumps(document) if is_json else text, flush=True)


def _print_info(store: Store, where: str, is_json: bool) -> None:
    from wiremeter.server.store.maintenance import table_infos

    infos = table_infos(store)
    closed = {str(size): end or None for size, end in store.closed().items()}
    if is_json:
        print(json.dumps({"store": where, "rollups": closed, "tables": [dataclasses.asdict(info) for info in infos]}))
        return
    lines = [("TABLE", "ROWS", "ON DISK", "BYTES/ROW", "PARTS", "OLDEST", "NEWEST")]
    for info in infos:
        each = f"{info.bytes / info.rows:.1f}" if info.rows else ""
        ends = (_time(info.oldest), _time(info.newest))
        lines.append((info.name, f"{info.rows:,}", _size(info.bytes), each, str(info.parts), *ends))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(f"\nrollups by minute until {_time(closed['60']) or '-'}, by hour until {_time(closed['3600']) or '-'}")
    print(f"{sum(info.rows for info in infos):,} rows, {_size(sum(info.bytes for info in infos))} in {where}")


def _size(octets: int) -> str:
    number, prefix = scale(octets)
    return f"{number} {prefix}B"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
