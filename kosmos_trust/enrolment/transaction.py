"""One certificate from key to use, each act announced in the journal first, so that a cut run is finished by the next.

begin        make a key in a staging folder
asking       ask the authority, once; an answer that was lost is looked up, never asked for blindly
issued       the pair was judged and becomes a generation
flipping     one rename changes the link; the service validates and reloads
done         the new pair is in use
rolling_back the service refused: the link goes back, the service reloads, both errors are told
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..pki.errors import StoreError
from ..pki.store import make_folder, read_file, write_file
from . import judge
from .backends.base import Backend, Issued, Pending
from .errors import BackendRefusedError, BackendUnavailableError, EnrolmentError, InstallError, KeyStoreError
from .generations import CERTIFICATE, REFERENCE, REQUEST, Generations, Pair
from .hooks import Hooks
from .journal import Journal, Line, Step
from .keystore import KeyStore


@dataclass
class Transaction:
    """What a run works with. The caller holds the agent's lock."""

    wanted: judge.Wanted
    keys: KeyStore
    backend: Backend
    generations: Generations
    journal: Journal
    hooks: Hooks
    clock: Callable[[], datetime]
    random: Callable[[int], bytes]

    # -- asking --------------------------------------------------------------------------------------------------
    def new_run(self) -> str:
        """Return a name for a run."""
        return self.random(8).hex()

    def enrol(self, reused: Pair | None = None) -> None:
        """Ask for a certificate and install it, with a new key or with that of `reused`.

        Raises BackendUnavailableError, BackendRefusedError, KeyStoreError, InstallError, StoreError.
        """
        for left in self.generations.stagings():
            self.discard(left)
        run, name = self.new_run(), self.wanted.name
        staging = self.generations.staging(run)
        self.journal.note(Step.BEGIN, run)
        make_folder(staging)
        try:
            if reused:
                self.keys.reuse(reused.folder, staging)
            else:
                self.keys.create(staging, name)
            csr = self.keys.request(staging, name)
            write_file(staging / REQUEST, csr)
            self.journal.note(Step.ASKING, run)
            answer = self.backend.enrol(csr, name, self.wanted.lifetime, reuse_key=reused is not None)
        except BackendUnavailableError as error:
            # It may have issued all the same. Where it can tell, the next run finds the answer by the request.
            if error.answered:
                self._abandon(run, str(error))
            raise
        except (EnrolmentError, StoreError) as error:
            self._abandon(run, str(error))
            raise
        self._answered(run, answer)

    def _answered(self, run: str, answer: Issued | Pending) -> None:
        if isinstance(answer, Pending):
            self.journal.note(Step.PENDING, run, request=answer.request)
            return
        staging = self.generations.staging(run)
        write_file(staging / REFERENCE, answer.reference.encode())
        self.generations.write(staging, answer.certificate, (one for one in answer.chain if one != self.wanted.anchor))
        self._judge_new(run)

    def _judge_new(self, run: str) -> None:
        """Prove the staged pair before anything in use is touched. Raises BackendRefusedError."""
        pair = self.generations.load(self.generations.staging(run))
        found = judge.faults(pair, self.wanted, self.keys, self.clock())
        if self.generations.path(pair.serial).exists():
            found.append("its serial was used before")
        if found:
            reason = f"'{self.backend.name}' issued {pair.serial}, which is not what was asked for: {'; '.join(found)}"
            self._abandon(run, reason)
            raise BackendRefusedError(reason)
        old = self.generations.serial_in_use()
        self.journal.note(Step.ISSUED, run, serial=pair.serial, old=old)
        self.generations.promote(run, pair.serial)
        self.activate(run, pair.serial, old)

    def _abandon(self, run: str, reason: str) -> None:
        self.journal.note(Step.ABANDONED, run, reason=reason)
        with contextlib.suppress(KeyStoreError):  # the next run that makes a key removes this one first
            self.discard(self.generations.staging(run))

    def discard(self, folder: Path) -> None:
        """Remove a generation or a staging folder, its key first."""
        if folder.is_dir():
            self.keys.destroy(folder)
            self.generations.remove(folder)

    # -- installing ----------------------------------------------------------------------------------------------
    def activate(self, run: str, serial: str, old: str) -> None:
        """Put a generation into use. Raises InstallError when the service refuses it; then `old` is in use again."""
        self.journal.note(Step.FLIPPING, run, serial=serial, old=old)
        self.generations.flip(serial)
        try:
            self.hooks.take_over()
        except InstallError as error:
            self.journal.note(Step.ROLLING_BACK, run, serial=serial, old=old, reason=str(error))
            told = self._roll_back(run, serial, old)
            raise InstallError(f"certificate {serial}: {error}; {told}") from error
        self.journal.note(Step.DONE, run, serial=serial, old=old)

    def _roll_back(self, run: str, serial: str, old: str) -> str:
        """Put the former generation back; return what came of it."""
        self.generations.flip(old)
        told = f"the former certificate {old} is in use again" if old else "there is no former certificate"
        try:
            if old:
                self.hooks.reload_only()
        except InstallError as error:
            told = f"{told}, but the service did not take it: {error}"
        self.journal.note(Step.ROLLED_BACK, run, serial=serial, old=old)
        return told

    # -- going on after a cut ------------------------------------------------------------------------------------
    def resume(self, line: Line, answer: Issued | BackendRefusedError | None = None) -> None:
        """Finish or undo a run that was cut at this line; `answer` is what became of a pending request.

        Raises as `enrol` does.
        """
        run, facts = line.run, line.facts
        if line.step is Step.BEGIN:
            self._abandon(run, "cut before the authority was asked")
        elif line.step is Step.ASKING:
            self._resume_asking(run)
        elif line.step is Step.PENDING:
            if isinstance(answer, BackendRefusedError):
                self._abandon(run, str(answer))
                raise answer
            self._answered(run, answer or self.collect(line))
        elif line.step is Step.ROLLING_BACK:
            self._roll_back(run, facts["serial"], facts["old"])
        else:
            self._resume_install(run, facts["serial"], facts["old"])

    def collect(self, line: Line) -> Issued | Pending:
        """Ask how a pending request stands. Raises BackendUnavailableError, BackendRefusedError."""
        return self.backend.collect(line.facts["request"], read_file(self.generations.staging(line.run) / REQUEST))

    def has_answer(self, run: str) -> bool:
        """Return whether a cut run's answer is here or can be looked up; changes nothing."""
        return (self.generations.staging(run) / CERTIFICATE).exists() or self._look_up(run) is not None

    def _look_up(self, run: str) -> Issued | None:
        path = self.generations.staging(run) / REQUEST
        return self.backend.recover(read_file(path)) if path.exists() else None

    def _resume_asking(self, run: str) -> None:
        if (self.generations.staging(run) / CERTIFICATE).exists():
            self._judge_new(run)
            return
        answer = self._look_up(run)
        if answer is None:
            self._abandon(run, "the authority was asked, its answer is lost")
        else:
            self._answered(run, answer)

    def _resume_install(self, run: str, serial: str, old: str) -> None:
        pair = self.generations.load(self.generations.promote(run, serial))
        found = judge.faults(pair, self.wanted, self.keys, self.clock())
        if found:
            # Too long ago: it is not worth installing any more.
            self.journal.note(Step.ROLLING_BACK, run, serial=serial, old=old, reason="; ".join(found))
            self._roll_back(run, serial, old)
        else:
            self.activate(run, serial, old)
