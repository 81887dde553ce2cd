"""Delete for good, as far as the medium lets us; and say how far that was.

The order matters: first the header of a sealed file, because without its key the body is noise wherever copies of it
lie; then three passes of random bytes over the same blocks; then the blocks are given back (hole punched, TRIM asked
for) and the name removed. Overwriting in place means something on a magnetic disk under ext4 or XFS. On flash the
controller writes elsewhere and keeps the old cells until it cleans up: there only the destroyed key counts, and of the
key itself an old copy may survive in a cell that nobody can address. On a sealed volume that cell is encrypted too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from kosmos_trust.durable import sync_folder

from .errors import StorageError
from .programs import Command, Run, run
from .sealedfile import BODY_AT, MAGIC, SLOT_BYTES, SLOTS
from .temporary import file_system_of

PASSES = 3
BLOCK_BYTES = 1 << 20
COPY_ON_WRITE = ("btrfs", "zfs", "overlay", "bcachefs", "f2fs", "nilfs2")
IN_MEMORY = ("tmpfs", "ramfs")
PUNCH_HOLE, KEEP_SIZE = 2, 1  # linux/falloc.h
UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class Statement:
    """What was achieved and what was not, in words for a person, with the facts behind them.

    `rotational` is None where the medium cannot be known (network, memory, device-mapper without a disk below).
    """

    path: str
    key_destroyed: bool
    passes: int
    punched: bool
    trimmed: bool
    file_system: str
    rotational: bool | None
    achieved: tuple[str, ...]
    not_achieved: tuple[str, ...]


def destroy_header(descriptor: int) -> bool:
    """Overwrite both header slots of an open sealed file, flushed; return whether there were any."""
    found = any(os.pread(descriptor, len(MAGIC), offset) == MAGIC for offset in SLOTS)
    if found:
        size = min(os.fstat(descriptor).st_size, BODY_AT)
        for filler in (secrets.token_bytes, bytes):
            for offset in SLOTS:
                if offset < size:
                    _write_all(descriptor, filler(min(SLOT_BYTES, size - offset)), offset)
            os.fsync(descriptor)
    return found


def shred(path: Path, *, trim: bool = True, run: Run = run, root: Path = Path("/")) -> Statement:
    """Destroy and remove one file. Raises StorageError, before anything is touched, for what cannot be destroyed alone:
    a link, a folder, a device, or a file that has another name (hard link)."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise StorageError("the file cannot be opened", where=str(path), why=error.strerror or str(error)) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StorageError("not a file", where=str(path), cure="name each file")
        if status.st_nlink > 1:
            raise StorageError(
                f"the file has {status.st_nlink} names", where=str(path),
                cure=f"find the others with `find / -xdev -inum {status.st_ino}` and decide about them first",
            )  # fmt: skip
        kind, point, _ = file_system_of(path.resolve(), root)
        rotational = _rotational(status.st_dev, root)
        key_destroyed = destroy_header(descriptor)
        for _ in range(PASSES):
            _overwrite(descriptor, status.st_size)
        punched = _punch(descriptor, status.st_size)
        os.ftruncate(descriptor, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.unlink()
    sync_folder(path.parent)
    trimmed = trim and kind not in IN_MEMORY and _trim(point, run)
    told = _told(kind, rotational, key_destroyed=key_destroyed, punched=punched, trimmed=trimmed)
    return Statement(str(path), key_destroyed, PASSES, punched, trimmed, kind, rotational, *told)


def _told(
    kind: str, rotational: bool | None, *, key_destroyed: bool, punched: bool, trimmed: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what was achieved, and what was not."""
    good, bad = [], []
    if key_destroyed:
        good.append("the file's own key was destroyed first: copies of its body are noise without it")
    else:
        bad.append("it was not a sealed file, so no key could be destroyed: copies of it elsewhere are readable")
    if kind in COPY_ON_WRITE:
        bad.append(f"{kind} writes new blocks instead of the old ones: overwriting did not reach them")
    elif kind in IN_MEMORY:
        good.append("it lay in memory and was overwritten there")
    elif rotational:
        good.append(f"its blocks on a magnetic disk were overwritten {PASSES} times")
    elif rotational is False:
        bad.append("on flash the controller writes elsewhere: old cells stay until it cleans up, which cannot be seen")
    else:
        bad.append("what the medium does with overwritten blocks is not known here")
    if punched:
        good.append("its blocks were given back to the file system")
    if trimmed:
        good.append(
            "the file system asked the disk to forget its free blocks (TRIM); whether it does is the disk's word"
        )
    elif kind not in IN_MEMORY:
        bad.append("no TRIM was done (not supported, not passed through dm-crypt, or not asked for)")
    bad.append("snapshots, backups and the journal of the file system may hold its name or earlier contents")
    return tuple(good), tuple(bad)


def _overwrite(descriptor: int, size: int) -> None:
    for offset in range(0, size, BLOCK_BYTES):
        _write_all(descriptor, secrets.token_bytes(min(BLOCK_BYTES, size - offset)), offset)
    os.fsync(descriptor)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _punch(descriptor: int, size: int) -> bool:
    """Give the blocks back while the file still exists; False where the file system cannot."""
    if not size:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if libc.fallocate(descriptor, PUNCH_HOLE | KEEP_SIZE, 0, size) == 0:
        os.fsync(descriptor)
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code))


def _trim(point: str, run: Run) -> bool:
    try:
        return run(Command(("fstrim", point), ok=(0, 1, 32))).code == 0
    except StorageError:
        return False


def _rotational(device: int, root: Path) -> bool | None:
    """Return whether the disk below turns; device-mapper is followed to all its disks."""
    start = root / "sys/dev/block" / f"{os.major(device)}:{os.minor(device)}"
    found: set[bool] = set()

    def look(folder: Path) -> None:
        below = sorted((folder / "slaves").iterdir()) if (folder / "slaves").is_dir() else []
        for one in below:
            look(one.resolve())
        queue = next(
            (p / "queue/rotational" for p in (folder, folder.parent) if (p / "queue/rotational").is_file()), None
        )
        if not below and queue is not None:
            found.add(queue.read_text().strip() == "1")

    if start.exists():
        look(start.resolve())
    return found.pop() if len(found) == 1 else None
