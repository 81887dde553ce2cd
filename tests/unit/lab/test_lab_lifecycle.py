"""What a lab says about itself and refuses, without a machine: by the command and by the class."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kosmos_installer.cli import main
from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.lab.dirs import Dirs
from kosmos_installer.lab.lab import FRESH, Lab
from kosmos_installer.lab.state import Process, State


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def lab(home: Path, name: str = "lab") -> Lab:
    return Lab(name, Dirs(home / "state/kosmos", home / "cache/kosmos", home))


def ended_process() -> Process:
    with subprocess.Popen(["sleep", "60"]) as child:
        process = Process.of("qemu", child.pid)
        child.kill()
    return process


def test_an_absent_lab_is_told_and_nothing_is_built(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "status", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"name": "lab", "condition": "absent"}
    assert not (home / "cache").exists()


@pytest.mark.parametrize("verb", [["run", "true"], ["ssh"], ["reset"]])
def test_a_verb_that_needs_a_machine_says_how_to_get_one(
    home: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    assert main(["lab", verb[0], "--name", "two", *verb[1:]]) == ExitCode.USAGE
    assert "lab up --name two" in capsys.readouterr().err
    assert not (home / "cache").exists()


def test_a_wrong_name_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "status", "--name", "../x"]) == ExitCode.USAGE
    assert "cannot name a lab" in capsys.readouterr().err


def test_down_without_a_lab_is_no_failure(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "down"]) == ExitCode.OK
    assert "no lab" in capsys.readouterr().out


def test_a_lab_whose_qemu_is_gone_has_crashed(home: Path) -> None:
    one = lab(home)
    State([ended_process()]).save(one.state_file)
    assert one.condition() == "crashed"
    assert one.status()["processes"][0]["alive"] is False
    State().save(one.state_file)
    assert one.condition() == "stopped"


def test_down_ends_what_is_recorded_and_removes_the_lab(home: Path) -> None:
    one = lab(home)
    with subprocess.Popen(["sleep", "60"]) as child:
        State([Process.of("qemu", child.pid)]).save(one.state_file)
        assert one.condition() == "running"
        assert one.down(keep=True)
        assert child.wait(5) == -9
    assert one.condition() == "stopped"
    assert one.down()
    assert not one.directory.exists()
    assert not one.down()


def test_fresh_is_always_there_and_cannot_be_overwritten(home: Path) -> None:
    one = lab(home)
    assert one.has_snapshot(FRESH)
    assert not one.has_snapshot("applied")
    with pytest.raises(KosmosError, match="cannot be replaced"):
        one.snapshot(FRESH)


def test_two_commands_on_one_lab_do_not_meet(home: Path) -> None:
    one, other = lab(home), lab(home)
    with one._alone(), pytest.raises(KosmosError) as caught:
        other.down()
    assert caught.value.exit_code == ExitCode.BUSY
    assert "The lab 'lab' is busy" in caught.value.what
