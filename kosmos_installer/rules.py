"""Rules over more than one value of the appliance file. Pure: file, date and check ids in; findings out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from ipaddress import IPv4Network, ip_network
from typing import Any
from zoneinfo import available_timezones

from kosmos_installer.explain import did_you_mean
from kosmos_installer.model import APPLIANCE_MEMORY_GIB, Appliance
from kosmos_installer.yaml_file import KeyPath

#: K3s gives these to pods and services (docs.k3s.io, --cluster-cidr and --service-cidr).
K3S_NETWORKS = {"pods": ip_network("10.42.0.0/16"), "services": ip_network("10.43.0.0/16")}
#: The built-in zone matrix speaks of these two.
NEEDED_ZONES = ("agent_internal", "api_gateway")
#: In a flow: the appliance itself.
HOST = "host"


@dataclass(frozen=True)
class Finding:
    """One broken rule. path: the value to change; the rest as in errors.Problem."""

    path: KeyPath
    reason: str
    found: str = ""
    wanted: str = ""


def findings(
    appliance: Appliance, today: date, check_ids: Callable[[], frozenset[str]], broken: frozenset[str] = frozenset()
) -> list[Finding]:
    """Every broken rule. today: date in UTC.  check_ids: asked only when there are waivers.

    broken: sections whose values cannot be judged; rules that read one of them are left out.
    """
    rules: tuple[tuple[set[str], Iterable[Finding]], ...] = (
        ({"operator"}, _operator(appliance)),
        ({"timezone"}, _timezone(appliance)),
        ({"management"}, _allowed(appliance)),
        ({"management", "network"}, _trunk(appliance)),
        ({"time"}, _time(appliance)),
        ({"network"}, _zone_addresses(appliance)),
        ({"network", "management"}, _zone_networks(appliance)),
        ({"network"}, _zone_identity(appliance)),
        ({"network"}, _flows(appliance)),
        ({"profile", "gvisor", "hardware"}, _profile(appliance)),
        ({"waivers"}, _waivers(appliance, today, check_ids)),
    )
    found = [finding for sections, broken_rules in rules if not sections & broken for finding in broken_rules]
    return [Finding(("kosmos", *finding.path), finding.reason, finding.found, finding.wanted) for finding in found]


def _operator(appliance: Appliance) -> Iterator[Finding]:
    if appliance.operator.user == "root":
        reason = "root may not log in over SSH once the host is hardened."
        yield Finding(("operator", "user"), reason, "root", "An ordinary account with an SSH key and sudo.")


def _timezone(appliance: Appliance) -> Iterator[Finding]:
    zones = available_timezones()
    if zones and appliance.timezone not in zones:  # a slim container may have no time zone data
        reason = f"This time zone is not known.{did_you_mean(appliance.timezone, sorted(zones))}"
        yield Finding(("timezone",), reason, appliance.timezone, "For instance: Europe/Zurich")


def _allowed(appliance: Appliance) -> Iterator[Finding]:
    for number, network in enumerate(appliance.management.allowed_cidrs):
        if network.prefixlen == 0:
            path = ("management", "allowed_cidrs", number)
            reason = "This is everybody: SSH would be open to every network that reaches the host."
            yield Finding(path, reason, str(network), "The networks that operators work from.")


def _trunk(appliance: Appliance) -> Iterator[Finding]:
    interface, trunk = appliance.management.interface, appliance.network.trunk
    vlans = {f"vlan{zone.vlan}" for zone in appliance.network.zones}
    if interface == trunk or interface.startswith(trunk + ".") or interface in vlans:
        reason = f"The management interface is inside the trunk {trunk}: agents would share the operator's wire."
        yield Finding(("management", "interface"), reason, interface, "Another network interface than the trunk.")


def _time(appliance: Appliance) -> Iterator[Finding]:
    if appliance.time.offline and appliance.time.servers:
        reason = "Offline means that no server is reachable, but servers are named."
        yield Finding(("time", "offline"), reason, "true", "offline: false, or servers: []")
    if not appliance.time.offline and not appliance.time.servers:
        reason = "There is no source of time: certificates and logs need the right one."
        yield Finding(("time",), reason, "", "servers: [ntp1.example.org], or offline: true")


def _zone_addresses(appliance: Appliance) -> Iterator[Finding]:
    for number, zone in enumerate(appliance.network.zones):
        path: KeyPath = ("network", "zones", number, "address")
        wanted = f"An address in {zone.cidr}, for instance {zone.cidr[1 if zone.cidr.num_addresses > 1 else 0]}"
        if zone.address not in zone.cidr:
            yield Finding(path, f"The address is outside its zone {zone.cidr}.", str(zone.address), wanted)
        elif zone.address == zone.cidr.network_address:
            yield Finding(path, "This is the network's own address.", str(zone.address), wanted)
        elif zone.address == zone.cidr.broadcast_address:
            yield Finding(path, "This is the broadcast address.", str(zone.address), wanted)


def _zone_networks(appliance: Appliance) -> Iterator[Finding]:
    zones = appliance.network.zones
    for number, zone in enumerate(zones):
        path: KeyPath = ("network", "zones", number, "cidr")
        for reason in _clashes(appliance, number):
            yield Finding(path, reason, str(zone.cidr), "A network of its own, for instance 10.0.3.0/24")
        if zone.cidr.prefixlen > 30:
            reason = "The zone is too small: it needs the host and at least one other address."
            yield Finding(path, reason, str(zone.cidr), "/30 or larger, for instance 10.0.3.0/24")


def _clashes(appliance: Appliance, number: int) -> Iterator[str]:
    zones, cidr = appliance.network.zones, appliance.network.zones[number].cidr
    for earlier in zones[:number]:
        if cidr.overlaps(earlier.cidr):
            yield f"The zone overlaps zone {earlier.name} ({earlier.cidr})."
    for allowed in appliance.management.allowed_cidrs:
        if isinstance(allowed, IPv4Network) and allowed.prefixlen > 0 and cidr.overlaps(allowed):
            yield f"The zone overlaps the management network {allowed}: its agents could open SSH to the host."
    for purpose, network in K3S_NETWORKS.items():
        if cidr.overlaps(network):
            yield f"The zone overlaps the network of the cluster's {purpose} ({network})."
    if cidr.is_multicast or cidr.is_loopback or cidr.is_link_local or cidr.network_address.is_unspecified:
        yield "Hosts cannot have addresses of this network."


def _zone_identity(appliance: Appliance) -> Iterator[Finding]:
    zones = appliance.network.zones
    yield from _twice([zone.name for zone in zones], "name", "Each zone has a name of its own.")
    yield from _twice([zone.vlan for zone in zones], "vlan", "Each zone has a VLAN of its own.")
    names = [zone.name for zone in zones]
    for needed in NEEDED_ZONES:
        if needed not in names:
            near = did_you_mean(needed, names)
            reason = f"The zone {needed} is missing; the built-in zone matrix speaks of it.{near}"
            yield Finding(("network", "zones"), reason, ", ".join(names), f"Zones named {' and '.join(NEEDED_ZONES)}")
    if HOST in names:
        path: KeyPath = ("network", "zones", names.index(HOST), "name")
        yield Finding(path, "In flows this name means the appliance itself.", HOST, "Another name.")


def _twice(values: Sequence[Any], key: str, wanted: str) -> Iterator[Finding]:
    for number, value in enumerate(values):
        first = values.index(value)
        if first != number:
            reason = f"The {key} is that of zones[{first}] too."
            yield Finding(("network", "zones", number, key), reason, str(value), wanted)


def _flows(appliance: Appliance) -> Iterator[Finding]:
    names = [zone.name for zone in appliance.network.zones]
    for number, flow in enumerate(appliance.network.flows):
        path: KeyPath = ("network", "flows", number)
        for key, value, known in (("from", flow.source, names), ("to", flow.to, [*names, HOST])):
            if value not in known:
                reason = f"There is no zone of this name.{did_you_mean(value, known)}"
                yield Finding((*path, key), reason, value, "one of: " + ", ".join(known))
        if flow.source == flow.to:
            reason = "Traffic inside one zone does not pass the host, so the host cannot permit it."
            yield Finding((*path, "to"), reason, flow.to, "Another zone, or host.")


def _profile(appliance: Appliance) -> Iterator[Finding]:
    if appliance.profile != "appliance":
        return
    if appliance.gvisor.source == "debian":
        reason = "Debian's gVisor is for profile lab only: it has no containerd shim and follows no lock."
        yield Finding(("gvisor", "source"), reason, "debian", "source: lock, or profile: lab")
    memory = appliance.hardware.memory_gib
    if memory is not None and memory < APPLIANCE_MEMORY_GIB:
        reason = f"Profile appliance needs {APPLIANCE_MEMORY_GIB} GiB of memory."
        yield Finding(("hardware", "memory_gib"), reason, str(memory), "A larger machine, or profile: lab")


def _waivers(appliance: Appliance, today: date, check_ids: Callable[[], frozenset[str]]) -> Iterator[Finding]:
    known = check_ids() if appliance.waivers else frozenset()
    seen: set[str] = set()
    for number, waiver in enumerate(appliance.waivers):
        path: KeyPath = ("waivers", number)
        if waiver.id not in known:
            reason = f"There is no such check.{did_you_mean(waiver.id, sorted(known))}"
            yield Finding((*path, "id"), reason, waiver.id, "kosmos-install checks list")
        if waiver.id in seen:
            yield Finding((*path, "id"), "This check is waived twice.", waiver.id, "Keep one of them.")
        seen.add(waiver.id)
        if waiver.expires < today:
            reason = f"The waiver has expired; today is {today}."
            yield Finding(
                (*path, "expires"), reason, str(waiver.expires), f"Meet the check {waiver.id}, or decide anew."
            )
