"""Renders the matrix into nftables rules and into the links' systemd-networkd files (pure text, no side effects).

nft(8): an `inet` table sees both IP versions, so a rule without an address match holds for IPv4 and IPv6 alike; one
with addresses is written once for each version that both of its sides have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ansible_collections.kosmos.appliance.plugins.module_utils.zones.model import (
    Address,
    Flow,
    Matrix,
    MatrixError,
    Network,
    Zone,
)

KEYWORD = {4: "ip", 6: "ip6"}
LINK_LOCAL = ("fe80::/10", "::")  # RFC 4861: neighbour discovery; RFC 4862: duplicate address detection


def braces(items: Sequence[object]) -> str:
    """Write an anonymous nft set."""
    return "{ " + ", ".join(str(item) for item in items) + " }"


def quoted(names: Sequence[str]) -> str:
    """Write an anonymous nft set of interface names."""
    return braces([f'"{name}"' for name in names])


def _of(version: int, items: Sequence[Network | Address]) -> list[Network | Address]:
    return [item for item in items if item.version == version]


def _interfaces(matrix: Matrix, place: str, keyword: str) -> str:
    zone = matrix.zone(place)
    if zone:
        return f"{keyword} {quoted(zone.interfaces)}"
    if place == "management":
        return f'{keyword} "{matrix.management_interface}"'
    if place == "external" and matrix.zone_interfaces():
        return f"{keyword} != {quoted(matrix.zone_interfaces())}"
    return ""


def _addresses(matrix: Matrix, flow: Flow) -> list[str]:
    """Return one address match for each IP version that applies; [""] when the flow names no address."""
    sources: tuple[Network | Address, ...] = flow.from_cidrs
    dests: tuple[Network | Address, ...] = flow.to_cidrs
    if flow.source == "management" and not sources:
        sources = matrix.management_cidrs
    if flow.dest == "management" and not dests:
        dests = matrix.management_cidrs
    at = matrix.zone(flow.at) if flow.at else None
    if at and not dests:
        dests = at.addresses
    if not sources and not dests:
        # The management network is never "everybody": an empty list lets nobody in.
        return [] if "management" in (flow.source, flow.dest) else [""]
    found = []
    for version, keyword in KEYWORD.items():
        src, dst = _of(version, sources), _of(version, dests)
        if (sources and not src) or (dests and not dst):
            continue
        parts = [f"{keyword} saddr {braces(src)}"] if src else []
        parts += [f"{keyword} daddr {braces(dst)}"] if dst else []
        found.append(" ".join(parts))
    return found


def _protocol(flow: Flow) -> str:
    if flow.proto == "icmp":
        return "meta l4proto { icmp, ipv6-icmp }"
    if flow.ports:
        return f"{flow.proto} dport " + braces([str(a) if a == b else f"{a}-{b}" for a, b in flow.ports])
    return "" if flow.proto == "any" else f"meta l4proto {flow.proto}"


def flow_rules(matrix: Matrix, hook: str) -> Iterator[str]:
    """Yield the rules of one hook (`input`, `forward` or `output`) in the order of the matrix.

    :raises MatrixError: a row's addresses share no IP version, so it could never match.
    """
    for zone in matrix.zones if hook != "input" else ():
        for version in KEYWORD:
            if not zone.has_version(version):
                match = f"oifname {quoted(zone.interfaces)} meta nfproto ipv{version}"
                yield f'{match} counter goto drop_{hook} comment "{zone.name}: no IPv{version}"'
    for flow in matrix.flows:
        if flow.hook != hook:
            continue
        variants = _addresses(matrix, flow)
        if not variants and "management" not in (flow.source, flow.dest):
            raise MatrixError([f"flow {flow.number}: its addresses have no IP version in common"])
        places = ("" if hook == "output" else _interfaces(matrix, flow.source, "iifname"),
                  "" if hook == "input" else _interfaces(matrix, flow.dest, "oifname"))  # fmt: skip
        action = "accept" if flow.action == "allow" else f"goto drop_{hook}"
        comment = 'comment "' + f"flow {flow.number} {flow.note}".rstrip() + '"'
        for addresses in variants:
            yield " ".join(part for part in (*places, addresses, _protocol(flow), "counter", action, comment) if part)


def spoof_rules(matrix: Matrix) -> Iterator[str]:
    """Yield the rules that drop a packet whose source address cannot come from where it arrives."""
    if matrix.trunk:
        yield f'iifname "{matrix.trunk}" counter drop comment "untagged on the trunk"'
    for zone in matrix.zones:
        for version, keyword in KEYWORD.items():
            for match, why in _spoofs(zone, version, keyword):
                yield f'{match} counter goto drop_spoof comment "{zone.name}: {why}"'


def _spoofs(zone: Zone, version: int, keyword: str) -> Iterator[tuple[str, str]]:
    names = quoted(zone.interfaces)
    if not zone.has_version(version):
        yield f"iifname {names} meta nfproto ipv{version}", f"no IPv{version}"
        return
    sources: list[object] = [*_of(version, zone.sources), *(LINK_LOCAL if version == 6 else ())]
    yield f"iifname {names} {keyword} saddr != {braces(sources)}", "foreign source"
    own = _of(version, zone.networks)
    if own:
        yield f"iifname != {quoted([*zone.interfaces, 'lo'])} {keyword} saddr {braces(own)}", "forged source"


def link_files(matrix: Matrix) -> list[dict[str, str]]:
    """Return the systemd-networkd files of the trunk and of each VLAN as {dest, content}.

    systemd.network(5), systemd.netdev(5). Nothing here matches a link that is not ours, and no link delays the boot.
    """
    if not matrix.trunk:
        return []
    zones = [zone for zone in matrix.zones if zone.vlan is not None]
    quiet = "LinkLocalAddressing=no\nIPv6AcceptRA=no\nLLDP=no\nEmitLLDP=no\n"
    head = "# Written by the role net_zones; changes here are overwritten.\n"
    vlans = "".join(f"VLAN={zone.interfaces[0]}\n" for zone in zones)
    files = [
        ("trunk.network", f"[Match]\nName={matrix.trunk}\n\n[Link]\nRequiredForOnline=no\n\n[Network]\n{quiet}{vlans}")
    ]
    for zone in zones:
        name = zone.interfaces[0]
        files.append((f"{name}.netdev", f"[NetDev]\nName={name}\nKind=vlan\n\n[VLAN]\nId={zone.vlan}\n"))
        files.append((f"{name}.network", _zone_network(zone, quiet)))
    return [{"dest": f"/etc/systemd/network/70-kosmos-{name}", "content": head + text} for name, text in files]


def _zone_network(zone: Zone, quiet: str) -> str:
    # Link-local addresses exist only where the zone speaks IPv6: no silent second network beside the declared one.
    link_local = "LinkLocalAddressing=ipv6\n" if zone.has_version(6) else "LinkLocalAddressing=no\n"
    text = f"[Match]\nName={zone.interfaces[0]}\nKind=vlan\n\n[Link]\nRequiredForOnline=no\n\n[Network]\n"
    text += f"Description=zone {zone.name}\n" + link_local + quiet.split("\n", 1)[1] + "ConfigureWithoutCarrier=yes\n"
    return text + "".join(f"Address={prefix}\n" for prefix in zone.prefixes)
