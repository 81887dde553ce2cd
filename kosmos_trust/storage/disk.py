"""What is on a block device or an image file: ours, empty, or somebody else's. Only ever reads.

libblkid's answers come from `wipefs --no-act` (every signature, at every offset) and `blkid -p` (types, also where
wipefs is silent); mounts, swaps, holders and partitions come from the kernel. What no known format explains is not
"empty": plain dm-crypt, VeraCrypt and detached LUKS headers look like random bytes, so bytes are sampled as well.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import ForeignDiskError, StorageError
from .programs import Command, Run, run

LABEL, SUBSYSTEM = "kosmos-data", "kosmos"
#: The header area of `cryptsetup luksFormat --type luks2`: two metadata areas and the key slots, in bytes.
HEADER_BYTES = 16 << 20
MINIMUM_BYTES = 2 * HEADER_BYTES
EDGE_BYTES = 32 << 20  # read whole at both ends
SAMPLES, SAMPLE_BYTES = 2048, 4096  # and this many in between: a sample, not a proof, and some seconds on a slow disk
UNWRITTEN = (b"\0", b"\xff")  # what an erased or never written sector reads as
AMBIVALENT = 8  # blkid: more than one signature

Verdict = Literal["ours", "empty", "foreign"]
WORDS = {
    "LVM2_member": "a physical volume of LVM",
    "linux_raid_member": "a member of a Linux software RAID (mdadm)",
    "isw_raid_member": "a member of a firmware RAID (Intel)",
    "ddf_raid_member": "a member of a firmware RAID (DDF)",
    "zfs_member": "a member of a ZFS pool",
    "btrfs": "a btrfs file system",
    "BitLocker": "a BitLocker volume",
    "swap": "a swap area",
    "swsuspend": "a suspended machine's memory",
    "gpt": "a GPT partition table",
    "dos": "an MBR partition table",
    "PMBR": "a protective MBR",
    "crypto_LUKS": "a LUKS volume",
    "drbd": "a DRBD device",
    "bcache": "a bcache device",
    "ceph_bluestore": "a Ceph OSD",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found: a stable kind (signature, partition, mount, swap, holder, bytes, size), and words."""

    kind: str
    what: str


@dataclass(frozen=True)
class Disk:
    """A device, its size in bytes, the verdict, the LUKS UUID if it has one, and everything that was found."""

    path: str
    size_bytes: int
    verdict: Verdict
    uuid: str | None
    findings: tuple[Finding, ...]

    @property
    def words(self) -> str:
        """Everything that was found, in one line."""
        return "; ".join(finding.what for finding in self.findings) or "nothing"

    @property
    def only_bytes_in_the_header(self) -> bool:
        """Whether all that speaks against "empty" are unexplained bytes where a LUKS2 header would lie."""
        return bool(self.findings) and all(finding.kind == "header-bytes" for finding in self.findings)


def require_not_foreign(disk: Disk) -> Disk:
    """Return the disk. Raises ForeignDiskError, which names everything that was found, when it is not ours or empty."""
    if disk.verdict != "foreign":
        return disk
    raise ForeignDiskError(
        "this disk is not empty and not ours; it stays as it is",
        where=disk.path,
        why=disk.words,
        cure="declare another disk, or save what you need, then empty this one by hand "
        f"(`wipefs --all {disk.path}` and `blkdiscard {disk.path}`) and run again",
    )


def inspect(path: str | Path, known: frozenset[str] = frozenset(), root: Path = Path("/"), run: Run = run) -> Disk:
    """Look at a block device or a regular file.

    `known` are the LUKS UUIDs that this host recorded when it made its volume: a volume with our label but another UUID
    belongs to another appliance and is foreign. Raises StorageError when the path is no device or file or cannot
    be read, CommandError when blkid or wipefs is missing: what cannot be looked at is never called empty.
    """
    real = Path(path).resolve()
    size = _size(real)
    signatures = _signatures(real, run)
    probe = _probe(real, run)
    uuid = probe.get("UUID") if probe.get("TYPE") == "crypto_LUKS" else None
    if uuid in known and _is_our_header(signatures, probe):
        return Disk(str(path), size, "ours", uuid, (Finding("signature", f"our volume, LUKS2, UUID {uuid}"),))
    findings = [*_described(signatures, probe, known), *_partitions(real, probe, run), *_in_use(real, root)]
    if size < MINIMUM_BYTES:
        findings.append(Finding("size", f"it has only {size} bytes, a LUKS2 volume needs at least {MINIMUM_BYTES}"))
    if not findings:
        findings.extend(_unexplained(real, size))
    return Disk(str(path), size, "foreign" if findings else "empty", uuid, tuple(findings))


def _size(real: Path) -> int:
    try:
        mode = real.stat().st_mode
        if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
            raise StorageError("neither a block device nor a file", where=str(real), cure="name the disk by its path")
        with real.open("rb") as stream:
            return stream.seek(0, os.SEEK_END)
    except FileNotFoundError:
        raise StorageError(
            "there is no such device", where=str(real), cure="look at `ls -l /dev/disk/by-id` and correct the path"
        ) from None
    except OSError as error:
        raise StorageError("the device cannot be read", where=str(real), why=error.strerror or str(error)) from error


def _signatures(real: Path, run: Run) -> list[dict[str, Any]]:
    told = run(Command(("wipefs", "--no-act", "--json", str(real)))).stdout
    try:
        found = json.loads(told)["signatures"] if told.strip() else []
        return [dict(one) for one in found]
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError("wipefs answered something else than JSON", where=str(real), why=str(error)) from None


