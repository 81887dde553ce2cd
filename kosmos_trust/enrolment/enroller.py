"""Bring one agent's certificate into the wanted state: decide, pass the gate, ask, install, clean up.

Ansible, a timer and a person call `run`; check mode is `check`, which decides the same way and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from ..pki.errors import StoreError
from ..pki.store import exclusive, make_folder
from . import judge, schedule
from .backends.base import Backend, Issued, Pending
from .errors import BackendRefusedError, BackendUnavailableError, EnrolmentError, KeyStoreError
from .gate import Gate, Verdict
from .generations import Generations, Pair
from .hooks import Hooks
from .journal import Journal, Line, Step
from .keystore import KeyStore
from .outcome import Action, Outcome
from .transaction import Transaction

MAX_RESUMES = 3


@dataclass(frozen=True)
class Policy:
    """How generations are kept.

    :param keep: generations on disk, the one in use included.
    :param rekey: make a new key for each certificate; False is possible where the store never lets a key out.
    :param retire_after: when a superseded certificate is revoked; None leaves it to its end.
    """

    keep: int = 3
    rekey: bool = True
    retire_after: timedelta | None = timedelta(days=1)
    lock_wait_seconds: float = 60.0


@dataclass(frozen=True)
class _Plan:
    action: Action
    reasons: tuple[str, ...]
    pair: Pair | None = None
    line: Line | None = None
    #: Nothing is wrong but the age: the pair in use may stay for a while.
    only_due: bool = False
    candidate: str = ""
    #: What became of a pending request.
    answer: Issued | BackendRefusedError | None = None


@dataclass
class Enroller:
    """One agent on one host. `folder` is its own, `random` gives bytes, `clock` aware times."""

    folder: Path
    wanted: judge.Wanted
    keys: KeyStore
    backend: Backend
    gate: Gate
    journal: Journal
    clock: Callable[[], datetime]
    random: Callable[[int], bytes]
    hooks: Hooks = field(default_factory=Hooks)
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        self.generations = Generations(self.folder)
        self.transaction = Transaction(
            self.wanted, self.keys, self.backend, self.generations, self.journal, self.hooks, self.clock, self.random
        )

    # -- deciding ------------------------------------------------------------------------------------------------
    def check(self, verdict: Verdict | None) -> Outcome:
        """Return what `run` would do, changing nothing. Raises what it would raise before its first act."""
        plan = self._plan_or_wait(checking=True)
        if self._needs_gate(plan):
            self.gate.check(verdict, self.clock())
        new = plan.action in (Action.ENROL, Action.RENEW, Action.RESUME, Action.INSTALL)
        before = judge.describe(plan.pair.certificate, plan.pair.serial) if plan.pair else ""
        name = self.wanted.name
        after = f"serial: (new)\nsubject: {name.subject.rfc4514_string()}\nnames: {name.uri}\n" if new else before
        changed = plan.action not in (Action.NONE, Action.WAIT)
        return self._outcome(changed, plan, plan.pair, before=before, after=after)

    def _plan(self, *, checking: bool = False) -> _Plan:
        now, line = self.clock(), self.journal.open_line()
        try:
            pair, found = self.generations.current(), []
        except StoreError as error:
            pair, found = None, [str(error)]
        if line is not None:
            return self._plan_open(line, pair, checking)
        if pair is not None:
            schedule.check_clock(pair.certificate, now)
            found = judge.faults(pair, self.wanted, self.keys, now)
            if not found and not judge.due(pair, self.wanted, now):
                old = self._to_retire(now)
                reasons = tuple(f"{serial} was superseded" for serial in old)
                return _Plan(Action.RETIRE if old else Action.NONE, reasons, pair)
        only_due = pair is not None and not found
        missing = "it is due for renewal" if pair else "there is no certificate"
        reasons, candidate = tuple(found) or (missing,), self._candidate(now)
        anew = Action.RENEW if pair or found else Action.ENROL
        return _Plan(Action.INSTALL if candidate else anew, reasons, pair, only_due=only_due, candidate=candidate)

    def _plan_open(self, line: Line, pair: Pair | None, checking: bool) -> _Plan:
        blind = checking and not self.backend.polls
        answer: Issued | BackendRefusedError | None = None
        if line.step is Step.PENDING:
            try:
                found = Pending(line.facts["request"]) if blind else self.transaction.collect(line)
            except BackendRefusedError as error:
                answer = error
            else:
                if isinstance(found, Pending):
                    reason = f"request {line.facts['request']} waits for an approval at '{self.backend.name}'"
                    return _Plan(Action.WAIT, (reason,), pair, line)
                answer = found
        return _Plan(Action.RESUME, (f"a run was cut at '{line.step}'",), pair, line, answer=answer)

    def _candidate(self, now: datetime) -> str:
        """Return the serial of a good generation that the service refused: it is tried again before one is made."""
        serial = self.journal.rolled_back()
        if not serial or not self.generations.path(serial).is_dir():
            return ""
        try:
            pair = self.generations.load(self.generations.path(serial))
        except StoreError:
            return ""
        good = not judge.faults(pair, self.wanted, self.keys, now) and not judge.due(pair, self.wanted, now)
        return serial if good else ""

    def _needs_gate(self, plan: _Plan) -> bool:
        if plan.action is Action.RESUME and plan.line is not None:
            lost = plan.line.step is Step.ASKING and not self.transaction.has_answer(plan.line.run)
            return lost or plan.line.step is Step.BEGIN
        return plan.action in (Action.ENROL, Action.RENEW)

    # -- running -------------------------------------------------------------------------------------------------
    def run(self, verdict: Verdict | None) -> Outcome:
        """Do what is needed. Raises EnrolmentError and its kinds, StoreError; the pair in use then stays in use."""
        make_folder(self.folder)
        with exclusive(self.folder / ".lock", self.policy.lock_wait_seconds):
            return self._run(verdict)

    def _run(self, verdict: Verdict | None) -> Outcome:
        plan = first = self._plan_or_wait()
        before = judge.describe(first.pair.certificate, first.pair.serial) if first.pair else ""
        resumed = 0
        warnings: list[str] = []
        try:
            while plan.action is Action.RESUME and plan.line is not None:
                if resumed == MAX_RESUMES:
                    raise EnrolmentError(f"{self.journal.path}: a cut run cannot be finished; move the file away")
                self.transaction.resume(plan.line, plan.answer)
                resumed += 1
                plan = self._plan()
            if plan.action is Action.WAIT:
                self._graced(BackendUnavailableError("; ".join(plan.reasons)), plan)
            if self._needs_gate(plan):
                self.gate.check(verdict, self.clock())
            if plan.action in (Action.ENROL, Action.RENEW):
                reuse = not self.policy.rekey and plan.only_due
                self.transaction.enrol(plan.pair if reuse else None)
            elif plan.action is Action.INSTALL:
                self.transaction.activate(self.transaction.new_run(), plan.candidate, self.generations.serial_in_use())
        except BackendUnavailableError as error:
            warnings.append(self._graced(error, plan))
            return self._outcome(resumed > 0, plan, plan.pair, before=before, after=before, warnings=warnings)
        now = self.clock()
        retired = self._retire(self._to_retire(now), warnings)
        self._prune(warnings)
        pair = self.generations.current()
        changed = bool(resumed) or retired or plan.action in (Action.ENROL, Action.RENEW, Action.INSTALL)
        line = self.journal.open_line()
        if line is not None and line.step is Step.PENDING:
            warnings.append(f"request {line.facts['request']} waits for an approval at '{self.backend.name}'")
        after = judge.describe(pair.certificate, pair.serial) if pair else ""
        done = first if first.action is not Action.NONE else plan
        return self._outcome(changed, done, pair, before=before, after=after, warnings=warnings)

    def _plan_or_wait(self, *, checking: bool = False) -> _Plan:
        try:
            return self._plan(checking=checking)
        except BackendUnavailableError as error:  # only a pending request is looked up while planning
            try:
                pair = self.generations.current()
            except StoreError:
                pair = None
            return _Plan(Action.WAIT, (str(error),), pair)

    def _graced(self, error: BackendUnavailableError, plan: _Plan) -> str:
        """Return a warning where the pair in use is good for a while. Raises the error otherwise."""
        now, pair = self.clock(), plan.pair
        fine = pair is not None and (plan.only_due or not judge.faults(pair, self.wanted, self.keys, now))
        if pair is None or not fine or not schedule.in_grace(pair.certificate, now):
            raise error
        end = pair.certificate.not_valid_after_utc
        return f"kept the certificate that is in use until {end:%Y-%m-%d %H:%M} UTC: {error}"

    # -- afterwards ----------------------------------------------------------------------------------------------
    def _to_retire(self, now: datetime) -> list[str]:
        after = self.policy.retire_after
        if after is None or not self.backend.revokes:
            return []
        in_use = self.generations.serial_in_use()
        return [serial for serial, at in self.journal.superseded() if at + after <= now and serial != in_use]

    def _retire(self, serials: list[str], warnings: list[str]) -> bool:
        for serial in serials:
            try:
                self.backend.revoke(serial, "superseded", self.generations.reference(serial))
            except BackendUnavailableError as error:
                warnings.append(f"superseded certificate {serial} is not revoked yet: {error}")
                return False
            except BackendRefusedError as error:
                warnings.append(f"superseded certificate {serial} stays valid to its end: {error}")
            self.journal.note(Step.RETIRED, "-", serial=serial)
        return bool(serials)

    def _prune(self, warnings: list[str]) -> None:
        refused = self.journal.rolled_back()
        try:
            for folder in self.generations.superfluous(self.policy.keep, [refused] if refused else []):
                self.transaction.discard(folder)
        except KeyStoreError as error:
            warnings.append(f"an old key is not removed yet: {error}")

    def _outcome(
        self,
        changed: bool,
        plan: _Plan,
        pair: Pair | None,
        *,
        before: str,
        after: str,
        warnings: list[str] | None = None,
    ) -> Outcome:
        left = pair.certificate.not_valid_after_utc - self.clock() if pair else None
        return Outcome(
            changed=changed,
            action=plan.action,
            reasons=plan.reasons,
            serial=pair.serial if pair else "",
            renew_at=schedule.renew_at(pair.certificate, self.wanted.seed) if pair else None,
            days_left=left / timedelta(days=1) if left is not None else None,
            before=before,
            after=after,
            warnings=tuple(warnings or ()),
        )
