"""The whole way with a real TPM and the real tpm2-tools: enrol, quote, judge, record; and every way it must fail."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from attestation_bed import (
    AT,
    GOOD,
    HOST,
    NONCE,
    Logs,
    Machine,
    authority,
    booted,
    policy_for,
    recorded_boot,
    uki_boot,
)
from log_builder import event, header, ima
from swtpm_bed import manufacture

from kosmos_trust.attestation.appraisal import appraise
from kosmos_trust.attestation.credential import make_credential
from kosmos_trust.attestation.endorsement import Endorsement
from kosmos_trust.attestation.enrolment import Claim, admit, challenge
from kosmos_trust.attestation.policy import Policy, Profile
from kosmos_trust.attestation.quote import Selection
from kosmos_trust.attestation.record import Record, recompute, seal
from kosmos_trust.attestation.refusal import Refused
from kosmos_trust.attestation.state import KnownHost, MarkKind
from kosmos_trust.attestation.structures import parse_public
from kosmos_trust.attestation.verdict import Result
from kosmos_trust.eventlog import IMA_LOG
from kosmos_trust.tpm import TpmError
from kosmos_trust.tpm_evidence import collect
from kosmos_trust.tpm_tools import Quoted, TpmTools, cure_of


@pytest.mark.parametrize("template", ["RSA-2048", "P-256", "P-384"])
def test_each_kind_of_endorsement_key_admits_its_attestation_key(made: Path, tmp_path: Path, template: str) -> None:
    shutil.copytree(made, tmp_path / "state")
    with booted(tmp_path / "state", tmp_path, GOOD) as machine:
        host = machine.enrol(policy_for(GOOD), authority(made), template)
        # swtpm_setup stores certificates for two of the three
        assert host.endorsement is (Endorsement.ABSENT if template == "P-256" else Endorsement.SOFTWARE)
        kinds = [mark.kind for mark in host.marks]
        assert kinds == [MarkKind.UNPROVEN_TPM if template == "P-256" else MarkKind.SOFTWARE_TPM]
        appraisal = appraise(machine.evidence(policy_for(GOOD)), policy_for(GOOD), host, nonce=NONCE, at=AT)
        assert appraisal.verdict.result is Result.DEGRADED, appraisal.verdict.reasons


def test_a_good_boot_is_trusted_and_told(box: tuple[Machine, KnownHost], policy: Policy) -> None:
    machine, known = box
    appraisal = appraise(machine.evidence(policy), policy, known, nonce=NONCE, at=AT)
    verdict = appraisal.verdict
    assert verdict.result is Result.TRUSTED, verdict.reasons
    assert (verdict.image, verdict.firmware, verdict.secure_boot) == ("kosmos-1", "firmware 1.0", True)
    assert verdict.reasons == verdict.marks == ()
    assert appraisal.known.clock == verdict.clock
    assert verdict.clock is not None
    assert verdict.clock.clock > 0


def test_the_recorded_boot_of_the_lab_is_judged_event_by_event(made: Path, tmp_path: Path) -> None:
    """A real firmware log, extended into a real TPM; GRUB instead of a UKI, so PCR 8, 9 and 14 are the image's."""
    logs = recorded_boot()
    policy = policy_for(logs, Profile.LAB, (8, 9, 12, 14))
    shutil.copytree(made, tmp_path / "state")
    with booted(tmp_path / "state", tmp_path, logs) as machine:
        known = machine.enrol(policy, authority(made))
        verdict = appraise(machine.evidence(policy), policy, known, nonce=NONCE, at=AT).verdict
    assert verdict.result is Result.TRUSTED, verdict.reasons
    assert verdict.secure_boot is False  # the lab's profile lives without; nothing is marked
    assert verdict.marks == ()


