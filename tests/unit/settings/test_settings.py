"""Where settings come from, which one counts, and what is said of a wrong one."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from wiremeter.agent.meter import name_options
from wiremeter.errors import InputError
from wiremeter.settings import Listen, Settings, load_settings
from wiremeter.settings.catalogue import COMMANDS
from wiremeter.settings.setting import settings_of
from wiremeter.settings.sources import configurable
from wiremeter.settings.words import NameKind


def from_environment(**variables: str) -> Settings:
    return load_settings(environment={f"WIREMETER_{name.upper()}": text for name, text in variables.items()})


def from_file(
    tmp_path: Path,
    text: str | bytes,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    path = tmp_path / "agent.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings(flags, config=path, environment=environment or {})


def test_without_any_source_settings_are_the_defaults() -> None:
    assert load_settings(environment={"PATH": "/bin"}) == Settings()


def test_every_setting_of_the_agent_can_be_configured() -> None:
    assert {field.name for field in fields(Settings)} <= set(configurable())


def test_a_flag_precedes_the_environment_which_precedes_the_file(tmp_path: Path) -> None:
    settings = from_file(
        tmp_path,
        "interval: 1m\nattach: xdp\nlog_level: error\n",
        {"WIREMETER_INTERVAL": "2s", "WIREMETER_ATTACH": "tcx"},
        {"interval": "300ms"},
    )
    assert (settings.interval, settings.attach, settings.log_level) == (0.3, "tcx", "error")


def test_a_source_replaces_the_whole_list_of_interfaces(tmp_path: Path) -> None:
    settings = from_file(tmp_path, "interfaces: [eth0, eth1]", flags={"interfaces": "veth*"})
    assert settings.interfaces == ("veth*",)


def test_the_environment_can_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("interval: 7")
    assert load_settings(environment={"WIREMETER_CONFIG": str(path)}).interval == 7


def test_a_file_sets_every_setting(tmp_path: Path) -> None:
    settings = from_file(
        tmp_path,
        """
        interfaces: [eth0, "veth*", eth0]
        interval: 500ms
        program: /opt/mine.bpf.o
        attach: xdp-generic
        flow_table: 65536
        max_devices: 12
        listen: "[::]:9100"
        log_level: debug
        log_format: json
        debug: yes
        bpf_stats: true
        """,
    )
    assert settings == Settings(
        interfaces=("eth0", "veth*"),
        interval=0.5,
        program="/opt/mine.bpf.o",
        attach="xdp-generic",
        flow_table=65536,
        max_devices=12,
        listen=Listen("::", 9100),
        log_level="debug",
        log_format="json",
        debug=True,
        bpf_stats=True,
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "interval:\n", "---\n"])
def test_a_file_that_sets_nothing_leaves_the_defaults(tmp_path: Path, text: str) -> None:
    assert from_file(tmp_path, text) == Settings()


def test_an_empty_variable_counts_as_not_set() -> None:
    assert from_environment(interval="", listen="") == Settings()


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("5", 5),
        ("5s", 5),
        ("500ms", 0.5),
        (" 2.5 s ", 2.5),
        (".5", 0.5),
        ("1m", 60),
        ("0.05", 0.05),
        ("100ms", 0.1),
        ("1h", 3600),
    ],
)
def test_an_interval_may_have_a_unit(given: Any, seconds: float) -> None:
    assert from_environment(interval=given).interval == seconds


@pytest.mark.parametrize("given", ["0", "-1", "49ms", "nan", "inf", "5h", "1e9", "soon", "3601", True, [5], {"s": 5}])
def test_an_interval_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match=r"--interval is .*, expected seconds from 0.05 to 3600, such as"):
        load_settings({"interval": given}, environment={})


@pytest.mark.parametrize(
    ("given", "interfaces"),
    [("eth0", ("eth0",)), ("eth0,veth*", ("eth0", "veth*")), ("eth0 auto", ("eth0", "auto")), ("a, b", ("a", "b"))],
)
def test_interfaces_come_separated_by_commas_or_blanks(given: Any, interfaces: tuple[str, ...]) -> None:
    assert from_environment(interfaces=given).interfaces == interfaces


@pytest.mark.parametrize("given", [[], [5], ["eth 0"], ["eth/0"], ["", "eth0"], "", ",", True, {"eth0": 1}])
def test_interfaces_that_cannot_be_names_are_refused(given: Any) -> None:
    with pytest.raises(InputError, match=r"--interface is .* expected device names"):
        load_settings({"interfaces": given}, environment={})


@pytest.mark.parametrize(
    ("given", "listen"),
    [
        ("127.0.0.1:9464", Listen("127.0.0.1", 9464)),
        ("[::]:9464", Listen("::", 9464)),
        ("[fe80::1%eth0]:80", Listen("fe80::1%eth0", 80)),
        ("localhost:0", Listen("localhost", 0)),
        (":9100", Listen("", 9100)),
        ("off", None),
    ],
)
def test_listen_is_an_address_and_a_port_or_off(given: Any, listen: Listen | None) -> None:
    assert load_settings({"listen": given}, environment={}).listen == listen


@pytest.mark.parametrize(
    "given", ["9464", 9464, "::1:80", "host", "host:", "h:65536", "h:1/metrics", "http://h:1", True]
)
def test_a_listen_address_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match=r"--listen is .*, expected host:port such as"):
        load_settings({"listen": given}, environment={})


def test_listen_off_in_yaml_is_off_though_yaml_reads_false(tmp_path: Path) -> None:
    assert from_file(tmp_path, "listen: off").listen is None


@pytest.mark.parametrize("listen", [Listen("127.0.0.1", 80), Listen("::1", 80), Listen("", 80)])
def test_a_listen_address_reads_back_from_its_text(listen: Listen | None) -> None:
    assert load_settings({"listen": str(listen)}, environment={}).listen == listen


@pytest.mark.parametrize(("given", "lines"), [("1024", 1024), (256, 256), ("default", None)])
def test_a_flow_table_is_a_power_of_two(given: Any, lines: int | None) -> None:
    assert load_settings({"flow_table": given}, environment={}).flow_table == lines


@pytest.mark.parametrize("given", ["1000", "0", "128", 1 << 23, -2, 2.5, "many", True, "9" * 30])
def test_a_flow_table_of_another_size_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match=r"--flow-table is .*, expected a power of two from 256 to 4194304"):
        load_settings({"flow_table": given}, environment={})


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("attach", "XDP", "WIREMETER_ATTACH is 'XDP', expected one of auto, xdp, xdp-generic, tcx, capture"),
        ("log_level", "warn", "WIREMETER_LOG_LEVEL is 'warn', expected one of debug, info, warning, error"),
        ("log_format", "xml", "WIREMETER_LOG_FORMAT is 'xml', expected one of text, json"),
        ("debug", "maybe", "WIREMETER_DEBUG is 'maybe', expected true or false"),
        ("max_devices", "0", "WIREMETER_MAX_DEVICES is '0', expected a whole number above 0"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_was_expected(name: str, given: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_environment(**{name: given})
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["on", "TRUE", "1", "yes"])
def test_a_switch_is_on(text: str) -> None:
    assert from_environment(debug=text).debug is True


@pytest.mark.parametrize("text", ["off", "False", "0", "no"])
def test_a_switch_is_off(text: str) -> None:
    assert from_environment(bpf_stats=text).bpf_stats is False


def test_an_unknown_key_names_its_line_and_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"agent.yaml:2: flowtable is no setting .* did you mean flow_table\?"):
        from_file(tmp_path, "interval: 1\nflowtable: 64\n")


def test_an_unknown_variable_names_the_nearest_known_one() -> None:
    with pytest.raises(InputError, match=r"variable WIREMETER_INTERFACE is no .* did you mean WIREMETER_INTERFACES\?"):
        from_environment(interface="eth0")


def test_a_wrong_value_in_the_file_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"agent.yaml:2: interval is \['1'\], expected seconds"):
        from_file(tmp_path, "attach: tcx\ninterval: [1]\n")


def test_a_key_that_is_set_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"agent.yaml:2: interval is set a second time"):
        from_file(tmp_path, "interval: 1\ninterval: 2\n")


@pytest.mark.parametrize("text", ["- eth0\n", "eth0\n"])
def test_a_file_without_settings_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"holds no settings"):
        from_file(tmp_path, text)


@pytest.mark.parametrize("text", ["listen: [::]:80\n", "a: b: c\n", "\0"])
def test_a_file_that_is_not_plain_yaml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"is not YAML that wiremeter can read"):
        from_file(tmp_path, text)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{name}'] * 9)}]\n" for name, after in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [[dns]]\n", "nothing is nested in settings"),
        ("names: {dns: 1}\n", "nothing is nested in settings"),
        ("names: " + "[" * 20_000, "nothing is nested in settings"),
        ("names: " + "{a: " * 20_000, "nothing is nested in settings"),
        ("- " * 20_000, "holds no settings"),
        ("? [a]\n: 1\n", "nothing is nested in settings"),
        (BOMB, "anchors, aliases and tags"),
        ("names: *a\n", "anchors, aliases and tags"),
        ("interval: !!python/object:os.system 1\n", "anchors, aliases and tags"),
        ('interval: !!float ""\n', "anchors, aliases and tags"),
        ("interval: 1\n---\ninterval: 2\n", "one document"),
        ("max_devices: " + "9" * 5000 + "\n", "max_devices is '9999"),
        ("\ud800: 1\n".encode("utf-8", "surrogatepass"), "is not YAML"),
        ("a" * 300_000, "larger than 256 KiB"),
        ("\x1b[2J: 1\n", "is not YAML"),
        ("x" * 500 + ": 1\n", "is no setting"),
    ],
)
def test_a_hostile_file_is_one_short_message_at_once(tmp_path: Path, text: str | bytes, message: str) -> None:
    began = time.process_time()
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        from_file(tmp_path, text)
    assert time.process_time() - began < 1
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


@pytest.mark.parametrize("path", ["/dev/zero", "/", "/dev/full", "/proc/self/mem"])
def test_what_is_no_file_of_settings_is_refused(path: str) -> None:
    with pytest.raises(InputError, match=rf"{path}"):
        load_settings(config=path, environment={})


@pytest.mark.parametrize(
    "raw",
    [[["dns"]], [{}], {"dns": 1}, {"dns"}, pytest.param(10**5000, id="long"), object(), b"dns", float("nan"), None],
)
@pytest.mark.parametrize("name", sorted(configurable()))
def test_a_value_of_another_type_is_refused_and_never_a_traceback(name: str, raw: Any) -> None:
    kind = next(kind for kind in COMMANDS.values() if name in settings_of(kind))
    with pytest.raises(InputError, match="expected") as caught:
        load_settings({name: raw}, kind, environment={})
    assert len(str(caught.value)) < 400


def test_a_flag_says_what_a_long_value_begins_with() -> None:
    with pytest.raises(InputError, match=r"--interval is 'x{79}…, expected"):
        load_settings({"interval": "x" * 10_000}, environment={})


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the settings file .*none.yaml: No such file"):
        load_settings(config=tmp_path / "none.yaml", environment={})


KUBERNETES = {
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "WIREMETER_SERVICE_HOST": "10.0.0.7",
    "WIREMETER_SERVICE_PORT": "9464",
    "WIREMETER_SERVICE_PORT_METRICS": "9464",
    "WIREMETER_PORT": "tcp://10.0.0.7:9464",
    "WIREMETER_PORT_9464_TCP": "tcp://10.0.0.7:9464",
    "WIREMETER_PORT_9464_TCP_ADDR": "10.0.0.7",
    "WIREMETER_AGENT_PORT_9464_TCP_PROTO": "tcp",
}


def test_what_kubernetes_says_of_a_service_called_wiremeter_is_not_taken_for_settings() -> None:
    assert load_settings(environment=KUBERNETES) == Settings()


def test_a_misspelt_variable_is_refused_in_kubernetes_too() -> None:
    with pytest.raises(InputError, match=r"did you mean WIREMETER_LISTEN"):
        load_settings(environment={**KUBERNETES, "WIREMETER_LISTENER": "off"})


def test_state_is_kept_where_systemd_says_unless_something_else_is_asked_for() -> None:
    systemd = {"STATE_DIRECTORY": "/var/lib/wiremeter:/var/lib/more"}
    assert load_settings(environment={}).state_dir is None
    assert load_settings(environment=systemd).state_dir == "/var/lib/wiremeter"
    assert load_settings({"state_dir": "none"}, environment=systemd).state_dir is None
    assert load_settings(environment=systemd | {"WIREMETER_STATE_DIR": "/srv"}).state_dir == "/srv"


@pytest.mark.parametrize(
    ("text", "names"), [("none", ()), ("dns,tls", ("dns", "tls")), ("dns tls,ptr", ("dns", "tls", "ptr"))]
)
def test_names_are_a_list_or_none(text: str, names: tuple[str, ...]) -> None:
    assert load_settings({"names": text}, environment={}).names == names


@pytest.mark.parametrize(
    ("setting", "value"), [("names", "smell"), ("payload_bytes", "4097"), ("domains", "-1"), ("state_dir", "")]
)
def test_values_of_names_that_do_not_fit_are_refused(setting: str, value: str) -> None:
    with pytest.raises(InputError, match="expected"):
        load_settings({setting: value}, environment={})


@pytest.mark.parametrize("names", [(), ("ptr",), ("dns",), ("ptr", "tls")])
@pytest.mark.parametrize("payload_bytes", [0, 512])
def test_payloads_are_read_where_the_meter_has_them_sent(names: tuple[NameKind, ...], payload_bytes: int) -> None:
    settings = Settings(names=names, payload_bytes=payload_bytes)
    assert settings.reads_payloads == bool(name_options(settings).limit)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("server", "https://meter.example:8443/", "https://meter.example:8443"),
        ("server", "http://[::1]:80", "http://[::1]:80"),
        ("server", "none", None),
        ("spool_size", "64MiB", 64 << 20),
        ("spool_size", "2g", 2 << 30),
        ("ship_rate", 4096, 4096),
        ("spool_dir", "none", ""),
        ("spool_dir", "default", None),
        ("spool_dir", "/var/spool/x", "/var/spool/x"),
        ("ignore", "host 192.0.2.7; port 22 or 23 ;", ("host 192.0.2.7", "port 22 or 23")),
        ("ignore", ["net 10.0.0.0/8"], ("net 10.0.0.0/8",)),
        ("agent_id", "web-1.example", "web-1.example"),
    ],
)
def test_what_shipping_is_told_is_read(name: str, given: object, expected: object) -> None:
    assert getattr(load_settings({name: given}, environment={}), name) == expected


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("server", "ftp://meter.example"),
        ("server", "meter.example"),
        ("server", "https://meter.example?token=x"),
        ("server", "https://meter.example/\nx"),
        ("spool_size", "1"),
        ("spool_size", "-1"),
        ("spool_size", "9999999999TiB"),
        ("ignore", 7),
        ("agent_id", "../x"),
        ("heartbeat", "0s"),
    ],
)
def test_what_shipping_cannot_be_told_is_refused(name: str, given: object) -> None:
    with pytest.raises(InputError, match=name.replace("_", "-")):
        load_settings({name: given}, environment={})


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match="without user and password") as error:
        load_settings({"server": "https://user:pa55word@meter.example"}, environment={})
    assert "pa55word" not in str(error.value)
