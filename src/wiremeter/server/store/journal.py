"""Groups of batches that are being stored: on disk before the engine sees them, gone when all of it is stored.

The engine may die amid a group, or the server. Then nobody knows which tables were inserted, and agents send the
batches again, in other groups. So a group is written down first, with the token of each of its inserts, and after a
failure it is done again as it was before anything else: the engine knows the tokens of what it has, and passes over it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import ipc

if TYPE_CHECKING:
    import pyarrow as pa

_LIST = "group.json"


@dataclass(frozen=True, slots=True)
class Insert:
    """One insert of a group: a file with an Arrow stream, for a table; token as Backend.insert has it."""

    table: str
    columns: tuple[str, ...]
    file: Path
    token: str


@dataclass(frozen=True, slots=True)
class Group:
    """A group that is written down. inserts: in their order."""

    directory: Path
    inserts: tuple[Insert, ...]

    def forget(self) -> None:
        """All of it is stored."""
        shutil.rmtree(self.directory)


class Journal:
    """The groups in a directory, which is made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, name: str, tables: list[tuple[str, pa.Table]]) -> Group:
        """Writes a group down; the name is new, and makes the tokens. Raises OSError; then there is no group."""
        unfinished = self._directory / f"{name}.new"
        unfinished.mkdir(mode=0o700)
        try:
            listed = []
            for table, rows in tables:
                with ipc.new_stream(str(unfinished / table), rows.schema) as stream:
                    stream.write_table(rows)
                listed.append({"table": table, "columns": rows.column_names, "token": f"{name}/{table}"})
            (unfinished / _LIST).write_text(json.dumps(listed))
            os.rename(unfinished, self._directory / name)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        return _read(self._directory / name)

    def groups(self) -> Iterator[Group]:
        """What was being stored when the last server ended, in order of their names. Removes what was not finished."""
        for directory in sorted(self._directory.iterdir()):
            if directory.suffix == ".new":
                shutil.rmtree(directory)
            else:
                yield _read(directory)


def _read(directory: Path) -> Group:
    listed = json.loads((directory / _LIST).read_text())
    return Group(
        directory,
        tuple(
            Insert(each["table"], tuple(each["columns"]), directory / each["table"], each["token"]) for each in listed
        ),
    )
