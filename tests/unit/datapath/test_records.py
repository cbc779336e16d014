"""The dtypes are what the compiled object has, and what bpf/records.h says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wiremeter.datapath import records
from wiremeter.errors import InputError
from wiremeter.flows.columns import ETHERTYPE_LLC, ETHERTYPE_NONE, PROTOCOL_UNKNOWN

HEADER = Path(__file__).parents[3] / "bpf" / "records.h"


class FakeBtf:
    """An object's types as the meter expects them, but for what a test changes."""

    def __init__(self) -> None:
        self.structs = dict(records.STRUCTS)
        self.reasons = [*records.REASONS, "reasons"]
        self.sources = [*records.SOURCES, "s"]

    def dtype(self, name: str) -> np.dtype[Any]:
        return self.structs[name]

    def enum(self, name: str) -> dict[str, int]:
        if name == "wm_source":
            return {f"WM_SOURCE_{source.upper()}": number for number, source in enumerate(self.sources)}
        assert name == "wm_reason"
        return {f"WM_{reason.upper()}": number for number, reason in enumerate(self.reasons)}


def test_records_that_are_the_same_pass() -> None:
    records.check_against_btf(FakeBtf(), "some.o")


@pytest.mark.parametrize("name", records.STRUCTS)
def test_a_struct_that_grew_is_refused(name: str) -> None:
    btf = FakeBtf()
    before = btf.structs[name]
    btf.structs[name] = np.dtype([("rest", before), ("more", "u8")])
    with pytest.raises(InputError, match=rf"struct {name} in some\.o .*make build"):
        records.check_against_btf(btf, "some.o")


@pytest.mark.parametrize("name", [name for name, dtype in records.STRUCTS.items() if len(dtype.names or ()) > 1])
def test_a_struct_whose_members_changed_places_is_refused(name: str) -> None:
    btf = FakeBtf()
    fields = btf.structs[name].fields
    assert fields is not None
    names = list(fields)
    names[:2] = names[1::-1]
    spec = {
        "names": names,
        "formats": [fields[old][0] for old in fields],
        "offsets": [fields[old][1] for old in fields],
        "itemsize": btf.structs[name].itemsize,
    }
    btf.structs[name] = np.dtype(spec)  # type: ignore[call-overload]
    with pytest.raises(InputError, match=f"struct {name}"):
        records.check_against_btf(btf, "some.o")


@pytest.mark.parametrize("change", [("swapped", 0), ("renamed", 1), ("added", 2), ("removed", 3)], ids=lambda c: c[0])
def test_other_reasons_are_refused(change: tuple[str, int]) -> None:
    btf = FakeBtf()
    if change[0] == "swapped":
        btf.reasons[0], btf.reasons[1] = btf.reasons[1], btf.reasons[0]
    elif change[0] == "renamed":
        btf.reasons[2] = "bored"
    elif change[0] == "added":
        btf.reasons.insert(-1, "bored")
    else:
        del btf.reasons[-2]
    with pytest.raises(InputError, match=r"wm_reason in some\.o"):
        records.check_against_btf(btf, "some.o")


def test_other_sources_of_payloads_are_refused() -> None:
    btf = FakeBtf()
    btf.sources.insert(0, "smell")
    with pytest.raises(InputError, match=r"wm_source in some\.o"):
        records.check_against_btf(btf, "some.o")


# bpf/records.h -------------------------------------------------------------------------------------------------------


def constants() -> Iterator[tuple[str, int]]:
    """The plain numbers that the header defines."""
    for name, number in re.findall(r"^#define WM_(\w+)\s+(0x[0-9a-fA-F]+|\d+)U?\b(?!.*<<)", HEADER.read_text(), re.M):
        yield name, int(number, 0)


NAMES_HERE = {
    "CONTEXT_VLAN_SHIFT": records.CONTEXT_VLAN_SHIFT,
    "VLAN_NON_IP": records.VLAN_NON_IP,
    "CONTEXT_ATTACHMENT_SHIFT": records.CONTEXT_ATTACHMENT_SHIFT,
    "ATTACHMENTS_MAX": records.ATTACHMENTS_MAX,
    "VLAN_TAGGED": records.VLAN_TAGGED,
    "LINE_BYTES": records.LINE_BYTES,
    "CONTEXT_V6_SHIFT": records.CONTEXT_V6_SHIFT,
    "PROTOCOLS": records.PROTOCOLS,
    "PAYLOAD_BYTES_MAX": records.PAYLOAD_BYTES_MAX,
    "PROTOCOL_UNKNOWN": PROTOCOL_UNKNOWN,
    "ETHERTYPE_LLC": ETHERTYPE_LLC,
    "ETHERTYPE_NONE": ETHERTYPE_NONE,
}


@pytest.mark.parametrize(("name", "value"), NAMES_HERE.items(), ids=NAMES_HERE)
def test_a_constant_is_the_same_in_c(name: str, value: int) -> None:
    assert dict(constants())[name] == value


def test_the_attachment_takes_the_bits_above_all_others() -> None:
    assert (records.ATTACHMENTS_MAX + 1) << records.CONTEXT_ATTACHMENT_SHIFT == 1 << 32


def test_the_reasons_are_those_of_the_header_in_its_order() -> None:
    listed = re.search(r"enum wm_reason \{(.*?)\}", HEADER.read_text(), re.S)
    assert listed
    assert tuple(name.lower() for name in re.findall(r"^\s*WM_(\w+),", listed[1], re.M))[:-1] == records.REASONS


# The compiled object -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled() -> Iterator[Any]:
    """BTF of the object that `make build` made. Reading it needs Linux, but no privilege."""
    try:
        from wiremeter.libbpf.objects import BpfObject
    except InputError as missing:
        pytest.skip(str(missing))
    path = Path(records.__file__).parents[1] / "programs" / "wiremeter.bpf.o"
    with BpfObject(path) as opened:
        yield opened.btf


def test_the_compiled_object_has_these_records(compiled: Any) -> None:
    records.check_against_btf(compiled, "wiremeter.bpf.o")


@pytest.mark.parametrize("name", records.STRUCTS)
def test_a_dtype_is_that_of_the_compiled_object(name: str, compiled: Any) -> None:
    assert offsets(compiled.dtype(name)) == offsets(records.STRUCTS[name])


def offsets(dtype: np.dtype[Any]) -> tuple[int, dict[str, int]]:
    """Size, and where each member lies."""
    assert dtype.fields
    return dtype.itemsize, {name: member[1] for name, member in dtype.fields.items()}


def test_the_rows_of_counters_are_where_the_compiled_object_has_them(compiled: Any) -> None:
    rows = compiled.enum("wm_row")
    assert rows == {
        "WM_ROW_IPV4": records.ROW_IPV4,
        "WM_ROW_IPV6": records.ROW_IPV6,
        "WM_ROW_NON_IP": records.ROW_NON_IP,
        "WM_ROW_UNATTRIBUTED": records.ROW_UNATTRIBUTED,
        "WM_ROWS": records.ROWS,
    }
