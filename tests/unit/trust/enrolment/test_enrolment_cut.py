"""Runs that are cut: at every journal line, at every sync, by SIGKILL, by a full disk; and two runs at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from enrolment_bed import Bed
from full_disk_bed import limited

from kosmos_trust.enrolment.enroller import Policy
from kosmos_trust.enrolment.errors import EnrolmentError, InstallError
from kosmos_trust.enrolment.hooks import Hooks
from kosmos_trust.enrolment.journal import Journal, Line, Step
from kosmos_trust.enrolment.outcome import Action
from kosmos_trust.pki.errors import PkiError, StoreError

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


class CutError(BaseException):
    """The power went: nothing of ours may catch this."""


def cutting(step: Step, when: str) -> type[Journal]:
    """Make a journal in which the power goes before or after a line is written."""

    class Cutting(Journal):
        def note(self, noted: Step, run: str, **facts: str) -> Line:
            if noted is step and when == "before":
                raise CutError
            line = super().note(noted, run, **facts)
            if noted is step:
                raise CutError
            return line

    return Cutting


def converged(bed: Bed, serials: int) -> None:
    """The next runs finish: a good pair, nothing half-done, nothing more to do, no certificate too many."""
    bed.run()
    assert bed.good()
    assert bed.enroller().journal.open_line() is None
    assert not list(bed.agent.glob("staging-*"))
    again = bed.run()
    assert (again.changed, again.action) == (False, Action.NONE)
    assert bed.issued() <= serials


WAY = [Step.BEGIN, Step.ASKING, Step.ISSUED, Step.FLIPPING, Step.DONE]


@pytest.mark.parametrize("renewal", [False, True], ids=["first", "renewal"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", WAY)
def test_a_run_that_is_cut_at_a_journal_line_is_finished(tmp_path: Path, step: Step, when: str, renewal: bool) -> None:
    bed = Bed(tmp_path)
    if renewal:
        bed.run()
        bed.age(0.73)
    with pytest.raises(CutError):
        bed.enroller(cutting(step, when)).run(bed.verdict())
    if renewal:
        assert bed.good(), "a working pair is in use at every moment"
    converged(bed, 1 + renewal)  # a lost answer is found again: no certificate more than without the cut


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [Step.ROLLING_BACK, Step.ROLLED_BACK])
def test_a_rollback_that_is_cut_is_finished(tmp_path: Path, step: Step, when: str) -> None:
    bed = Bed(tmp_path)
    first = bed.run()
    bed.age(0.73)
    bed.hooks = Hooks(("false",))
    with pytest.raises(CutError):
        bed.enroller(cutting(step, when)).run(bed.verdict())
    with pytest.raises(InstallError):
        bed.run()
    pair = bed.pair()
    assert pair is not None
    assert pair.serial == first.serial
    bed.hooks = Hooks()
    converged(bed, 2)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [Step.FLIPPING, Step.DONE])
def test_a_second_try_that_is_cut_still_reaches_the_service(tmp_path: Path, step: Step, when: str) -> None:
    """The service refused at first; the cut comes while the same generation is tried again."""
    bed, log = Bed(tmp_path), tmp_path / "reloads"
    bed.run()
    bed.age(0.73)
    bed.hooks = Hooks(("false",))
    with pytest.raises(InstallError):
        bed.run()
    bed.hooks = Hooks((), ("sh", "-c", f"readlink {bed.agent}/current >> {log}"))
    with pytest.raises(CutError):
        bed.enroller(cutting(step, when)).run(bed.verdict())
    converged(bed, 2)
    assert log.read_text().splitlines()[-1] == str((bed.agent / "current").readlink())


def test_a_cut_at_each_sync_of_a_renewal_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The power goes at the n-th fsync, for every n until a run gets through."""
    real = os.fsync
    for number in range(1, 200):
        bed = Bed(tmp_path / str(number))
        bed.run()
        bed.age(0.73)
        left = number

        def failing(descriptor: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise CutError
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            try:
                bed.run()
            except CutError:
                cut = True
            else:
                cut = False
        assert bed.good()
        converged(bed, 3)  # between the register and the answer's file the certificate is lost, and never used
        if not cut:
            assert number > 20
            return
    raise AssertionError("a run never got through")


KILLED = """
import os, signal, sys
from pathlib import Path
from enrolment_bed import Bed
from pki_bed import Clock
from kosmos_trust.enrolment.journal import Journal
class Killed(Journal):
    def note(self, step, run, **facts):
        line = super().note(step, run, **facts)
        if step == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)
        return line
from datetime import datetime
bed = Bed(Path(sys.argv[1]), Clock(datetime.fromisoformat(sys.argv[3])))
bed.enroller(Killed).run(bed.verdict())
"""


@pytest.mark.parametrize("step", WAY)
def test_a_killed_process_lets_go_of_the_lock_and_the_next_one_finishes(tmp_path: Path, step: Step) -> None:
    bed = Bed(tmp_path)
    bed.run()
    bed.age(0.73)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(step), bed.clock.now.isoformat()]
    done = subprocess.run(command, env=ENVIRONMENT, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert bed.good()
    converged(bed, 2)


RUNNING = """
import sys
from datetime import datetime
from pathlib import Path
from enrolment_bed import Bed
from pki_bed import Clock
bed = Bed(Path(sys.argv[1]), Clock(datetime.fromisoformat(sys.argv[2])))
print(int(bed.run().changed))
"""


def test_two_runs_at_once_make_one_certificate(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    command = [sys.executable, "-c", RUNNING, str(tmp_path), bed.clock.now.isoformat()]
    runs = [subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = sorted(run.communicate(timeout=120)[0].strip() for run in runs)
    assert told == ["0", "0", "1"]
    assert bed.issued() == 1
    assert bed.good()


def test_a_run_waits_for_the_lock_only_so_long(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.run()
    bed.age(0.73)
    bed.policy = Policy(lock_wait_seconds=0.1)
    other = Bed(tmp_path, bed.clock)
    other.hooks = Hooks(("sh", "-c", "touch $0; sleep 2", str(tmp_path / "holding")))
    child = os.fork()
    if child == 0:
        other.run()
        os._exit(0)
    try:
        while not (tmp_path / "holding").exists():
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
        with pytest.raises(StoreError, match="another run holds this lock"):
            bed.run()
    finally:
        os.waitpid(child, 0)
    assert not bed.run().changed


def test_a_full_disk_at_any_size_leaves_the_old_pair_and_is_finished_later(tmp_path: Path) -> None:
    told = []
    for size in range(0, 4200, 300):
        bed = Bed(tmp_path / str(size))
        bed.run()
        bed.age(0.73)
        told.append(limited(bed.run, size, EnrolmentError, PkiError))
        assert bed.good()
        converged(bed, 3)
    assert set(told) == {0, 7}, told


def test_a_damaged_journal_is_told_and_moving_it_away_helps(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.run()
    path = bed.agent / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b"rubbish\n")
    with pytest.raises(StoreError, match=r"line 6 is damaged.*move the file away"):
        bed.run()
    path.rename(tmp_path / "away")
    assert not bed.run().changed


def test_a_torn_line_never_counted(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.run()
    path = bed.agent / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": "beg')
    assert not bed.run().changed
    bed.age(0.73)
    assert bed.run().changed
    assert bed.good()


def test_an_answer_that_waits_too_long_for_its_installation_is_not_installed(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.run()
    bed.age(0.73)
    with pytest.raises(CutError):
        bed.enroller(cutting(Step.ISSUED, "after")).run(bed.verdict())
    bed.clock.now += timedelta(days=100)
    assert bed.run().changed
    assert bed.good()
    assert bed.issued() == 3


def test_a_ledger_that_fails_stops_before_the_act(tmp_path: Path) -> None:
    """The journal line is on disk, the ledger refuses: the run stops there, and goes on when the ledger is back."""
    bed = Bed(tmp_path)

    def full(line: Mapping[str, str]) -> None:
        raise StoreError("the ledger is full")

    def refusing(path: Path, clock: Callable[[], object], ledger: object) -> Journal:
        return Journal(path, bed.clock, full)

    with pytest.raises(StoreError, match="ledger is full"):
        bed.enroller(refusing).run(bed.verdict())
    assert bed.issued() == 0
    converged(bed, 1)
