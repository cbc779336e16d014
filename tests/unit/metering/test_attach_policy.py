"""Which hook is chosen, why, what else would cost, and whose move it is when nothing works."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiremeter.linux.devices import ARPHRD_LOOPBACK, ARPHRD_NONE, Device
from wiremeter.linux.host import HostFacts
from wiremeter.linux.netlink_messages import XdpSlot, XdpSupport
from wiremeter.metering.attach_policy import (
    SINGLE_BUFFER_MTU,
    AttachPlan,
    capture_instead,
    host_problems,
    native_xdp_hurdles,
    plan_attach,
)
from wiremeter.settings.words import REQUESTED_MODES

CAPABLE = frozenset({"CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"})
HOST = HostFacts("6.8.0", (6, 8, 0), capabilities=CAPABLE)
DEBIAN_12 = HostFacts("6.1.0-18-amd64", (6, 1, 0), capabilities=CAPABLE)

NATIVE = XdpSupport(frozenset({"basic", "redirect", "rx-sg"}), frozenset())
WITH_TAGS = XdpSupport(NATIVE.features, frozenset({"vlan-tag"}))
ONE_BUFFER = XdpSupport(frozenset({"basic"}), frozenset())
NO_XDP = XdpSupport(frozenset(), frozenset())
TAKEN = XdpSlot("xdp", (42,))

NIC = Device("eth0", 2, driver="mlx5_core", parent="0000:00:03.0", parent_bus="pci", xdp_support=NATIVE)
VETH = Device("veth0", 3, kind="veth", driver="veth", lower=4, xdp_support=NATIVE)
TUN = Device("tun0", 5, arphrd=ARPHRD_NONE, kind="tun", driver="tun", xdp_support=NATIVE)
VIRTIO = replace(NIC, driver="virtio_net", features={"rx-gro-hw": True})


def with_features(device: Device, *names: str) -> Device:
    return replace(device, features=dict.fromkeys(names, True))


def test_auto_takes_native_xdp_where_it_is_free() -> None:
    plan = plan_attach(NIC, HOST)
    assert (plan.rx_mode, plan.tx_mode, plan.works) == ("xdp", "tcx", True)
    assert "driver mlx5_core takes native XDP" in plan.reason
    assert set(plan.costs) == {"xdp-generic", "tcx", "capture"}


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (replace(NIC, xdp=TAKEN), "XDP slot is taken (xdp, program id 42)"),
        (replace(NIC, xdp_support=NO_XDP), "driver mlx5_core does not take native XDP"),
        (with_features(NIC, "rx-lro"), "LRO is on"),
        (with_features(NIC, "rx-gro-hw"), "hardware GRO is on"),
        (with_features(NIC, "rx-vlan-hw-parse"), "takes VLAN tags off"),
        (with_features(NIC, "rx-vlan-stag-hw-parse"), "takes VLAN tags off"),
        (replace(NIC, mtu=9000, xdp_support=ONE_BUFFER), "MTU is 9000"),
        (VETH, "18.1 Gbit/s of TCP became 7.7"),
        (Device("vx0", 9, kind="vxlan", xdp_support=NATIVE), "virtual device"),
        (TUN, "begin at the IP header"),
        (Device("lo", 1, arphrd=ARPHRD_LOOPBACK, mtu=65536, xdp_support=NO_XDP), "does not take native XDP"),
        (replace(VIRTIO, fixed_features=frozenset({"rx-gro-hw"})), "the host lets no guest turn it off"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_auto_takes_tcx_where_native_xdp_is_not_free(device: Device, reason: str) -> None:
    plan = plan_attach(device, HOST)
    assert (plan.rx_mode, plan.tx_mode, plan.works) == ("tcx", "tcx", True)
    assert reason in plan.reason
    assert reason in plan.costs["xdp"]


def test_jumbo_frames_need_frags_of_the_driver() -> None:
    jumbo = replace(NIC, mtu=9000)
    assert plan_attach(jumbo, HOST).rx_mode == "xdp"
    assert plan_attach(replace(NIC, mtu=SINGLE_BUFFER_MTU, xdp_support=ONE_BUFFER), HOST).rx_mode == "xdp"
    plan = plan_attach(replace(jumbo, xdp_support=ONE_BUFFER), HOST)
    assert plan.rx_mode == "tcx"
    assert "frames of one buffer only" in plan.reason


def test_a_stripped_tag_is_no_hurdle_where_program_and_driver_can_read_it() -> None:
    stripping = replace(with_features(NIC, "rx-vlan-hw-parse"), xdp_support=WITH_TAGS)
    assert plan_attach(stripping, HOST, reads_vlan_metadata=True).rx_mode == "xdp"
    assert plan_attach(stripping, HOST).rx_mode == "tcx"
    assert plan_attach(replace(stripping, xdp_support=NATIVE), HOST, reads_vlan_metadata=True).rx_mode == "tcx"


def test_before_tcx_clsact_is_taken_and_said() -> None:
    plan = plan_attach(VETH, DEBIAN_12)
    assert (plan.rx_mode, plan.tx_mode, plan.works) == ("clsact", "clsact", True)
    assert "tcx needs Linux 6.6 and this is 6.1.0-18-amd64" in plan.reason
    asked = plan_attach(VETH, DEBIAN_12, "tcx")
    assert (asked.rx_mode, asked.works) == ("clsact", True)
    assert "tcx needs Linux 6.6" in asked.reason


def test_a_kernel_that_cannot_be_asked_leaves_known_drivers_to_be_tried() -> None:
    assert plan_attach(replace(NIC, xdp_support=None), DEBIAN_12).rx_mode == "xdp"
    plan = plan_attach(replace(NIC, driver="r8169", xdp_support=None), DEBIAN_12)
    assert plan.rx_mode == "clsact"
    assert "driver r8169 is not known to take native XDP" in plan.reason
    assert plan_attach(replace(NIC, driver="r8169", xdp_support=None), DEBIAN_12, "xdp").works


def test_capture_is_taken_only_when_asked_for_and_needs_one_capability() -> None:
    raw = replace(HOST, has_btf=False, capabilities=frozenset({"CAP_NET_RAW"}), is_initial_userns=False)
    plan = plan_attach(VETH, raw, "capture")
    assert (plan.rx_mode, plan.tx_mode, plan.works) == ("capture", "capture", True)
    assert any("are lost" in warning for warning in plan.warnings)
    assert not plan_attach(VETH, raw).works
    assert "--attach capture would work here" in capture_instead(raw)
    (problem,) = plan_attach(VETH, HOST, "capture").problems
    assert "lacks CAP_NET_RAW" in problem
    assert capture_instead(replace(raw, capabilities=frozenset())) == ""


def test_asked_for_xdp_is_taken_with_its_costs_said() -> None:
    plan = plan_attach(VETH, HOST, "xdp")
    assert (plan.rx_mode, plan.tx_mode, plan.works) == ("xdp", "tcx", True)
    assert any("peer's TSO" in warning for warning in plan.warnings)
    assert "xdp" not in plan.costs


@pytest.mark.parametrize(
    ("device", "requested", "said"),
    [
        (replace(NIC, xdp=TAKEN), "xdp", "It stays in use by whoever attached it: use --attach auto or tcx"),
        (replace(NIC, xdp=TAKEN), "xdp-generic", "It stays in use by whoever attached it: use --attach auto or tcx"),
        (replace(NIC, xdp_support=NO_XDP), "xdp", "does not take native XDP. Use --attach"),
        (TUN, "xdp", "Use --attach auto or tcx"),
        (TUN, "xdp-generic", "Use --attach auto or tcx"),
        (replace(VIRTIO, fixed_features=frozenset({"rx-gro-hw"})), "xdp", "Use --attach auto or tcx"),
    ],
)
def test_xdp_that_cannot_be_had_says_whose_move_it_is(device: Device, requested: str, said: str) -> None:
    plan = plan_attach(device, HOST, requested)  # type: ignore[arg-type]
    (problem,) = plan.problems
    assert problem.startswith(f"no {requested} on {device.name}: ")
    assert said in problem


def test_generic_xdp_is_labelled_as_counting_buffers() -> None:
    plan = plan_attach(replace(NIC, xdp_support=NO_XDP), HOST, "xdp-generic")
    assert (plan.rx_mode, plan.works) == ("xdp-generic", True)
    assert any("buffers (skbs), not packets on the wire" in warning for warning in plan.warnings)


def test_a_program_in_the_slot_is_warned_of_behind_it() -> None:
    assert any("another XDP program" in warning for warning in plan_attach(replace(NIC, xdp=TAKEN), HOST).warnings)


def test_a_device_that_cannot_be_parsed_is_attached_nowhere() -> None:
    plan = plan_attach(Device("ib0", 6, arphrd=32), HOST)
    assert (plan.rx_mode, plan.tx_mode, plan.works) == ("none", "none", False)
    assert "ib0 cannot be metered: its link layer is InfiniBand" in plan.problems[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel_release": "5.10.0", "kernel_version": (5, 10, 0)}, "Linux 5.10.0 is too old"),
        ({"has_btf": False}, "CONFIG_DEBUG_INFO_BTF"),
        ({"is_preempt_rt": True}, "PREEMPT_RT"),
        ({"capabilities": frozenset({"CAP_NET_ADMIN"})}, "lacks CAP_BPF, CAP_PERFMON. Run it as root"),
        ({"is_initial_userns": False}, "user namespace"),
    ],
    ids=["kernel", "btf", "realtime", "capabilities", "user-namespace"],
)
def test_a_host_that_cannot_meter_says_whose_move_it_is(change: dict[str, object], said: str) -> None:
    host = replace(HOST, **change)  # type: ignore[arg-type]
    (problem,) = host_problems(host)
    assert said in problem
    assert problem in plan_attach(NIC, host).problems


def test_a_good_host_has_no_problems() -> None:
    assert host_problems(HOST) == ()


@pytest.mark.parametrize(
    ("device", "host", "said"),
    [
        (replace(NIC, is_up=False), HOST, "ip link set eth0 up"),
        (Device("lo", 1, arphrd=ARPHRD_LOOPBACK), HOST, "each packet twice"),
        (VETH, HOST, "more than the wire"),
        (NIC, replace(HOST, jit=False), "JIT is off"),
    ],
)
def test_what_surprises_is_said(device: Device, host: HostFacts, said: str) -> None:
    assert any(said in warning for warning in plan_attach(device, host).warnings)


any_device = st.builds(
    Device,
    name=st.just("x0"),
    ifindex=st.just(7),
    arphrd=st.sampled_from([1, 32, 772, 0xFFFE, 778]),
    mtu=st.sampled_from([1280, 1500, 9000, 65536]),
    kind=st.sampled_from(["", "veth", "tun", "bridge"]),
    driver=st.sampled_from(["", "veth", "virtio_net", "mlx5_core"]),
    parent=st.sampled_from(["", "0000:00:03.0"]),
    xdp=st.sampled_from([XdpSlot(), TAKEN]),
    xdp_support=st.sampled_from([None, NO_XDP, ONE_BUFFER, NATIVE, WITH_TAGS]),
    features=st.dictionaries(st.sampled_from(["rx-lro", "rx-gro-hw", "rx-vlan-hw-parse"]), st.booleans()),
)


@given(any_device, st.sampled_from([HOST, DEBIAN_12]))
def test_auto_never_fails_where_packets_can_be_parsed_and_takes_xdp_only_without_hurdles(
    device: Device, host: HostFacts
) -> None:
    plan = plan_attach(device, host)
    assert plan.works == (device.unsupported_reason == "")
    if plan.rx_mode == "xdp":
        assert device.is_physical
        assert device.xdp.is_free
        assert not native_xdp_hurdles(device)
        assert not any(device.features.values())


@given(any_device, st.sampled_from([HOST, DEBIAN_12]), st.sampled_from(REQUESTED_MODES))
def test_every_plan_says_why_and_what_else_would_cost(device: Device, host: HostFacts, requested: str) -> None:
    plan: AttachPlan = plan_attach(device, host, requested)  # type: ignore[arg-type]
    assert plan.reason
    assert all(plan.costs.values())
    assert plan.rx_mode not in plan.costs
    assert plan.tx_mode in ("tcx", "clsact", "capture", "none")
    assert (requested == "capture") == (plan.tx_mode == "capture") or device.unsupported_reason
    assert plan.tx_mode != "tcx" or host.can("tcx")
