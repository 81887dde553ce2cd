"""Rules over more than one value of the appliance file. Pure: file, date and check ids in; findings out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, TypeAlias
from zoneinfo import available_timezones

from kosmos_installer.explain import did_you_mean
from kosmos_installer.model import APPLIANCE_MEMORY_GIB, PLACES, Appliance, Flow, Zone
from kosmos_installer.yaml_file import KeyPath

#: K3s gives these to pods and services (docs.k3s.io, --cluster-cidr and --service-cidr).
K3S_NETWORKS = {"pods": ip_network("10.42.0.0/16"), "services": ip_network("10.43.0.0/16")}
#: The built-in zone matrix speaks of these two.
NEEDED_ZONES = ("agent_internal", "api_gateway")
#: `pods` is the zone that the cluster brings.
RESERVED = (*PLACES, "pods")

AnyNetwork: TypeAlias = IPv4Network | IPv6Network
AnyAddress: TypeAlias = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Finding:
    """One broken rule. path: the value to change; the rest as in errors.Problem."""

    path: KeyPath
    reason: str
    found: str = ""
    wanted: str = ""


@dataclass(frozen=True)
class Case:
    """What is judged. today: date in UTC.  check_ids: asked only when there are waivers."""

    appliance: Appliance
    today: date
    check_ids: Callable[[], frozenset[str]]


Rule: TypeAlias = Callable[[Case], Iterator[Finding]]


def findings(case: Case, broken: frozenset[str] = frozenset()) -> list[Finding]:
    """Every broken rule. broken: sections that cannot be judged; rules that read one of them are left out."""
    found = [finding for rule, sections in RULES.items() if not sections & broken for finding in rule(case)]
    return [Finding(("kosmos", *finding.path), finding.reason, finding.found, finding.wanted) for finding in found]


def _operator(case: Case) -> Iterator[Finding]:
    """The operator is not root."""
    if case.appliance.operator.user == "root":
        reason = "root may not log in over SSH once the host is hardened."
        yield Finding(("operator", "user"), reason, "root", "An ordinary account with an SSH key and sudo.")


def _timezone(case: Case) -> Iterator[Finding]:
    """The time zone exists."""
    zones = available_timezones()
    if zones and case.appliance.timezone not in zones:  # a slim container may have no time zone data
        reason = f"This time zone is not known.{did_you_mean(case.appliance.timezone, sorted(zones))}"
        yield Finding(("timezone",), reason, case.appliance.timezone, "For instance: Europe/Zurich")


def _allowed(case: Case) -> Iterator[Finding]:
    """SSH is never open to every network."""
    for number, network in enumerate(case.appliance.management.allowed_cidrs):
        if network.prefixlen == 0:
            path = ("management", "allowed_cidrs", number)
            reason = "This is everybody: SSH would be open to every network that reaches the host."
            yield Finding(path, reason, str(network), "The networks that operators work from.")


def _trunk(case: Case) -> Iterator[Finding]:
    """The management interface is neither the trunk nor a VLAN on it."""
    interface, trunk = case.appliance.management.interface, case.appliance.network.trunk
    vlans = {f"vlan{zone.vlan}" for zone in case.appliance.network.zones}
    if interface == trunk or interface.startswith(trunk + ".") or interface in vlans:
        reason = f"The management interface is inside the trunk {trunk}: agents would share the operator's wire."
        yield Finding(("management", "interface"), reason, interface, "Another network interface than the trunk.")


def _time(case: Case) -> Iterator[Finding]:
    """There are time servers, or `offline` says that none is reachable."""
    if case.appliance.time.offline and case.appliance.time.servers:
        reason = "Offline means that no server is reachable, but servers are named."
        yield Finding(("time", "offline"), reason, "true", "offline: false, or servers: []")
    if not case.appliance.time.offline and not case.appliance.time.servers:
        reason = "There is no source of time: certificates and logs need the right one."
        yield Finding(("time",), reason, "", "servers: [ntp1.example.org], or offline: true")


def _zone_addresses(case: Case) -> Iterator[Finding]:
    """The host's address in a zone is one that a host can have there; IPv6 comes with network and address."""
    for number, zone in enumerate(case.appliance.network.zones):
        path: KeyPath = ("network", "zones", number)
        if (zone.cidr6 is None) != (zone.address6 is None):
            key = "cidr6" if zone.cidr6 is None else "address6"
            yield Finding((*path, key), "cidr6 and address6 go together.", "", f"{key}, or neither of them")
        for network, address, suffix in _own(zone):
            for reason in _misplaced(network, address):
                wanted = f"An address in {network}, for instance {network.network_address + 1}"
                yield Finding((*path, "address" + suffix), reason, str(address), wanted)


