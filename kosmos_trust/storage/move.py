"""Bring a folder with its data onto the sealed volume: copy, flush, compare, rename; the old one stays until proved.

    D                      the folder as it was
    V.partial              the copy while it grows; a cut leaves it, the next run begins again
    V                      the copy, flushed and compared with D byte by byte
    D.before-sealing       the old folder, once V is proved; D is then an empty mount point

The old copy is in clear on the old disk. `discard_old` removes it after V is mounted on D; `shred` says what removing
means on which medium.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kosmos_trust.durable import sync_folder

from .errors import StorageError
from .programs import Command, Run, run

OLD, PARTIAL = ".before-sealing", ".partial"
COPY_TIMEOUT_SECONDS = 12 * 3600.0  # a full disk at a tenth of a slow one's speed


def old_copy(folder: Path) -> Path:
    """Where the folder as it was is kept."""
    return folder.with_name(folder.name + OLD)


def is_moved(folder: Path, target: Path) -> bool:
    """Whether the data is on the volume, and the folder is a free mount point or has the volume's folder mounted."""
    return target.is_dir() and folder.is_dir() and (_bound(folder, target) or _free(folder))


def move(folder: Path, target: Path, run: Run = run) -> None:
    """Move a folder to `target` on the volume; run it again after a cut. A folder that is not there becomes empty.

    Raises StorageError when the folder is a link or a mount point, when there is data on both sides, or when
    something wrote to it meanwhile.
    """
    partial, old = target.with_name(target.name + PARTIAL), old_copy(folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise StorageError("not a folder", where=str(folder), cure="remove it, or leave it out of the declaration")
    if is_moved(folder, target):
        return
    if os.path.ismount(folder):
        raise StorageError("something else is mounted there", where=str(folder), cure=f"run `umount {folder}`")
    if folder.is_dir() and any(folder.iterdir()):
        if old.exists():
            raise StorageError(
                "there is data in the folder and in its old copy", where=str(folder), why=f"{old} exists",
                cure="somebody wrote while the volume was closed: keep what you need, empty one of them, run again",
            )  # fmt: skip
        if target.exists() and not _same(folder, target):
            raise StorageError(
                "there is other data on the volume already", where=str(target), cure="keep what you need, remove one"
            )
        if not target.exists():
            _copy(folder, partial, run)
            _require_same(folder, partial)
            partial.rename(target)
            sync_folder(target.parent)
        # Once more, right before the switch: a service that was not stopped shows here.
        _require_same(folder, target)
        folder.rename(old)
        sync_folder(folder.parent)
    _make_mount_point(folder, target, old)


def discard_old(folder: Path, target: Path) -> None:
    """Remove the old copy. Raises StorageError unless the volume's copy is what is mounted on the folder now."""
    old = old_copy(folder)
    if not old.exists():
        return
    if not _bound(folder, target):
        raise StorageError(
            "the old copy stays", where=str(old), why=f"{target} is not what is mounted on {folder}",
            cure=f"start the mount of {folder}, then run again",
        )  # fmt: skip
    shutil.rmtree(old)
    sync_folder(old.parent)


def _bound(folder: Path, target: Path) -> bool:
    """Whether the two paths are one folder: a bind mount. (Within one file system os.path.ismount would not see it.)"""
    return folder.is_dir() and target.is_dir() and not folder.is_symlink() and folder.samefile(target)


def _free(folder: Path) -> bool:
    return not os.path.ismount(folder) and not any(folder.iterdir())


def _make_mount_point(folder: Path, target: Path, old: Path) -> None:
    """Make both folders where they are missing, owned as the old one."""
    model = old if old.is_dir() else folder if folder.is_dir() else None
    for one in (target, folder):
        if not one.is_dir():
            one.parent.mkdir(parents=True, exist_ok=True)
            one.mkdir(mode=0o700)
            if model is not None:
                shutil.copystat(model, one)
                os.chown(one, model.stat().st_uid, model.stat().st_gid)
            sync_folder(one.parent)


def _copy(folder: Path, partial: Path, run: Run) -> None:
    if partial.exists():
        shutil.rmtree(partial)
    copy = ("cp", "--archive", "--one-file-system", "--no-target-directory", str(folder), str(partial))
    for argv in (copy, ("sync", "--file-system", str(partial))):
        run(Command(argv, timeout_seconds=COPY_TIMEOUT_SECONDS))


def _same(left: Path, right: Path) -> bool:
    return next(_differences(left, right), None) is None


def _require_same(folder: Path, copy: Path) -> None:
    difference = next(_differences(folder, copy), None)
    if difference is not None:
        raise StorageError(
            "the copy differs from the folder", where=str(copy), why=difference,
            cure=f"stop whatever writes to {folder}, then run again",
        )  # fmt: skip


def _differences(left: Path, right: Path) -> Iterator[str]:
    """Yield, in words, what two trees do not share: names, kinds, owners, modes, times, attributes, contents."""
    one, other = _tree(left), _tree(right)
    yield from (f"{name} is missing on one side" for name in sorted(set(one) ^ set(other)))
    for name in sorted(set(one) & set(other)):
        if one[name] != other[name]:
            yield f"{name or '.'} is not the same"
        elif stat.S_ISREG(one[name][0]) and _digest(left / name) != _digest(right / name):
            yield f"the content of {name} is not the same"


def _tree(top: Path) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {"": _facts(top)}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(folder) / name
            found[str(path.relative_to(top))] = _facts(path)
    return found


def _facts(path: Path) -> tuple[Any, ...]:
    status = path.lstat()
    directory, link = stat.S_ISDIR(status.st_mode), stat.S_ISLNK(status.st_mode)
    attributes = {
        name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
    }
    return (
        status.st_mode, status.st_uid, status.st_gid, status.st_rdev, 0 if directory else status.st_size,
        status.st_mtime_ns, str(path.readlink()) if link else "", attributes, status.st_nlink > 1 and not directory,
    )  # fmt: skip


def _digest(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