def test_a_record_gives_the_same_verdict_offline(box: tuple[Machine, KnownHost], policy: Policy) -> None:
    machine, known = box
    evidence = machine.evidence(policy)
    verdict = appraise(evidence, policy, known, nonce=NONCE, at=AT).verdict
    data, digest = seal(Record(evidence, NONCE, known, verdict))
    assert recompute(data, digest, policy) == verdict
    for position in range(0, len(data), len(data) // 97):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(Refused) as caught:
            recompute(bytes(changed), digest, policy)
        assert caught.value.reason.code == "record.digest"
    with pytest.raises(Refused, match="another policy"):
        recompute(data, digest, replace(policy, name="other"))
    for forged, field in (
        (Record(evidence, NONCE, known, replace(verdict, result=Result.DEGRADED)), "result"),
        (Record(evidence, NONCE[::-1], known, verdict), "result"),
        (Record(replace(evidence, ima_log=b""), NONCE, known, verdict), "result"),
        (Record(evidence, NONCE, known, replace(verdict, image="kosmos-2")), "image"),
    ):
        with pytest.raises(Refused, match=f"`{field}`"):
            recompute(*seal(forged), policy)


def test_a_challenge_is_answered_by_no_other_key_and_no_other_tpm(
    box: tuple[Machine, KnownHost], tmp_path: Path
) -> None:
    machine, known = box
    ek = machine.tools.endorsement_key()
    secret = b"s" * 32
    name = parse_public(known.ak_public).name
    assert machine.tools.activate(ek, make_credential(parse_public(ek.public), name, secret)) == secret
    with pytest.raises(TpmError, match="another endorsement key or attestation key"):
        machine.tools.activate(ek, make_credential(parse_public(ek.public), name[:-1] + b"\0", secret))
    other = manufacture(tmp_path / "other", ek_certificate=False)
    with booted(other, tmp_path / "run", GOOD) as stranger:
        theirs = stranger.tools.endorsement_key("P-384")
        foreign = parse_public(stranger.tools.make_attestation_key(theirs))
        stolen = make_credential(parse_public(known.ek_public), foreign.name, secret)
        with pytest.raises(TpmError) as caught:
            stranger.tools.activate(theirs, stolen)
        assert caught.value.code is not None
        # Nor does the machine itself activate for a key that it does not hold: an AK of another TPM stays out.
        with pytest.raises(TpmError, match="another endorsement key or attestation key"):
            machine.tools.activate(ek, stolen)


def test_a_wrong_answer_admits_nobody(box: tuple[Machine, KnownHost], made: Path, policy: Policy) -> None:
    _, known = box
    claim = Claim(HOST, known.ek_public, known.ek_certificate, known.ak_public)
    asked = challenge(claim, policy, authority(made), at=AT)
    assert asked.secret.hex() not in repr(asked)
    assert repr(asked.secret) not in repr(asked)
    for answer in (b"", bytes(32), asked.secret[:-1], asked.secret + b"\0"):
        with pytest.raises(Refused, match="did not find the secret"):
            admit(asked, answer)
    assert admit(asked, asked.secret) == replace(known, clock=None)


def test_a_quote_of_another_tpm_is_refused(box: tuple[Machine, KnownHost], policy: Policy, tmp_path: Path) -> None:
    _, known = box
    other = manufacture(tmp_path / "other", ek_certificate=False)
    with booted(other, tmp_path / "run", GOOD) as stranger:
        stranger.tools.make_attestation_key(stranger.tools.endorsement_key("P-384"))
        evidence = stranger.evidence(policy)
    verdict = appraise(evidence, policy, known, nonce=NONCE, at=AT).verdict
    assert [reason.code for reason in verdict.reasons] == ["ak.unknown"]
    claimed = replace(evidence, attestation_key=parse_public(known.ak_public).name)
    verdict = appraise(claimed, policy, known, nonce=NONCE, at=AT).verdict
    assert [reason.code for reason in verdict.reasons] == ["quote.signature"]
    assert verdict.result is Result.UNTRUSTED


def test_a_replayed_quote_is_refused(box: tuple[Machine, KnownHost], policy: Policy) -> None:
    machine, known = box
    old = machine.evidence(policy)
    verdict = appraise(old, policy, known, nonce=b"fresh nonce", at=AT).verdict
    assert [(reason.code, reason.found) for reason in verdict.reasons] == [("quote.nonce", NONCE.hex())]
    # And with the nonce reused by a careless verifier, the counters still tell.
    newer = appraise(machine.evidence(policy), policy, known, nonce=NONCE, at=AT).known
    verdict = appraise(old, policy, newer, nonce=NONCE, at=AT).verdict
    assert [reason.code for reason in verdict.reasons] == ["clock"]


def test_a_key_outside_the_endorsement_key_is_refused(box: tuple[Machine, KnownHost], policy: Policy) -> None:
    machine, known = box
    evidence = machine.evidence(policy)
    other = replace(known, ek_public=machine.tools.endorsement_key("RSA-2048").public)
    assert other.ek_public != known.ek_public
    verdict = appraise(evidence, policy, other, nonce=NONCE, at=AT).verdict
    assert [reason.code for reason in verdict.reasons] == ["quote.signer"]


def test_reboots_move_forward_and_a_restored_tpm_is_refused(made: Path, policy: Policy, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(made, state)
    with booted(state, tmp_path / "1", GOOD) as machine:
        known = machine.enrol(policy, authority(made))
    shutil.copytree(state, tmp_path / "copy")
    clocks = []
    for number in (2, 3):
        with booted(state, tmp_path / str(number), GOOD) as machine:
            appraisal = appraise(machine.evidence(policy), policy, known, nonce=NONCE, at=AT)
            assert appraisal.verdict.result is Result.TRUSTED, appraisal.verdict.reasons
            known = appraisal.known
            clocks.append(known.clock)
    assert clocks[0] is not None
    assert clocks[1] is not None
    assert clocks[1].reset_count > clocks[0].reset_count
    with booted(tmp_path / "copy", tmp_path / "4", GOOD) as machine:
        verdict = appraise(machine.evidence(policy), policy, known, nonce=NONCE, at=AT).verdict
    assert [reason.code for reason in verdict.reasons] == ["clock"]
    assert "resets went back" in verdict.reasons[0].words


def test_a_machine_that_once_ran_without_secure_boot_is_degraded_for_ever(made: Path, tmp_path: Path) -> None:
    state, policy = tmp_path / "state", policy_for(GOOD)
    shutil.copytree(made, state)
    with booted(state, tmp_path / "1", GOOD) as machine:
        # Pretend the CA is a manufacturer's and the model a chip's: only Secure Boot is in question here.
        known = replace(machine.enrol(policy, authority(made)), endorsement=Endorsement.HARDWARE, marks=())
        known = (first := appraise(machine.evidence(policy), policy, known, nonce=NONCE, at=AT)).known
        assert first.verdict.result is Result.TRUSTED
    with booted(state, tmp_path / "2", uki_boot(secure_boot=b"\x00")) as machine:
        off = appraise(machine.evidence(policy), policy, known, nonce=NONCE, at=AT)
    assert off.verdict.result is Result.CHANGED_FIRMWARE
    assert off.verdict.secure_boot is False
    reason = off.verdict.reasons[0]
    assert (reason.code, reason.pcr) == ("firmware.pcr", 7)
    assert "SecureBoot = off" in str(reason.event)
    assert "SecureBoot = on" in str(reason.expected)
    later = AT + timedelta(days=400)
    with booted(state, tmp_path / "3", GOOD) as machine:
        after = appraise(machine.evidence(policy), policy, off.known, nonce=NONCE, at=later).verdict
        again = machine.enrol(policy, authority(made), before=off.known)
    assert after.result is Result.DEGRADED
    assert [(mark.kind, mark.since) for mark in after.marks] == [(MarkKind.SECURE_BOOT_OFF, AT)]
    assert after.reasons == ()
    assert MarkKind.SECURE_BOOT_OFF in [mark.kind for mark in again.marks]


def test_what_is_extended_after_the_boot_shows(made: Path, policy: Policy, tmp_path: Path) -> None:
    """Root on the host cannot take back a measurement, nor explain it away."""
    shutil.copytree(made, tmp_path / "state")
    with booted(tmp_path / "state", tmp_path, GOOD) as machine:
        known = machine.enrol(policy, authority(made))
        machine.measure(Logs(header() + event(12, 13, b"injected")))
        hidden = appraise(machine.evidence(policy), policy, known, nonce=NONCE, at=AT).verdict
        assert {(reason.code, reason.pcr) for reason in hidden.reasons} == {("log.replay", 12)}
        honest = machine.evidence(policy)
        honest = replace(honest, firmware_log=honest.firmware_log + event(12, 13, b"injected"))
        told = appraise(honest, policy, known, nonce=NONCE, at=AT).verdict
    assert [(reason.code, reason.pcr) for reason in told.reasons] == [("image.pcr", 12)]
    assert "injected" in str(told.reasons[0].event)
    assert told.reasons[0].expected == f"kosmos-1: {'00' * 32}"


def test_the_attester_says_what_is_missing(box: tuple[Machine, KnownHost], policy: Policy, tmp_path: Path) -> None:
    machine, _ = box
    empty = TpmTools(tmp_path, machine.tools.tcti, ak_handle=0x81010177)
    with pytest.raises(TpmError, match="0x81010177: enrol"):
        empty.quote(NONCE, policy.selection)
    with pytest.raises(TpmError, match="no attestation key"):
        collect(empty, HOST, NONCE, policy.selection, machine.root)
    with pytest.raises(TpmError, match="no event log"):
        collect(machine.tools, HOST, NONCE, policy.selection, tmp_path)
    with pytest.raises(TpmError, match="there are P-384"):
        machine.tools.endorsement_key("RSA-1024")
    with pytest.raises(TpmError, match="tpm2_getcap"):
        TpmTools(tmp_path, f"swtpm:path={tmp_path}/nobody").attestation_key()
    with pytest.raises(TpmError, match=r"no answer from the TPM within 0\.001 s"):
        TpmTools(tmp_path, machine.tools.tcti, timeout_seconds=0.001).attestation_key()


def test_the_attester_needs_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TpmError, match="install the package tpm2-tools"):
        TpmTools(tmp_path).attestation_key()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x921, "locked against guessing"),
        (0x902, "no room for another object"),
        (0x98E, "has a password"),
        (0x9A2, "has a password"),
        (0x1DF, "another endorsement key or attestation key"),
        (0x2DF, "another endorsement key or attestation key"),
        (0x18B, "enrol this host again"),
        (0x14B, "non-volatile memory is full"),
        (0x101, ""),
    ],
)
def test_codes_of_the_tpm_have_cures(code: int, words: str) -> None:
    cure = cure_of(code)
    assert words in cure
    assert bool(words) == bool(cure)


