"""Kernel settings: one file below /etc/sysctl.d for the next boot, and the running kernel.

What a key held before the first change is remembered, so that reset can put it back. sysctl.d(5): a key may hold `*`
for one part of its name; systemd-sysctl expands it at boot, udev for every interface that appears later, and this
module over the interfaces of now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.kosmos.appliance.plugins.module_utils.host.durable import make_folders, write_synced
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import HostError, read_text

HEADER = "# Written by KOSMOS, and removed by its reset. One owner for each key: the role that names this file.\n"


@dataclass(frozen=True)
class Plan:
    """What has to become of the file (None = no file) and of the kernel (path below /proc/sys: value now, value then).

    `unknown` are declared keys that this kernel does not have.
    """

    before: str | None
    after: str | None
    keys: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class KernelSettings:
    """The settings that one file owns. `path` is absolute and lies under `root`."""

    path: str
    root: Path = Path("/")

    @property
    def file(self) -> Path:
        """Where the file lies."""
        return self.root / self.path.lstrip("/")

    @property
    def memory(self) -> Path:
        """Where the values from before the first change are kept, as JSON by path below /proc/sys."""
        return self.root / "var/lib/kosmos/sysctl" / f"{self.file.name}.json"

    def declare(self, settings: Mapping[str, object], *, live: bool = True) -> Plan:
        """Return what differs from `settings`; the kernel counts only when it is ours (`live`)."""
        wanted, unknown = expand(self.root, settings)
        keys = self._differing(wanted) if live else {}
        return Plan(read_text(self.file), render(settings), keys, tuple(unknown))

    def forget(self, *, live: bool = True) -> Plan:
        """Return what differs from the time before the first change."""
        return Plan(read_text(self.file), None, self._differing(self._known()) if live else {})

    def apply(self, plan: Plan) -> list[str]:
        """Do what the plan says; return the keys whose old value the kernel takes back only at the next boot.

        Raises HostError when the kernel refuses a declared value.
        """
        refused = []
        if plan.after is None:
            self.file.unlink(missing_ok=True)
        else:
            self._write_file(plan, plan.after)
        for key, (now, value) in plan.keys.items():
            try:
                (self.root / "proc/sys" / key).write_text(value + "\n")
            except OSError as exc:
                if plan.after is not None:
                    raise HostError(
                        f"{dotted(key)}: the kernel refuses {value!r} (it has {now!r}): {exc.strerror}",
                        reason="sysctl",
                        cure="Correct the value. In a container the kernel belongs to the host: set `live: false`.",
                    ) from exc
                refused.append(key)
        if plan.after is None:
            self.memory.unlink(missing_ok=True)
        return refused

    def _write_file(self, plan: Plan, text: str) -> None:
        # The memory first: after a power cut the file alone would set the keys, and nobody knew what they had been.
        if plan.keys:
            make_folders(self.memory.parent)
            oldest = {key: before for key, (before, _) in plan.keys.items()} | self._known()
            write_synced(self.memory, json.dumps(oldest, indent=1, sort_keys=True), 0o600)
        if text != plan.before:
            make_folders(self.file.parent, 0o755)
            write_synced(self.file, text)

    def _known(self) -> dict[str, str]:
        return dict(json.loads(read_text(self.memory) or "{}"))

    def _differing(self, wanted: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        now = {key: self._value(key) for key in wanted}
        return {key: (found, wanted[key]) for key, found in now.items() if found is not None and found != wanted[key]}

    def _value(self, key: str) -> str | None:
        text = read_text(self.root / "proc/sys" / key)
        return None if text is None else " ".join(text.split())


def render(settings: Mapping[str, object]) -> str:
    """Return the file's text; keys sorted, so that a diff shows what changed and nothing else."""
    return HEADER + "".join(f"{key} = {plain(value)}\n" for key, value in sorted(settings.items()))


def plain(value: object) -> str:
    """Return a value as the kernel prints it, white space folded."""
    return " ".join(str(int(value) if isinstance(value, bool) else value).split())


def expand(root: Path, settings: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """Return (value by path below /proc/sys, keys that do not exist).

    Paths, not dotted names, because the name of an interface may hold a dot. A plain key wins over a pattern.
    """
    base = root / "proc/sys"
    wanted: dict[str, str] = {}
    unknown: list[str] = []
    for key in sorted(settings, key=lambda name: "*" not in name):  # patterns first, so plain names overwrite
        found = [path for path in sorted(base.glob(key.replace(".", "/"))) if path.is_file()]
        if not found:
            unknown.append(key)
        for path in found:
            wanted[str(path.relative_to(base))] = plain(settings[key])
    return wanted, sorted(unknown)


def dotted(key: str) -> str:
    """Return a path below /proc/sys as people write it: parts joined by dots."""
    return key.replace("/", ".")
