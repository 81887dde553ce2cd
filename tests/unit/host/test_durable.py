"""A file is replaced whole or not at all, with exactly its mode, and never through somebody's link."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.host.durable import make_folders, write_synced


@pytest.fixture(autouse=True)
def strict_umask() -> Iterator[None]:
    """A hardened host's umask."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_mode_is_the_declared_one_whatever_the_umask(tmp_path: Path) -> None:
    make_folders(tmp_path / "a/b", 0o755)
    write_synced(tmp_path / "a/b/c", "x\n", 0o644)
    modes = [(tmp_path / name).stat().st_mode & 0o7777 for name in ("a", "a/b", "a/b/c")]
    assert modes == [0o755, 0o755, 0o644]


def test_folders_that_exist_keep_their_mode(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o755)
    make_folders(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o755


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{target}'"):
        write_synced(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_destination_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "folder/inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write_synced(tmp_path / "folder", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep")
    (tmp_path / ".file.kosmos-new").symlink_to(victim)
    write_synced(tmp_path / "file", "new")
    assert (victim.read_text(), (tmp_path / "file").read_text()) == ("keep", "new")
