"""Deletion: the key first, then the blocks, then the name; and a statement that does not promise more than was done."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest
from storage_bed import memory, need

from kosmos_trust.storage import shred as shredding
from kosmos_trust.storage.datakeys import DataKeys
from kosmos_trust.storage.errors import KeyFileError, StorageError
from kosmos_trust.storage.programs import Command, Done
from kosmos_trust.storage.shred import shred

CANARY = b"the canary sings at dawn"


def test_a_sealed_file_loses_its_key_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = DataKeys(tmp_path, sealed_only=False)
    path = keys.folder("ada") / "x.sealed"
    keys.seal("ada", io.BytesIO(CANARY), path)

    class Cut(BaseException):
        pass

    def cut(descriptor: int, size: int) -> None:
        raise Cut

    monkeypatch.setattr(shredding, "_overwrite", cut)
    body = path.read_bytes()[8192:]
    with pytest.raises(Cut):
        shred(path, trim=False)
    assert path.read_bytes()[8192:] == body, "the cut came before the body was overwritten"
    with pytest.raises(KeyFileError, match="its key was destroyed"):
        keys.read("ada", path)


def test_the_blocks_are_overwritten_three_times_and_the_name_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(CANARY * 50_000)
    size = path.stat().st_size
    passes: list[bytes] = []
    real = os.fsync

    def watching(descriptor: int) -> None:
        real(descriptor)
        if os.fstat(descriptor).st_size == size:
            passes.append(os.pread(descriptor, size, 0))

    monkeypatch.setattr(os, "fsync", watching)
    told = shred(path, trim=False)
    assert not path.exists()
    assert told.passes == 3
    assert len(set(passes[:3])) == 3
    assert all(CANARY not in one and len(one) == size for one in passes[:3])
    assert not told.key_destroyed
    assert any("not a sealed file" in text for text in told.not_achieved)


def test_the_blocks_of_a_real_file_system_hold_nothing_any_more(tmp_path: Path) -> None:
    """ext4 on an image: after the deletion the canary is nowhere on the medium, unlike after a mere unlink."""
    need("mkfs.ext4", "losetup")
    if os.geteuid() != 0:
        pytest.skip("mounting an image takes root")
    image, point = tmp_path / "disk.img", tmp_path / "mnt"
    image.write_bytes(bytes(24 << 20))
    point.mkdir()
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop", str(image), str(point)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a loop mount is refused: {mounted.stderr.strip()}")
    try:
        (point / "unlinked").write_bytes(b"only unlinked, this one stays" * 1000)
        (point / "shredded").write_bytes(CANARY * 1000)
        os.sync()
        assert CANARY in image.read_bytes()
        (point / "unlinked").unlink()
        told = shred(point / "shredded")
        os.sync()
    finally:
        subprocess.run(["umount", str(point)], check=True)
    raw = image.read_bytes()
    assert CANARY not in raw
    assert told.file_system == "ext4"
    assert told.punched
    assert told.trimmed or any("no TRIM" in text for text in told.not_achieved)


def test_in_memory(tmp_path: Path) -> None:
    with memory() as folder:
        path = folder / "x"
        path.write_bytes(CANARY)
        told = shred(path)
    assert told.file_system == "tmpfs"
    assert told.punched
    assert not told.trimmed
    assert any("in memory" in text for text in told.achieved)


@pytest.mark.parametrize("kind", ["link", "folder", "hard link", "fifo", "missing"])
def test_what_cannot_be_destroyed_alone_is_not_touched(tmp_path: Path, kind: str) -> None:
    real, path = tmp_path / "real", tmp_path / "x"
    real.write_bytes(CANARY)
    {
        "link": lambda: path.symlink_to(real),
        "folder": path.mkdir,
        "hard link": lambda: os.link(real, path),
        "fifo": lambda: os.mkfifo(path),
        "missing": lambda: None,
    }[kind]()
    with pytest.raises(StorageError):
        shred(path)
    assert real.read_bytes() == CANARY
    assert kind == "missing" or path.exists()


@pytest.mark.parametrize(
    ("kind", "rotational", "good", "bad"),
    [
        ("ext4", True, "magnetic disk were overwritten 3 times", "snapshots"),
        ("ext4", False, "destroyed first", "on flash the controller writes elsewhere"),
        ("btrfs", True, "destroyed first", "btrfs writes new blocks"),
        ("overlay", None, "destroyed first", "overlay writes new blocks"),
        ("nfs4", None, "destroyed first", "is not known"),
    ],
)
def test_the_statement_names_what_the_medium_does(kind: str, rotational: bool | None, good: str, bad: str) -> None:
    done, undone = shredding._told(kind, rotational, key_destroyed=True, punched=False, trimmed=False)
    assert good in "; ".join(done)
    assert bad in "; ".join(undone)
    assert any("no TRIM" in text for text in undone)


def test_a_refused_trim_is_said(tmp_path: Path) -> None:
    def run(command: Command, stdin: bytes | None = None) -> Done:
        return Done(1, "", "the discard operation is not supported")

    path = tmp_path / "x"
    path.write_bytes(b"x")
    assert not shred(path, run=run).trimmed


def test_the_medium_is_looked_up_through_device_mapper(tmp_path: Path) -> None:
    for name, value in {"sda": "1", "nvme0n1": "0"}.items():
        queue = tmp_path / "disks" / name / "queue"
        queue.mkdir(parents=True)
        (queue / "rotational").write_text(f"{value}\n")
    for number, below in (("254:0", ["sda"]), ("254:1", ["nvme0n1"]), ("254:2", ["sda", "nvme0n1"])):
        slaves = tmp_path / "sys/dev/block" / number / "slaves"
        slaves.mkdir(parents=True)
        for name in below:
            (slaves / name).symlink_to(tmp_path / "disks" / name)
    answers = [shredding._rotational(os.makedev(254, minor), tmp_path) for minor in range(4)]
    assert answers == [True, False, None, None]
