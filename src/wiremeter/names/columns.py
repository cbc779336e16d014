"""What the decoders in C tell, as columns: arrays of records, and one text they speak of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from wiremeter.names.library import ffi, lib
from wiremeter.names.records import DnsAnswer, DnsTransaction, FlowKey, RawTold


def _fields(struct: Any, at: int = 0) -> Iterator[tuple[str, str, int]]:
    """Name, format and offset of each field of a C struct; those of a struct in it as its own."""
    for name, member in struct.fields:
        if member.type.kind == "struct":
            yield from _fields(member.type, at + member.offset)
        elif name != "pad":
            size = ffi.sizeof(member.type)
            is_number = member.type.kind == "primitive"
            kind = "V" if not is_number else "i" if member.type.cname.startswith("int") else "u"
            yield name, f"{kind}{size}", at + member.offset


def _dtype(struct: str) -> np.dtype[np.void]:
    """A C struct as the compiler laid it out; addresses are 16 opaque bytes."""
    kind = ffi.typeof(f"struct {struct}")
    names, formats, offsets = zip(*_fields(kind), strict=True)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": ffi.sizeof(kind)})


#: By column of what a BlockReader hands on, but for its text: the structs of bpf/names/names.h, and how much was lost.
DTYPES: dict[str, np.dtype[Any]] = {
    "transactions": _dtype("wm_dns_transaction"),
    "answers": _dtype("wm_dns_answer"),
    "heard": _dtype("wm_dns_heard"),
    "addresses": _dtype("wm_dns_address"),
    "http": _dtype("wm_http_transaction"),
    "hellos": _dtype("wm_hello"),
    "names": _dtype("wm_name"),
    "lost": np.dtype(np.uint64),
}
TRANSACTION, ANSWER, HEARD, ADDRESS, HTTP, HELLO, NAME, LOST = DTYPES.values()

T = TypeVar("T")

_SLICE = 4096  # rows that are made objects at a time
_FLAGS = {"retry": lib.WM_DNS_RETRY, "has_query": lib.WM_DNS_HAS_QUERY, "cut": lib.WM_DNS_CUT}


@dataclass(frozen=True, slots=True)
class Told:
    """What was told at once, of dtypes DTYPES; `_at` are places in `text`.

    lost: how often something that was read found no room.
    """

    transactions: NDArray[np.void]
    answers: NDArray[np.void]
    heard: NDArray[np.void]
    addresses: NDArray[np.void]
    http: NDArray[np.void]
    hellos: NDArray[np.void]
    names: NDArray[np.void]
    text: bytes
    lost: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, LOST))

    @classmethod
    def of(cls, raw: RawTold) -> Told:
        """As a BlockReader hands it on: views of its bytes."""
        return cls(**{name: np.frombuffer(raw[name], dtype) for name, dtype in DTYPES.items()}, text=raw["text"])


class TransactionColumns(Sequence[T]):
    """Transactions in columns; each is made an object when it is asked for."""

    __slots__ = ("_devices", "_rows", "_text")

    def __init__(self, rows: NDArray[np.void], text: bytes, devices: Mapping[int, str]) -> None:
        """text: which rows point into. devices: their names by number; of those without one, ""."""
        self._rows, self._text, self._devices = rows, text, devices

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: int | slice) -> T | Self:
        if isinstance(at, slice):
            return self._with(self._rows[at])
        return self._transaction(self._rows[at].item())

    def __iter__(self) -> Iterator[T]:
        for begin in range(0, len(self._rows), _SLICE):
            yield from map(self._transaction, self._rows[begin : begin + _SLICE].tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"<{len(self)} of {type(self).__name__}>"

    def column(self, name: str) -> Sequence[Any]:
        """One field of each, of its record's or of its flow's."""
        if name == "device":
            return self._of_numbers("device", self._device)
        if f"{name}_at" in (self._rows.dtype.names or ()):
            places = zip(self._rows[f"{name}_at"].tolist(), self._rows[f"{name}_bytes"].tolist(), strict=True)
            return [self._said(*place) or None for place in places]
        return self._rows[name].tolist()  # type: ignore[no-any-return]

    @property
    def rows(self) -> NDArray[np.void]:
        """The columns themselves, for whoever writes columns: one row a transaction; its `_at` are places in `text`."""
        return self._rows

    @property
    def text(self) -> bytes:
        """What columns whose names end in `_at` speak of."""
        return self._text

    def chosen(self, mask: NDArray[np.bool_]) -> Self:
        """Those for which the mask is true."""
        return self._with(self._rows[mask])

    def _with(self, rows: NDArray[np.void]) -> Self:
        """Some of them."""
        return type(self)(rows, self._text, self._devices)

    @abstractmethod
    def _transaction(self, row: tuple[Any, ...]) -> T:
        """A row as an object."""

    def _of_numbers(self, column: str, text_of: Callable[[int], Any]) -> list[Any]:
        """What each number of a column stands for, asked once for each."""
        numbers, of_row = np.unique(self._rows[column], return_inverse=True)
        return np.array([*map(text_of, numbers.tolist()), ""], object)[of_row].tolist()  # type: ignore[no-any-return]

    def _said(self, at: int, size: int) -> str:
        return self._text[at : at + size].decode("utf-8", "backslashreplace")

    def _device(self, number: int) -> str:
        return self._devices.get(number, "")


class DnsColumns(TransactionColumns[DnsTransaction]):
    """DNS transactions, dtype TRANSACTION."""

    __slots__ = ("_answers",)

    def __init__(
        self, rows: NDArray[np.void], answers: NDArray[np.void], text: bytes, devices: Mapping[int, str]
    ) -> None:
        """answers: dtype ANSWER, which the rows point into. text: which both point into."""
        super().__init__(rows, text, devices)
        self._answers = answers

    @classmethod
    def joined(cls, told: Sequence[Told], devices: Mapping[int, str]) -> DnsColumns:
        """All that was told, in order of time."""
        rows, answers, text, answers_before = [], [], bytearray(), 0
        for part in told:
            rows.append(moved(part.transactions, len(text), "query_at", "message_at"))
            rows[-1]["answers_at"] += np.uint32(answers_before)
            answers.append(moved(part.answers, len(text), "name_at", "data_at"))
            answers_before += len(part.answers)
            text += part.text
        all_rows = np.concatenate(rows) if rows else np.zeros(0, TRANSACTION)
        in_order = all_rows[np.argsort(all_rows["time_ns"], kind="stable")]
        return cls(in_order, np.concatenate(answers) if answers else np.zeros(0, ANSWER), bytes(text), devices)

    def _with(self, rows: NDArray[np.void]) -> Self:
        return type(self)(rows, self._answers, self._text, self._devices)

    def column(self, name: str) -> Sequence[Any]:
        rows = self._rows
        match name:
            case "query":
                places = zip(rows["query_at"].tolist(), rows["query_bytes"].tolist(), strict=True)
                return [self._said(*place) for place in places]
            case "qtype":
                return self._of_numbers("qtype", _type_text)
            case "rcode" | "latency_ns":
                return [None if value < 0 else value for value in rows[name].tolist()]
            case "retry" | "has_query" | "cut":
                return self.flag(name).tolist()  # type: ignore[no-any-return]
            case "answers":
                return [one.answers for one in self]
            case _:
                return super().column(name)

    def flag(self, name: str) -> NDArray[np.bool_]:
        """One of retry, has_query and cut, of each transaction."""
        return self._rows["flags"] & _FLAGS[name] != 0  # type: ignore[no-any-return]

    def answers(self) -> NDArray[np.void]:
        """All answers, dtype ANSWER, in the order of the transactions; each has so many as its `answers` says."""
        counts = self._rows["answers"].astype(np.int64)
        before = np.cumsum(counts) - counts
        chosen: NDArray[np.void] = self._answers[
            np.arange(counts.sum()) + np.repeat(self._rows["answers_at"] - before, counts)
        ]
        return chosen

    def answer_column(self, name: str) -> Sequence[Any]:
        """One field of DnsAnswer of each of `answers`."""
        answers = self.answers()
        match name:
            case "type":
                numbers, of_row = np.unique(answers["type"], return_inverse=True)
                return np.array([*map(_type_text, numbers.tolist()), ""], object)[of_row].tolist()  # type: ignore[no-any-return]
            case "name":
                places = zip(answers["name_at"].tolist(), answers["name_bytes"].tolist(), strict=True)
                return [self._said(*place) for place in places]
            case "data":
                text, at, sizes = self.answer_data()
                return [
                    text[begin : begin + size].decode("utf-8", "backslashreplace")
                    for begin, size in zip(at.tolist(), sizes.tolist(), strict=True)
                ]
            case _:
                return answers[name].tolist()  # type: ignore[no-any-return]

    def answer_data(self) -> tuple[bytes, NDArray[np.int64], NDArray[np.int64]]:
        """The data of `answers` as text: the text, and where in it each lies, and how long it is.

        Names are there as text already, and each address is made text once; other data are made text one by one.
        """
        answers, made = self.answers(), bytearray()
        at, sizes = answers["data_at"].astype(np.int64), answers["data_bytes"].astype(np.int64)
        source = np.frombuffer(self._text, np.uint8)

        def put(row: int, message_at: int = 0) -> tuple[int, int]:
            said = self._data(answers[row].item(), message_at).encode()
            made.extend(said)
            return len(self._text) + len(made) - len(said), len(said)

        for form, size in ((lib.WM_DNS_IPV4, 4), (lib.WM_DNS_IPV6, 16)):
            (rows,) = np.nonzero(answers["form"] == form)
            if not len(rows):
                continue
            packed = source[at[rows, None] + np.arange(size)].view(f"V{size}")[:, 0]
            _, first, which = np.unique(packed, return_index=True, return_inverse=True)
            at[rows], sizes[rows] = np.array([put(row) for row in rows[first].tolist()], np.int64)[which].T
        message_at = np.repeat(self._rows["message_at"], self._rows["answers"])
        for row in np.flatnonzero(answers["form"] == lib.WM_DNS_WIRE).tolist():
            at[row], sizes[row] = put(row, int(message_at[row]))
        return self._text + made, at, sizes

    def _transaction(self, row: tuple[Any, ...]) -> DnsTransaction:
        (time_ns, latency_ns, src, dst, sport, dport, protocol, family, rcode, qtype) = row[:10]
        (query_at, answers_at, message_at, query_bytes, answers, _, flags, device) = row[10:]
        found = self._answers[answers_at : answers_at + answers].tolist()
        return DnsTransaction(
            time_ns,
            FlowKey(src, sport, dst, dport, protocol, family),
            self._said(query_at, query_bytes),
            _type_text(qtype),
            None if rcode < 0 else rcode,
            None if latency_ns < 0 else latency_ns,
            tuple(self._answer(answer, message_at) for answer in found),
            retry=bool(flags & _FLAGS["retry"]),
            has_query=bool(flags & _FLAGS["has_query"]),
            cut=bool(flags & _FLAGS["cut"]),
            device=self._device(device),
        )

    def _answer(self, row: tuple[Any, ...], message_at: int) -> DnsAnswer:
        name_at, _, ttl, name_bytes, _, rdtype, _, _ = row
        return DnsAnswer(self._said(name_at, name_bytes), _type_text(rdtype), ttl, self._data(row, message_at))

    def _data(self, row: tuple[Any, ...], message_at: int) -> str:
        """An answer's data. message_at: where the copy of its message lies, if it needs one."""
        _, data_at, _, _, size, rdtype, rdclass, form = row
        if form == lib.WM_DNS_NAME:
            return self._said(data_at, size)
        begin = message_at if form == lib.WM_DNS_WIRE else data_at
        return _data_text(self._text[begin : data_at + size], data_at - begin, size, rdtype, rdclass)


def _type_text(rdtype: int) -> str:
    from wiremeter.names.decoders.dns_text import type_text  # with dnspython, which takes 2 MB: where DNS is looked at

    return type_text(rdtype)


def _data_text(message: bytes, at: int, size: int, rdtype: int, rdclass: int) -> str:
    from wiremeter.names.decoders.dns_text import data_text

    return data_text(message, at, size, rdtype, rdclass)


def moved(rows: NDArray[np.void], by: int, *places: str) -> NDArray[np.void]:
    """Rows whose text lies so much further on."""
    further = rows.copy()
    for place in places:
        further[place] += np.uint32(by)
    return further
