"""Sealed files of agents: seal, open, and rotate an agent's key every 30 days without touching the bodies.

    <base>/keys/root.key, root.json     the root (rootkey)
    <base>/keys/agents/<agent>.json     the current epoch of each agent (agentkey)
    <base>/data/<agent>/**/*.sealed     the files (sealedfile)

A rotation writes the new epoch into the agent's record first ("rewrapping"), re-wraps each file that is of an earlier
one, and then notes that it is through. Cut anywhere, the next call goes on. Each header carries its salt, so a file is
readable before, during and after.

What a rotation is worth: an old wrapping key that leaked opens no header that is there now. It does not help against
whoever holds the root key, or kept a copy of an old header together with that old wrapping key.
"""

from __future__ import annotations

import fcntl
import io
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kosmos_trust.durable import private_folder, sync_folder

from . import agentkey, rootkey, sealedfile
from .agentkey import Epoch, Record
from .errors import KeyFileError
from .rootkey import SUFFIX
from .shred import destroy_header


@dataclass(frozen=True)
class Age:
    """An agent's key: epoch, its age and the time until the next rotation in seconds, and files of earlier epochs."""

    agent: str
    epoch: int
    age_seconds: float
    due_in_seconds: float
    rewrapping: bool
    files: int
    behind: int


