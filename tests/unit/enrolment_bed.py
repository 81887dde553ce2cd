"""What the enrolment's tests share: an agent on a host, its authority, a verdict, and a look at what is installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from pki_bed import AGENT_NAME, NOW, Clock, keeper, whole_pki

from kosmos_trust.enrolment.backends.base import Backend
from kosmos_trust.enrolment.backends.local import Local
from kosmos_trust.enrolment.enroller import Enroller, Policy
from kosmos_trust.enrolment.gate import Gate
from kosmos_trust.enrolment.generations import Pair
from kosmos_trust.enrolment.hooks import Hooks
from kosmos_trust.enrolment.journal import Journal
from kosmos_trust.enrolment.judge import Wanted, faults
from kosmos_trust.enrolment.keystore import EncryptedFile, KeyStore
from kosmos_trust.pki.keeper import Keeper

PASSPHRASE = b"canary-passphrase-0123456789-abcdef"
HOST, AK = "box1", "000b" + "ab" * 32


@dataclass(frozen=True)
class FoundVerdict:
    issued_at: datetime = NOW
    status: str = "trusted"
    host: str = HOST
    ak_name: str = AK
    degraded: Sequence[str] = ()


@dataclass
class Bed:
    """One agent. `enroller()` is a new object each time, as a new process would make it."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    pki: Keeper = field(init=False)
    keys: KeyStore = field(default_factory=lambda: EncryptedFile(lambda: PASSPHRASE))
    backend: Backend = field(init=False)
    hooks: Hooks = field(default_factory=Hooks)
    policy: Policy = field(default_factory=Policy)
    lists: tuple[x509.CertificateRevocationList, ...] = ()
    heard: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pki = whole_pki(keeper(self.folder / "pki", self.clock), ("root", "agents"))
        self.backend = Local(self.pki)

    @property
    def agent(self) -> Path:
        return self.folder / "agents/planner-1"

    @property
    def wanted(self) -> Wanted:
        return Wanted(AGENT_NAME, self.pki.certificates("root")[0], HOST, lists=self.lists)

    def verdict(self) -> FoundVerdict:
        return FoundVerdict(self.clock.now)

    def enroller(self, journal: Callable[..., Journal] = Journal) -> Enroller:
        return Enroller(
            self.agent,
            self.wanted,
            self.keys,
            self.backend,
            Gate(HOST, timedelta(minutes=5), AK),
            journal(self.agent / "journal.jsonl", self.clock, lambda line: self.heard.append(dict(line))),
            self.clock,
            os.urandom,
            self.hooks,
            self.policy,
        )

    def run(self):
        return self.enroller().run(self.verdict())

    def check(self):
        return self.enroller().check(self.verdict())

    def pair(self) -> Pair | None:
        return self.enroller().generations.current()

    def good(self) -> bool:
        """Return whether a pair is in use that nothing is wrong with."""
        pair = self.pair()
        return pair is not None and not faults(pair, self.wanted, self.keys, self.clock.now)

    def issued(self) -> int:
        return len(self.pki.register("agents").issued())

    def age(self, part: float) -> None:
        """Let a part of the certificate's life go by."""
        pair = self.pair()
        assert pair is not None
        start, end = pair.certificate.not_valid_before_utc, pair.certificate.not_valid_after_utc
        self.clock.now = (start + (end - start) * part).replace(microsecond=0)

    def content(self) -> dict[str, bytes]:
        """Return every file and link below the agent's folder: what check mode must not change."""
        found = {}
        for path in sorted(self.agent.rglob("*")):
            data = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            found[str(path)] = data
        return found
