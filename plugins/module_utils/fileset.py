"""Bring a whole set of files into a declared state, in one process and as close to one transaction as POSIX gives.

Order of work, so that a full disk or a power cut leaves either the old set or the new one readable:

1. compare every file with what is declared (this alone is check mode);
2. validate every changed text with its own program, on a private copy;
3. write every changed text beside its destination, synced (here a full disk stops us, with nothing changed);
4. note the changed paths under the pending directory, synced;
5. rename all, sync the directories.

A path stays pending until `settle` is called after the services have taken the change over: a run that was cut between
the rename and the handler reports the path as changed again, so the handler is not lost (ansible/proposals#9).
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ansible_collections.kosmos.appliance.plugins.module_utils.host.durable import make_folders, stage, sync_folder

BACKUP_SUFFIX = ".kosmos-orig"
PENDING_DIR = Path("/var/lib/kosmos/pending")
VALIDATE_TIMEOUT_SECONDS = 120
#: How a shell, env or xargs says that the program it should start is not installed (POSIX, 2.8.2).
NOT_FOUND = 127


class FileSetError(Exception):
    """A file cannot be brought into the declared state; the text names the path, the reason and the cure."""


@dataclass(frozen=True)
class Entry:
    """One declared file or directory. `content` is None for directories and for removals."""

    dest: str
    state: str = "present"  # present | directory | absent
    content: str | None = None
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    dir_mode: str = "0755"
    validate: str | None = None
    backup: bool = False


@dataclass(frozen=True)
class Found:
    """What stands at a path now. `kind` is absent, file, directory or other (links included)."""

    kind: str
    content: bytes = b""
    mode: str = ""
    owner: int = -1
    group: int = -1


@dataclass(frozen=True)
class Change:
    """One path that differs from its declaration."""

    entry: Entry
    before: Found
    action: str  # write | attributes | mkdir | remove | restore

    def diff(self) -> dict[str, str]:
        """Return one item of Ansible's diff list."""
        if self.action in ("write", "remove", "restore"):
            after = (self.entry.content or "") if self.action == "write" else ""
            if self.action == "restore":
                after = Path(self.entry.dest + BACKUP_SUFFIX).read_text(encoding="utf-8", errors="replace")
            before = self.before.content.decode("utf-8", errors="replace")
        else:
            before = f"{self.before.kind} {self.before.mode} {self.before.owner}:{self.before.group}\n"
            after = f"{self.entry.mode} {self.entry.owner}:{self.entry.group}\n"
        return {
            "before": before,
            "after": after,
            "before_header": self.entry.dest,
            "after_header": f"{self.entry.dest} ({self.action})",
        }


def _uid(name: str, dest: str) -> int:
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError as exc:
        raise FileSetError(f"{dest}: the user '{name}' does not exist; install the package that creates it") from exc