def _probe(real: Path, run: Run) -> dict[str, str]:
    done = run(Command(("blkid", "-p", "-o", "export", str(real)), ok=(0, 2, AMBIVALENT)))
    if done.code == AMBIVALENT:
        return {"AMBIVALENT": "1"}
    pairs = (line.partition("=") for line in done.stdout.splitlines() if "=" in line)
    return {key: value.replace("\\ ", " ") for key, _, value in pairs}


def _is_our_header(signatures: list[dict[str, Any]], probe: dict[str, str]) -> bool:
    return (
        {one.get("type") for one in signatures} == {"crypto_LUKS"}
        and probe.get("VERSION") == "2"
        and probe.get("LABEL") == LABEL
        and probe.get("SUBSYSTEM") == SUBSYSTEM
    )


def _described(signatures: list[dict[str, Any]], probe: dict[str, str], known: frozenset[str]) -> Iterator[Finding]:
    seen: dict[str, list[str]] = {}
    details: dict[str, str] = {}
    for one in signatures:
        kind = str(one.get("type") or "unknown")
        seen.setdefault(kind, []).append(str(one.get("offset")))
        named = [f'{key} "{one[key]}"' for key in ("label", "uuid") if one.get(key)]
        details.setdefault(kind, f", {', '.join(named)}" if named else "")
    for key in ("TYPE", "PTTYPE"):
        if probe.get(key) and probe[key] not in seen:
            seen[probe[key]] = ["the place that blkid knows"]
    for kind, offsets in seen.items():
        words = WORDS.get(kind, f"a signature of {kind}" if "RAID" in kind.upper() else f"a {kind} file system")
        version = f" version {probe['VERSION']}" if kind == "crypto_LUKS" and probe.get("VERSION") else ""
        owner = ""
        if kind == "crypto_LUKS":
            ours = probe.get("LABEL") == LABEL and probe.get("SUBSYSTEM") == SUBSYSTEM
            recorded = f"this host recorded {', '.join(sorted(known))}" if known else "this host has recorded none"
            owner = f", made by an appliance, but {recorded}" if ours else ", not made by this appliance"
        yield Finding("signature", f"{words}{version}{details.get(kind, '')} (at {', '.join(offsets)}){owner}")
    if probe.get("AMBIVALENT"):
        yield Finding("signature", "more than one format at once (blkid calls it ambivalent)")


def _partitions(real: Path, probe: dict[str, str], run: Run) -> Iterator[Finding]:
    """Name the partitions, where sfdisk can read them; the table itself is a finding already."""
    if not probe.get("PTTYPE"):
        return
    try:
        told = run(Command(("sfdisk", "--json", str(real)), ok=(0, 1))).stdout
        parts = json.loads(told)["partitiontable"].get("partitions", [])
    except (StorageError, ValueError, KeyError):
        return
    for part in parts:
        name = f' "{part["name"]}"' if part.get("name") else ""
        yield Finding("partition", f"partition{name} from sector {part.get('start')}, {part.get('size')} sectors")


def _in_use(real: Path, root: Path) -> Iterator[Finding]:
    """Name who uses a block device or one of its partitions: holders, mounts, swaps. A file has none of these."""
    status = real.stat()
    if not stat.S_ISBLK(status.st_mode):
        return
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    folder = (root / "sys/dev/block" / number).resolve()
    parts = [child for child in sorted(folder.iterdir()) if (child / "partition").exists()] if folder.is_dir() else []
    for part in parts:
        yield Finding("partition", f"the kernel knows partition {part.name}")
    numbers = {number: real.name}
    for one in (folder, *parts):
        if (one / "dev").is_file():
            numbers[(one / "dev").read_text().strip()] = one.name
        for holder in sorted((one / "holders").iterdir()) if (one / "holders").is_dir() else []:
            yield Finding("holder", f"{holder.name} is built on {one.name}")
    if (folder / "ro").is_file() and (folder / "ro").read_text().strip() == "1":
        yield Finding("readonly", f"{real.name} is read-only")
    mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    for fields in (line.split() for line in mounts):
        if len(fields) > 4 and fields[2] in numbers:
            yield Finding("mount", f"{numbers[fields[2]]} is mounted on {fields[4]}")
    for line in (root / "proc/swaps").read_text().splitlines()[1:]:
        if Path(line.split()[0]).name in numbers.values():
            yield Finding("swap", f"{line.split()[0]} is in use as swap")


def _unexplained(real: Path, size: int) -> Iterator[Finding]:
    """Sample the bytes; anything but sectors of zeros (or ones) is data, though nobody knows whose."""
    words = "that no known format explains (encrypted without a header, as plain dm-crypt and VeraCrypt are?)"
    in_header: int | None = None
    try:
        with real.open("rb") as stream:
            for offset in _places(size):
                stream.seek(offset)
                block = stream.read(SAMPLE_BYTES)
                if block[:1] in UNWRITTEN and not block.strip(block[:1]):
                    continue
                if offset >= HEADER_BYTES:
                    yield Finding("bytes", f"data at byte {offset} {words}")
                    return
                in_header = offset if in_header is None else in_header
    except OSError as error:
        raise StorageError("the device cannot be read", where=str(real), why=error.strerror or str(error)) from error
    if in_header is not None:
        yield Finding("header-bytes", f"data at byte {in_header} {words}")


def _places(size: int) -> Iterator[int]:
    """Yield offsets: both edges whole, samples in between."""
    edge = min(EDGE_BYTES, size // 2)
    yield from range(size - edge, size, SAMPLE_BYTES)
    inner = max(size - 2 * edge, 0)
    for number in range(SAMPLES):
        place = edge + inner * number // SAMPLES
        yield place - place % SAMPLE_BYTES
    yield from range(0, edge, SAMPLE_BYTES)
