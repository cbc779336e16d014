"""Which devices a pattern means, what is known of each, and how drivers' offloads are read."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from hosts import devices as topology
from hosts import netns
from wiremeter.errors import InputError, KernelError
from wiremeter.linux.devices import (
    ARPHRD_IPGRE,
    ARPHRD_LOOPBACK,
    ARPHRD_NONE,
    ARPHRD_PPP,
    ARPHRD_SIT,
    Device,
    read_default_route,
    read_devices,
    select_devices,
)
from wiremeter.linux.ethtool import Ethtool, parse_features

needs_root = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which needs root"),
]

LO = Device("lo", 1, arphrd=ARPHRD_LOOPBACK)
ETH0 = Device("eth0", 2, parent="0000:00:03.0")
ETH1 = Device("eth1", 3, parent="0000:00:04.0")
DOWN = Device("eth2", 4, parent="0000:00:05.0", is_up=False)
VETH = Device("veth12", 5, kind="veth")
INFINIBAND = Device("ib0", 6, arphrd=32, parent="0000:00:06.0")
HOST = (LO, ETH0, ETH1, DOWN, VETH, INFINIBAND)


def names(patterns: list[str], *default_route: Device, strict: bool = True) -> list[str]:
    indexes = {device.ifindex for device in default_route}
    return [device.name for device in select_devices(patterns, HOST, indexes, strict=strict)]


def test_auto_takes_the_devices_of_the_default_routes() -> None:
    assert names(["auto"], ETH1) == ["eth1"]
    assert names(["auto"], ETH0, VETH) == ["eth0", "veth12"]


def test_nothing_named_means_auto() -> None:
    assert names([], ETH1) == ["eth1"]


def test_auto_leaves_loopback_out() -> None:
    assert names(["auto"], LO, ETH0) == ["eth0"]


def test_auto_without_a_default_route_takes_physical_devices_that_are_up() -> None:
    assert names(["auto"]) == ["eth0", "eth1"]


def test_auto_that_finds_nothing_says_what_there_is() -> None:
    with pytest.raises(InputError, match=r"no default route.*there are: lo, veth12"):
        select_devices(["auto"], [LO, VETH], ())


def test_patterns_add_up_in_the_order_of_the_devices_and_each_device_comes_once() -> None:
    assert names(["veth*", "eth0", "auto", "eth[01]"], ETH0) == ["eth0", "eth1", "veth12"]


def test_a_glob_takes_loopback_if_it_matches() -> None:
    assert names(["*"]) == [device.name for device in HOST]


def test_a_glob_may_match_nothing_yet() -> None:
    assert names(["wg*"]) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("eth9", "no device is called eth9; did you mean eth"),
        ("veth21", "did you mean veth12"),
        ("wlp3s0", "there are: lo, eth0, eth1, eth2, veth12, ib0"),
        ("any", r"use the glob '\*'"),
        ("Eth0", "did you mean eth"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_hint(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        names([name])


def test_a_long_list_of_devices_is_cut() -> None:
    many = [Device(f"veth{number}", number) for number in range(1, 31)]
    with pytest.raises(InputError, match="veth20 and 10 more"):
        select_devices(["xyz"], many, ())


def test_looking_again_while_running_is_no_error() -> None:
    assert names(["gone0", "eth1", "auto"], strict=False) == ["eth0", "eth1"]


@pytest.mark.parametrize(
    ("device", "l2_bytes"),
    [
        (ETH0, 14),
        (LO, 14),
        (Device("tun0", 9, arphrd=ARPHRD_NONE), 0),
        (Device("ppp0", 9, arphrd=ARPHRD_PPP), 0),
        (Device("sit0", 9, arphrd=ARPHRD_SIT), 0),
        (Device("gre1", 9, arphrd=ARPHRD_IPGRE, is_point_to_point=True), 0),
    ],
    ids=lambda value: value.name if isinstance(value, Device) else None,
)
def test_bytes_before_the_ip_header_follow_the_hardware_type(device: Device, l2_bytes: int) -> None:
    assert device.l2_bytes == l2_bytes
    assert device.unsupported_reason == ""


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (INFINIBAND, "InfiniBand"),
        (Device("can0", 9, arphrd=280), "CAN"),
        (Device("odd0", 9, arphrd=999), "ARPHRD 999"),
        (Device("gre0", 9, arphrd=ARPHRD_IPGRE), "outer header"),
    ],
    ids=lambda value: value.name if isinstance(value, Device) else None,
)
def test_other_link_layers_are_refused_with_a_reason(device: Device, reason: str) -> None:
    assert reason in device.unsupported_reason


def test_features_are_read_bit_by_bit() -> None:
    blocks = struct.pack("=4I", 0b0111, 0, 0b0101, 0b0100) + struct.pack("=4I", 0b1, 0, 0b1, 0)
    names_ = ("sg", "tso", "loopback", "lro", *[""] * 28, "gro-hw")
    features = parse_features(struct.pack("=II", 0x3A, 2) + blocks, names_)
    assert features.active == {"sg": True, "tso": False, "loopback": True, "lro": False, "gro-hw": True}
    assert features.fixed == {"loopback", "lro"}


def test_features_beyond_the_answer_are_left_out() -> None:
    features = parse_features(struct.pack("=II4I", 0x3A, 1, 1, 0, 1, 0), tuple(f"f{n}" for n in range(40)))
    assert "f31" in features.active
    assert "f32" not in features.active


def test_a_device_that_has_gone_is_said_to_be_gone() -> None:
    with Ethtool() as ethtool, pytest.raises(KernelError, match=r"ETHTOOL_GDRVINFO on gone0: No such device"):
        ethtool.driver(b"gone0")


def test_loopback_is_known_without_privilege() -> None:
    loopback = next(device for device in read_devices() if device.is_loopback)
    assert (loopback.name, loopback.driver, loopback.is_physical) == ("lo", "", False)
    assert loopback.has("tx-tcp-segmentation")
    assert "loopback" in loopback.fixed_features


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EIO])
def test_a_device_whose_driver_does_not_answer_is_there_without_it(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(ethtool: Ethtool, device: bytes) -> str:
        raise KernelError("the driver refuses", call="ETHTOOL_GDRVINFO", errno=number)

    monkeypatch.setattr(Ethtool, "driver", refused)
    loopback = next(device for device in read_devices() if device.is_loopback)
    assert (loopback.name, loopback.driver, loopback.features) == ("lo", "", {})


def test_without_a_socket_for_ethtool_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr("wiremeter.linux.ethtool.socket.socket", refused)
    with pytest.raises(KernelError, match="RestrictAddressFamilies"):
        Ethtool()


class TestRunningKernel:
    """Devices of a namespace, as they are made."""

    pytestmark = needs_root

    def test_kinds_and_drivers_are_told_apart(self) -> None:
        topology.require("vxlan", "bridge", "macvlan", "tun", "tap")
        with netns.hosts("solo") as (solo,):
            solo.ip(
                "link add v0 type veth peer name v1",
                "link add br0 type bridge",
                "link set v1 master br0",
                "link add vx0 type vxlan id 7 dstport 4789 dev v0",
                "link add link v0 name mv0 type macvlan mode bridge",
                "tuntap add mode tun name tun0",
                "tuntap add mode tap name tap0",
            )
            with solo.entered():
                found = {device.name: device for device in read_devices()}
                assert read_default_route() == frozenset()
        assert {name: (device.kind, device.driver) for name, device in found.items()} == {
            "lo": ("", ""),
            "v0": ("veth", "veth"),
            "v1": ("veth", "veth"),
            "br0": ("bridge", "bridge"),
            "vx0": ("vxlan", "vxlan"),
            "mv0": ("macvlan", "macvlan"),
            "tun0": ("tun", "tun"),
            "tap0": ("tun", "tun"),
        }
        assert {name for name, device in found.items() if not device.has_ethernet} == {"tun0"}
        assert not any(device.is_physical or device.unsupported_reason for device in found.values())
        assert found["v1"].master == found["br0"].ifindex
        assert found["mv0"].lower == found["v0"].ifindex

    def test_offloads_are_seen_as_they_are_set(self) -> None:
        with topology.pair() as (client, _):
            for wanted in (False, True):
                client.offload(tx_udp_segmentation=wanted, generic_receive_offload=wanted)
                with client.host.entered():
                    device = next(device for device in read_devices() if device.name == client.device)
                assert (device.has("tx-udp-segmentation"), device.has("rx-gro")) == (wanted, wanted)
                changeable = topology.device_features(client.host, client.device)
                assert changeable["tx-udp-segmentation"] == wanted
                assert "tx-udp-segmentation" not in device.fixed_features

    def test_the_default_route_leads_auto(self) -> None:
        with topology.pair() as (client, server):
            client.host.ip(f"route add default via {server.ipv4}")
            with client.host.entered():
                (chosen,) = select_devices(["auto"], read_devices(), read_default_route())
            assert chosen.name == client.device
