"""The cache: complete or absent, built once whoever asks, and never two at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.lab.store import Store, key_of, locked


def store(tmp_path: Path, abandoned: list[Path] | None = None) -> Store:
    return Store(tmp_path, (abandoned if abandoned is not None else []).append)


def test_the_key_depends_on_content_and_not_on_order() -> None:
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    built: list[Path] = []

    def build(at: Path) -> None:
        built.append(at)
        (at / "file").write_text("x")

    one = store(tmp_path).entry("base", {"a": 1}, build)
    two = store(tmp_path).entry("base", {"a": 1}, build)
    assert one == two
    assert (one / "file").read_text() == "x"
    assert len(built) == 1


def test_a_build_that_fails_leaves_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    def fail(at: Path) -> None:
        (at / "half").touch()
        raise KosmosError("no")

    with pytest.raises(KosmosError, match="no"):
        store(tmp_path).entry("base", {}, fail)
    assert list((tmp_path / "base").iterdir()) == []
    assert store(tmp_path).entry("base", {}, lambda at: (at / "whole").touch()).is_dir()


def test_what_a_killed_builder_left_is_stopped_and_removed(tmp_path: Path) -> None:
    partial = tmp_path / "base" / f".{key_of({})}.partial"
    partial.mkdir(parents=True)
    (partial / "half").touch()
    abandoned: list[Path] = []
    entry = store(tmp_path, abandoned).entry("base", {}, lambda at: (at / "whole").touch())
    assert abandoned == [partial]
    assert not (entry / "half").exists()


def test_a_killed_builder_of_another_entry_is_swept_but_a_living_one_is_not(tmp_path: Path) -> None:
    dead, living = tmp_path / "base/.aa.partial", tmp_path / "base/.bb.partial"
    for partial in (dead, living):
        partial.mkdir(parents=True)
    abandoned: list[Path] = []
    with locked(tmp_path / "locks/base-bb"):
        store(tmp_path, abandoned).entry("base", {}, lambda at: (at / "whole").touch())
    assert abandoned == [dead]
    assert not dead.exists()
    assert living.exists()


def test_two_who_want_the_same_entry_build_it_once(tmp_path: Path) -> None:
    built: list[int] = []

    def build(at: Path) -> None:
        built.append(1)
        time.sleep(0.2)
        (at / "file").touch()

    threads = [threading.Thread(target=lambda: store(tmp_path).entry("base", {}, build)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [1]


def test_a_lock_that_is_held_names_its_holder_and_exits_busy(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"), pytest.raises(KosmosError) as caught, locked(tmp_path / "lock", wait=False):
        raise AssertionError("entered twice")
    assert caught.value.exit_code == ExitCode.BUSY
    assert "process " in caught.value.why
    with locked(tmp_path / "lock", wait=False):
        pass
