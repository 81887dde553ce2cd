"""One changing run per host: a lock named after where the host really is, so that two names of one host collide.

The lock is a flock: the kernel lets go of it when its process ends, however it ends, so it cannot be left behind.
It holds on this machine and account; it does not know about operators on other machines.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.paths import ensure_private


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. since: ISO 8601, UTC."""

    pid: int
    host: str
    since: str
    command: str

    def data(self) -> dict[str, Any]:
        """What is written into the lock file."""
        return {"pid": self.pid, "host": self.host, "since": self.since, "command": self.command}


@contextmanager
def hold(folder: Path, addresses: Iterable[str], me: Holder) -> Iterator[None]:
    """Hold the locks of all addresses (`host:port`, or `local`) while the block runs.

    Raises KosmosError (busy) that names the holder when one of them is taken; then none is held.
    """
    ensure_private(folder)
    with ExitStack() as stack:
        for address in sorted(set(addresses)):  # always in the same order: two runs can never wait for each other
            stack.enter_context(_take(folder / f"{_key(address)}.lock", address, me))
        yield


def _take(path: Path, address: str, me: Holder) -> IO[str]:
    stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = _holder(stream)
        stream.close()
        raise _busy(address, other) from None
    stream.seek(0)
    stream.truncate()
    json.dump({"address": address, **me.data()}, stream)
    stream.flush()
    return stream


def _holder(stream: IO[str]) -> Holder | None:
    """The holder writes its name just after it has taken the lock: give it a moment."""
    for _ in range(10):
        stream.seek(0)
        try:
            data = json.loads(stream.read())
            return Holder(int(data["pid"]), str(data["host"]), str(data["since"]), str(data["command"]))
        except (ValueError, KeyError, TypeError):
            time.sleep(0.05)
    return None


def _busy(address: str, other: Holder | None) -> KosmosError:
    if other is None:
        return KosmosError("Another run works on this host", where=address, cure="Wait for it to end.",
                           exit_code=ExitCode.BUSY)  # fmt: skip
    return KosmosError(
        "Another run works on this host",
        where=address,
        why=f"`{other.command}` runs as process {other.pid} on {other.host} since {other.since}.",
        cure=f"Wait for it to end, or end it: kill -INT {other.pid}",
        exit_code=ExitCode.BUSY,
    )


def _key(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()[:16]
