"""Rules over more than one value: each is broken alone, and then kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kosmos_installer import config, rules
from kosmos_installer.errors import Problem
from kosmos_installer.model import Appliance

Refuse = Callable[[Any], tuple[Problem, ...]]
Accept = Callable[[dict[str, Any]], Appliance]

A = {"name": "agent_internal", "vlan": 100, "cidr": "10.0.1.0/24", "address": "10.0.1.1"}
G = {"name": "api_gateway", "vlan": 200, "cidr": "10.0.2.0/24", "address": "10.0.2.1"}
LONE = {"cidr6": "fd00:1::/64", "address6": "fd00:1::1"}
FLOW = {"from": "agent_internal", "to": "host", "action": "allow", "note": "x"}
WAIVER = {"id": "host.aide.baseline", "reason": "Site scanner", "expires": "2027-01-31"}


def zones(*changed: dict[str, Any]) -> dict[str, Any]:
    return {"network": {"trunk": "eno2", "zones": list(changed)}}


def flows(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"network": {"trunk": "eno2", "zones": [A, G], "flows": list(rows)}}


def allowed(*cidrs: str) -> dict[str, Any]:
    return {"management": {"interface": "eno1", "allowed_cidrs": list(cidrs)}}


def management(interface: str) -> dict[str, Any]:
    return {"management": {"interface": interface, "allowed_cidrs": ["192.0.2.0/24"]}}


BROKEN = [
    ({"operator": {"user": "root"}}, "operator.user", "root may not log in"),
    ({"timezone": "Europe/Zurch"}, "timezone", "Did you mean Europe/Zurich?"),
    (allowed("0.0.0.0/0"), "management.allowed_cidrs[0]", "This is everybody"),
    (allowed("192.0.2.0/24", "::/0"), "management.allowed_cidrs[1]", "This is everybody"),
    (management("eno2"), "management.interface", "is inside the trunk eno2"),
    (management("eno2.100"), "management.interface", "is inside the trunk eno2"),
    (management("vlan200"), "management.interface", "is inside the trunk eno2"),
    ({"time": {"servers": ["ntp1.example.org"], "offline": True}}, "time.offline", "but servers are named"),
    ({"time": {}}, "time", "There is no source of time"),
    (zones(A | {"address": "10.0.9.1"}, G), "network.zones[0].address", "outside its zone 10.0.1.0/24"),
    (zones(A | {"address": "10.0.1.0"}, G), "network.zones[0].address", "the network's own address"),
    (zones(A, G | {"address": "10.0.2.255"}), "network.zones[1].address", "broadcast address"),
    (zones(A | LONE | {"address6": "fd00:9::1"}, G), "network.zones[0].address6", "outside its zone fd00:1::/64"),
    (zones(A | LONE | {"address6": "fd00:1::"}, G), "network.zones[0].address6", "the network's own address"),
    (zones(A | LONE | {"address6": "fd00:1::ffff:ffff:ffff:ffff"}, G), "network.zones[0].address6", "last address"),
    (zones(A | {"cidr6": "fd00:1::/64"}, G), "network.zones[0].address6", "go together"),
    (zones(A | {"address6": "fd00:1::1"}, G), "network.zones[0].cidr6", "go together"),
    (zones(A, G | {"cidr": "10.0.0.0/16"}), "network.zones[1].cidr", "overlaps zone agent_internal (10.0.1.0/24)"),
    (zones(A | LONE, G | {"cidr6": "fd00:1::/48", "address6": "fd00:1::2"}), "network.zones[1].cidr6",
     "overlaps zone agent_internal (fd00:1::/64)"),
    (allowed("10.0.2.128/25"), "network.zones[1].cidr", "overlaps the management network 10.0.2.128/25"),
    (allowed("fd00:1::/32") | zones(A | LONE, G), "network.zones[0].cidr6", "overlaps the management network fd00"),
    (zones(A | {"cidr": "10.42.7.0/24", "address": "10.42.7.1"}, G), "network.zones[0].cidr", "cluster's pods"),
    (zones(A | {"cidr": "10.43.7.0/24", "address": "10.43.7.1"}, G), "network.zones[0].cidr", "cluster's services"),
    (zones(A | {"cidr": "127.0.1.0/24", "address": "127.0.1.1"}, G), "network.zones[0].cidr", "cannot have addresses"),
    (zones(A | {"cidr": "224.0.1.0/24", "address": "224.0.1.1"}, G), "network.zones[0].cidr", "cannot have addresses"),
    (zones(A | {"cidr": "10.0.1.0/31", "address": "10.0.1.1"}, G), "network.zones[0].cidr", "too small"),
    (zones(A | {"cidr": "10.0.1.1/32"}, G), "network.zones[0].cidr", "too small"),
    (zones(A | {"cidr6": "fd00:1::/127", "address6": "fd00:1::1"}, G), "network.zones[0].cidr6", "too small"),
    (zones(A, G | {"vlan": 100}), "network.zones[1].vlan", "The vlan is that of zones[0] too."),
    (zones(A, G, G | {"vlan": 3, "cidr": "10.0.3.0/24", "address": "10.0.3.1"}), "network.zones[2].name",
     "The name is that of zones[1] too."),
    (zones(A), "network.zones", "The zone api_gateway is missing"),
    (zones(A | {"name": "agent_interal"}, G), "network.zones", "Is agent_interal meant to be it?"),
    (zones(A, G, G | {"name": "pods", "vlan": 3, "cidr": "10.0.3.0/24", "address": "10.0.3.1"}),
     "network.zones[2].name", "a meaning of its own"),
    (flows(FLOW | {"from": "agent_interal"}), "network.flows[0].from", "Did you mean agent_internal?"),
    (flows(FLOW | {"to": "internet"}), "network.flows[0].to", "There is no zone of this name."),
    (flows(FLOW | {"at": "host"}), "network.flows[0].at", "There is no zone of this name."),
    (flows(FLOW | {"from": "host"}), "network.flows[0].to", "by the loopback"),
    (flows(FLOW | {"to": "api_gateway", "at": "api_gateway"}), "network.flows[0].at", "It narrows `to: host` only."),
    (flows(FLOW | {"ports": [53]}), "network.flows[0].ports", "Protocol any has no ports."),
    (flows(FLOW | {"from": "management", "from_cidrs": ["192.0.2.7/32"]}), "network.flows[0].from_cidrs",
     "are management.allowed_cidrs"),
    (flows(FLOW | {"to": "management", "to_cidrs": ["192.0.2.7/32"]}), "network.flows[0].to_cidrs", "given already"),
    (flows(FLOW | {"at": "api_gateway", "to_cidrs": ["10.0.2.1/32"]}), "network.flows[0].to_cidrs", "given already"),
    ({"gvisor": {"source": "debian"}}, "gvisor.source", "for profile lab only"),
    ({"hardware": {"memory_gib": 29}}, "hardware.memory_gib", "needs 30 GiB"),
    ({"waivers": [WAIVER | {"id": "host.aide.basline"}]}, "waivers[0].id", "Did you mean host.aide.baseline?"),
    ({"waivers": [WAIVER, WAIVER]}, "waivers[1].id", "waived twice"),
    ({"waivers": [WAIVER | {"expires": "2026-11-21"}]}, "waivers[0].expires", "has expired; today is 2026-11-22"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "path", "reason"), BROKEN)
def test_a_broken_rule_is_told_alone(
    change: dict[str, Any], path: str, reason: str, kosmos: dict[str, Any], refuse: Refuse
) -> None:
    [problem] = refuse(kosmos | change)
    assert problem.path == f"kosmos.{path}"
    assert reason in problem.reason
    assert problem.wanted


KEPT = [
    management("eno20"),
    management("vlan300"),
    allowed("10.0.3.0/24", "2001:db8::/32"),
    {"time": {"offline": True}},
    zones(A | {"cidr": "10.0.1.0/30"}, G),
    zones(A | LONE, G | {"cidr6": "fd00:2::/64", "address6": "fd00:2::1"}),
    zones(A, G, {"name": "guests", "vlan": 300, "cidr": "10.0.3.0/24", "address": "10.0.3.1"}),
    flows(FLOW, FLOW | {"from": "agent_internal", "to": "agent_internal"}),
    flows(FLOW | {"at": "agent_internal", "proto": "udp", "ports": [53]}),
    flows(FLOW | {"from": "external", "to": "api_gateway", "from_cidrs": ["198.51.100.0/24"]}),
    {"profile": "lab", "gvisor": {"source": "debian"}, "hardware": {"memory_gib": 2}},
    {"hardware": {"memory_gib": 30}},
    {"waivers": [WAIVER, WAIVER | {"id": "host.time.synchronised"}]},
]


@pytest.mark.parametrize("change", KEPT)
def test_a_kept_rule_says_nothing(change: dict[str, Any], kosmos: dict[str, Any], accept: Accept) -> None:
    assert accept(kosmos | change).hostname == "kosmos-1"


def test_rules_judge_the_sound_sections_beside_a_broken_one(kosmos: dict[str, Any], refuse: Refuse) -> None:
    problems = refuse(kosmos | {"name": "X", "network": 5} | allowed("0.0.0.0/0") | {"time": {}})
    assert {problem.path for problem in problems} == {
        "kosmos.management.allowed_cidrs[0]",
        "kosmos.name",
        "kosmos.network",
        "kosmos.time",
    }


def test_checks_are_read_only_when_there_are_waivers(kosmos: dict[str, Any]) -> None:
    import yaml

    def not_asked() -> frozenset[str]:
        raise AssertionError("the catalogue was read")

    surroundings = config.Surroundings(config.Surroundings.real().today, not_asked)
    assert config.parse(yaml.safe_dump({"kosmos": kosmos}), "x", surroundings).waivers == []


def test_without_time_zone_data_only_the_form_is_judged(
    kosmos: dict[str, Any], accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "available_timezones", set)
    assert accept(kosmos | {"timezone": "Mars/Olympus"}).timezone == "Mars/Olympus"


def test_every_rule_says_what_it_holds() -> None:
    for rule, sections in rules.RULES.items():
        assert rule.__doc__ and rule.__doc__.endswith(".")
        assert sections <= {field.alias or name for name, field in Appliance.model_fields.items()}
