"""Which hook a device is metered at, and why: pure decisions from facts about the device and the host.

Whether a driver really takes a native XDP program shows only when it is asked; who attaches falls back to tc then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wiremeter.flows.columns import AttachMode
from wiremeter.linux.devices import ETHERNET_BYTES, Device
from wiremeter.linux.host import KERNEL_FEATURES, MINIMUM_KERNEL, HostFacts, Version
from wiremeter.reports.findings import sentence
from wiremeter.settings.words import RequestedMode

#: The largest MTU that every driver takes for a program without frags: 3 KiB buffers, as ixgbe and i40e use, less
#: the Ethernet header and two VLAN tags.
SINGLE_BUFFER_MTU = 3072 - ETHERNET_BYTES - 2 * 4

CAPTURE_REASON = "--attach capture asks for it: packet sockets and a table in this process, no BPF"
#: What it costs, to be read after "it".
CAPTURE_COST = (
    "has the kernel copy the head of each packet to this process and counts there, for several times the CPU, and"
    " loses, and counts as lost, what comes faster than that"
)

#: Drivers with native XDP in Linux 5.15, for kernels that cannot be asked (before 6.3).
_NATIVE_XDP_DRIVERS = frozenset(
    (
        *("bnxt_en", "ena", "fsl_dpaa2_eth", "hv_netvsc", "i40e", "ice", "igb", "igc", "ixgbe", "ixgbevf", "mlx4_en"),
        *("mlx5_core", "mvneta", "mvpp2", "netsec", "nfp", "nicvf", "qede", "sfc", "stmmaceth", "virtio_net"),
    )
)


@dataclass(frozen=True, slots=True)
class AttachPlan:
    """How a device will be metered.

    rx_mode, tx_mode: what is attached, or would be but for the problems; "none" where nothing can be.
    reason: why this way. costs: what each other choice would cost, or why it is impossible.
    warnings: what will be metered otherwise than one might expect. problems: what keeps it from working, and whose
    move that is.
    """

    rx_mode: AttachMode
    tx_mode: AttachMode
    reason: str
    costs: Mapping[RequestedMode, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def works(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.problems


def plan_attach(
    device: Device, host: HostFacts, requested: RequestedMode = "auto", *, reads_vlan_metadata: bool = False
) -> AttachPlan:
    """Chooses the hooks for `device`; docs/accounting.md says what each counts.

    reads_vlan_metadata: the XDP program asks the driver for the VLAN tag that the hardware has taken off
    (bpf_xdp_metadata_rx_vlan_tag); without it, `auto` leaves XDP alone where there may be such tags.
    """
    problems = capture_problems(host) if requested == "capture" else host_problems(host)
    if device.unsupported_reason:
        move = "Meter the device below or above it instead."
        problem = f"{device.name} cannot be metered: {device.unsupported_reason}. {move}"
        return AttachPlan("none", "none", device.unsupported_reason, problems=(*problems, problem))
    if requested == "capture":
        costs = _costs_of_others(device, requested, "capture", native_xdp_hurdles(device))
        return AttachPlan("capture", "capture", CAPTURE_REASON, costs, _capture_warnings(device), problems)
    tc_mode: AttachMode = "tcx" if host.can("tcx") else "clsact"
    hurdles = native_xdp_hurdles(device, reads_vlan_metadata=reads_vlan_metadata)
    rx_mode, reason = _choose(device, host, requested, tc_mode, hurdles)
    return AttachPlan(
        rx_mode,
        tc_mode,
        reason,
        _costs_of_others(device, requested, rx_mode, hurdles),
        _warnings(device, host, rx_mode, hurdles),
        (*problems, *_xdp_problems(device, rx_mode)),
    )


def capture_problems(host: HostFacts) -> tuple[str, ...]:
    """What keeps `--attach capture` from working on this host, and whose move it is."""
    if not host.missing_capabilities_for("capture"):
        return ()
    return (
        "this process lacks CAP_NET_RAW, which packet sockets need. Run it as root, or give it this"
        " (systemd: AmbientCapabilities; docker: --cap-add).",
    )


def capture_instead(host: HostFacts) -> str:
    """Advice for a host where programs cannot be attached; "" if packets cannot be captured either."""
    if capture_problems(host):
        return ""
    return f"--attach capture would work here as a fallback, without BPF; it {CAPTURE_COST}."


def host_problems(host: HostFacts) -> tuple[str, ...]:
    """What keeps anything from being metered on this host, and whose move it is."""
    problems = []
    if host.kernel_version < MINIMUM_KERNEL:
        problems.append(
            f"Linux {host.kernel_release or '(unknown)'} is too old: the flow tables and programs need"
            f" {_dotted(MINIMUM_KERNEL)}. Boot a newer kernel."
        )
    if not host.has_btf:
        problems.append(
            "/sys/kernel/btf/vmlinux is missing, so programs cannot be fitted to this kernel. Boot a kernel built with"
            " CONFIG_DEBUG_INFO_BTF (distributions' kernels are), or mount /sys in this container."
        )
    if host.is_preempt_rt:
        problems.append(
            "this is a PREEMPT_RT kernel, which may switch tasks in the middle of a program: two would write one CPU's"
            " table and counts would be wrong. Boot a kernel without PREEMPT_RT."
        )
    if host.missing_capabilities:
        problems.append(
            f"this process lacks {', '.join(host.missing_capabilities)}. Run it as root, or give it these"
            " (systemd: AmbientCapabilities; docker: --cap-add)."
        )
    if not host.is_initial_userns:
        problems.append(
            "this process is in a user namespace of its own, whose capabilities do not count for BPF. Run it outside"
            " (not in a rootless container)."
        )
    return tuple(problems)


def request_problem(requested: RequestedMode, program: object, *, bpf_stats: bool) -> str:
    """What is asked for together and does not go together; "" if nothing. program: another object, if any."""
    if requested == "capture" and (program or bpf_stats):
        return "attach mode 'capture' runs no program: there is none to choose, and none to time"
    return ""


@dataclass(frozen=True, slots=True)
class Hurdle:
    """Why `auto` would not take native XDP; `bars` if asking for it would fail, too, as far as can be known."""

    text: str
    bars: bool = False


def native_xdp_hurdles(device: Device, *, reads_vlan_metadata: bool = False) -> tuple[Hurdle, ...]:
    """All that stands between native XDP and `auto`, the gravest first; empty where it is free."""
    return tuple(
        hurdle
        for hurdle in (
            _no_ethernet(device),
            _slot_taken(device),
            _driver_without_xdp(device),
            _not_physical(device),
            _hardware_merge(device),
            _stripped_vlan(device, reads_vlan_metadata=reads_vlan_metadata),
            _big_frames(device),
        )
        if hurdle
    )


def _no_ethernet(device: Device) -> Hurdle | None:
    if device.has_ethernet:
        return None
    return Hurdle("its packets begin at the IP header, which is metered at tc only", bars=True)


def _slot_taken(device: Device) -> Hurdle | None:
    if device.xdp.is_free:
        return None
    ids = ", ".join(str(number) for number in device.xdp.program_ids)
    return Hurdle(f"its XDP slot is taken ({device.xdp.mode}, program id {ids or 'unknown'})", bars=True)


def _driver_without_xdp(device: Device) -> Hurdle | None:
    name = f"driver {device.driver}" if device.driver else "its driver"
    if device.xdp_support is None:  # the kernel cannot be asked; who asks for XDP may still try
        known = device.driver in _NATIVE_XDP_DRIVERS or not device.is_physical
        return None if known else Hurdle(f"{name} is not known to take native XDP")
    if "basic" in device.xdp_support.features:
        return None
    return Hurdle(f"{name} does not take native XDP", bars=True)


def _not_physical(device: Device) -> Hurdle | None:
    if device.is_physical:
        return None
    if device.driver == "veth":
        return Hurdle(
            "native XDP on veth turns off the peer's TSO and UDP GSO (18.1 Gbit/s of TCP became 7.7 when measured)"
        )
    return Hurdle("it is a virtual device, where native XDP saves nothing")


def _hardware_merge(device: Device) -> Hurdle | None:
    words = {"rx-lro": "LRO", "rx-gro-hw": "hardware GRO"}
    on = [name for name in words if device.has(name)]
    if not on:
        return None
    what = " and ".join(words[name] for name in on)
    if device.driver == "virtio_net" and device.fixed_features.issuperset(on):  # virtnet_xdp_set()
        return Hurdle(f"{what} is on and the host lets no guest turn it off, so the driver refuses XDP", bars=True)
    return Hurdle(f"{what} is on: the driver refuses XDP then, turns it off, or shows XDP merged frames")


def _stripped_vlan(device: Device, *, reads_vlan_metadata: bool) -> Hurdle | None:
    if not (device.has("rx-vlan-hw-parse") or device.has("rx-vlan-stag-hw-parse")):
        return None
    if reads_vlan_metadata and device.xdp_support and "vlan-tag" in device.xdp_support.rx_metadata:
        return None
    return Hurdle("the hardware takes VLAN tags off (rx-vlan-offload), and XDP would not see them")


def _big_frames(device: Device) -> Hurdle | None:
    if device.mtu <= SINGLE_BUFFER_MTU:
        return None
    if device.xdp_support is None or "rx-sg" in device.xdp_support.features:
        return None
    return Hurdle(f"its MTU is {device.mtu}, and its driver gives XDP frames of one buffer only")


def _choose(
    device: Device, host: HostFacts, requested: RequestedMode, tc_mode: AttachMode, hurdles: tuple[Hurdle, ...]
) -> tuple[AttachMode, str]:
    """The rx mode, and why."""
    if requested in ("xdp", "xdp-generic"):
        return requested, f"--attach {requested} asks for it"
    older = "" if host.can("tcx") else f"; {_too_old_for_tcx(host)}"
    if requested == "tcx":
        return tc_mode, f"--attach tcx asks for it{older}"
    if not hurdles:
        return "xdp", f"driver {device.driver} takes native XDP as configured, the slot is free, and no tag is hidden"
    grave = [hurdle.text for hurdle in hurdles if hurdle.bars] or [hurdle.text for hurdle in hurdles]
    return tc_mode, f"not native XDP: {'; '.join(grave)}{older}"


def _too_old_for_tcx(host: HostFacts) -> str:
    return f"clsact because tcx needs Linux {_dotted(KERNEL_FEATURES['tcx'].version)} and this is {host.kernel_release}"


def _costs_of_others(
    device: Device, requested: RequestedMode, rx_mode: AttachMode, hurdles: tuple[Hurdle, ...]
) -> dict[RequestedMode, str]:
    """What the modes that are neither asked for nor taken would cost."""
    taken = {requested, "tcx" if rx_mode == "clsact" else rx_mode}
    costs: dict[RequestedMode, str] = {
        "xdp": _cost_of_xdp(hurdles),
        "xdp-generic": _cost_of_generic(device),
        "tcx": "sees packets after the kernel has made skbs of them and merged them, and reckons back to the wire",
        "capture": CAPTURE_COST,
    }
    return {mode: text for mode, text in costs.items() if mode not in taken}


def _cost_of_xdp(hurdles: tuple[Hurdle, ...]) -> str:
    barring = [hurdle.text for hurdle in hurdles if hurdle.bars]
    if barring:
        return f"not possible: {'; '.join(barring)}"
    rings = "many drivers stop for a moment to rebuild their rings when a program comes or goes"
    return "; ".join([*(hurdle.text for hurdle in hurdles), rings])


def _cost_of_generic(device: Device) -> str:
    barring = [hurdle.text for hurdle in (_no_ethernet(device), _slot_taken(device)) if hurdle]
    if barring:
        return f"not possible: {'; '.join(barring)}"
    turned_off = "turns LRO and hardware GRO off where it can; " if _hardware_merge(device) else ""
    return f"{turned_off}cannot tell super-packets, so rx gives buffers (skbs) instead of packets and bytes on the wire"


def _xdp_problems(device: Device, rx_mode: AttachMode) -> tuple[str, ...]:
    """What makes an XDP mode that was asked for impossible, and whose move it is."""
    if rx_mode not in ("xdp", "xdp-generic"):
        return ()
    hurdles: tuple[tuple[Hurdle | None, str], ...] = (
        (_no_ethernet(device), "Use --attach auto or tcx."),
        (_slot_taken(device), "It stays in use by whoever attached it: use --attach auto or tcx."),
        (_driver_without_xdp(device) if rx_mode == "xdp" else None, "Use --attach auto or tcx."),
        (_hardware_merge(device) if rx_mode == "xdp" else None, "Use --attach auto or tcx, or ask the host's owner."),
    )
    return tuple(
        f"no {rx_mode} on {device.name}: {hurdle.text}. {move}" for hurdle, move in hurdles if hurdle and hurdle.bars
    )


def _capture_warnings(device: Device) -> tuple[str, ...]:
    warnings = [] if device.is_up else [_down(device)]
    if not device.xdp.is_free:
        warnings.append(_XDP_COMES_FIRST)
    warnings.append("packets that come faster than this process reads are lost: the audit says how many")
    return (*warnings, *_seen_twice(device))


def _warnings(device: Device, host: HostFacts, rx_mode: AttachMode, hurdles: tuple[Hurdle, ...]) -> tuple[str, ...]:
    warnings = [] if device.is_up else [_down(device)]
    if rx_mode == "xdp":
        warnings += [hurdle.text for hurdle in hurdles if not hurdle.bars]
    if rx_mode in ("tcx", "clsact") and not device.xdp.is_free:
        warnings.append(_XDP_COMES_FIRST)
    if rx_mode == "xdp-generic":
        warnings.append(sentence("skb_counts"))
    warnings += _seen_twice(device)
    if host.jit is False:
        warnings.append("the BPF JIT is off (sysctl net.core.bpf_jit_enable=1): each packet costs many times more")
    return tuple(warnings)


_XDP_COMES_FIRST = "another XDP program sees rx packets first: what it drops or redirects is not counted"


def _down(device: Device) -> str:
    return f"the device is down: nothing to count until `ip link set {device.name} up`"


def _seen_twice(device: Device) -> tuple[str, ...]:
    if device.is_loopback:
        return ("loopback shows each packet twice, as rx and as tx",)
    if device.kind and not device.is_physical and (device.lower or device.kind in ("bridge", "bond", "team")):
        return (f"it is stacked on or paired with another device: {sentence('stacked')}",)
    return ()


def _dotted(version: Version) -> str:
    return ".".join(str(number) for number in version[:2])
