"""Probes over the machine: memory, processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Arg, Found, Host, Kind

MEMORY = {"total_mib": "MemTotal", "available_mib": "MemAvailable", "swap_mib": "SwapTotal"}


def memory(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell an amount of memory in MiB."""
    field = MEMORY[str(args["attribute"])]
    for line in (host.text("/proc/meminfo") or "").splitlines():
        if line.startswith(f"{field}:"):
            return Found(int(line.split()[1]) // 1024, f"/proc/meminfo: {field}")
    return Found(None, f"/proc/meminfo: no {field}")


def cpu(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the number of processors, their model, or the feature flags of the first."""
    rows = [line.partition(":") for line in (host.text("/proc/cpuinfo") or "").splitlines()]
    named = [(key.strip(), value.strip()) for key, _, value in rows]
    if args["attribute"] == "count":
        return Found(sum(key == "processor" for key, _ in named), "/proc/cpuinfo: processor")
    wanted = {"flags": "flags", "model": "model name"}[str(args["attribute"])]
    value = next((value for key, value in named if key == wanted), None)
    if wanted == "flags" and value is not None:
        return Found(value.split(), "/proc/cpuinfo: flags")
    return Found(value, f"/proc/cpuinfo: {wanted}")


KINDS = {
    "memory": Kind(
        memory,
        "Memory in MiB.",
        (Arg("attribute", "what to tell", default="total_mib", choices=tuple(MEMORY)),),
        rooted=True,
    ),
    "cpu": Kind(
        cpu,
        "Processors: how many, which model, list of feature flags.",
        (Arg("attribute", "what to tell", required=True, choices=("count", "model", "flags")),),
        rooted=True,
    ),
}
