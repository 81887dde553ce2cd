"""The zone matrix as values: zones, the management network, and the flows between them.

A flow goes from one place to another. A place is a zone's name or one of the words

- `host`        the appliance itself (as destination, `at: ZONE` narrows it to its own address in that zone)
- `management`  the management interface together with the networks that may administer the host
- `external`    whatever is behind an interface that belongs to no zone, the management interface included
- `any`         everywhere; as destination everywhere but the host

The first flow that matches decides; what no flow matches is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

PODS = "pods"
WORDS = ("host", "management", "external", "any")
PROTOCOLS = ("any", "tcp", "udp", "icmp")
ACTIONS = ("allow", "deny")
FLOW_KEYS = ("from", "to", "at", "proto", "ports", "action", "note", "from_cidrs", "to_cidrs")
NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
NOTE = re.compile(r"[A-Za-z0-9_ .,/-]{0,80}")
INTERFACE = re.compile(
    r"[A-Za-z0-9_.-]{1,15}"
)  # IFNAMSIZ - 1; the set is narrower than the kernel's, so it needs no quoting
PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


class MatrixError(ValueError):
    """The declaration is wrong; `problems` holds one line for each fault."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Zone:
    """One zone. Packets on its interfaces must come from `sources`; `addresses` are the appliance's own in it."""

    name: str
    interfaces: tuple[str, ...]
    networks: tuple[Network, ...]
    sources: tuple[Network, ...]
    addresses: tuple[Address, ...] = ()
    prefixes: tuple[str, ...] = ()  # the own addresses with prefix length, as networkd takes them
    vlan: int | None = None

    def has_version(self, version: int) -> bool:
        """Whether packets of this IP version belong here at all."""
        return any(network.version == version for network in self.sources)


@dataclass(frozen=True)
class Flow:
    """One row of the matrix. Empty `ports` means every port; empty CIDR lists mean every address."""

    number: int
    source: str
    dest: str
    at: str | None
    proto: str
    ports: tuple[tuple[int, int], ...]
    action: str
    note: str
    from_cidrs: tuple[Network, ...]
    to_cidrs: tuple[Network, ...]

    @property
    def hook(self) -> str:
        """The netfilter hook that sees this flow's packets first."""
        if self.dest == "host":
            return "input"
        return "output" if self.source == "host" else "forward"


@dataclass(frozen=True)
class Matrix:
    """Everything that is declared, checked."""

    zones: tuple[Zone, ...]
    management_interface: str
    management_cidrs: tuple[Network, ...]
    flows: tuple[Flow, ...]
    trunk: str | None

    def zone(self, name: str) -> Zone | None:
        """Return the zone of this name, or None for the words that are no zone."""
        return next((zone for zone in self.zones if zone.name == name), None)

    def zone_interfaces(self) -> tuple[str, ...]:
        """Return the interfaces of all zones."""
        return tuple(interface for zone in self.zones for interface in zone.interfaces)


