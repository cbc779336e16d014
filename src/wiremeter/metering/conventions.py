"""What a driver's own counters count, and what remains between them and ours (the audit's outside check).

Two things differ by driver: the unit, since a counter may count kernel buffers where we count the packets on the wire
that they stand for, and whether the bytes include the Ethernet header. The table says what was measured on Linux
6.18 with known traffic, or read in the driver's source; where the unit depends on the packet, the counter can only
be held between two bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from wiremeter.flows.batch import Drop, KernelCounters, Tally
from wiremeter.flows.columns import AttachMode, Direction
from wiremeter.linux.devices import Device
from wiremeter.linux.netlink_messages import LinkCounters, Qdisc

#: What one count of the device is: a packet on the wire; a buffer that we saw too; either, packet by packet; or
#: unknown, where we ourselves see only buffers (generic XDP).
Unit = Literal["packets", "skbs", "mixed", "unknown"]

#: Drivers that count a TSO packet as its segments, headers repeated: `gso_segs` in ixgbe_tso(), igb_tso(), igc_tso(),
#: i40e_tso(), iavf_tso(), ice_tso(), mlx5e_txwqe_complete() and mlx4_en_xmit(); e1000e's counters are the hardware's.
_COUNTS_TX_SEGMENTS = frozenset(
    {"e1000e", "i40e", "iavf", "ice", "igb", "igc", "ixgbe", "ixgbevf", "mlx4_en", "mlx5_core"}
)


@dataclass(frozen=True, slots=True)
class Convention:
    """How one device counts in one direction. text: the same for people, and which bytes it counts."""

    unit: Unit
    text: str


class QdiscGain(NamedTuple):
    """What an egress qdisc gained in an interval: skbs dropped, and skbs waiting at its end less those at its start."""

    kind: str = ""
    drops: int = 0
    queued: int = 0

    @classmethod
    def between(cls, before: Qdisc | None, after: Qdisc | None) -> QdiscGain:
        """From two readings; all zero where one is lacking or the qdisc was replaced."""
        if before is None or after is None or before.kind != after.kind or after.drops < before.drops:
            return cls()
        return cls(after.kind, after.drops - before.drops, after.queued - before.queued)


NO_GAIN = QdiscGain()


def drops_of(direction: Direction, gained: LinkCounters, qdisc: QdiscGain) -> tuple[Drop, ...]:
    """What was dropped in an interval, from what the device's and its qdisc's counters gained.

    A counter that began again at 0 (a driver that was loaded again) gained nothing.

    >>> [(drop.cause, drop.packets) for drop in drops_of("tx", LinkCounters(tx_dropped=2), QdiscGain("tbf", 1993))]
    [('tbf', 1993), ('dropped', 2)]
    """
    if direction == "tx":
        of_qdisc = (Drop("qdisc", qdisc.kind, qdisc.drops),) if qdisc.kind else ()
        return (*of_qdisc, Drop("device", "dropped", max(0, gained.tx_dropped)))
    return (
        Drop("device", "dropped", max(0, gained.rx_dropped), is_loss=False),
        Drop("device", "missed", max(0, gained.rx_missed)),
        Drop("device", "nohandler", max(0, gained.rx_nohandler), is_loss=False),
    )


def convention_of(device: Device, direction: Direction, mode: AttachMode = "tcx") -> Convention:
    """How `device` counts what we see in `direction` while attached in `mode`."""
    convention = _driver_convention(device, direction)
    if direction == "rx" and mode == "xdp-generic":
        return Convention("unknown", f"{convention.text}; generic XDP sees buffers only")
    return convention


class Balance(NamedTuple):
    """What all intervals of an attachment so far have left open.

    unexplained: their `unexplained` together. above_least: by how much the device counted more than the least that it
    may count for what we saw; negative where it counted less.
    """

    unexplained: int = 0
    above_least: int = 0


SETTLED = Balance()


class Explained(NamedTuple):
    """The device's counters beside ours, by what they differ, and what is open from then on."""

    kernel: KernelCounters
    remainders: dict[str, int]
    balance: Balance


