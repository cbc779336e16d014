"""The meter's programs as they are loaded: sizes and constants, by what is wanted and what the running kernel has.

One place for all who load them, so that what is verified is what meters.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from wiremeter.datapath import records
from wiremeter.datapath.layout import RING_BYTES, TablePlan
from wiremeter.libbpf.btf import kernel_functions
from wiremeter.libbpf.maps import possible_cpus
from wiremeter.libbpf.objects import BpfObject

PAYLOAD_RINGS = ("wm_dns_payloads", "wm_payloads")
SHARED_MAPS = (
    *("wm_tables", "wm_overflow", "wm_events", ".data.control", "wm_recent", "wm_scratch"),
    *("wm_entries", "wm_tc_meter", "wm_xdp_meter"),
    *PAYLOAD_RINGS,
)
#: A meter, and the entries that go on to it.
TC_PROGRAMS = ("wm_meter_tc", "wm_tc_ingress", "wm_tc_egress")
XDP_PROGRAMS = ("wm_meter_xdp", "wm_xdp")

#: One cache line each (struct wm_entry).
_ENTRY_BYTES = 64
#: What an array map has at least, where nothing is kept in it.
_NOTHING_BYTES = 8
_CAST, _FRAGS = "bpf_cast_to_kern_ctx", ("bpf_xdp_get_buff_len", "bpf_xdp_load_bytes")


def default_program() -> Path:
    """The object that was built with this package."""
    return Path(__file__).parents[1] / "programs" / "wiremeter.bpf.o"


class MeterPrograms:
    """An object file of the meter's programs, and how they are to be loaded from it."""

    def __init__(
        self,
        path: Path | None,
        plan: TablePlan,
        *,
        test_runs: bool = False,
        payload_limit: int = 0,
        payload_sources: Collection[str] = records.SOURCES,
        ring_bytes: int = RING_BYTES,
    ) -> None:
        """path: None: the one that came with the package. The others as KernelEngine takes them.

        Asks the kernel for what programs may call. Raises PermissionNeeded or KernelError.
        """
        self.path = path or default_program()
        functions = kernel_functions(_CAST, *_FRAGS)
        #: Whether programs take packets of several buffers at XDP (Linux 5.18).
        self.with_frags = not functions.isdisjoint(_FRAGS)
        self._plan = plan
        self._payload_limit, self._ring_bytes = payload_limit, ring_bytes
        self._constants: dict[str, int | np.void] = {
            "wm_regions": plan.regions,
            "wm_attachments": plan.attachments,
            "wm_kernel_skb": int(_CAST in functions),
            "wm_test_runs": int(test_runs),
            "wm_payload_limit": payload_limit,
            "wm_payload_sources": records.source_bits(payload_sources),
            "wm_payload_ring": ring_bytes,
            "wm_xdp_frags": int(self.with_frags),
        }
        self.set_seed(secrets.randbits(64))

    def set_seed(self, seed: int) -> None:
        """Of the hash's keys, for objects opened from now on: those that share tables need the same."""
        self.seed = seed
        self._constants["wm_shape"] = self._plan.shape(seed)

    def open(
        self,
        maps: Mapping[str, int] = MappingProxyType({}),
        constants: Mapping[str, int | np.void] = MappingProxyType({}),
    ) -> BpfObject:
        """The object, ready to be loaded; the caller closes it.

        maps: file descriptors by name, of maps that are there already. constants: further ones. Raises InputError, also
        for an object that was built from other records than this wiremeter reads.
        """
        opened = BpfObject(self.path)
        try:
            records.check_against_btf(opened.btf, str(self.path))
            self._size(opened)
            opened.set_constants({**self._constants, **constants})
            for name, fd in maps.items():
                opened.reuse_map(name, fd)
        except BaseException:
            opened.close()
            raise
        return opened

    def _size(self, opened: BpfObject) -> None:
        plan = self._plan
        opened.set_map_size("wm_tables", value_size=plan.region_bytes, max_entries=2 * plan.regions)
        opened.set_map_size("wm_overflow", value_size=plan.overflow_bytes, max_entries=2)
        opened.set_map_size("wm_entries", value_size=_ENTRY_BYTES, max_entries=possible_cpus())
        recent_bytes = records.RECENT.itemsize if self._payload_limit else _NOTHING_BYTES
        opened.set_map_size("wm_recent", value_size=recent_bytes, max_entries=1)
        for name in PAYLOAD_RINGS if self._payload_limit else ():
            opened.set_map_size(name, value_size=0, max_entries=self._ring_bytes)
