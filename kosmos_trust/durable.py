"""Writes that are on the disk when they return, whole or not at all.

rename(2) replaces a file at once; only fsync(2) of the file before it and of the folder after it make that durable.
Everything raises OSError, which names the path; what a failure means is the caller's to say.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Flush a folder: its creations, renames and removals are then on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_folder(folder: Path, mode: int = 0o700) -> None:
    """Make a folder and its parents, durably; those that exist keep their mode."""
    if folder.is_dir():
        return
    private_folder(folder.parent, mode)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=mode)
        folder.chmod(mode)  # the umask of a hardened host must not decide
    if not folder.is_dir():
        raise NotADirectoryError(20, os.strerror(20), str(folder))
    sync_folder(folder.parent)


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write and flush a file that did not exist; leave nothing behind when that fails."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode & 0o700)  # nobody else reads it before it is whole
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def replace(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` at `path` in one rename; the old content stays until then. A missing folder is made, private."""
    private_folder(path.parent)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    write_new(beside, data, mode)
    try:
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
