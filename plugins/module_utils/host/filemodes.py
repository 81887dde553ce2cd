"""Take permissions away from files that somebody else wrote, and give them back on reset.

Bits are only removed, so no access can be widened; what a path had before the first change is remembered.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.host.durable import make_folders, write_synced
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import read_text


@dataclass(frozen=True)
class Access:
    """Permission bits, user number, group number."""

    mode: int
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{self.mode:04o} {self.uid}:{self.gid}"


Changes = dict[str, tuple[Access, Access]]


@dataclass(frozen=True)
class FileModes:
    """The permissions below `root` that are limited under one name."""

    name: str
    root: Path = Path("/")

    @property
    def memory(self) -> Path:
        """Where the permissions from before the first change are kept, as JSON by path."""
        return self.root / "var/lib/kosmos/file_modes" / f"{self.name}.json"

    def declare(self, rules: Sequence[Mapping[str, Any]]) -> Changes:
        """Return (before, after) by path that goes beyond a rule: paths (globs), mode_max (octal text), owner, group.

        A later rule starts from the earlier's result.
        """
        plan: Changes = {}
        for rule in rules:
            for path in (path for pattern in rule["paths"] for path in sorted(self.root.glob(pattern.lstrip("/")))):
                before = look(path)
                if before is None:
                    continue
                shown = "/" + str(path.relative_to(self.root))
                plan[shown] = (before, limited(plan[shown][1] if shown in plan else before, rule))
        return {path: pair for path, pair in plan.items() if pair[0] != pair[1]}

    def forget(self) -> Changes:
        """Return (before, after) by remembered path that still exists and is not as it was."""
        found = {path: (look(self._place(path)), Access(**old)) for path, old in self._known().items()}
        return {path: (now, old) for path, (now, old) in found.items() if now is not None and now != old}

    def apply(self, changes: Changes, *, restoring: bool = False) -> None:
        """Make the changes. What was there is remembered before anything is changed, or forgotten after a restore."""
        if changes and not restoring:
            make_folders(self.memory.parent)
            oldest = {path: asdict(before) for path, (before, _) in changes.items()} | self._known()
            write_synced(self.memory, json.dumps(oldest, indent=1, sort_keys=True), 0o600)
        for path, (_, after) in changes.items():
            # The owner first, because a change of owner clears the set-user-id bits.
            os.chown(self._place(path), after.uid, after.gid, follow_symlinks=False)
            self._place(path).chmod(after.mode)
        if restoring:
            self.memory.unlink(missing_ok=True)

    def _place(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _known(self) -> dict[str, dict[str, int]]:
        return dict(json.loads(read_text(self.memory) or "{}"))


def look(path: Path) -> Access | None:
    """Return what a path has, None for a link and for what is not there."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if stat.S_ISLNK(status.st_mode) else Access(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def limited(access: Access, rule: Mapping[str, Any]) -> Access:
    """Return what a rule leaves. A user or group that the host does not know changes nothing."""
    uid, gid = access.uid, access.gid
    with suppress(KeyError):
        uid = pwd.getpwnam(rule["owner"]).pw_uid if rule.get("owner") else uid
    with suppress(KeyError):
        gid = grp.getgrnam(rule["group"]).gr_gid if rule.get("group") else gid
    return Access(access.mode & int(rule["mode_max"], 8), uid, gid)
