"""A cache of directories, each named by the hash of its inputs, built once and published in one rename."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kosmos_installer.errors import ExitCode, KosmosError


def key_of(inputs: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits of SHA-256 over the canonical JSON of `inputs`."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def locked(path: Path, *, wait: bool = True, what: str = "") -> Iterator[None]:
    """Hold an exclusive lock on `path`; with `wait=False` raise `KosmosError` (exit code 6) when another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            handle.seek(0)
            raise KosmosError(
                f"{what or path.stem} is busy",
                where=str(path),
                why=f"held by process {handle.read().strip() or 'unknown'}",
                cure="wait until it has ended, then run the same command again",
                exit_code=ExitCode.BUSY,
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def sync_tree(directory: Path) -> None:
    """Flush every regular file and directory below `directory` to the disk."""
    for path in [directory, *directory.rglob("*")]:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Store:
    """`<root>/<kind>/<key>/`: complete or absent, never half built."""

    def __init__(self, root: Path, abandon: Callable[[Path], None]) -> None:
        """`abandon` is called with a half-built directory before it is removed (it stops what still runs there)."""
        self._root = root
        self._abandon = abandon

    def path(self, kind: str, key: str) -> Path:
        """Return where the entry is or will be."""
        return self._root / kind / key

    def entry(self, kind: str, inputs: Mapping[str, Any], build: Callable[[Path], None], *, sync: bool = True) -> Path:
        """Return the entry for `inputs`, building it in a private directory first if it is absent.

        Two processes that want the same entry meet at its lock: one builds, the other waits and uses it.
        """
        key = key_of(inputs)
        final = self.path(kind, key)
        if final.is_dir():
            return final
        with locked(self._lock(kind, key)):
            if final.is_dir():
                return final
            final.parent.mkdir(parents=True, exist_ok=True)
            partial = self._partial(kind, key)
            self._discard(partial)
            self.sweep(kind)
            partial.mkdir(mode=0o700)
            try:
                build(partial)
                (partial / "inputs.json").write_text(json.dumps(inputs, indent=2, sort_keys=True) + "\n")
                if sync:
                    sync_tree(partial)
                partial.rename(final)
            except BaseException:
                self._discard(partial)
                raise
        return final

    def sweep(self, kind: str) -> None:
        """Stop and remove what killed builders of `kind` left: half-built entries whose lock nobody holds."""
        for partial in (self._root / kind).glob(".*.partial"):
            key = partial.name.removeprefix(".").removesuffix(".partial")
            with contextlib.suppress(KosmosError), locked(self._lock(kind, key), wait=False):
                self._discard(partial)

    def _lock(self, kind: str, key: str) -> Path:
        return self._root / "locks" / f"{kind}-{key}"

    def _partial(self, kind: str, key: str) -> Path:
        return self._root / kind / f".{key}.partial"

    def _discard(self, partial: Path) -> None:
        if partial.exists():
            self._abandon(partial)
            shutil.rmtree(partial)
