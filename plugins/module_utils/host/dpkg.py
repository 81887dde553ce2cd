"""What dpkg knows: /var/lib/dpkg/status as values, and which of our packages somebody else needs.

Format: deb-control(5), dpkg(1) "Package states".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

#: States in which an interrupted dpkg leaves a package.
INTERRUPTED = frozenset({"half-installed", "unpacked", "half-configured"})
FIELDS = frozenset({"Package", "Status", "Version", "Depends", "Pre-Depends", "Provides", "Essential", "Protected"})


@dataclass(frozen=True)
class Package:
    """One entry of the status file. `needs`: groups of alternatives. `provides`: virtual names."""

    name: str
    state: str
    version: str = ""
    needs: tuple[tuple[str, ...], ...] = ()
    provides: tuple[str, ...] = ()
    indispensable: bool = False

    @property
    def installed(self) -> bool:
        """Whether it is unpacked and configured."""
        return self.state == "installed"


def read_status(path: Path) -> dict[str, Package]:
    """Return every package dpkg has a record of, by name; a foreign twin does not hide an installed package."""
    packages: dict[str, Package] = {}
    for stanza in path.read_text(errors="replace").split("\n\n"):
        package = _package(stanza)
        if package and not (package.name in packages and packages[package.name].installed):
            packages[package.name] = package
    return packages


def _package(stanza: str) -> Package | None:
    values: dict[str, str] = {}
    for line in stanza.splitlines():
        key, separator, value = line.partition(":")
        if separator and key in FIELDS:
            values[key] = value.strip()
    if "Package" not in values or "Status" not in values:
        return None
    needs = ",".join(filter(None, (values.get("Depends"), values.get("Pre-Depends"))))
    return Package(
        name=values["Package"],
        state=values["Status"].split()[-1],
        version=values.get("Version", ""),
        needs=tuple(_names(group.split("|")) for group in needs.split(",") if group.strip()),
        provides=_names(group for group in values.get("Provides", "").split(",") if group.strip()),
        indispensable="yes" in (values.get("Essential"), values.get("Protected")),
    )


def _names(relations: Iterable[str]) -> tuple[str, ...]:
    return tuple(re.split(r"[\s(:]", relation.strip(), maxsplit=1)[0] for relation in relations)


def interrupted(packages: Mapping[str, Package], updates: Path) -> list[str]:
    """Return what an interrupted dpkg left half done. `updates` is dpkg's own journal folder."""
    left = sorted(package.name for package in packages.values() if package.state in INTERRUPTED)
    journal = updates.is_dir() and any(entry.name.isdigit() for entry in updates.iterdir())
    return left or (["(dpkg's own journal)"] if journal else [])


def still_needed(packages: Mapping[str, Package], ours: Iterable[str]) -> dict[str, str]:
    """Return those of `ours` that packages of somebody else depend on, each with the package that needs it."""
    candidates = {name for name in ours if name in packages and packages[name].installed}
    needed: dict[str, str] = {}
    waiting = [package for package in packages.values() if package.installed and package.name not in candidates]
    kept = {package.name for package in waiting}
    offered = {virtual for package in waiting for virtual in package.provides}
    while waiting:
        package = waiting.pop()
        for group in package.needs:
            if any(name in kept or name in offered for name in group):
                continue
            for name in _providers(packages, candidates, group):
                needed[name] = package.name
                kept.add(name)
                offered.update(packages[name].provides)
                waiting.append(packages[name])
    return needed


def _providers(packages: Mapping[str, Package], candidates: set[str], group: Iterable[str]) -> list[str]:
    """Return the first of our installed packages that satisfies a group of alternatives."""
    for wanted in group:
        for name in sorted(candidates):
            if name == wanted or wanted in packages[name].provides:
                return [name]
    return []
