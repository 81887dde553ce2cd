"""What a run leaves behind: runs/<utc>-<verb>-<name>/ with spec.json, events.jsonl, log.txt and summary.json.

Folders are 0700 and files 0600. Everything that comes in is redacted already. A record whose writer lives is locked,
so pruning never takes it away.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.paths import ensure_private

KEEP = 20

_NAME = re.compile(r"(?P<utc>\d{8}T\d{6}Z)-(?P<verb>[a-z]+)-(?P<name>.+?)(?:\.\d+)?")


@dataclass
class Record:
    """An open record. Close it, or use it as a context manager."""

    folder: Path
    _events: IO[str]
    _log: IO[str]
    problem: str = ""  # why the record is not complete; a full disk here must not stop the work on the host

    @classmethod
    def create(cls, runs: Path, verb: str, name: str, now: datetime, spec: Mapping[str, Any]) -> Record:
        """Make the folder below `runs` and write spec.json. now: UTC.

        Raises KosmosError when the state folder cannot be written or its disk is full.
        """
        try:
            folder = _fresh_folder(ensure_private(runs), f"{now:%Y%m%dT%H%M%SZ}-{verb}-{_safe(name)}")
            record = cls(folder, _private(folder / "events.jsonl"), _private(folder / "log.txt"))
            fcntl.flock(record._events, fcntl.LOCK_EX)
            record.write("spec.json", spec)
        except OSError as error:
            raise KosmosError(
                "The record of this run cannot be written",
                where=str(error.filename or runs),
                why=error.strerror or str(error),
                cure="Free space or correct the permissions there, or set XDG_STATE_HOME to another folder.",
                exit_code=ExitCode.NO_SPACE if error.errno in {28, 122} else ExitCode.FAILED,  # ENOSPC, EDQUOT
            ) from error
        return record

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def log(self) -> Path:
        """The plain log, as Ansible would have printed it."""
        return self.folder / "log.txt"

    def event(self, event: Mapping[str, Any]) -> None:
        """Append one redacted event, and its text to the log; both have left this process when this returns."""
        if self.problem:
            return
        text = str(event.get("stdout", "")).replace("\r", "")
        try:
            self._events.write(json.dumps(event, ensure_ascii=False, default=str) + "\n")
            self._events.flush()
            self._log.write(f"{text}\n" if text else "")
            self._log.flush()
        except OSError as error:
            self.problem = f"the record {self.folder} ends early: {error.strerror}"

    def write(self, name: str, data: Any) -> Path:
        """Write `data` as JSON, whole or not at all."""
        return self.write_text(name, json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file of the record, whole or not at all."""
        target = self.folder / name
        draft = self.folder / f".{name}.new"
        with _private(draft) as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(target)
        return target

    def close(self) -> None:
        """Release the record; it may be pruned from now on."""
        for stream in (self._events, self._log):
            with suppress(OSError):  # what could not be flushed before cannot be now; `problem` tells it
                stream.close()


@dataclass(frozen=True)
class Past:
    """A record that was read back. summary is empty for a run that never ended, for instance by a power cut."""

    folder: Path
    utc: str
    verb: str
    name: str
    summary: Mapping[str, Any]


def history(runs: Path) -> list[Past]:
    """All records below `runs`, the newest first."""
    found = []
    for folder in runs.iterdir() if runs.is_dir() else ():
        match = _NAME.fullmatch(folder.name)
        if match and folder.is_dir():
            found.append(Past(folder, match["utc"], match["verb"], match["name"], _read(folder / "summary.json")))
    return sorted(found, key=lambda past: past.folder.name, reverse=True)


def prune(runs: Path, keep: int = KEEP) -> list[Path]:
    """Remove the oldest records beyond `keep`, except those still being written; give back what was removed."""
    removed = []
    for past in history(runs)[keep:]:
        if not _in_use(past.folder / "events.jsonl"):
            doomed = past.folder.with_name(f".{past.folder.name}.removed")
            past.folder.rename(doomed)  # never half a record under a record's name
            removed.append(past.folder)
    for doomed in runs.glob(".*.removed"):
        shutil.rmtree(doomed, ignore_errors=True)
    return removed


def _in_use(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _fresh_folder(runs: Path, name: str) -> Path:
    """Two runs may begin within one second."""
    for number in range(100):
        folder = runs / (f"{name}.{number}" if number else name)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(17, "Too many runs within one second", str(runs / name))


def _private(path: Path) -> IO[str]:
    """Open for writing, 0600 from the first moment."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8")


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name) or "unnamed"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
