"""The boot images on the EFI system partition: which there are, which starts next, how one is put there and taken away.

Names follow the Boot Loader Specification: `EFI/Linux/kosmos-SERIAL-KERNEL[+LEFT[-DONE]].efi`. The serial number counts
publications, so systemd-boot's order of names is the order of publication. An image without a counter has been blessed;
one with no tries left is bad, and systemd-boot sorts it behind all others: that is the fallback, without any program.

FAT has no journal. A new image is written under a name that no boot loader looks at, flushed, read back, then renamed
in its directory. A cut leaves the old images untouched, because neither their clusters nor their entries are written;
the new one is there or not, or (cut inside the rename) under both names, which fsck.fat resolves at the next start.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from kosmos_trust import durable

from .errors import EspError
from .findings import Finding

FOLDER = "EFI/Linux"
TRIES = 3
PREVIOUS = 2
RESERVE_BYTES = 4 << 20
TEMPORARY = ".kosmos-new"
FIBMAP = 1  # ioctl, linux/fs.h: the disk block of a file's block
_NAME = re.compile(r"kosmos-([0-9]{6})-([A-Za-z0-9._~^-]+)(?:\+([0-9]{1,3})(?:-([0-9]{1,3}))?)?\.efi")
_PATTERN = "kosmos-*"


@dataclass(frozen=True)
class Entry:
    """One image. `left` is None when it has been blessed; `id` is what the boot loader calls it, without a counter."""

    path: Path
    serial: int
    kernel: str
    left: int | None
    size: int

    @property
    def id(self) -> str:
        """The name without the counter of tries."""
        return f"kosmos-{self.serial:06d}-{self.kernel}.efi"

    @property
    def state(self) -> str:
        """`good` (blessed), `trying` (starts, but has not been blessed yet) or `bad` (no tries left)."""
        return "good" if self.left is None else "trying" if self.left else "bad"


@dataclass(frozen=True)
class Room:
    """Room for one more image of `needed` bytes beside those that must stay: free now, and when `removable` go."""

    needed: int
    free: int
    removable: tuple[Entry, ...]

    @property
    def fits(self) -> bool:
        """Whether the image fits when every removable one is gone."""
        return self.free + sum(one.size for one in self.removable) >= self.needed + RESERVE_BYTES

    def finding(self) -> Finding:
        """Return the answer as a rule of the gate."""
        reach = self.free + sum(one.size for one in self.removable)
        return Finding(
            "boot.esp.room",
            f"The EFI partition holds this image and {PREVIOUS} previous ones",
            self.fits,
            f"{reach >> 20} MiB can be used ({self.free >> 20} free, {len(self.removable)} old images may go)",
            f"{(self.needed + RESERVE_BYTES) >> 20} MiB",
            "make the image smaller, or remove what is not ours from the EFI partition",
        )


class Esp:
    """The EFI system partition mounted at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / FOLDER

    def entries(self) -> tuple[Entry, ...]:
        """Return our images, newest first; other people's files are not looked at."""
        found = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            match = _NAME.fullmatch(path.name)
            if not match:
                continue
            try:
                size = path.stat().st_size
            except FileNotFoundError:  # blessed in this moment, under its other name
                continue
            serial, kernel, left, _ = match.groups()
            found.append(Entry(path, int(serial), kernel, None if left is None else int(left), size))
        return tuple(sorted(found, key=lambda one: (one.serial, one.kernel), reverse=True))

    def default(self) -> Entry | None:
        """Return the image that systemd-boot starts next: the newest that is not bad, else the newest, if any."""
        entries = self.entries()
        return next((one for one in entries if one.state != "bad"), entries[0] if entries else None)

    def kept(self, booted: str | None, *, beside_new: bool) -> frozenset[str]:
        """Return the ids that must stay: the booted one, the last good one, and the newest.

        With `beside_new`, room is made for one more, so the two newest count as the previous ones; else the newest and
        its two previous. Bad images are not among them, unless one of them is running.
        """
        fit = [one for one in self.entries() if one.state != "bad"]
        good = [one.id for one in fit if one.state == "good"][:1]
        newest = [one.id for one in fit][: PREVIOUS if beside_new else PREVIOUS + 1]
        return frozenset([*good, *newest, *([booted] if booted else [])])

    def room(self, size: int, booted: str | None) -> Room:
        """Return whether an image of `size` bytes fits beside those that must stay. Raises EspError: not mounted."""
        self._mounted()
        try:
            state = os.statvfs(self.root)
        except OSError as error:
            raise self._fail("the EFI partition cannot be asked", error) from error
        kept = self.kept(booted, beside_new=True)
        removable = tuple(reversed([one for one in self.entries() if one.id not in kept]))
        return Room(size, state.f_bavail * state.f_frsize, removable)

    def publish(self, data: bytes, kernel: str, booted: str | None) -> Entry:
        """Put a judged image there as the newest, with its tries, then remove what need not stay; return it.

        Raises EspError when it does not fit or cannot be written; the images that were there are then still there, but
        for those that need not stay.
        """
        room = self.room(len(data), booted)
        if not room.fits:
            finding = room.finding()
            raise EspError("the image does not fit", where=str(self.root), why=finding.found, cure=finding.cure)
        for one in room.removable:
            if self.room(len(data), booted).free >= len(data) + RESERVE_BYTES:
                break
            self._remove(one)
        serial = max((one.serial for one in self.entries()), default=0) + 1
        label = re.sub(r"[^A-Za-z0-9._~^-]", ".", kernel)
        self._write(data, self.folder / f"kosmos-{serial:06d}-{label}+{TRIES}.efi")
        self.prune(booted)
        return next(one for one in self.entries() if one.serial == serial)

    def replace(self, entry: Entry, data: bytes) -> None:
        """Put other content in the place of an image, in one rename. Raises EspError; the old one then stays."""
        if not entry.path.exists():
            raise EspError("the image has another name now", where=str(entry.path), cure="run the same command again")
        self._write(data, entry.path)

    def prune(self, booted: str | None) -> list[Entry]:
        """Remove the images that need not stay; return them."""
        kept = self.kept(booted, beside_new=False)
        gone = [one for one in self.entries() if one.id not in kept]
        for one in gone:
            self._remove(one)
        return gone

    def sweep(self) -> bool:
        """Remove what a cut write has left; return whether something was there.

        Raises EspError when it shares its blocks with an image (a cut inside the rename): to remove it would free them.
        """
        leftover = self.folder / TEMPORARY
        if not leftover.exists():
            return False
        block = _first_block(leftover)
        for one in self.entries():
            if block and block == _first_block(one.path):
                raise EspError(
                    "two names share one image after a power cut",
                    where=str(leftover),
                    why=f"it is the same as {one.path.name}",
                    cure="restart: the file system check of the start resolves it (fsck.fat -a on the unmounted ESP)",
                )
        leftover.unlink()
        durable.sync_folder(self.folder)
        return True

    def configure(self) -> bool:
        """Write `loader/loader.conf`; return whether it was another one. Editing at the menu stays off."""
        self._mounted()
        path = self.root / "loader/loader.conf"
        wanted = f"default {_PATTERN}\ntimeout 3\neditor no\n".encode()
        if path.is_file() and path.read_bytes() == wanted:
            return False
        try:
            durable.replace(path, wanted, 0o644)
        except OSError as error:
            raise self._fail("the loader's settings cannot be written", error) from error
        return True

    def _write(self, data: bytes, final: Path) -> None:
        temporary = self.folder / TEMPORARY
        self._mounted()
        try:
            self.folder.mkdir(exist_ok=True)
            self.sweep()
            durable.write_new(temporary, data, 0o600)
            if _digest_on_disk(temporary) != hashlib.sha256(data).digest():
                temporary.unlink()
                raise EspError("what was written is not what is read back", where=str(final), cure="replace the disk")
            temporary.replace(final)
            durable.sync_folder(self.folder)
        except OSError as error:
            raise self._fail("the image cannot be written", error) from error

    def _mounted(self) -> None:
        """Refuse a bare mount point: what is written there would start nothing. An ESP always has the folder EFI."""
        if not (self.root / "EFI").is_dir():
            raise EspError(
                "the EFI partition is not mounted", where=str(self.root), cure=f"mount it: mount {self.root}"
            )

    def _remove(self, entry: Entry) -> None:
        entry.path.unlink(missing_ok=True)
        durable.sync_folder(self.folder)

    def _fail(self, what: str, error: OSError) -> EspError:
        full = error.errno == errno.ENOSPC
        cure = "remove what is not ours from the EFI partition" if full else "see whether it is mounted, and writable"
        return EspError(what, where=str(error.filename or self.root), why=str(error.strerror), cure=cure)


def _digest_on_disk(path: Path) -> bytes:
    """Return SHA-256 of a flushed file, read from the disk where the kernel lets go of its copy in memory."""
    with path.open("rb") as stream:
        with contextlib.suppress(OSError):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(stream, "sha256").digest()


def _first_block(path: Path) -> int:
    """Return the disk block where a file begins, 0 when the file system does not say (it is not FAT then)."""
    with path.open("rb") as stream:
        try:
            answer = fcntl.ioctl(stream.fileno(), FIBMAP, struct.pack("i", 0))
        except OSError:
            return 0
    block: int = struct.unpack("i", answer)[0]
    return block
