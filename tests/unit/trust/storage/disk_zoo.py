"""Disks of other people: made by the formats' own tools where they are installed, else by their documented layouts."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

from storage_bed import need

SIZE = 40 << 20


def blank(path: Path, size: int = SIZE) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


def put(path: Path, offset: int, raw: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(raw)


def made_by(*command: str, text: str | None = None) -> Callable[[Path], None]:
    """Return a maker that runs a program on the image."""

    def make(path: Path) -> None:
        need(command[0])
        environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        subprocess.run([*command, str(path)], input=text, text=True, check=True, capture_output=True, env=environment)

    return make


def gpt_backup_only(path: Path) -> None:
    """The first sectors were overwritten; the copy at the end is what is left."""
    made_by("sfdisk", "--quiet", text="label: gpt\nsize=20M, type=L\n")(path)
    put(path, 0, bytes(34 * 512))


def luks(*options: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        need("cryptsetup")
        key = path.with_name("somebodys.key")
        key.write_bytes(b"somebody's passphrase")
        cost = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
        command = ["cryptsetup", "luksFormat", "--batch-mode", *cost, *options, "--key-file", str(key), str(path)]
        subprocess.run(command, check=True, capture_output=True)

    return make


def lvm(path: Path) -> None:
    """lib/format_text/layout.h of LVM2: a label in the second sector, with LVM's own start value for its CRC."""
    body = b"LVM2 001" + b"0123456789abcdefghijklmnopqrstuv" + struct.pack("<Q", SIZE)
    tail = (struct.pack("<I", 32) + body).ljust(512 - 20, b"\0")
    crc = zlib.crc32(tail, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    put(path, 512, b"LABELONE" + struct.pack("<QI", 1, crc) + tail)


def mdraid(path: Path) -> None:
    """Version 1.2 at 4 KiB: include/linux/raid/md_p.h, struct mdp_superblock_1."""
    block = bytearray(256 + 2 * 2)
    struct.pack_into("<II", block, 0, 0xA92B4EFC, 1)
    block[16:32] = bytes(range(16))
    block[32:40] = b"box:data"
    struct.pack_into("<II", block, 72, 1, 0)
    struct.pack_into("<I", block, 92, 2)
    struct.pack_into("<QQQ", block, 128, 2048, SIZE // 512 - 2048, 8)
    struct.pack_into("<I", block, 220, 2)
    total = sum(struct.unpack(f"<{len(block) // 4}I", block))
    struct.pack_into("<I", block, 216, (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)
    put(path, 4096, bytes(block))


def zfs(path: Path) -> None:
    """ZFS On-Disk Specification, chapter 1: a label of 256 KiB holds an XDR name-value list at 16 KiB (pool, guid,
    state, transaction group) and uberblocks from 128 KiB on. libblkid asks for 64 MiB at least."""
    os.truncate(path, 72 << 20)

    def pair(name: str, kind: int, value: bytes) -> bytes:
        padded = name.encode().ljust(-(-len(name) // 4) * 4, b"\0")
        rest = struct.pack(">II", 0, len(name)) + padded + struct.pack(">II", kind, 1) + value
        return struct.pack(">I", len(rest) + 4) + rest

    pairs = [pair(name, 8, struct.pack(">Q", value)) for name, value in (("version", 5000), ("state", 0), ("txg", 4))]
    pairs += [pair("name", 9, struct.pack(">I", 4) + b"tank"), pair("guid", 8, struct.pack(">Q", 77))]
    put(path, 16 << 10, bytes((1, 1, 0, 0)) + struct.pack(">II", 0, 1) + b"".join(pairs) + bytes(8))
    for number in range(64):
        put(path, (128 + number) << 10, struct.pack("<QQQ", 0x00BAB10C, 5000, number + 1))


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def btrfs(path: Path) -> None:
    """fs/btrfs/ctree.h, struct btrfs_super_block: at 64 KiB, checksummed with CRC-32C from byte 32."""
    block = bytearray(4096)
    block[32:48] = bytes(range(1, 17))
    struct.pack_into("<QQ", block, 48, 0x10000, 1)
    block[64:72] = b"_BHRfS_M"
    struct.pack_into("<QQQQ", block, 72, 1, 0, 0, 0)
    struct.pack_into("<QQ", block, 112, SIZE, SIZE // 2)
    struct.pack_into("<II", block, 144, 4096, 16384)
    struct.pack_into("<I", block, 0, crc32c(bytes(block[32:])))
    put(path, 0x10000, bytes(block))


def bitlocker(path: Path) -> None:
    """The Windows 7 boot sector: signature, volume GUID, and where the metadata lies."""
    guid = bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")
    sector = bytearray(512)
    sector[0:11] = b"\xeb\x58\x90-FVE-FS-"
    sector[160:176] = guid
    struct.pack_into("<Q", sector, 176, 0x100000)
    sector[510:512] = b"\x55\xaa"
    put(path, 0, bytes(sector))
    put(path, 0x100000, b"-FVE-FS-" + struct.pack("<HH", 64, 2))


def random_bytes(path: Path) -> None:
    put(path, 0, os.urandom(SIZE))


def noise_behind_the_header(path: Path) -> None:
    put(path, 17 << 20, os.urandom(4096))


def one_byte_at_the_end(path: Path) -> None:
    put(path, SIZE - 1, b"\x01")


OURS = ("--label", "kosmos-data", "--subsystem", "kosmos")
#: Name, how it is made, and what the refusal has to say.
ZOO: dict[str, tuple[Callable[[Path], None], str]] = {
    "ext4": (made_by("mkfs.ext4", "-q", "-L", "photos"), 'a ext4 file system, label "photos"'),
    "vfat": (made_by("mkfs.vfat"), "a vfat file system"),
    "gpt": (
        made_by("sfdisk", "--quiet", text='label: gpt\nsize=20M, type=L, name="root disk"\n'),
        'partition "root disk"',
    ),
    "gpt, backup only": (gpt_backup_only, "a GPT partition table"),
    "mbr": (made_by("sfdisk", "--quiet", text="label: dos\nsize=20M, type=83\n"), "an MBR partition table"),
    "swap": (made_by("mkswap"), "a swap area"),
    "lvm": (lvm, "a physical volume of LVM"),
    "mdraid": (mdraid, "a Linux software RAID"),
    "zfs": (zfs, "a member of a ZFS pool"),
    "btrfs": (btrfs, "a btrfs file system"),
    "bitlocker": (bitlocker, "a BitLocker volume"),
    "luks1": (luks("--type", "luks1"), "a LUKS volume version 1"),
    "somebody's luks2": (luks("--type", "luks2"), "not made by this appliance"),
    "another appliance's luks2": (
        luks("--type", "luks2", *OURS),
        "made by an appliance, but this host has recorded none",
    ),
    "random bytes": (random_bytes, "no known format explains"),
    "bytes behind the header": (noise_behind_the_header, f"data at byte {17 << 20}"),
    "a byte at the end": (one_byte_at_the_end, "data at byte"),
}