def _own(zone: Zone) -> Iterator[tuple[AnyNetwork, AnyAddress, str]]:
    """(network, the host's address in it, suffix of the keys) for IPv4 and, if there is any, IPv6."""
    yield zone.cidr, zone.address, ""
    if zone.cidr6 is not None and zone.address6 is not None:
        yield zone.cidr6, zone.address6, "6"


def _misplaced(network: AnyNetwork, address: AnyAddress) -> Iterator[str]:
    if network.prefixlen > network.max_prefixlen - 2:
        return  # too small for any address: that is told of the network
    if address not in network:
        yield f"The address is outside its zone {network}."
    elif address == network.network_address:
        yield "This is the network's own address."
    elif address == network.broadcast_address:
        yield "This is the broadcast address." if network.version == 4 else "This is the network's last address."


def _zone_networks(case: Case) -> Iterator[Finding]:
    """Zones overlap neither each other, nor a management network, nor the cluster's networks, and have room."""
    for number, zone in enumerate(case.appliance.network.zones):
        for network, _, suffix in _own(zone):
            path: KeyPath = ("network", "zones", number, "cidr" + suffix)
            for reason in _clashes(case.appliance, number, network):
                yield Finding(path, reason, str(network), "A network of its own, for instance 10.0.3.0/24")
            if network.prefixlen > network.max_prefixlen - 2:
                reason = "The zone is too small: it needs the host and at least one other address."
                yield Finding(path, reason, str(network), f"/{network.max_prefixlen - 2} or larger")


def _clashes(appliance: Appliance, number: int, network: AnyNetwork) -> Iterator[str]:
    for earlier in appliance.network.zones[:number]:
        for other, _, _ in _own(earlier):
            if _overlap(network, other):
                yield f"The zone overlaps zone {earlier.name} ({other})."
    for allowed in appliance.management.allowed_cidrs:
        if allowed.prefixlen > 0 and _overlap(network, allowed):
            yield f"The zone overlaps the management network {allowed}: its agents could open SSH to the host."
    for purpose, cluster in K3S_NETWORKS.items():
        if _overlap(network, cluster):
            yield f"The zone overlaps the network of the cluster's {purpose} ({cluster})."
    if network.is_multicast or network.is_loopback or network.is_link_local or network.network_address.is_unspecified:
        yield "Hosts cannot have addresses of this network."


def _overlap(one: AnyNetwork, other: AnyNetwork) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def _zone_identity(case: Case) -> Iterator[Finding]:
    """Zones have names and VLANs of their own, and the two of the built-in zone matrix are there."""
    zones = case.appliance.network.zones
    yield from _twice([zone.name for zone in zones], "name", "Each zone has a name of its own.")
    yield from _twice([zone.vlan for zone in zones], "vlan", "Each zone has a VLAN of its own.")
    names = [zone.name for zone in zones]
    for needed in NEEDED_ZONES:
        if needed not in names:
            near = get_close_matches(needed, names, n=1, cutoff=0.8)
            slip = f" Is {near[0]} meant to be it?" if near else ""
            reason = f"The zone {needed} is missing; the built-in zone matrix speaks of it.{slip}"
            yield Finding(("network", "zones"), reason, ", ".join(names), f"Zones named {' and '.join(NEEDED_ZONES)}")
    for number, name in enumerate(names):
        if name in RESERVED:
            reason = "This name has a meaning of its own in flows."
            yield Finding(("network", "zones", number, "name"), reason, name, "Another name.")