def _gid(name: str, dest: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError as exc:
        raise FileSetError(f"{dest}: the group '{name}' does not exist; install the package that creates it") from exc


def look(path: Path) -> Found:
    """Read what stands at a path, without following a link."""
    try:
        info = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Found("absent")
    mode = f"{stat.S_IMODE(info.st_mode):04o}"
    if stat.S_ISDIR(info.st_mode):
        return Found("directory", b"", mode, info.st_uid, info.st_gid)
    if stat.S_ISREG(info.st_mode):
        return Found("file", path.read_bytes(), mode, info.st_uid, info.st_gid)
    return Found("other", b"", mode, info.st_uid, info.st_gid)


class FileSet:
    """The declared files of one task.

    :param check: only compare and validate; change nothing. A user or a validator that a package of the same run would
        bring may then be missing, and is not an error.
    """

    def __init__(self, entries: Iterable[Entry], *, check: bool = False, pending_dir: Path = PENDING_DIR) -> None:
        self.entries = tuple(entries)
        self.check = check
        self.pending_dir = pending_dir

    # -- comparing -----------------------------------------------------------------------------------------------
    def _owner(self, entry: Entry) -> tuple[int, int]:
        try:
            return _uid(entry.owner, entry.dest), _gid(entry.group, entry.dest)
        except FileSetError:
            if self.check:
                return -1, -1
            raise

    def _compare_one(self, entry: Entry) -> Change | None:
        found = look(Path(entry.dest))
        if entry.state == "absent":
            return self._compare_absent(entry, found)
        kinds = ("absent", "directory") if entry.state == "directory" else ("absent", "file", "other")
        if found.kind not in kinds:
            wanted = "directory" if entry.state == "directory" else "file"
            raise FileSetError(f"{entry.dest}: a {wanted} is wanted, but a {found.kind} stands there; move it away")
        if entry.state == "directory" and found.kind == "absent":
            return Change(entry, found, "mkdir")
        if entry.state == "present" and (found.kind != "file" or found.content != (entry.content or "").encode()):
            return Change(entry, found, "write")
        same = (found.mode, found.owner, found.group) == (f"{int(entry.mode, 8):04o}", *self._owner(entry))
        return None if same else Change(entry, found, "attributes")

    @staticmethod
    def _compare_absent(entry: Entry, found: Found) -> Change | None:
        if found.kind == "absent":
            return None
        if not entry.backup:
            return Change(entry, found, "remove")
        if Path(entry.dest + BACKUP_SUFFIX).exists():
            return Change(entry, found, "restore")
        return None  # restored already, or never replaced: what stands there is not ours

    def compare(self) -> list[Change]:
        """Return the paths that differ, in the order in which they have to be changed."""
        changes = [change for change in map(self._compare_one, self.entries) if change]
        removals = [c for c in changes if c.action in ("remove", "restore")]
        return [c for c in changes if c not in removals] + self._deepest_first(removals)

    @staticmethod
    def _deepest_first(removals: list[Change]) -> list[Change]:
        """Order removals so that a directory comes after its content; drop directories that keep something not ours."""
        gone: set[str] = set()
        kept: list[Change] = []
        for change in sorted(removals, key=lambda c: c.entry.dest.count("/"), reverse=True):
            path = Path(change.entry.dest)
            if change.before.kind == "directory" and any(str(child) not in gone for child in path.iterdir()):
                continue
            if change.action == "remove":
                gone.add(str(path))
            kept.append(change)
        return kept

    # -- validating ----------------------------------------------------------------------------------------------
    def validate(self, changes: Iterable[Change]) -> None:
        """Run each changed file's own validator on a private copy.

        :raises FileSetError: with the validator's own words.
        """
        for change in changes:
            if change.action != "write" or not change.entry.validate:
                continue
            argv = shlex.split(change.entry.validate)
            if shutil.which(argv[0]) is None:
                if self.check:
                    continue
                raise FileSetError(f"{change.entry.dest}: its validator '{argv[0]}' is not installed")
            with tempfile.TemporaryDirectory(prefix="kosmos-validate-") as folder:
                copy = Path(folder) / Path(change.entry.dest).name
                copy.write_text(change.entry.content or "", encoding="utf-8")
                copy.chmod(int(change.entry.mode, 8))
                command = [part.replace("%s", str(copy)) for part in argv]
                try:
                    done = subprocess.run(
                        command, capture_output=True, text=True, timeout=VALIDATE_TIMEOUT_SECONDS, check=False
                    )
                except subprocess.TimeoutExpired as exc:
                    raise FileSetError(f"{change.entry.dest}: '{argv[0]}' did not answer in {exc.timeout} s") from exc
                if self.check and done.returncode == NOT_FOUND:
                    continue
                if done.returncode != 0:
                    said = (done.stderr + done.stdout).strip().replace(str(copy), change.entry.dest)
                    raise FileSetError(f"{change.entry.dest}: refused by '{argv[0]}', nothing was changed: {said}")

    # -- changing ------------------------------------------------------------------------------------------------
    def apply(self, changes: list[Change]) -> None:
        """Make the changes. On an error while staging, nothing has been changed.

        :raises FileSetError: path, reason and cure.
        """
        if not changes:
            return
        staged: list[tuple[Path, Change]] = []
        try:
            for change in changes:
                if change.action == "mkdir":
                    make_folders(Path(change.entry.dest), int(change.entry.mode, 8))
                if change.action == "write":
                    staged.append((self._stage(change), change))
            self._note_pending(change.entry.dest for change in changes)
        except OSError as exc:
            for temporary, _ in staged:
                temporary.unlink(missing_ok=True)
            raise FileSetError(f"{exc.filename}: {exc.strerror}; none of this set's files was replaced") from exc
        for temporary, change in staged:
            self._keep_original(change)
            temporary.replace(change.entry.dest)
        for change in changes:
            self._finish(change)
        for parent in {Path(change.entry.dest).parent for change in changes}:
            if parent.is_dir():
                sync_folder(parent)

    def _stage(self, change: Change) -> Path:
        entry = change.entry
        dest = Path(entry.dest)
        make_folders(dest.parent, int(entry.dir_mode, 8))
        return stage(dest, entry.content or "", int(entry.mode, 8), self._owner(entry))

    def _keep_original(self, change: Change) -> None:
        backup = Path(change.entry.dest + BACKUP_SUFFIX)
        if change.entry.backup and change.before.kind == "file" and not backup.exists():
            os.link(change.entry.dest, backup)

    def _finish(self, change: Change) -> None:
        entry, dest = change.entry, Path(change.entry.dest)
        if change.action in ("mkdir", "attributes"):
            os.chown(dest, *self._owner(entry))
            dest.chmod(int(entry.mode, 8))
        elif change.action == "remove":
            dest.rmdir() if change.before.kind == "directory" else dest.unlink()
        elif change.action == "restore":
            Path(entry.dest + BACKUP_SUFFIX).replace(dest)

    # -- the memory of what services have still to take over -----------------------------------------------------
    def _marker(self, dest: str) -> Path:
        return self.pending_dir / quote(dest, safe="")

    def _note_pending(self, paths: Iterable[str]) -> None:
        make_folders(self.pending_dir)
        for path in paths:
            self._marker(path).touch()
        sync_folder(self.pending_dir)

    def pending(self) -> list[str]:
        """Return the paths of this set whose change no service has taken over yet."""
        return [entry.dest for entry in self.entries if self._marker(entry.dest).exists()]

    def settle(self) -> list[str]:
        """Forget the pending marks of this set; return the paths that had one."""
        paths = self.pending()
        if not self.check:
            for path in paths:
                self._marker(path).unlink(missing_ok=True)
        return paths
