"""Each value alone: its type, its form, its limits, and the words for what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from kosmos_installer import config
from kosmos_installer.errors import Problem
from kosmos_installer.model import Appliance

Refuse = Callable[[Any], tuple[Problem, ...]]
Accept = Callable[[dict[str, Any]], Appliance]

FORM = "It does not have the right form."
ADDRESS_IN = "This is an address inside a network; the network is 10.0.0.0/8."
PORT = "This is neither a port, 1 to 65535, nor a range of ports."


def put(kosmos: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Set the value at a path such as `network.zones.0.vlan`."""
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = kosmos
    for part in way:
        place = place.setdefault(part, {}) if isinstance(part, str) else place[part]
    place[last] = value
    return kosmos


FLOW = {"from": "agent_internal", "to": "host", "action": "allow", "note": "x", "proto": "tcp"}

WRONG = [
    ("name", "Kosmos", FORM),
    ("name", "1kosmos", FORM),
    ("name", "a" * 33, FORM),
    ("name", "../x", FORM),
    ("name", 5, 'It must be text (in quotes: "..."), not a number.'),
    ("name", None, 'It must be text (in quotes: "..."), not nothing.'),
    ("profile", "Appliance", "This value is not allowed. Did you mean appliance?"),
    ("profile", "x", "This value is not allowed."),
    ("hostname", "host.example", FORM),
    ("hostname", "host_1", FORM),
    ("hostname", "host-", FORM),
    ("hostname", "a" * 64, FORM),
    ("hostname", "12345", "A name of digits only would be taken for an address."),
    ("domain", "example..org", FORM),
    ("domain", "-x.org", FORM),
    ("domain", ".".join(["a" * 60] * 4), "It is too long: host name and domain together may have 253 characters "
     "(RFC 1035)."),
    ("timezone", "../etc/passwd", FORM),
    ("locale", "de_DE.ISO-8859-1", FORM),
    ("operator", "root", "It must be keys below it, not text."),
    ("operator.user", "Ann", FORM),
    ("operator.shell", "/bin/sh", "This key is not known."),
    ("management.interface", "a-name-longer-than-15", FORM),
    ("management.allowed_cidrs", [], "The list is empty."),
    ("management.allowed_cidrs", "192.0.2.0/24", "It must be a list (lines that begin with `- `), not text."),
    ("management.allowed_cidrs", ["192.0.2.7"], "The prefix length is missing, such as /24."),
    ("management.allowed_cidrs", ["10.1.0.0/8"], ADDRESS_IN),
    ("management.allowed_cidrs", ["office/24"], "This is no network in CIDR form."),
    ("management.allowed_cidrs", [10], "It must be text."),
    ("time.servers", ["ntp server"], FORM),
    ("time.offline", "no", "It must be true or false, not text."),
    ("time.offline", 1, "It must be true or false, not a number."),
    ("storage.data_disk", "/dev/sdb", FORM),
    ("storage.data_disk", "/dev/disk/by-id/../../sda", FORM),
    ("network.zones", [], "The list is empty."),
    ("network.zones.0", "agent_internal", "It must be keys below it, not text."),
    ("network.zones.0.name", "agent-internal", FORM),
    ("network.zones.0.vlan", 0, "It must be at least 1."),
    ("network.zones.0.vlan", 4095, "It must be at most 4094."),
    ("network.zones.0.vlan", "100", "It must be a whole number, not text."),
    ("network.zones.0.vlan", 10.5, "It must be a whole number, not a number."),
    ("network.zones.0.vlan", True, "It must be a whole number, not true or false."),
    ("network.zones.0.cidr", "fd00::/64", "An IPv4 network is needed here; IPv6 goes into cidr6."),
    ("network.zones.0.cidr6", "10.9.0.0/24", "An IPv6 network is needed here; IPv4 goes into cidr."),
    ("network.zones.0.address", "fd00::1", "An IPv4 address is needed here; IPv6 goes into address6."),
    ("network.zones.0.address", "10.0.1", "This is no IP address."),
    ("network.zones.0.address6", "10.0.1.1", "An IPv6 address is needed here; IPv4 goes into address."),
    ("network.flows", [FLOW | {"ports": [0]}], PORT),
    ("network.flows", [FLOW | {"ports": [True]}], PORT),
    ("network.flows", [FLOW | {"ports": ["90-80"]}], PORT),
    ("network.flows", [FLOW | {"ports": ["ssh"]}], PORT),
    ("network.flows", [FLOW | {"action": "drop"}], "This value is not allowed."),
    ("network.flows", [FLOW | {"note": 'x" accept'}], FORM),
    ("network.flows", [FLOW | {"source": "x"}], "This key is not known."),
    ("updates.reboot_time", "24:00", FORM),
    ("updates.reboot_time", "4:00", FORM),
    ("journal.keep_days", 0, "It must be at least 1."),
    ("audit.keep_files", 100, "It must be at most 99."),
    ("gvisor.source", "Debian", "This value is not allowed. Did you mean debian?"),
    ("waivers", [{"id": "aide", "reason": "x", "expires": "2027-01-31"}], FORM),
    ("waivers", [{"id": "host.aide.baseline", "reason": " ", "expires": "2027-01-31"}], FORM),
    ("waivers", [{"id": "host.aide.baseline", "reason": "x" * 501, "expires": "2027-01-31"}],
     "It is longer than 500 characters."),
    ("waivers", [{"id": "host.aide.baseline", "reason": "x", "expires": "soon"}],
     "This is no date of the form YYYY-MM-DD."),
    ("waivers", [{"id": "host.aide.baseline", "reason": "x", "expires": 20270131}],
     "This is no date of the form YYYY-MM-DD."),
    ("waivers", [{"id": "host.aide.baseline", "reason": "x", "expires": datetime(2027, 1, 31, 8)}],
     "This is no date of the form YYYY-MM-DD."),
    ("waivers", [{"id": "host.aide.baseline", "reason": "x"}], "This key is required."),
    ("locale", datetime(2027, 1, 31), 'It must be text (in quotes: "..."), not a date.'),
    ("hardware.memory_gib", [32], "It must be a whole number, not a list."),
    ("operator", ["ann"], "It must be keys below it, not a list."),
    ("hardware.memory_gib", {}, "It must be a whole number, not keys below it."),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "reason"), WRONG)
