"""Read check definitions: is every key known, every probe real, every argument there?

Runs on the controller before anything is sent to a host. Faults are collected, not raised one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.matchers import OPERATORS, unknown_operators
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Arg
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.probes import KINDS

PHASES = ("preflight", "verify", "clean")
SEVERITIES = ("low", "medium", "high", "critical")
REQUIRED = ("id", "title", "severity", "probe", "needed", "cure", "refs")
OPTIONAL = ("phase", "when", "skip_reason", "requires")
ID = re.compile(r"[a-z][a-z0-9]*(\.[a-z0-9][a-z0-9_-]*){2,}")
TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "any": (object,),
}


@dataclass(frozen=True)
class Fault:
    """One fault in a check file."""

    file: str
    id: str
    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.file}: check {self.id}: {self.what}. Cure: {self.cure}."


def faults_of_shape(file: str, check: Any) -> list[Fault]:
    """Return the faults that show before the values are rendered: keys, id, phase, severity."""
    if not isinstance(check, Mapping):
        return [Fault(file, "?", f"is {type(check).__name__}, not a mapping", "write the file as a list of checks")]
    name = str(check.get("id", "?"))
    faults = [Fault(file, name, f"lacks `{key}`", f"add `{key}`") for key in REQUIRED if key not in check]
    for key in check:
        if key not in REQUIRED + OPTIONAL:
            faults.append(Fault(file, name, f"has the unknown key `{key}`", f"use {', '.join(REQUIRED + OPTIONAL)}"))
    if "id" in check and not ID.fullmatch(name):
        faults.append(Fault(file, name, "the id is not layer.area.what", "use lower case words joined by dots"))
    for key, allowed, default in (("phase", PHASES, "verify"), ("severity", SEVERITIES, "low")):
        if check.get(key, default) not in allowed:
            faults.append(Fault(file, name, f"{key} is {check[key]!r}", f"use one of {', '.join(allowed)}"))
    return faults


def faults_of_order(checks: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Fault]:
    """Return the faults between the checks of one role, given as (file, check): double ids, unknown prerequisites."""
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    for file, check in checks:
        name, required, phase = str(check.get("id")), check.get("requires"), check.get("phase", "verify")
        if name in seen:
            faults.append(Fault(file, name, "the id is used twice", "give each check its own id"))
        if required is not None and seen.get(required) != phase:
            cure = "name a check of the same phase that stands earlier"
            faults.append(Fault(file, name, f"requires {required!r}, which is not before it", cure))
        seen[name] = phase
    return faults


def faults_of_values(file: str, check: Mapping[str, Any]) -> list[Fault]:
    """Return the faults of a check whose values are rendered: probe kind, arguments, operators."""
    name = str(check["id"])
    probe = check["probe"]
    if not isinstance(probe, Mapping) or "kind" not in probe:
        return [Fault(file, name, "the probe is not a mapping with `kind`", "write probe: {kind: ..., ...}")]
    kind = KINDS.get(str(probe["kind"]))
    if kind is None:
        return [Fault(file, name, f"there is no probe kind {probe['kind']!r}", f"use one of {', '.join(KINDS)}")]
    faults = [Fault(file, name, f"probe {probe['kind']}: {what}", cure) for what, cure in _arguments(kind.args, probe)]
    unknown = unknown_operators(check["needed"])
    if unknown:
        cure = f"use one of {', '.join(OPERATORS)}"
        faults.append(Fault(file, name, f"`needed` has the unknown operator {', '.join(unknown)}", cure))
    return faults


def _arguments(args: tuple[Arg, ...], probe: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    known = {arg.name: arg for arg in args}
    for key in probe:
        if key != "kind" and key not in known:
            yield f"unknown argument `{key}`", f"use {', '.join(known) or 'no argument'}"
    for arg in args:
        if arg.name not in probe:
            if arg.required:
                yield f"lacks the argument `{arg.name}`", f"add `{arg.name}` ({arg.help})"
            continue
        value = probe[arg.name]
        if not isinstance(value, TYPES[arg.type]) or (isinstance(value, bool) and arg.type in {"int", "float"}):
            yield f"`{arg.name}` is {value!r}", f"write a {arg.type} ({arg.help})"
        elif arg.choices and value not in arg.choices:
            yield f"`{arg.name}` is {value!r}", f"use one of {', '.join(arg.choices)}"


def complete(probe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the probe with the defaults of its kind filled in."""
    kind = KINDS[str(probe["kind"])]
    return {arg.name: arg.default for arg in kind.args} | dict(probe)
