"""The transaction behind `kosmos.appliance.file_set`: compared, validated, staged, swapped, and never half done."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.fileset import (
    BACKUP_SUFFIX,
    Entry,
    FileSet,
    FileSetError,
)

ME = {"owner": str(os.getuid()), "group": str(os.getgid())}


def fileset(tmp_path: Path, *entries: Entry, check: bool = False) -> FileSet:
    return FileSet(entries, check=check, pending_dir=tmp_path / "pending")


def entry(path: Path, **options: object) -> Entry:
    return Entry(dest=str(path), **{**ME, **options})  # type: ignore[arg-type]  # table-driven options


def converge(files: FileSet) -> list[str]:
    changes = files.compare()
    files.validate(changes)
    files.apply(changes)
    return [change.entry.dest for change in changes]


def test_second_run_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "etc" / "a.conf"
    files = fileset(
        tmp_path, entry(target, content="a\n", mode="0640"), entry(tmp_path / "d", state="directory", mode="0700")
    )
    assert converge(files) == [str(target), str(tmp_path / "d")]
    assert files.compare() == []
    assert target.read_text() == "a\n"
    assert oct(target.stat().st_mode & 0o777) == "0o640"


@pytest.mark.parametrize(("drift", "action"), [("content", "write"), ("mode", "attributes"), ("link", "write")])
def test_drift_is_found_and_mended(tmp_path: Path, drift: str, action: str) -> None:
    target = tmp_path / "a.conf"
    files = fileset(tmp_path, entry(target, content="a\n"))
    converge(files)
    if drift == "content":
        target.write_text("b\n")
    elif drift == "mode":
        target.chmod(0o666)
    else:
        target.unlink()
        target.symlink_to("/etc/hostname")
    assert [change.action for change in files.compare()] == [action]
    converge(files)
    assert not target.is_symlink()
    assert target.read_text() == "a\n"
    assert files.compare() == []


def test_a_refused_file_leaves_the_whole_set_alone(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    files = fileset(tmp_path, entry(good, content="new"), entry(bad, content="x", validate="grep -q needed %s"))
    with pytest.raises(FileSetError, match=r"bad: refused by 'grep'"):
        converge(files)
    assert not good.exists()
    assert not bad.exists()


def test_validators_words_name_the_real_path(tmp_path: Path) -> None:
    target = tmp_path / "broken.json"
    files = fileset(tmp_path, entry(target, content="{", validate="python3 -m json.tool %s /dev/null"))
    with pytest.raises(FileSetError, match=r"broken\.json: refused by 'python3', nothing was changed: .+"):
        converge(files)


def test_missing_validator_fails_for_real_but_not_in_check_mode(tmp_path: Path) -> None:
    options = {"content": "x", "validate": "no-such-program-here %s"}
    real, check = (
        fileset(tmp_path, entry(tmp_path / "a", **options)),
        fileset(tmp_path, entry(tmp_path / "a", **options), check=True),
    )
    check.validate(check.compare())
    with pytest.raises(FileSetError, match="'no-such-program-here' is not installed"):
        real.validate(real.compare())


def test_missing_owner_fails_for_real_but_not_in_check_mode(tmp_path: Path) -> None:
    target = entry(tmp_path / "a", content="x", owner="no-such-user")
    (tmp_path / "a").write_text("x")
    assert fileset(tmp_path, target, check=True).compare()
    with pytest.raises(FileSetError, match="the user 'no-such-user' does not exist"):
        fileset(tmp_path, target).compare()


def test_full_disk_while_staging_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("old")
    files = fileset(tmp_path, entry(first, content="new"), entry(second, content="new"))
    real_fsync, calls = os.fsync, []

    def full_at_second(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_second)
    with pytest.raises(FileSetError, match="second: No space left on device; none of this set's files was replaced"):
        converge(files)
    assert first.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first"]


def test_a_change_stays_pending_until_it_is_settled(tmp_path: Path) -> None:
    files = fileset(tmp_path, entry(tmp_path / "a", content="x"))
    converge(files)
    assert files.compare() == []
    assert files.pending() == [str(tmp_path / "a")]
    assert files.settle() == [str(tmp_path / "a")]
    assert files.pending() == []


def test_absent_removes_files_then_emptied_directories_and_spares_the_rest(tmp_path: Path) -> None:
    ours, shared = tmp_path / "ours", tmp_path / "shared"
    present = [
        entry(ours, state="directory", mode="0755"),
        entry(shared, state="directory", mode="0755"),
        entry(ours / "a", content="x"),
        entry(shared / "a", content="x"),
    ]
    converge(fileset(tmp_path, *present))
    (shared / "foreign").write_text("keep")
    removal = fileset(tmp_path, *(entry(Path(e.dest), state="absent") for e in present))
    converge(removal)
    assert not ours.exists()
    assert [p.name for p in shared.iterdir()] == ["foreign"]
    assert removal.compare() == []


def test_backup_is_taken_once_and_restored(tmp_path: Path) -> None:
    target = tmp_path / "dist.conf"
    target.write_text("distribution\n")
    for text in ("first\n", "second\n"):
        converge(fileset(tmp_path, entry(target, content=text, backup=True)))
    assert Path(str(target) + BACKUP_SUFFIX).read_text() == "distribution\n"
    removal = fileset(tmp_path, entry(target, state="absent", backup=True))
    converge(removal)
    assert target.read_text() == "distribution\n"
    assert removal.compare() == []


@pytest.mark.parametrize(
    ("state", "cure"), [("present", "a directory stands there"), ("directory", "a file stands there")]
)
def test_wrong_kind_is_refused(tmp_path: Path, state: str, cure: str) -> None:
    target = tmp_path / "x"
    target.mkdir() if state == "present" else target.write_text("")
    with pytest.raises(FileSetError, match=cure):
        fileset(tmp_path, entry(target, state=state, content="")).compare()


def test_a_validator_that_is_started_by_another_program_may_be_missing_in_check_mode(tmp_path: Path) -> None:
    files = (entry(tmp_path / "a", content="x\n", validate="env no-such-validator %s"),)
    checked = fileset(tmp_path, *files, check=True)
    checked.validate(checked.compare())
    real = fileset(tmp_path, *files)
    with pytest.raises(FileSetError, match="refused by 'env'"):
        real.validate(real.compare())
