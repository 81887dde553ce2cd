"""Private files that survive a power cut: 0600, replaced at once, synced with their folder; foreign ones are refused.

A file that somebody else owns or may write is not ours to trust, so reading checks owner and mode on the open file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from kosmos_trust.durable import private_folder, replace, sync_folder

from .errors import StoreError

MAX_BYTES = 16 * 1024 * 1024
PRIVATE, PUBLIC = 0o600, 0o644
LOCK_PAUSE_SECONDS = 0.05


def make_folder(folder: Path, mode: int = 0o700) -> None:
    """Make a folder and its parents, durably. Raises StoreError for an existing one that others may write."""
    with _named(folder):
        private_folder(folder, mode)
        info = folder.stat()
    if info.st_uid not in (0, os.geteuid()) or info.st_mode & 0o022:
        raise StoreError(
            f"{folder}: owner {info.st_uid}, mode {stat.S_IMODE(info.st_mode):04o}: others may write here; "
            "check who did this, then chown it to root and chmod go-w"
        )


def write_file(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Replace a file durably: the old content or the new one is there, never a part. Raises StoreError."""
    with _named(path):
        path.parent.stat()  # a folder that is gone is a mount that is missing: nothing may be written in its place
        replace(path, data, mode)


def read_file(path: Path, *, private: bool = True) -> bytes:
    """Return the content. Raises StoreError when it is missing, a link, foreign, too large or open to others."""
    with _named(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            info = os.fstat(stream.fileno())
            _refuse_foreign(path, info, private)
            return stream.read(MAX_BYTES + 1)


def _refuse_foreign(path: Path, info: os.stat_result, private: bool) -> None:
    mode = stat.S_IMODE(info.st_mode)
    if not stat.S_ISREG(info.st_mode):
        raise StoreError(f"{path}: not a regular file; move it away")
    if info.st_uid not in (0, os.geteuid()):
        raise StoreError(f"{path}: owned by {info.st_uid}, not by root: it is not ours to trust; find out who wrote it")
    if mode & (0o077 if private else 0o022):
        allowed = "0600" if private else "writable by its owner only"
        raise StoreError(f"{path}: mode {mode:04o}, has to be {allowed}: treat its content as known to others")
    if info.st_size > MAX_BYTES:
        raise StoreError(f"{path}: {info.st_size} bytes, more than {MAX_BYTES}")


def read_lines(path: Path) -> list[bytes]:
    """Return the whole lines of an append-only file; a last line that a power cut tore is not there yet."""
    if not path.exists():
        return []
    return read_file(path).split(b"\n")[:-1]


def append_line(path: Path, line: bytes) -> None:
    """Append one line durably; what a power cut left of an unfinished one is cut off first. Raises StoreError."""
    if b"\n" in line:
        raise StoreError(f"{path}: a line may not hold a line feed")
    with _named(path):
        new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
        with os.fdopen(descriptor, "r+b", buffering=0) as stream:
            _refuse_foreign(path, os.fstat(stream.fileno()), True)
            whole = stream.readall().rfind(b"\n") + 1
            stream.truncate(whole)
            stream.seek(whole)
            try:
                if stream.write(line + b"\n") != len(line) + 1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                os.fsync(stream.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    stream.truncate(whole)
                raise
        if new:
            sync_folder(path.parent)


@contextlib.contextmanager
def exclusive(path: Path, wait_seconds: float = 30.0) -> Iterator[None]:
    """Hold the lock of a file; the kernel lets go of it when the process dies. Raises StoreError after the wait."""
    make_folder(path.parent)
    with _named(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    try:
        _acquire(descriptor, path, wait_seconds)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, wait_seconds: float) -> None:
    end = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise StoreError(
                    f"{path}: another run holds this lock for {wait_seconds:g} s and more; let it finish (fuser {path})"
                ) from None
            time.sleep(LOCK_PAUSE_SECONDS)
        else:
            return


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn an OSError into a StoreError that names the path."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror}") from error