def test_a_wrong_value_is_refused_in_clear_words(
    path: str, value: Any, reason: str, kosmos: dict[str, Any], refuse: Refuse
) -> None:
    [problem] = refuse(put(kosmos, path, value))
    assert problem.reason == reason
    assert problem.line > 1
    assert problem.wanted


RIGHT = [
    ("hostname", "a"),
    ("hostname", "a" * 63),
    ("domain", "localdomain"),
    ("timezone", "America/Argentina/Buenos_Aires"),
    ("timezone", "Etc/GMT+5"),
    ("locale", "de_CH.UTF-8"),
    ("management.allowed_cidrs", ["192.0.2.7/32", "2001:db8::/48"]),
    ("time.servers", ["2001:db8::123", "ntp.example.org"]),
    ("network.zones.0.vlan", 4094),
    ("network.zones.0.sources", ["10.0.1.0/24", "10.9.0.0/16"]),
    ("network.flows", [FLOW | {"ports": [53, "8000-8100", "9000"]}]),
    ("network.flows", [{"from": "any", "to": "api_gateway", "proto": "icmp", "action": "deny", "note": "quiet"}]),
    ("updates.reboot_time", "23:59"),
    ("hardware.memory_gib", None),
    ("waivers", [{"id": "host.aide.baseline", "reason": "x", "expires": "2026-11-22"}]),
]


@pytest.mark.parametrize(("path", "value"), RIGHT)
def test_a_right_value_is_taken(path: str, value: Any, kosmos: dict[str, Any], accept: Accept) -> None:
    assert accept(put(kosmos, path, value)).name == "kosmos-1"


def test_what_is_not_said_has_its_default(kosmos: dict[str, Any], accept: Accept) -> None:
    appliance = accept(kosmos)
    assert appliance.timezone == "Etc/UTC"
    assert appliance.updates.automatic
    assert appliance.network.flows == []
    assert appliance.gvisor.source == "lock"


