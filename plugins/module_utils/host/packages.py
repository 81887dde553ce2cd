"""One transaction for all packages of the appliance, with a journal from which they can all be taken away again.

Order of an installation, so that a power cut between two instructions loses nothing:

1. wait for apt's lock; finish what an earlier, interrupted dpkg left;
2. ask apt what the transaction would do, dependencies included;
3. write the names of all packages that are new to the host, and of those it displaces, into the journal, synced;
4. mark the run as unfinished, synced; install; take the mark away.

A cut after 3 leaves a journal that names too much (a later run installs it), never one that names too little.
A cut in 4 leaves the mark: preflight then knows whose half-done packages it sees, and the next run finishes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.kosmos.appliance.plugins.module_utils.host.apt import Apt, Transaction, names
from ansible_collections.kosmos.appliance.plugins.module_utils.host.dpkg import (
    Package,
    interrupted,
    read_status,
    still_needed,
)
from ansible_collections.kosmos.appliance.plugins.module_utils.host.durable import (
    make_folders,
    sync_folder,
    write_synced,
)
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import (
    HostError,
    read_text,
)

NO_RECOMMENDS = ("-o", "APT::Install-Recommends=false")


@dataclass
class Outcome:
    """What was done, or would be done. `kept`: package of ours -> package of somebody else that needs it."""

    changed: bool = False
    installed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


class Journal:
    """A sorted list of names in a file, one a line; it only grows until it is removed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """Return the names; empty when there is no journal."""
        return sorted(set((read_text(self.path) or "").split()))

    def add(self, more: Sequence[str]) -> None:
        """Merge names in, durably."""
        merged = sorted({*self.names(), *more})
        if more and merged != self.names():
            make_folders(self.path.parent)
            write_synced(self.path, "".join(f"{name}\n" for name in merged), 0o600)

    def remove(self) -> None:
        """Remove the journal, durably."""
        if self.path.exists():
            self.path.unlink()
            sync_folder(self.path.parent)


@dataclass
class PackageSet:
    """The packages `wanted` on a host whose dpkg database and journals lie under `root`.

    `displaceable`: packages that the transaction may remove (a second time service, for example); any other removal
    is refused before anything is changed.
    """

    wanted: Sequence[str]
    displaceable: Sequence[str] = ()
    root: Path = Path("/")
    apt: Apt = field(default_factory=Apt)
    lists_max_age_seconds: int = 3600
    check: bool = False

    def __post_init__(self) -> None:
        self.installed_journal = Journal(self.root / "var/lib/kosmos/packages.installed")
        self.displaced_journal = Journal(self.root / "var/lib/kosmos/packages.displaced")
        self.unfinished = Journal(self.root / "var/lib/kosmos/packages.unfinished")

    def status(self) -> dict[str, Package]:
        """Return what dpkg knows now."""
        return read_status(self.root / "var/lib/dpkg/status")

    def install(self) -> Outcome:
        """Install what is missing. Raises HostError; its `reason` tells a lock from a lost mirror from a full disk."""
        missing, half_done = self._lacking()
        outcome = Outcome(changed=bool(missing or half_done), installed=missing, repaired=half_done)
        if self.check or not outcome.changed:
            return outcome
        self.apt.wait_for_lock()
        # Who held the lock may have installed, or left half done, something meanwhile.
        missing, outcome.repaired = self._lacking()
        if outcome.repaired:
            self._repair()
            missing, _ = self._lacking()
        outcome.installed = []
        if missing:
            self._install(missing, outcome)
        return outcome

    def _lacking(self) -> tuple[list[str], list[str]]:
        """Return the wanted packages that are missing, and those that an interrupted dpkg left half done."""
        status = self.status()
        missing = [name for name in self.wanted if name not in status or not status[name].installed]
        return missing, self._half_done(status)

    def _half_done(self, status: Mapping[str, Package]) -> list[str]:
        """Return what an interrupted dpkg left half done, or the packages of our own run that was cut off."""
        return interrupted(status, self.root / "var/lib/dpkg/updates") or self.unfinished.names()

    def _repair(self) -> None:
        self.apt.repair()
        self.unfinished.remove()

    def _transact(self, verb: str, packages: Sequence[str], doing: str) -> None:
        self.unfinished.add(packages)
        self.apt.transact(*NO_RECOMMENDS, verb, *packages, doing=doing)
        self.unfinished.remove()

    def _install(self, missing: Sequence[str], outcome: Outcome) -> None:
        if self.apt.lists_age_seconds() > self.lists_max_age_seconds:
            self.apt.update()
        plan = self.apt.simulate(*NO_RECOMMENDS, "install", *missing, doing=f"plan {names(missing)}")
        self._refuse_foreign_removals(plan)
        self.installed_journal.add(plan.new)
        self.displaced_journal.add(plan.removed)
        self._transact("install", missing, doing=f"install {names(missing)}")
        outcome.installed, outcome.removed = list(plan.new), list(plan.removed)
        absent, _ = self._lacking()
        if absent:
            raise HostError(
                f"apt reported success, but these are not installed: {names(absent)}",
                reason="unknown_package",
                cure="Write real package names, not virtual ones.",
            )

    def _refuse_foreign_removals(self, plan: Transaction) -> None:
        ours = {*self.displaceable, *self.installed_journal.names()}
        foreign = [name for name in plan.removed if name not in ours]
        if foreign:
            raise HostError(
                f"installing would remove packages that are not ours: {names(foreign)}",
                reason="conflict",
                cure="Remove them yourself if you agree, then run again. Nothing has been changed.",
            )

    def purge(self) -> Outcome:
        """Take away exactly what `install` brought, and bring back what it displaced."""
        status = self.status()
        journal = self.installed_journal.names()
        present = [name for name in journal if name in status and status[name].state != "not-installed"]
        kept = still_needed(status, present)
        going = [name for name in present if name not in kept and not status[name].indispensable]
        displaced = self.displaced_journal.names()
        returning = [name for name in displaced if name not in status or not status[name].installed]
        outcome = Outcome(changed=bool(journal or displaced), installed=returning, removed=going, kept=kept)
        if self.check or not outcome.changed:
            return outcome
        if going or returning:
            self.apt.wait_for_lock()
            if self._half_done(self.status()):
                self._repair()
        if going:
            self._purge(going)
        self.installed_journal.remove()
        if returning:
            if self.apt.lists_age_seconds() > self.lists_max_age_seconds:
                self.apt.update()
            self._transact("install", returning, doing=f"bring back {names(returning)}")
        self.displaced_journal.remove()
        return outcome

    def _purge(self, going: Sequence[str]) -> None:
        plan = self.apt.simulate("purge", *going, doing="plan the removal")
        foreign = sorted(set(plan.removed) - set(going))
        if foreign or plan.new:
            raise HostError(
                f"removing our packages would touch others: {names([*foreign, *plan.new])}",
                reason="conflict",
                cure="Remove them yourself if you agree, then run reset again. Nothing has been removed.",
            )
        self._transact("purge", going, doing="remove the packages")
