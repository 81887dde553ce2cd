"""The zone matrix: what is refused, what is rendered, and how one packet is judged."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.kosmos.appliance.plugins.filter.zones import (
    zone_addresses,
    zone_cut_off,
    zone_interfaces,
    zone_links,
    zone_rules,
)
from ansible_collections.kosmos.appliance.plugins.module_utils.zones.model import MatrixError, parse
from ansible_collections.kosmos.appliance.plugins.module_utils.zones.verdict import Packet, judge

ROLE = Path(__file__).parents[3] / "roles/net_zones"
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
SSH = {"from": "management", "to": "host", "proto": "tcp", "ports": [22], "action": "allow", "note": "ssh"}


def matrix(**changes: Any) -> dict[str, Any]:
    """Return the declaration of the role's defaults with a management network."""
    return {
        "trunk": "eno2",
        "zones": DEFAULTS["net_zones_zones"],
        "management": {"interface": "eno1", "cidrs": ["192.0.2.0/24", "2001:db8:1::/64"]},
        "flows": [SSH, *DEFAULTS["net_zones_flows"]],
        **changes,
    }


def with_ipv6() -> dict[str, Any]:
    agents, gateway = DEFAULTS["net_zones_zones"]
    return matrix(zones=[{**agents, "cidr6": "fd00:100::/64", "address6": "fd00:100::1"}, gateway])


def zone(**changes: Any) -> dict[str, Any]:
    return {"name": "blue", "vlan": 7, "cidr": "10.7.0.0/24", "address": "10.7.0.1", **changes}


