"""What a verdict costs, in CPU time of this process: honest evidence is quick, hostile evidence is bounded."""

from __future__ import annotations

import shutil
import struct
import time
from pathlib import Path

import pytest
from attestation_bed import AT, NONCE, authority, booted, policy_for, recorded_boot
from log_builder import event, header, ima

from kosmos_trust.attestation import document
from kosmos_trust.attestation.appraisal import appraise
from kosmos_trust.attestation.evidence import parse_evidence
from kosmos_trust.attestation.logs import MAX_BYTES, parse_logs
from kosmos_trust.attestation.policy import BANKS, Profile
from kosmos_trust.attestation.refusal import Refused
from kosmos_trust.attestation.verdict import Result

VERDICTS_PER_SECOND = 300
BATCH, BATCHES = 60, 5
HOSTILE_SECONDS = 5


def test_one_core_gives_300_verdicts_a_second_on_a_real_log(made: Path, tmp_path: Path) -> None:
    """From the bytes on the wire to the bytes of the verdict; the best of a few batches, for the machine is shared."""
    logs = recorded_boot()
    policy = policy_for(logs, Profile.LAB, (8, 9, 12, 14))
    shutil.copytree(made, tmp_path / "state")
    with booted(tmp_path / "state", tmp_path, logs) as machine:
        known = machine.enrol(policy, authority(made))
        wire = document.write(machine.evidence(policy))
    rates = []
    for _ in range(BATCHES):
        began = time.process_time()
        for _ in range(BATCH):
            verdict = appraise(parse_evidence(wire), policy, known, nonce=NONCE, at=AT).verdict
            assert document.write(verdict)
            assert verdict.result is Result.TRUSTED
        rates.append(BATCH / (time.process_time() - began))
    assert max(rates) > VERDICTS_PER_SECOND, rates


def filled(record: bytes, size: int, start: bytes = b"") -> bytes:
    return start + record * ((size - len(start)) // len(record))


@pytest.mark.parametrize(
    "logs",
    [
        (filled(struct.pack("<IIII", 0, 8, 0, 0), MAX_BYTES["firmware"], header()), b"", b""),
        (filled(event(0, 8, b""), MAX_BYTES["firmware"], header()), b"", b""),
        (header(), filled(b'\x1e{"pcr":1,"digests":[]}', MAX_BYTES["systemd"]), b""),
        (header(), filled(b"\x1e[", MAX_BYTES["systemd"]), b""),
        (header(), b"\x1e" + b"[" * (MAX_BYTES["systemd"] - 1), b""),
        (header(), b"", filled(ima(10, b""), MAX_BYTES["IMA"])),
    ],
    ids=["no digests", "small events", "no words", "broken records", "deep", "IMA"],
)
def test_the_longest_hostile_logs_cost_seconds_at_most(logs: tuple[bytes, bytes, bytes]) -> None:
    began = time.process_time()
    try:
        boot = parse_logs(*logs, BANKS)
        assert boot.secure_boot is False
        boot.programs()
        for bank in BANKS:
            boot.replay(bank)
    except Refused as error:
        assert len(str(error)) <= 1000
    assert time.process_time() - began < HOSTILE_SECONDS


@pytest.mark.parametrize("place", range(3))
def test_longer_logs_are_refused_unread(place: int) -> None:
    logs = [header(), b"", b""]
    logs[place] = b"\0" * (list(MAX_BYTES.values())[place] + 1)
    with pytest.raises(Refused, match="bytes, more than"):
        parse_logs(*logs, BANKS)
