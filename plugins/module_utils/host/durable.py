"""Files and folders that survive a power cut: written beside the destination, synced, renamed, the folder synced.

rename(2) replaces a file at once; only fsync(2) of the file before it and of the folder after it make that durable.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

#: chown(2): -1 leaves the user or group as it is.
KEEP_OWNER = (-1, -1)


def stage(path: Path, text: str, mode: int, owner: tuple[int, int] = KEEP_OWNER) -> Path:
    """Write the successor of `path` beside it, synced; return where. Nobody else reads it before it has its mode.

    Raises OSError that names `path`; then nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.kosmos-new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fchown(stream.fileno(), *owner)
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
    except OSError as exc:
        with suppress(OSError):
            temporary.unlink()
        raise OSError(exc.errno, exc.strerror, str(path)) from exc
    return temporary


def write_synced(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file at once and durably. Raises OSError; then the old file stands."""
    temporary = stage(path, text, mode)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folders(folder: Path, mode: int = 0o700) -> None:
    """Make a folder and its parents, durably; those that exist keep their mode."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=mode)
        one.chmod(mode)  # the umask of a hardened host must not decide
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