def flow(**changes: Any) -> dict[str, Any]:
    return {"from": "any", "to": "host", "action": "allow", **changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"zones": [zone(name="host")]}, "'host' cannot name a zone"),
        ({"zones": [zone(name='x"; accept')]}, "cannot name a zone"),
        ({"zones": [zone(vlan=4095)]}, "4095 is not a VLAN id"),
        ({"zones": [zone(vlan=True)]}, "True is not a VLAN id"),
        ({"zones": [zone(cidr="10.7.0.1/24")]}, "has host bits set"),
        ({"zones": [zone(address="10.8.0.1")]}, "10.8.0.1 is not in 10.7.0.0/24"),
        ({"zones": [zone(cidr6="fd00::/64")]}, "address6"),
        ({"zones": [zone(), zone(name="red", vlan=8)]}, "overlaps 10.7.0.0/24 of zone blue"),
        ({"zones": [zone(), zone(name="red", cidr="10.8.0.0/24", address="10.8.0.1")]}, "the VLAN 7 is used twice"),
        ({"zones": [zone(), zone(vlan=8, cidr="10.8.0.0/24", address="10.8.0.1")]}, "the name blue is used twice"),
        ({"trunk": "eno1"}, "'eno1' is the management interface"),
        ({"trunk": "eno2; reboot"}, "cannot name an interface"),
        ({"management": {"interface": "", "cidrs": []}}, "cannot name an interface"),
        ({"management": {"interface": "eno1", "cidrs": ["everyone"]}}, "everyone"),
        ({"management": {"interface": "eno1", "cidrs": "192.0.2.0/24"}}, "a list of networks is needed"),
        ({"flows": [flow(to="nowhere")]}, "flow 1.to: 'nowhere' is not one of"),
        ({"flows": [flow(action="drop")]}, "flow 1.action"),
        ({"flows": [flow(proto="sctp")]}, "flow 1.proto"),
        ({"flows": [flow(ports=[80])]}, "ports need 'proto: tcp'"),
        ({"flows": [flow(proto="tcp", ports=["90-80"])]}, "neither a port nor a range"),
        ({"flows": [flow(proto="tcp", ports=[70000])]}, "neither a port nor a range"),
        ({"flows": [flow(note='x" accept')]}, "flow 1.note"),
        ({"flows": [flow(at="api_gateway", to="external")]}, "only goes with 'to: host'"),
        ({"flows": [flow(at="api_gateway", to_cidrs=["10.0.2.1/32"])]}, "given already"),
        ({"flows": [{**SSH, "from_cidrs": ["10.0.0.0/8"]}]}, "given already"),
        ({"flows": [flow(**{"from": "host"})]}, "reaches itself over the loopback"),
        ({"flows": [flow(port=22)]}, "unknown key 'port'"),
        ({"flows": [flow(from_cidrs=["10.0.0.0/8"], to_cidrs=["fd00::/8"])]}, "no IP version in common"),
        ({"pods": {"interfaces": ["cni0"]}}, "both 'interfaces' and 'cidrs' are needed"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        zone_rules(matrix(**changes))
    assert said in str(caught.value)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(MatrixError) as caught:
        parse(matrix(trunk="", zones=[zone(vlan=0, address="1.1.1.1")], flows=[flow(action="maybe")]))
    assert len(caught.value.problems) == 3


def test_the_seeds_rules_are_what_the_defaults_render() -> None:
    forward = [rule.partition(" counter ") for rule in zone_rules(matrix())["forward"]]
    assert [(match, action.split(" comment")[0]) for match, _, action in forward] == [
        ('oifname { "vlan100" } meta nfproto ipv6', "goto drop_forward"),
        ('oifname { "vlan200" } meta nfproto ipv6', "goto drop_forward"),
        ('iifname { "vlan100" } oifname { "vlan100" }', "accept"),
        ('iifname { "vlan100" } oifname != { "vlan100", "vlan200" }', "goto drop_forward"),
        ('oifname { "vlan200" } tcp dport { 443 }', "accept"),
        ('iifname { "vlan100" } oifname { "vlan200" }', "accept"),
    ]


def test_a_rule_with_addresses_is_written_once_for_each_ip_version() -> None:
    rules = zone_rules(matrix())["input"]
    assert rules[0].startswith('iifname "eno1" ip saddr { 192.0.2.0/24 } tcp dport { 22 } counter accept')
    assert rules[1].startswith('iifname "eno1" ip6 saddr { 2001:db8:1::/64 } tcp dport { 22 } counter accept')


def test_an_empty_management_network_lets_nobody_in() -> None:
    nobody = matrix(management={"interface": "eno1", "cidrs": []})
    assert [rule for rule in zone_rules(nobody)["input"] if "dport { 22 }" in rule] == []
    packet = Packet("eno1", ip_address("192.0.2.9"), ip_address("192.0.2.1"), "tcp", 22)
    assert not judge(parse(nobody), packet).allowed


def test_a_zone_without_ipv6_has_none_and_one_with_has_its_own() -> None:
    assert any(
        "vlan100" in rule and "meta nfproto ipv6 counter goto drop_spoof" in rule
        for rule in zone_rules(matrix())["guard"]
    )
    guard = zone_rules(with_ipv6())["guard"]
    assert any('"vlan100" } ip6 saddr != { fd00:100::/64, fe80::/10, :: }' in rule for rule in guard)
    files = {item["dest"].rsplit("-", 1)[-1]: item["content"] for item in zone_links(with_ipv6())}
    assert "LinkLocalAddressing=ipv6\n" in files["vlan100.network"]
    assert "Address=fd00:100::1/64\n" in files["vlan100.network"]
    assert "LinkLocalAddressing=no\n" in files["vlan200.network"]


def test_networkd_matches_nothing_but_the_trunk_and_its_vlans() -> None:
    matched = {
        line.removeprefix("Name=")
        for item in zone_links(matrix())
        if item["dest"].endswith(".network")
        for line in item["content"].splitlines()
        if line.startswith("Name=")
    }
    assert matched == {"eno2", "vlan100", "vlan200"}
    assert all("RequiredForOnline=no" in i["content"] for i in zone_links(matrix()) if i["dest"].endswith(".network"))


def test_pods_become_a_zone_only_when_they_are_declared() -> None:
    pods = matrix(pods={"interfaces": ["cni0"], "cidrs": ["10.42.0.0/16"]}, flows=[flow(**{"from": "pods"})])
    assert zone_interfaces(pods) == ["vlan100", "vlan200", "cni0"]
    assert zone_rules(pods)["input"] == ['iifname { "cni0" } counter accept comment "flow 1"']
    assert zone_addresses(pods, 4) == ["vlan100@eno2 UP 10.0.1.1/24", "vlan200@eno2 UP 10.0.2.1/24"]
    assert zone_addresses(pods, 6) == []
    with pytest.raises(AnsibleFilterError):
        zone_rules(matrix(flows=[flow(**{"from": "pods"})]))


@pytest.mark.parametrize(
    ("seen", "refused"),
    [
        ("192.0.2.7 50000 192.0.2.1 22\n192.0.2.7 dev eno1 src 192.0.2.1", ""),
        ("192.0.2.7 50000 192.0.2.1 22\r\n192.0.2.7 dev eno1\r\n", ""),
        ("192.0.2.7 50000 192.0.2.1 22\n", ""),
        ("2001:db8:1::7 50000 2001:db8:1::1 22\n2001:db8:1::7 from :: dev eno1", ""),
        ("198.51.100.7 50000 192.0.2.1 22\n198.51.100.7 via 192.0.2.254 dev eno1", "no flow permits it"),
        ("192.0.2.7 50000 192.0.2.1 2222\n192.0.2.7 dev eno1", "port 2222 would be dropped"),
        ("192.0.2.7 50000 192.0.2.1 22\n192.0.2.7 dev eno9", "on eno9"),
        ("10.0.1.7 50000 10.0.1.1 22\n10.0.1.7 dev vlan100", "no flow permits it"),
        ("10.0.1.7 50000 192.0.2.1 22\n10.0.1.7 dev eno1", "belongs to zone agent_internal"),
        ("\n", ""),
        ("UNKNOWN 65535 UNKNOWN 65535\n", ""),
        ("127.0.0.1 50000 127.0.0.1 22\nlocal 127.0.0.1 dev lo", ""),
    ],
)
def test_a_filter_that_cuts_the_operator_off_is_recognised(seen: str, refused: str) -> None:
    said = zone_cut_off(matrix(), seen)
    assert (refused in said) if refused else said == ""


@pytest.mark.parametrize(
    ("packet", "allowed"),
    [
        (("vlan100", "vlan200", "10.0.1.2", "10.0.2.2", 8443), True),
        (("vlan200", "vlan100", "10.0.2.2", "10.0.1.2", 8443), False),
        (("vlan100", "eno1", "10.0.1.2", "192.0.2.9", 443), False),
        (("eno1", "vlan200", "198.51.100.1", "10.0.2.2", 443), True),
        (("eno1", "vlan200", "198.51.100.1", "10.0.2.2", 80), False),
        (("eno1", "vlan100", "198.51.100.1", "10.0.1.2", 443), False),
        (("vlan100", None, "10.0.1.2", "10.0.2.1", 443), True),
        (("vlan100", None, "10.0.1.2", "10.0.1.1", 443), False),
        (("vlan100", None, "10.0.9.9", "10.0.2.1", 443), False),
        (("eno1", None, "10.0.2.9", "10.0.2.1", 443), False),
        (("eno2", None, "192.0.2.9", "10.0.2.1", 443), False),
        (("vlan100", None, "fd00::1", "fd00::2", 443), False),
        (("eno1", "vlan200", "2001:db8:1::9", "fd00:200::2", 443), False),
    ],
)
def test_packets_are_judged(packet: tuple[str, str | None, str, str, int], allowed: bool) -> None:
    arrives, leaves, source, dest, port = packet
    seen = Packet(arrives, ip_address(source), ip_address(dest), "tcp", port, leaves)
    assert judge(parse(matrix()), seen).allowed is allowed


def test_the_first_matching_row_decides() -> None:
    rows = [flow(proto="tcp", ports=["80-90"], action="deny"), flow(proto="tcp", ports=[85]), flow(proto="udp")]
    read = parse(matrix(flows=rows))
    here = (ip_address("192.0.2.9"), ip_address("192.0.2.1"))
    assert not judge(read, Packet("eno1", *here, "tcp", 85)).allowed
    assert judge(read, Packet("eno1", *here, "udp", 85)).allowed