@pytest.mark.parametrize("key", ["name", "profile", "hostname", "domain", "operator", "management", "time", "storage",
                                 "network", "apiVersion"])  # fmt: skip
def test_a_missing_key_comes_with_an_example(key: str, kosmos: dict[str, Any], refuse: Refuse) -> None:
    del kosmos[key]
    [problem] = refuse(kosmos)
    assert (problem.path, problem.reason, problem.line) == (f"kosmos.{key}", "This key is required.", 1)
    assert "For instance: " in problem.wanted


VERSIONS = [
    ("kosmos/v2", "This file is for a newer kosmos-install.", "Upgrade kosmos-install, or write kosmos/v1"),
    ("kosmos/v0", "This is no version of the appliance file.", "kosmos/v1"),
    ("v1", "This is no version of the appliance file.", "kosmos/v1"),
    ("other/v9", "This is no version of the appliance file.", "kosmos/v1"),
    (1, "This is no version of the appliance file.", "kosmos/v1"),
]


@pytest.mark.parametrize(("version", "reason", "wanted"), VERSIONS)
def test_another_version_is_the_only_thing_told(
    version: Any, reason: str, wanted: str, kosmos: dict[str, Any], refuse: Refuse
) -> None:
    kosmos |= {"apiVersion": version, "unknown": 1, "hostname": "-"}
    [problem] = refuse(kosmos)
    assert (problem.path, problem.reason, problem.wanted) == ("kosmos.apiVersion", reason, wanted)


TOPS = [
    ("- kosmos\n", "", "The file must begin with the key `kosmos`."),
    ("kosmos\n", "", "The file must begin with the key `kosmos`."),
    ("komsos: {}\n", "komsos", "Only the key `kosmos` may stand at the top. Did you mean kosmos?"),
    ("{}\n", "", "The key `kosmos` is missing."),
    ("kosmos:\n", "kosmos", "It must be keys below it, not nothing."),
    ("kosmos: []\n", "kosmos", "It must be keys below it, not a list."),
]


@pytest.mark.parametrize(("text", "path", "reason"), TOPS)
def test_the_top_of_the_file(text: str, path: str, reason: str, refuse: Refuse) -> None:
    [problem] = refuse(text)
    assert (problem.path, problem.reason) == (path, reason)


def test_a_key_beside_kosmos_does_not_hide_what_is_wrong_inside(refuse: Refuse, kosmos: dict[str, Any]) -> None:
    import yaml

    text = yaml.safe_dump({"ansible_user": "x", "kosmos": put(kosmos, "name", "X")})
    assert [problem.path for problem in refuse(text)] == ["ansible_user", "kosmos.name"]


def test_a_removed_key_says_what_to_write_now(refuse: Refuse, kosmos: dict[str, Any]) -> None:
    kosmos["network_zones"] = {"agent_internal": {"vlan": 100}}
    [problem] = refuse(kosmos)
    assert problem.reason == "This key is no longer read since 0.1.0."
    assert problem.wanted == "Write kosmos.network.zones instead."
    problems = refuse("network_zones:\n  agent_internal: {vlan: 100}\n")
    assert [problem.path for problem in problems] == ["network_zones", ""]


def test_expired_keys_are_not_keys_of_the_model() -> None:
    from kosmos_installer.explain import find
    from kosmos_installer.model import ApplianceFile

    for path in config.EXPIRED:
        assert find(ApplianceFile, path).field is None


def test_templates_are_refused_wherever_they_stand(refuse: Refuse, kosmos: dict[str, Any]) -> None:
    kosmos["domain"] = "{{ domain }}"
    kosmos["time"] = {"servers": ["ntp1.example.org", "{% if x %}y{% endif %}"]}
    assert [(problem.path, problem.reason) for problem in refuse(kosmos)] == [
        ("kosmos.domain", "Templates are not rendered in this file."),
        ("kosmos.time.servers[1]", "Templates are not rendered in this file."),
    ]