def explain_difference(
    direction: Direction,
    seen: Tally,
    gained: LinkCounters,
    convention: Convention,
    *,
    qdisc: QdiscGain = NO_GAIN,
    other_xdp: bool = False,
    capture_dropped: int = 0,
    uncertain: float = 0.0,
    before: Balance = SETTLED,
) -> Explained:
    """The device's counters of an interval beside ours, and by what they differ, by cause.

    seen: what our program counted; gained: what the device's counters gained in the same interval.
    qdisc: what the egress qdisc gained, for tx. other_xdp: another XDP program sees rx packets before us.
    capture_dropped: buffers that the capture lost between the device and us.
    uncertain: the share of the interval by which the two readings may lie apart in time, 0 when traffic stood still.
    before: what earlier intervals left open. What comes and goes (a packet on its way, readings a little apart) cancels
    there; what stays gets a name.

    Returns the counters, the balance from then on, and packets by cause, with the sign of `device − ours`, so that they
    add up to it:
    - qdisc_drops (tx, ≤ 0): we saw them, the qdisc dropped them before the device
    - device_drops (tx, ≤ 0): we saw them, the device dropped them instead of sending (its tx_dropped)
    - queued (tx): we saw them, they wait in the qdisc; positive where ones that waited before have gone
    - capture_dropped (≥ 0; only where it lost any): they came past and the capture had no room for them
    - bypassed_stack (≥ 0): the device counted them and they never came past us: at tx AF_XDP, PACKET_QDISC_BYPASS,
      XDP redirect; at rx what another XDP program took. Told once the difference has stood for two readings
    - unexplained: what is left; on a busy device also packets between the two readings, in either sign, and later the
      same with the other sign
    `ours` is seen.packets or seen.skbs by the convention's unit; for mixed units the number between them that leaves
    least unexplained, all intervals together.

    For mixed units the distance is taken of what was open before and what is new together. Taken of each interval
    alone, packets that were late by one would count as missing in the first, and in the second vanish between the
    bounds: the missing ones would add up for ever. Nor is anything missing while the device has counted, all
    intervals together, as many as it must have.

    >>> wire, tbf = Convention("packets", ""), QdiscGain("tbf", 1993)
    >>> explain_difference("tx", Tally(2000, 0, 2000), LinkCounters(tx_packets=7), wire, qdisc=tbf)[1]
    {'qdisc_drops': -1993, 'device_drops': 0, 'queued': 0, 'bypassed_stack': 0, 'unexplained': 0}
    """
    if direction == "tx":
        counters = KernelCounters(gained.tx_packets, gained.tx_bytes, gained.tx_dropped, convention.text)
        remainders = {"qdisc_drops": -qdisc.drops, "device_drops": -counters.drops, "queued": -qdisc.queued}
    else:
        # What the device counts as rx_dropped may have passed us before: it explains nothing.
        counters = KernelCounters(gained.rx_packets, gained.rx_bytes, gained.rx_dropped, convention.text)
        remainders = {}
    if capture_dropped:
        remainders["capture_dropped"] = capture_dropped
    known = sum(remainders.values())
    low, high = _bounds(convention.unit, seen, any_lost=known != 0)
    left = _distance(counters.packets - known + before.unexplained, low, high)
    bypassed = 0
    if direction == "tx" or other_xdp:
        allowance = math.ceil(max(counters.packets, high or 0) * uncertain)
        bypassed = max(0, min(before.unexplained, left) - allowance)
    above_least = before.above_least + counters.packets - known - bypassed - low
    if left < 0:
        left = max(left, min(0, above_least))
    balance = Balance(left - bypassed, above_least)
    gained_unexplained = balance.unexplained - before.unexplained
    return Explained(counters, remainders | {"bypassed_stack": bypassed, "unexplained": gained_unexplained}, balance)


def _bounds(unit: Unit, seen: Tally, *, any_lost: bool) -> tuple[int, int | None]:
    """Fewest and most the device may count for what we saw, before losses; None: no limit."""
    if unit == "unknown":
        return seen.skbs, None
    if unit == "packets" and not any_lost:
        return seen.packets, seen.packets
    if unit == "skbs":
        return seen.skbs, seen.skbs
    # Losses are counted in buffers, and how many packets those stood for is not known.
    return seen.skbs, seen.packets


