"""Filters over the zone matrix; the logic is in module_utils/zones/."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.kosmos.appliance.plugins.module_utils.zones.model import Matrix, MatrixError, parse
from ansible_collections.kosmos.appliance.plugins.module_utils.zones.rules import flow_rules, link_files, spoof_rules
from ansible_collections.kosmos.appliance.plugins.module_utils.zones.verdict import Packet, judge


def _read(raw: Mapping[str, Any]) -> Matrix:
    try:
        return parse(raw)
    except MatrixError as exc:
        raise AnsibleFilterError("The zone matrix is wrong:\n  " + "\n  ".join(exc.problems)) from exc


def zone_rules(raw: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the nft rules for the chains guard, input, forward and output."""
    matrix = _read(raw)
    try:
        rules = {hook: list(flow_rules(matrix, hook)) for hook in ("input", "forward", "output")}
    except MatrixError as exc:
        raise AnsibleFilterError(f"The zone matrix is wrong: {exc}") from exc
    return {**rules, "guard": list(spoof_rules(matrix))}


def zone_links(raw: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the networkd files of the trunk and the VLANs, as items of file_set."""
    return link_files(_read(raw))


def zone_interfaces(raw: Mapping[str, Any]) -> list[str]:
    """Return the interfaces of all zones."""
    return list(_read(raw).zone_interfaces())


def zone_addresses(raw: Mapping[str, Any], version: int) -> list[str]:
    """Return what `ip -br addr` prints for the zones' own addresses of one IP version, white space folded."""
    matrix = _read(raw)
    return [
        f"{zone.interfaces[0]}@{matrix.trunk} UP {prefix}"
        for zone in matrix.zones
        for prefix in zone.prefixes
        if ip_interface(prefix).version == version
    ]


def zone_cut_off(raw: Mapping[str, Any], seen: str) -> str:
    """Say why the operator's own kind of connection would be dropped, or return an empty text.

    :param seen: line 1 is SSH_CONNECTION as sshd set it (client, port, server, port); line 2 is `ip -o route get`
        towards the client. Without a client address there is no network path that could be lost.
    """
    first, _, rest = seen.replace("\r", "").partition("\n")
    words = first.split()
    try:
        source, dest, port = ip_address(words[0]), ip_address(words[2]), int(words[3])
    except (IndexError, ValueError):
        return ""
    device = re.search(r"\bdev (\S+)", rest)
    interface = device[1] if device else str(raw["management"]["interface"])
    if interface == "lo":
        return ""
    verdict = judge(_read(raw), Packet(interface, source, dest, "tcp", port))
    if verdict.allowed:
        return ""
    return f"a new connection from {source} on {interface} to {dest} port {port} would be dropped: {verdict.reason}"


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "zone_rules": zone_rules,
            "zone_links": zone_links,
            "zone_interfaces": zone_interfaces,
            "zone_addresses": zone_addresses,
            "zone_cut_off": zone_cut_off,
        }