class DataKeys:
    """The sealed files below one folder.

    `clock` gives seconds since 1970. `sealed_only`: the root key is made on a sealed volume or not at all.
    """

    def __init__(self, base: Path, clock: Callable[[], float] = time.time, *, sealed_only: bool = True) -> None:
        self.base, self.clock, self.sealed_only = base, clock, sealed_only
        self.keys, self.data = base / "keys", base / "data"

    def root(self) -> rootkey.Root:
        """Return the root key, made on first use."""
        return rootkey.load_or_make(self.keys, self.data, self.clock, sealed_only=self.sealed_only)

    def folder(self, agent: str) -> Path:
        """Where an agent's sealed files lie."""
        return self.data / agentkey.checked(agent)

    def seal(self, agent: str, source: BinaryIO, target: Path) -> int:
        """Seal a stream into a file of the agent, at once and durably; return the number of plain bytes.

        A file that was there is replaced, and its key destroyed once the new one is on the disk.
        """
        self._require_place(agent, target)
        root = self.root()
        private_folder(target.parent)
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
        # Nobody rotates meanwhile: the file would be of an epoch that is through.
        with self._locked(agent, exclusive=False):
            header = sealedfile.new_header(agent, root, self._current(agent).epoch)
            file_key = secrets.token_bytes(sealedfile.FILE_KEY_BYTES)
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(sealedfile.wrap(header, root, file_key))
                    stream.seek(sealedfile.BODY_AT)
                    total = sealedfile.seal_body(source, stream, header, file_key)
                    stream.flush()
                    os.fsync(stream.fileno())
                with _kept(target) as former:
                    beside.replace(target)
                    sync_folder(target.parent)
                    if former is not None:
                        destroy_header(former)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
        return total

    def open(self, agent: str, path: Path) -> Iterator[bytes]:
        """Yield the plain chunks of a file of this agent. Complete only when the iterator ends without an error."""
        root = rootkey.load(self.keys)
        with _opened(path) as stream:
            slot, key = sealedfile.find_key(stream, root, agent, str(path))
            stream.seek(sealedfile.BODY_AT)
            yield from sealedfile.open_body(stream, slot.header, key, str(path))

    def read(self, agent: str, path: Path) -> bytes:
        """Return the whole content of a file of this agent."""
        joined = io.BytesIO()
        for chunk in self.open(agent, path):
            joined.write(chunk)
        return joined.getvalue()

    def rotate(self, agent: str) -> int:
        """Begin a new epoch, or go on with one that was cut, and re-wrap the agent's files; return how many."""
        root = self.root()
        with self._locked(agent, exclusive=True):
            record = agentkey.read(self._record(agent))
            if record is None or not record.rewrapping:
                newest = max((epoch for epoch in self._epochs(agent)), key=lambda epoch: epoch.number, default=None)
                known = [epoch for epoch in (record.epoch if record else None, newest) if epoch]
                previous = max(known, key=lambda epoch: epoch.number, default=None)
                record = Record(agentkey.next_epoch(previous, self.clock()), rewrapping=True)
                agentkey.write(self._record(agent), record)
            for stale in self.folder(agent).rglob(".*.new"):  # nobody seals now: a cut has left it
                with _kept(stale) as descriptor:
                    if descriptor is not None:
                        destroy_header(descriptor)
                stale.unlink()
            done = sum(self._rewrap(agent, path, root, record.epoch) for path in self._files(agent))
            agentkey.write(self._record(agent), Record(record.epoch, rewrapping=False))
        return done

    def age(self, agent: str) -> Age | None:
        """Return what is known about an agent's key; None when it has none."""
        record = agentkey.read(self._record(agent))
        if record is None:
            return None
        now, epochs = self.clock(), list(self._epochs(agent))
        behind = sum(epoch.number < record.epoch.number for epoch in epochs)
        left = record.epoch.due(now)
        age = now - record.epoch.began
        return Age(agent, record.epoch.number, age, left, record.rewrapping, len(epochs), behind)

    def due(self) -> list[str]:
        """Return the agents whose key is 30 days old, or whose rotation was cut."""
        ages = (self.age(agent) for agent in self.agents())
        return [age.agent for age in ages if age and (age.due_in_seconds <= 0 or age.rewrapping or age.behind)]

    def agents(self) -> list[str]:
        """Return the agents that have a key."""
        return sorted(path.stem for path in (self.keys / "agents").glob("*.json"))

    def _current(self, agent: str) -> Record:
        record = agentkey.read(self._record(agent))
        if record is None:
            record = Record(agentkey.next_epoch(None, self.clock()), rewrapping=False)
            agentkey.write(self._record(agent), record)
        return record

    def _record(self, agent: str) -> Path:
        return self.keys / "agents" / f"{agentkey.checked(agent)}.json"

    def _files(self, agent: str) -> list[Path]:
        found = self.folder(agent).rglob(f"*{SUFFIX}")
        return sorted(path for path in found if path.is_file() and not path.is_symlink())

    def _epochs(self, agent: str) -> Iterator[Epoch]:
        for path in self._files(agent):
            with _opened(path) as stream:
                slots = sealedfile.read_slots(stream)
            if slots:
                yield slots[0].header.epoch

    @staticmethod
    def _rewrap(agent: str, path: Path, root: rootkey.Root, epoch: Epoch) -> bool:
        """Re-wrap one file where it lies; return whether that was needed."""
        with _opened(path, writing=True) as stream:
            slot, key = sealedfile.find_key(stream, root, agent, str(path))
            other = next(offset for offset in sealedfile.SLOTS if offset != slot.offset)
            if slot.header.epoch.number < epoch.number:
                header = sealedfile.rewrapped(slot, epoch)
                _put(stream, other, sealedfile.wrap(header, root, key))
                if sealedfile.find_key(stream, root, agent, str(path))[0].header != header:
                    raise KeyFileError("the new header cannot be read back", where=str(path), cure="check the disk")
                _put(stream, slot.offset, bytes(sealedfile.SLOT_BYTES))
                return True
            stream.seek(other)
            if any(stream.read(sealedfile.SLOT_BYTES)):
                _put(stream, other, bytes(sealedfile.SLOT_BYTES))  # a cut came before the old slot was destroyed
            return False

    def _require_place(self, agent: str, target: Path) -> None:
        if target.suffix != SUFFIX or not target.resolve().is_relative_to(self.folder(agent).resolve()):
            raise KeyFileError(
                "this is not a place for this agent's sealed files", where=str(target),
                cure=f"use {self.folder(agent)}/NAME{SUFFIX}",
            )  # fmt: skip

    @contextmanager
    def _locked(self, agent: str, *, exclusive: bool) -> Iterator[None]:
        private_folder(self.keys / "agents")
        path = self.keys / "agents" / f"{agentkey.checked(agent)}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)


def _put(stream: BinaryIO, offset: int, raw: bytes) -> None:
    stream.seek(offset)
    stream.write(raw)
    stream.flush()
    os.fsync(stream.fileno())


@contextmanager
def _opened(path: Path, *, writing: bool = False) -> Iterator[BinaryIO]:
    try:
        descriptor = os.open(path, (os.O_RDWR if writing else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError("the file cannot be opened", where=str(path), why=error.strerror or "") from None
    with os.fdopen(descriptor, "r+b" if writing else "rb") as stream:
        yield stream


@contextmanager
def _kept(path: Path) -> Iterator[int | None]:
    """Hold the file that is there open, so that it can be destroyed after it was replaced."""
    descriptor = None
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)