def _distance(value: int, low: int, high: int | None) -> int:
    """How far `value` lies above `high` (positive) or below `low` (negative); 0 between them."""
    if value < low:
        return value - low
    return value - high if high is not None and value > high else 0


def _driver_convention(device: Device, direction: Direction) -> Convention:
    if device.is_loopback:
        # loopback_xmit(): eth_type_trans() before the length is taken, one count for both directions.
        unit = _sent(device, direction) if direction == "tx" else "skbs"
        return Convention(unit, "loopback: buffers, bytes without the Ethernet header")
    by_driver = {"veth": _veth, "tun": _tun, "virtio_net": _virtio}.get(device.driver)
    if by_driver:
        return by_driver(device, direction)
    if device.kind == "vxlan":
        # iptunnel_xmit_stats() and vxlan_rcv() take the length from the inner network header.
        text = "vxlan: buffers, bytes without the inner Ethernet header"
        return Convention(_sent(device, direction), text)
    if device.kind == "bridge":
        ending = "without" if direction == "rx" else "with"
        return Convention(_sent(device, direction), f"bridge: buffers, bytes {ending} the Ethernet header")
    if device.kind == "macvlan":
        return Convention(_sent(device, direction), "macvlan: buffers, bytes with the Ethernet header")
    if device.is_physical:
        return _hardware(device, direction)
    name = device.driver or device.kind or "device"
    return Convention("mixed", f"{name}: not known, taken as buffers or packets")


def _sent(device: Device, direction: Direction) -> Unit:
    """The unit of a driver that counts the buffers it is given and hands on.

    Between our program at egress and the device the stack may cut a super-packet that the device would not take (a
    queue, an offload, or gso_features_check() on its size), so what we saw as one may count as its packets.
    """
    if direction == "tx":
        return "mixed"
    return "mixed" if device.has("rx-gro") else "skbs"  # GRO merges after the device has counted


def _veth(device: Device, direction: Direction) -> Convention:
    """veth_xmit() counts with the Ethernet header, the receiver's NAPI (its GRO or XDP) without; both count buffers.

    A sender's buffer goes to NAPI if the receiver has it and the sender's TSO is off; which the receiver has, its
    namespace knows.
    """
    with_header = "veth: buffers, bytes with the Ethernet header"
    varies = "veth: buffers, bytes without the Ethernet header where the receiver's NAPI took the packet"
    if direction == "tx":
        return Convention(_sent(device, direction), with_header if device.has("tx-tcp-segmentation") else varies)
    if device.xdp.mode == "xdp":
        return Convention("mixed", "veth: buffers, bytes without the Ethernet header (NAPI)")
    if device.xdp.mode == "multiple" or device.has("rx-gro"):
        return Convention("mixed", varies)
    return Convention("skbs", with_header)


def _tun(device: Device, direction: Direction) -> Convention:
    """Bytes as the program behind the device writes and reads them, less any virtio-net header."""
    unit = _sent(device, direction)
    if direction == "rx":
        return Convention(unit, "tun/tap: buffers, as the program behind it writes them")
    return Convention(unit, "tun/tap: buffers, counted when the program behind it reads them, not when queued")


def _virtio(device: Device, direction: Direction) -> Convention:
    unit = _sent(device, direction)
    if direction == "rx" and unit == "mixed" and not _merges_in_hardware(device):
        unit = "packets"
    whole = "; super-packets from the host count once" if direction == "rx" and unit == "mixed" else ""
    return Convention(unit, f"virtio_net: buffers, bytes with the Ethernet header{whole}")


def _hardware(device: Device, direction: Direction) -> Convention:
    name = device.driver or "hardware"
    if direction == "rx":
        if _merges_in_hardware(device):
            return Convention("mixed", f"{name}: packets, or buffers merged by LRO or hardware GRO")
        return Convention("packets", f"{name}: packets before GRO; bytes as the driver counts them")
    if device.driver in _COUNTS_TX_SEGMENTS:
        return Convention("packets", f"{name}: packets after TSO; bytes as the driver counts them")
    return Convention("mixed", f"{name}: buffers or packets after TSO; bytes as the driver counts them")


def _merges_in_hardware(device: Device) -> bool:
    return device.has("rx-lro") or device.has("rx-gro-hw")
