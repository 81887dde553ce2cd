"""Swap: memory that is written to a disk. It is off, or in memory (zram), or encrypted; else keys may leak in clear."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .temporary import file_system_of


@dataclass(frozen=True)
class Swap:
    """One active swap area, whether what is written there is safe, and the reason in words."""

    path: str
    safe: bool
    why: str


def active(root: Path = Path("/"), sealed: Path | None = None) -> list[Swap]:
    """Return the active swap areas. `sealed` is where the sealed volume is mounted: a swap file there is safe."""
    lines = (root / "proc/swaps").read_text().splitlines()[1:]
    return [_judge(line.split()[0].encode().decode("unicode_escape"), root, sealed) for line in lines if line.strip()]


def _judge(path: str, root: Path, sealed: Path | None) -> Swap:
    name = Path(path).name
    resolved = (root / path.lstrip("/")).resolve().name
    for one in (name, resolved):
        if one.startswith("zram"):
            backing = root / "sys/block" / one / "backing_dev"
            written = backing.is_file() and backing.read_text().strip() not in ("", "none")
            why = "zram with a backing device that is written in clear" if written else "compressed memory (zram)"
            return Swap(path, not written, why)
        uuid = root / "sys/block" / one / "dm/uuid"
        if uuid.is_file():
            encrypted = uuid.read_text().startswith("CRYPT-")
            return Swap(path, encrypted, "encrypted (dm-crypt)" if encrypted else "a mapping that is not dm-crypt")
    file = root / path.lstrip("/")
    if sealed is not None and file.is_file() and sealed.is_dir():
        point = Path(file_system_of(file.resolve(), root)[1])
        if point == sealed.resolve() and point != Path("/"):
            return Swap(path, True, "a file on the sealed volume")
    return Swap(path, False, "in clear: pages with keys can reach the disk")


def crypttab_line(device: str, name: str = "kosmos-swap") -> str:
    """Return the crypttab line of a swap partition with a new random key at each boot (no hibernation possible)."""
    return f"{name} {device} /dev/urandom swap,cipher=aes-xts-plain64,size=512,sector-size=4096"


def fstab_line(name: str = "kosmos-swap") -> str:
    """Return the fstab line that goes with `crypttab_line`."""
    return f"/dev/mapper/{name} none swap sw,nofail 0 0"