def _twice(values: Sequence[Any], key: str, wanted: str) -> Iterator[Finding]:
    for number, value in enumerate(values):
        first = values.index(value)
        if first != number:
            reason = f"The {key} is that of zones[{first}] too."
            yield Finding(("network", "zones", number, key), reason, str(value), wanted)


def _flows(case: Case) -> Iterator[Finding]:
    """Flows speak of zones that exist, and say nothing that a packet filter cannot express."""
    zones = [zone.name for zone in case.appliance.network.zones]
    for number, flow in enumerate(case.appliance.network.flows):
        path: KeyPath = ("network", "flows", number)
        places = [("from", flow.source, [*zones, *PLACES]), ("to", flow.to, [*zones, *PLACES]), ("at", flow.at, zones)]
        for key, value, known in places:
            if value is not None and value not in known:
                reason = f"There is no zone of this name.{did_you_mean(value, known)}"
                yield Finding((*path, key), reason, value, "one of: " + ", ".join(known))
        for key, reason, wanted in _contradictions(flow):
            yield Finding((*path, key), reason, "", wanted)


def _contradictions(flow: Flow) -> Iterator[tuple[str, str, str]]:
    """(key, reason, wanted) for what the packet filter could not express."""
    if flow.source == flow.to == "host":
        yield "to", "The host reaches itself by the loopback, which is always open.", "Another place."
    if flow.at is not None and flow.to != "host":
        yield "at", "It narrows `to: host` only.", "to: host, or no `at`"
    if flow.ports and flow.proto not in {"tcp", "udp"}:
        yield "ports", f"Protocol {flow.proto} has no ports.", "proto: tcp, proto: udp, or no ports"
    if flow.from_cidrs and flow.source == "management":
        yield "from_cidrs", "The addresses of `management` are management.allowed_cidrs.", "No from_cidrs."
    if flow.to_cidrs and (flow.to == "management" or flow.at is not None):
        yield "to_cidrs", "The addresses of that side are given already.", "No to_cidrs."


def _profile(case: Case) -> Iterator[Finding]:
    """Profile `appliance` has enough memory and nothing that is for the lab only."""
    if case.appliance.profile != "appliance":
        return
    if case.appliance.gvisor.source == "debian":
        reason = "Debian's gVisor is for profile lab only: it has no containerd shim and follows no lock."
        yield Finding(("gvisor", "source"), reason, "debian", "source: lock, or profile: lab")
    memory = case.appliance.hardware.memory_gib
    if memory is not None and memory < APPLIANCE_MEMORY_GIB:
        reason = f"Profile appliance needs {APPLIANCE_MEMORY_GIB} GiB of memory."
        yield Finding(("hardware", "memory_gib"), reason, str(memory), "A larger machine, or profile: lab")


def _waivers(case: Case) -> Iterator[Finding]:
    """A waiver names one check that exists, and has not expired."""
    known = case.check_ids() if case.appliance.waivers else frozenset()
    seen: set[str] = set()
    for number, waiver in enumerate(case.appliance.waivers):
        path: KeyPath = ("waivers", number)
        if waiver.id not in known:
            reason = f"There is no such check.{did_you_mean(waiver.id, sorted(known))}"
            yield Finding((*path, "id"), reason, waiver.id, "kosmos-install checks list")
        if waiver.id in seen:
            yield Finding((*path, "id"), "This check is waived twice.", waiver.id, "Keep one of them.")
        seen.add(waiver.id)
        if waiver.expires < case.today:
            reason = f"The waiver has expired; today is {case.today}."
            yield Finding(
                (*path, "expires"), reason, str(waiver.expires), f"Meet the check {waiver.id}, or decide anew."
            )


#: Each rule, and the sections that it reads.
RULES: dict[Rule, frozenset[str]] = {
    _operator: frozenset({"operator"}),
    _timezone: frozenset({"timezone"}),
    _allowed: frozenset({"management"}),
    _trunk: frozenset({"management", "network"}),
    _time: frozenset({"time"}),
    _zone_addresses: frozenset({"network"}),
    _zone_networks: frozenset({"network", "management"}),
    _zone_identity: frozenset({"network"}),
    _flows: frozenset({"network"}),
    _profile: frozenset({"profile", "gvisor", "hardware"}),
    _waivers: frozenset({"waivers"}),
}
