"""What the program remembers between runs: a lock, the image in preparation, what it decided, what has happened."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kosmos_trust import durable

from .errors import BootError

HISTORY_LINES = 500


class State:
    """The folder of one host, `/var/lib/kosmos/boot` there. Losing it loses no way to boot."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staging = folder / "staging"
        self.requests = folder / "requests.json"
        self.rotation_requests = folder / "rotation-requests.json"
        self.for_secure_boot = folder / "for-secure-boot.efi"
        self.rotation = folder / "rotation.json"
        self._verdict, self._history = folder / "verdict.json", folder / "history.jsonl"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one that changes the boot. Raises BootError when another run does."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BootError(
                    "another run is changing the boot", where=str(self.folder), cure="wait until it has ended"
                ) from None
            yield

    def note(self, event: str, **details: object) -> None:
        """Add an event to the history, flushed; the oldest ones leave."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **details})
        lines = self._lines()
        if len(lines) >= HISTORY_LINES:
            kept = [*lines[-HISTORY_LINES // 2 :], line]
            durable.replace(self._history, "".join(f"{one}\n" for one in kept).encode())
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._history.open("a") as stream:
            stream.write(("" if self._whole() else "\n") + line + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def history(self) -> list[dict[str, Any]]:
        """Return the events, oldest first; a line that a power cut has torn is left out."""
        found = []
        for line in self._lines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                found.append(event)
        return found

    def _lines(self) -> list[str]:
        return self._history.read_text(errors="replace").splitlines() if self._history.exists() else []

    def _whole(self) -> bool:
        data = self._history.read_bytes()[-1:] if self._history.exists() else b"\n"
        return data in (b"\n", b"")

    def waiting(self) -> list[str]:
        """Return the files that wait for a signature from elsewhere."""
        return [str(one) for one in (self.requests, self.rotation_requests, self.for_secure_boot) if one.exists()]

    def decided(self, verdict: dict[str, Any]) -> None:
        """Remember the gate's last verdict."""
        durable.replace(self._verdict, json.dumps(verdict, indent=2).encode() + b"\n")

    def verdict(self) -> dict[str, Any] | None:
        """Return the gate's last verdict, None when there is none that can be read."""
        try:
            content = json.loads(self._verdict.read_text())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None
