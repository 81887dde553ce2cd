"""Files that are there whole or not at all: modes whatever the umask, nothing left behind, the flush in its place."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kosmos_trust import durable


@pytest.fixture(params=[0o000, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_modes_are_what_was_asked_whatever_the_umask(tmp_path: Path, umask: None) -> None:
    durable.write_new(tmp_path / "secret", b"x")
    durable.replace(tmp_path / "a/b/public", b"x", 0o644)
    assert [mode(tmp_path / name) for name in ("secret", "a", "a/b", "a/b/public")] == [0o600, 0o700, 0o700, 0o644]


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    durable.private_folder(tmp_path)
    assert mode(tmp_path) == 0o755


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(OSError, match="Not a directory"):
        durable.private_folder(tmp_path / "f")


def test_a_new_file_overwrites_nothing_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("there", "link"):
        with pytest.raises(FileExistsError):
            durable.write_new(tmp_path / name, b"new")
    assert (tmp_path / "there").read_bytes() == b"old"
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    durable.replace(tmp_path / "f", b"old")
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        try:
            durable.replace(tmp_path / "f", b"a successor that does not fit")
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("f", b"old")]


def test_what_a_cut_has_left_beside_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".f.new").write_bytes(b"half")
    durable.replace(tmp_path / "f", b"whole")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("f", b"whole")]


def test_content_is_flushed_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is the whole promise: each flush is noted with what the name showed at that moment."""
    durable.replace(tmp_path / "f", b"old")
    seen: list[tuple[str, bytes]] = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        seen.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), (tmp_path / "f").read_bytes()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    durable.replace(tmp_path / "f", b"new")
    assert seen == [(str(tmp_path / ".f.new"), b"old"), (str(tmp_path), b"new")]
