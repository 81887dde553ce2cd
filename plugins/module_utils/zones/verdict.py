"""Judges one packet by the matrix, as the rendered rules would. Pure; the kernel is asked the same in the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from ansible_collections.kosmos.appliance.plugins.module_utils.zones.model import Address, Flow, Matrix, Network


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection. `out_interface` None means it is for the appliance itself."""

    in_interface: str
    source: Address
    dest: Address
    proto: str
    port: int | None = None
    out_interface: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What happens to the packet, and the row or the rule that decides it."""

    allowed: bool
    reason: str


def _inside(address: Address, networks: Sequence[Network | Address]) -> bool:
    nets = (ip_network(item) for item in networks)
    return any(address.version == net.version and address in net for net in nets)


def _at_place(matrix: Matrix, place: str, interface: str, address: Address) -> bool:
    zone = matrix.zone(place)
    if zone:
        return interface in zone.interfaces
    if place == "management":
        return interface == matrix.management_interface and _inside(address, matrix.management_cidrs)
    if place == "external":
        return interface not in matrix.zone_interfaces()
    return place == "any"


def _dest_matches(matrix: Matrix, flow: Flow, packet: Packet) -> bool:
    if packet.out_interface is not None:
        return _at_place(matrix, flow.dest, packet.out_interface, packet.dest)
    zone = matrix.zone(flow.at) if flow.at else None
    return zone is None or _inside(packet.dest, zone.addresses)


def _matches(matrix: Matrix, flow: Flow, packet: Packet) -> bool:
    return (
        flow.proto in ("any", packet.proto)
        and (not flow.ports or any(low <= (packet.port or 0) <= high for low, high in flow.ports))
        and (not flow.from_cidrs or _inside(packet.source, flow.from_cidrs))
        and (not flow.to_cidrs or _inside(packet.dest, flow.to_cidrs))
        and _at_place(matrix, flow.source, packet.in_interface, packet.source)
        and _dest_matches(matrix, flow, packet)
    )


def forged(matrix: Matrix, packet: Packet) -> str | None:
    """Say why the source address cannot come from that interface, or None."""
    if packet.in_interface == matrix.trunk:
        return f"untagged packet on the trunk {matrix.trunk}"
    link_local = packet.source.version == 6 and (packet.source.is_link_local or packet.source.is_unspecified)
    for zone in matrix.zones:
        own = packet.in_interface in zone.interfaces
        if own and not zone.has_version(packet.source.version):
            return f"zone {zone.name} has no IPv{packet.source.version}"
        if own and not link_local and not _inside(packet.source, zone.sources):
            return f"{packet.source} is no source of zone {zone.name}"
        if not own and _inside(packet.source, zone.networks):
            return f"{packet.source} belongs to zone {zone.name}, but arrives on {packet.in_interface}"
    return None


def judge(matrix: Matrix, packet: Packet) -> Verdict:
    """Return what the rendered packet filter does with the packet."""
    reason = forged(matrix, packet)
    if reason:
        return Verdict(False, reason)
    hook = "input" if packet.out_interface is None else "forward"
    for zone in matrix.zones:
        if packet.out_interface in zone.interfaces and not zone.has_version(packet.dest.version):
            return Verdict(False, f"zone {zone.name} has no IPv{packet.dest.version}")
    for flow in matrix.flows:
        if flow.hook == hook and _matches(matrix, flow, packet):
            return Verdict(flow.action == "allow", f"flow {flow.number} {flow.note}".rstrip())
    return Verdict(False, "no flow permits it")
