"""What is on a disk: a zoo of other people's, all refused by name; ours; empty; and what cannot be looked at."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_zoo import OURS, SIZE, ZOO, blank, luks, made_by, put
from storage_bed import need

from kosmos_trust.storage import disk, programs
from kosmos_trust.storage.errors import CommandError, ForeignDiskError, StorageError

UUID = "0b9df01c-7c40-4bd1-8d0e-3f1f6f2f6d11"


@pytest.fixture(autouse=True)
def tools() -> None:
    need("wipefs", "blkid")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return blank(tmp_path / "disk.img")


@pytest.mark.parametrize("name", ZOO)
def test_a_foreign_disk_is_refused_by_name_and_not_touched(image: Path, name: str) -> None:
    make, words = ZOO[name]
    make(image)
    content, written = image.read_bytes(), image.stat().st_mtime_ns
    found = disk.inspect(image)
    assert found.verdict == "foreign"
    assert words in found.words
    with pytest.raises(ForeignDiskError) as caught:
        disk.require_not_foreign(found)
    assert words in str(caught.value)
    assert "wipefs --all" in caught.value.cure
    assert image.read_bytes() == content
    assert image.stat().st_mtime_ns == written


def test_several_signatures_are_all_named(image: Path) -> None:
    ZOO["ext4"][0](image)
    ZOO["lvm"][0](image)
    words = disk.inspect(image).words
    assert "ext4" in words
    assert "LVM" in words


@pytest.mark.parametrize("filler", [b"\0", b"\xff"], ids=["never written", "erased flash"])
def test_an_empty_disk(image: Path, filler: bytes) -> None:
    if filler != b"\0":
        put(image, 0, filler * SIZE)
    found = disk.inspect(image)
    assert (found.verdict, found.findings, found.size_bytes) == ("empty", (), SIZE)
    assert disk.require_not_foreign(found) is found


def test_our_volume_is_known_by_its_recorded_uuid_only(image: Path) -> None:
    luks("--type", "luks2", *OURS, "--uuid", UUID)(image)
    known = disk.inspect(image, frozenset({UUID}))
    assert (known.verdict, known.uuid) == ("ours", UUID)
    other = disk.inspect(image, frozenset({"5c1e7a3a-0000-4000-8000-000000000001"}))
    assert other.verdict == "foreign"
    assert "but this host recorded 5c1e7a3a" in other.words


def test_our_uuid_without_our_label_is_not_ours(image: Path) -> None:
    luks("--type", "luks2", "--uuid", UUID)(image)
    assert disk.inspect(image, frozenset({UUID})).verdict == "foreign"


def test_unexplained_bytes_in_the_header_area_are_told_apart(image: Path) -> None:
    put(image, 0x9000, os.urandom(5000))
    found = disk.inspect(image)
    assert found.verdict == "foreign"
    assert found.only_bytes_in_the_header
    put(image, 20 << 20, b"x")
    assert not disk.inspect(image).only_bytes_in_the_header


def test_a_large_disk_is_sampled(tmp_path: Path) -> None:
    big = blank(tmp_path / "big.img", 20 << 30)
    assert disk.inspect(big).verdict == "empty"
    put(big, 9 << 30, b"\x01" * (12 << 20))
    assert disk.inspect(big).verdict == "foreign"


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    found = disk.inspect(blank(tmp_path / "small.img", 1 << 20))
    assert found.verdict == "foreign"
    assert "only 1048576 bytes" in found.words


@pytest.mark.parametrize(
    ("path", "words"),
    [("/dev/null", "neither a block device"), ("/nowhere/disk", "no such device"), ("/", "neither a block device")],
)
def test_what_is_no_disk_is_refused(path: str, words: str) -> None:
    with pytest.raises(StorageError, match=words):
        disk.inspect(path)


def test_a_missing_program_is_not_an_empty_disk(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(programs.ENVIRONMENT, "PATH", "/nowhere")
    with pytest.raises(CommandError, match="install the package util-linux"):
        disk.inspect(image)


def test_a_program_that_talks_nonsense_is_not_an_empty_disk(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "wipefs"
    tool.write_text("#!/bin/sh\necho '{}'\n")
    tool.chmod(0o755)
    monkeypatch.setitem(programs.ENVIRONMENT, "PATH", f"{tmp_path}:{programs.PROGRAM_PATH}")
    with pytest.raises(StorageError, match="something else than JSON"):
        disk.inspect(image)


@pytest.fixture
def loop(image: Path) -> Iterator[Path]:
    """A real block device."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("a loop device takes root and /dev/loop-control")
    need("losetup")
    done = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", str(device)], check=True)


def test_an_empty_block_device(loop: Path) -> None:
    found = disk.inspect(loop)
    assert (found.verdict, found.size_bytes) == ("empty", SIZE)


def test_a_mounted_disk_says_where(loop: Path, tmp_path: Path) -> None:
    made_by("mkfs.ext4", "-q")(loop)
    point = tmp_path / "mnt"
    point.mkdir()
    mounted = subprocess.run(["mount", str(loop), str(point)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"mount is refused: {mounted.stderr.strip()}")
    try:
        assert f"{loop.name} is mounted on {point}" in disk.inspect(loop).words
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_holders_partitions_swap_and_write_protection_are_named(loop: Path, tmp_path: Path) -> None:
    """An empty disk on which the kernel has built something: /sys and /proc of a host are laid out by hand."""
    number = loop.stat().st_rdev
    folder = tmp_path / "sys/dev/block" / f"{os.major(number)}:{os.minor(number)}"
    for name, content in {
        "holders/dm-3/x": "", "sdz1/partition": "1\n", "sdz1/dev": "259:9\n", "sdz1/holders/md0/x": "", "ro": "1\n",
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("30 1 259:9 / /data rw - ext4 /dev/sdz1 rw\n")
    (tmp_path / "proc/swaps").write_text(f"Filename Type Size Used Priority\n{loop} partition 1 0 -2\n")
    found = disk.inspect(loop, root=tmp_path)
    assert found.verdict == "foreign"
    for words in (
        "dm-3 is built on", "md0 is built on sdz1", "the kernel knows partition sdz1", "is read-only",
        "sdz1 is mounted on /data", "is in use as swap",
    ):  # fmt: skip
        assert words in found.words


def test_the_zoo_is_seen_without_sfdisk(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sfdisk only adds the names of partitions."""
    ZOO["gpt"][0](image)
    for name in ("wipefs", "blkid"):
        found = shutil.which(name, path=programs.PROGRAM_PATH)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    monkeypatch.setitem(programs.ENVIRONMENT, "PATH", str(tmp_path))
    assert "a GPT partition table" in disk.inspect(image).words
