"""Records: private, atomic, pruned by count, never taken from a run that still writes."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.record import Record, history, prune

NOW = datetime(2026, 11, 22, 7, 15, 7, tzinfo=UTC)


def make(runs: Path, day: int, verb: str = "apply", name: str = "lab") -> Path:
    with Record.create(runs, verb, name, NOW.replace(day=day), {"argv": []}) as record:
        record.write("summary.json", {"exit_code": 0, "day": day})
    return record.folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_record_is_private_and_complete(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with Record.create(tmp_path / "state/runs", "apply", "my box/1", NOW, {"argv": ["x"]}) as record:
            record.event({"event": "verbose", "stdout": "one\r\ntwo"})
            record.event({"event": "playbook_on_start", "stdout": ""})
            record.write("summary.json", {"ok": True})
    finally:
        os.umask(old)
    assert record.folder.name == "20261122T071507Z-apply-my-box-1"
    assert mode(tmp_path / "state") == mode(record.folder.parent) == mode(record.folder) == 0o700
    assert {path.name for path in record.folder.iterdir()} == {"spec.json", "events.jsonl", "log.txt", "summary.json"}
    assert all(mode(path) == 0o600 for path in record.folder.iterdir())
    assert record.log.read_text() == "one\ntwo\n"
    lines = (record.folder / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["verbose", "playbook_on_start"]
    assert json.loads((record.folder / "spec.json").read_text()) == {"argv": ["x"]}


def test_two_runs_in_one_second_have_two_records(tmp_path: Path) -> None:
    names = [make(tmp_path, 1).name for _ in range(3)]
    assert names == ["20261101T071507Z-apply-lab", "20261101T071507Z-apply-lab.1", "20261101T071507Z-apply-lab.2"]
    assert [past.name for past in history(tmp_path)] == ["lab"] * 3


def test_history_is_newest_first_and_ignores_what_is_no_record(tmp_path: Path) -> None:
    make(tmp_path, 1)
    make(tmp_path, 3, "verify")
    make(tmp_path, 2, "support", "box-2")
    (tmp_path / "notes").mkdir()
    (tmp_path / "20261101T071507Z-apply-file").touch()
    past = history(tmp_path)
    assert [(one.utc, one.verb, one.name) for one in past] == [
        ("20261103T071507Z", "verify", "lab"),
        ("20261102T071507Z", "support", "box-2"),
        ("20261101T071507Z", "apply", "lab"),
    ]
    assert past[0].summary["day"] == 3
    assert history(tmp_path / "nowhere") == []


@pytest.mark.parametrize("content", [None, "{broken", "[]"])
def test_a_run_that_was_cut_off_has_no_summary(tmp_path: Path, content: str | None) -> None:
    summary = make(tmp_path, 1) / "summary.json"
    summary.unlink() if content is None else summary.write_text(content)
    assert history(tmp_path)[0].summary == {}


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    folders = [make(tmp_path, day) for day in range(1, 6)]
    assert set(prune(tmp_path, keep=3)) == set(folders[:2])
    assert set(tmp_path.iterdir()) == set(folders[2:])


def test_pruning_spares_a_run_that_still_writes(tmp_path: Path) -> None:
    with Record.create(tmp_path, "apply", "lab", NOW.replace(day=1), {}) as live:
        for day in (2, 3, 4):
            make(tmp_path, day)
        assert [path.name[:8] for path in prune(tmp_path, keep=1)] == ["20261103", "20261102"]
        assert live.folder.is_dir()
    assert prune(tmp_path, keep=1) == [live.folder]


def test_pruning_finishes_what_a_power_cut_left(tmp_path: Path) -> None:
    left = tmp_path / ".20261101T071507Z-apply-lab.removed"
    left.mkdir()
    (left / "log.txt").touch()
    assert prune(tmp_path) == []
    assert not left.exists()


def test_damaged_record_can_be_pruned(tmp_path: Path) -> None:
    folder = make(tmp_path, 1)
    (folder / "events.jsonl").unlink()
    assert prune(tmp_path, keep=0) == [folder]


def test_an_unwritable_state_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(KosmosError) as caught:
        Record.create(tmp_path / "runs", "apply", "lab", NOW, {})
    assert caught.value.exit_code is ExitCode.FAILED
    assert "XDG_STATE_HOME" in caught.value.cure


def test_a_full_disk_is_told_with_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KosmosError) as caught:
        Record.create(tmp_path, "apply", "lab", NOW, {})
    assert caught.value.exit_code is ExitCode.NO_SPACE
    assert caught.value.why == "No space left on device"


def test_a_disk_that_fills_up_during_the_run_does_not_stop_it(tmp_path: Path) -> None:
    record = Record.create(tmp_path, "apply", "lab", NOW, {})
    record._log = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115, PTH123 - closed by the record
    record.event({"stdout": "first"})
    record.event({"stdout": "second"})
    record.close()
    assert record.problem == f"the record {record.folder} ends early: No space left on device"


def test_writing_replaces_whole_files_only(tmp_path: Path) -> None:
    with Record.create(tmp_path, "apply", "lab", NOW, {}) as record:
        record.write_text("report.html", "one")
        record.write_text("report.html", "two")
    assert (record.folder / "report.html").read_text() == "two"
    assert not list(record.folder.glob(".*"))
