"""Keys that live for one install only: 0600 files in memory (tmpfs or ramfs), destroyed after use."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kosmos_trust.durable import private_folder, write_new

from .errors import StorageError

KEY_BYTES = 32
IN_MEMORY = ("tmpfs", "ramfs")


def file_system_of(path: Path, root: Path = Path("/")) -> tuple[str, str, str]:
    """Return (type, mount point, source) of the file system that a path lies on, from /proc/self/mountinfo."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    best: tuple[str, str, str] | None = None
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        kind, source = fields[fields.index("-") + 1 : fields.index("-") + 3]
        point = fields[4].encode().decode("unicode_escape")
        inside = path.is_relative_to(point)
        if inside and (fields[2] == number or kind == "btrfs") and (best is None or len(point) >= len(best[1])):
            best = (kind, point, source)
    if best is None:
        raise StorageError("its file system is not in /proc/self/mountinfo", where=str(path))
    return best


def is_sealed(path: Path, root: Path = Path("/")) -> bool:
    """Whether a path lies on a file system that dm-crypt encrypts directly below it."""
    device = path.stat().st_dev
    uuid = root / "sys/dev/block" / f"{os.major(device)}:{os.minor(device)}" / "dm/uuid"
    return uuid.is_file() and uuid.read_text().startswith("CRYPT-LUKS2-")


def require_memory(folder: Path) -> None:
    """Make the folder and raise StorageError unless it lies in memory: a key must not reach a disk in clear."""
    private_folder(folder)
    kind = file_system_of(folder.resolve())[0]
    if kind not in IN_MEMORY:
        raise StorageError(
            f"a temporary key would be written to a disk ({kind})", where=str(folder),
            cure="name a folder below /run, which is a tmpfs",
        )  # fmt: skip


def make(path: Path) -> None:
    """Make a key file of 32 random bytes; one that exists stays. Raises StorageError when it is not in memory."""
    require_memory(path.parent)
    if not path.exists():
        write_new(path, secrets.token_bytes(KEY_BYTES))


def destroy(path: Path) -> None:
    """Overwrite and remove a key file; one that does not exist is fine."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(descriptor, bytes(os.fstat(descriptor).st_size))
    finally:
        os.close(descriptor)
    path.unlink(missing_ok=True)


@contextmanager
def lent(key: bytes, folder: Path) -> Iterator[Path]:
    """Put a key of the operator into a 0600 file in memory for as long as the block runs."""
    require_memory(folder)
    path = folder / f"lent-{secrets.token_hex(8)}"
    write_new(path, key)
    try:
        yield path
    finally:
        destroy(path)