def test_p256_serves_only_when_it_is_allowed(
    box: tuple[Machine, KnownHost], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TPM without P-384, played by a tpm2_getcap that does not tell of it; everything else is the real tools."""
    machine, _ = box
    programs = tmp_path / "bin"
    programs.mkdir()
    real = shutil.which("tpm2_getcap")
    (programs / "tpm2_getcap").write_text(f'#!/bin/sh\n{real} "$@" | grep -v P384\n')
    (programs / "tpm2_getcap").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    tools = TpmTools(tmp_path, machine.tools.tcti, ak_handle=0x81010178)
    ek = tools.endorsement_key()
    with pytest.raises(TpmError, match="P-256 has to be allowed explicitly"):
        tools.make_attestation_key(ek)
    assert parse_public(tools.make_attestation_key(ek, allow_p256=True)).key.key_size == 256
    assert parse_public(tools.attestation_key() or b"").scheme[1] == "sha256"


def test_a_log_that_grows_while_the_tpm_quotes_is_read_again(
    box: tuple[Machine, KnownHost], policy: Policy, tmp_path: Path
) -> None:
    machine, _ = box
    shutil.copytree(machine.root, tmp_path / "root")
    log = tmp_path / "root" / IMA_LOG.lstrip("/")

    class Busy(TpmTools):
        """Real tools on a machine where IMA measures a file during the first `times` quotes."""

        times = 1

        def quote(self, nonce: bytes, selection: Selection) -> Quoted:
            quoted = super().quote(nonce, selection)
            if self.times:
                self.times -= 1
                log.write_bytes(log.read_bytes() + ima(10, b"more"))
            return quoted

    tools = Busy(tmp_path, machine.tools.tcti)
    assert collect(tools, HOST, NONCE, policy.selection, tmp_path / "root").ima_log == log.read_bytes()
    tools.times = 99
    with pytest.raises(TpmError, match="changed during each of 5 quotes"):
        collect(tools, HOST, NONCE, policy.selection, tmp_path / "root")