class _Reader:
    """Turns plain data into values and collects every fault on the way."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def network(self, text: object, where: str) -> Iterator[Network]:
        try:
            yield ip_network(str(text))
        except ValueError as exc:
            self.problems.append(f"{where}: {exc}; write a network such as 10.0.1.0/24")

    def networks(self, texts: object, where: str) -> tuple[Network, ...]:
        if not isinstance(texts, list | tuple):
            self.problems.append(f"{where}: a list of networks is needed, found {texts!r}")
            return ()
        return tuple(network for i, text in enumerate(texts) for network in self.network(text, f"{where}[{i}]"))

    def interface(self, name: object, where: str) -> str:
        if not isinstance(name, str) or not INTERFACE.fullmatch(name):
            self.problems.append(f"{where}: '{name}' cannot name an interface (1 to 15 letters, digits, '.', '_', '-')")
        return str(name)

    def zone(self, raw: Mapping[str, Any], where: str) -> Zone:
        name, vlan = str(raw.get("name", "")), raw.get("vlan")
        if not NAME.fullmatch(name) or name in WORDS or name == PODS:
            self.problems.append(
                f"{where}.name: '{name}' cannot name a zone (small letters, digits, '_'; not a reserved word)"
            )
        if not isinstance(vlan, int) or isinstance(vlan, bool) or not 1 <= vlan <= 4094:
            self.problems.append(f"{where}.vlan: {vlan!r} is not a VLAN id (1 to 4094)")
        networks, addresses, prefixes = [], [], []
        for cidr_key, address_key in (("cidr", "address"), ("cidr6", "address6")):
            if cidr_key == "cidr6" and not raw.get("cidr6"):
                continue
            for network in self.network(raw.get(cidr_key), f"{where}.{cidr_key}"):
                networks.append(network)
                for address in self.own_address(raw.get(address_key), network, f"{where}.{address_key}"):
                    addresses.append(address)
                    prefixes.append(f"{address}/{network.prefixlen}")
        sources = self.networks(raw["sources"], f"{where}.sources") if raw.get("sources") else tuple(networks)
        return Zone(
            name, (f"vlan{vlan}",), tuple(networks), sources, tuple(addresses), tuple(prefixes),
            vlan if isinstance(vlan, int) else None,
        )  # fmt: skip

    def own_address(self, text: object, network: Network, where: str) -> Iterator[Address]:
        try:
            address = ip_address(str(text))
        except ValueError as exc:
            self.problems.append(f"{where}: {exc}")
            return
        if address not in network:
            self.problems.append(f"{where}: {address} is not in {network}")
        yield address

    def ports(self, raw: object, where: str) -> tuple[tuple[int, int], ...]:
        ranges = []
        for i, text in enumerate(raw if isinstance(raw, list | tuple) else [raw]):
            found = PORT.fullmatch(str(text))
            low = int(found[1]) if found else 0
            high = int(found[2] or low) if found else 0
            if not 1 <= low <= high <= 65535:
                self.problems.append(f"{where}[{i}]: '{text}' is neither a port nor a range such as 8000-8100")
            ranges.append((low, high))
        return tuple(ranges)

    def flow(self, raw: Mapping[str, Any], number: int, names: tuple[str, ...]) -> Flow:
        where = f"flow {number}"
        for key in raw:
            if key not in FLOW_KEYS:
                self.problems.append(f"{where}: unknown key '{key}'; known are {', '.join(FLOW_KEYS)}")
        source, dest, at = str(raw.get("from", "")), str(raw.get("to", "")), raw.get("at")
        proto, action, note = str(raw.get("proto", "any")), str(raw.get("action", "")), str(raw.get("note", ""))
        for key, value, known in (
            ("from", source, (*names, *WORDS)), ("to", dest, (*names, *WORDS)),
            ("proto", proto, PROTOCOLS), ("action", action, ACTIONS),
        ):  # fmt: skip
            if value not in known:
                self.problems.append(f"{where}.{key}: '{value}' is not one of {', '.join(known)}")
        if source == dest == "host":
            self.problems.append(f"{where}: the host reaches itself over the loopback, which is always open")
        if at is not None and (dest != "host" or at not in names):
            self.problems.append(f"{where}.at: '{at}' has to be a zone, and only goes with 'to: host'")
        for side, place in (("from_cidrs", source), ("to_cidrs", dest)):
            if raw.get(side) and (place == "management" or (side == "to_cidrs" and at)):
                self.problems.append(f"{where}.{side}: the addresses of that side are given already")
        if not NOTE.fullmatch(note):
            self.problems.append(f"{where}.note: at most 80 of letters, digits and '_ .,/-'")
        ports = self.ports(raw.get("ports", []), f"{where}.ports")
        if ports and proto not in ("tcp", "udp"):
            self.problems.append(f"{where}.ports: ports need 'proto: tcp' or 'proto: udp'")
        return Flow(
            number, source, dest, at, proto, ports, action, note,
            self.networks(raw.get("from_cidrs", []), f"{where}.from_cidrs"),
            self.networks(raw.get("to_cidrs", []), f"{where}.to_cidrs"),
        )  # fmt: skip

    def overlaps(self, zones: Sequence[Zone]) -> None:
        seen: list[tuple[str, Network]] = []
        for zone in zones:
            for network in zone.networks:
                for other, known in seen:
                    if network.version == known.version and network.overlaps(known):
                        self.problems.append(f"zone {zone.name}: {network} overlaps {known} of zone {other}")
                seen.append((zone.name, network))
        for what, values in (("name", [z.name for z in zones]), ("VLAN", [str(z.vlan) for z in zones if z.vlan])):
            for value in sorted({v for v in values if values.count(v) > 1}):
                self.problems.append(f"zones: the {what} {value} is used twice")


def parse(raw: Mapping[str, Any]) -> Matrix:
    """Read the declaration.

    :param raw: `zones` [{name, vlan, cidr, address, cidr6?, address6?, sources?}], `management` {interface, cidrs},
        `flows` (rows, first match decides), optional `trunk` and `pods` {interfaces, cidrs}.
    :raises MatrixError: with every fault that was found.
    """
    reader = _Reader()
    zones = [reader.zone(item, f"zones[{i}]") for i, item in enumerate(raw.get("zones") or [])]
    pods = raw.get("pods") or {}
    if pods:
        cidrs = reader.networks(pods.get("cidrs", []), "pods.cidrs")
        interfaces = tuple(reader.interface(name, "pods.interfaces") for name in pods.get("interfaces", []))
        if not cidrs or not interfaces:
            reader.problems.append("pods: both 'interfaces' and 'cidrs' are needed")
        zones.append(Zone(PODS, interfaces, cidrs, cidrs))
    management = raw.get("management") or {}
    interface = reader.interface(management.get("interface"), "management.interface")
    allowed = reader.networks(management.get("cidrs", []), "management.cidrs")
    trunk = reader.interface(raw["trunk"], "trunk") if raw.get("trunk") else None
    if trunk == interface:
        reader.problems.append(f"trunk: '{trunk}' is the management interface; the zones need a link of their own")
    reader.overlaps(zones)
    names = tuple(zone.name for zone in zones)
    flows = [reader.flow(item, number, names) for number, item in enumerate(raw.get("flows") or [], 1)]
    if reader.problems:
        raise MatrixError(reader.problems)
    return Matrix(tuple(zones), interface, allowed, tuple(flows), trunk)
