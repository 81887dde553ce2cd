"""Counters, comparison and judgement, on boots that are only logs: which result, PCR, event and expectation."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from attestation_bed import (
    AT,
    GOOD,
    HOST,
    NONCE,
    PCRS,
    Logs,
    policy_for,
    recorded_boot,
    uki_boot,
    values_of,
    variable,
)
from log_builder import event, header, systemd
from tpm_builder import EK_ATTRIBUTES, attest, ecc_key, rsa_key

from kosmos_trust.attestation.appraisal import Appraisal, appraise
from kosmos_trust.attestation.endorsement import Endorsement
from kosmos_trust.attestation.evidence import Evidence
from kosmos_trust.attestation.logs import parse_logs
from kosmos_trust.attestation.policy import BANKS, Image, Policy, Profile, Reference, State
from kosmos_trust.attestation.reference import firmware_of, image_of, state_of
from kosmos_trust.attestation.refusal import Refused
from kosmos_trust.attestation.state import CLOCK_UPDATE_MILLISECONDS, KnownHost, Mark, MarkKind, require_forward
from kosmos_trust.attestation.structures import ClockInfo, parse_public
from kosmos_trust.attestation.verdict import Result

AK, EK = ecc_key(), rsa_key(EK_ATTRIBUTES, decrypting=True)
SIGNER = parse_public(AK.public).qualified_name(parse_public(EK.public).qualified_name())
KNOWN = KnownHost(HOST, Profile.APPLIANCE, AT, Endorsement.HARDWARE, EK.public, b"", AK.public)
POLICY = policy_for(GOOD)
LONG_AGO = AT - timedelta(days=1000)


def judge(
    logs: Logs, policy: Policy = POLICY, known: KnownHost = KNOWN, sent: Logs | None = None, **changed: Any
) -> Appraisal:
    """Judge a boot; `sent` are the logs that the host shows, when they are not those of the boot."""
    values = values_of(logs)
    shown = sent or logs
    message = attest(NONCE, values, signer=SIGNER, **changed)
    evidence = Evidence(
        HOST,
        parse_public(AK.public).name,
        message,
        AK.sign(message),
        values,
        shown.firmware,
        shown.systemd,
        shown.ima,
    )
    return appraise(evidence, policy, known, nonce=NONCE, at=AT)


def found(appraisal: Appraisal) -> list[tuple[str, int | None]]:
    return [(reason.code, reason.pcr) for reason in appraisal.verdict.reasons]


def test_the_boot_that_was_announced_is_trusted() -> None:
    appraisal = judge(GOOD)
    assert appraisal.verdict.result is Result.TRUSTED, appraisal.verdict.reasons
    assert appraisal.verdict.tpm_firmware == 0x2024


@pytest.mark.parametrize(
    ("logs", "pcr", "code", "event_words", "expected"),
    [
        (uki_boot(kernel=b"evil"), 4, "image.launch", "program started: \\kernel", "\\kernel"),
        (uki_boot(command_line=b"init=/bin/sh"), 12, "image.pcr", "init=/bin/sh", "kosmos-1: 0000"),
        (uki_boot(phases=(b"enter-initrd",)), 11, "image.pcr", "nothing more was measured", "leave-initrd"),
        (uki_boot(phases=(b"leave-initrd",)), 11, "image.pcr", "leave-initrd", "enter-initrd"),
    ],
)
def test_another_image_is_untrusted_by_pcr_event_and_expectation(
    logs: Logs, pcr: int, code: str, event_words: str, expected: str
) -> None:
    appraisal = judge(logs)
    assert appraisal.verdict.result is Result.UNTRUSTED
    assert found(appraisal) == [(code, pcr)]
    reason = appraisal.verdict.reasons[0]
    assert event_words in str(reason.event)
    assert expected in str(reason.expected)
    assert reason.words.startswith("image kosmos-1: ")
    assert reason.bank == "sha256"
    assert appraisal.verdict.image is None
    assert appraisal.verdict.firmware == "firmware 1.0"


def test_firmware_waits_for_approval_and_is_trusted_after_it() -> None:
    newer = uki_boot(version=b"firmware 2.0")
    appraisal = judge(newer)
    assert appraisal.verdict.result is Result.CHANGED_FIRMWARE
    assert found(appraisal) == [("firmware.pcr", 0)]
    assert "firmware version: firmware 2.0" in str(appraisal.verdict.reasons[0].event)
    assert "firmware version: firmware 1.0" in str(appraisal.verdict.reasons[0].expected)
    approved = firmware_of(newer.boot(), values_of(newer), POLICY.firmware_pcrs, "firmware 2.0")
    appraisal = judge(newer, replace(POLICY, firmware=(*POLICY.firmware, approved)))
    assert (appraisal.verdict.result, appraisal.verdict.firmware) == (Result.TRUSTED, "firmware 2.0")
    unseen = judge(GOOD, replace(POLICY, firmware=()))
    assert unseen.verdict.result is Result.CHANGED_FIRMWARE
    assert found(unseen) == [("firmware.pcr", pcr) for pcr in POLICY.firmware_pcrs]


def test_a_bad_image_on_changed_firmware_is_untrusted_with_both_reasons() -> None:
    appraisal = judge(uki_boot(version=b"firmware 2.0", kernel=b"evil"))
    assert appraisal.verdict.result is Result.UNTRUSTED
    assert found(appraisal) == [("image.launch", 4), ("firmware.pcr", 0)]


def test_an_update_has_a_window() -> None:
    newer = uki_boot(kernel=b"kernel 2")
    announced = image_of(newer.boot(), values_of(newer), (11, 12), "kosmos-2")
    old = replace(POLICY.images[0], until=AT)
    policy = replace(POLICY, images=(old, announced))
    assert judge(newer, policy).verdict.image == "kosmos-2"
    assert judge(GOOD, policy).verdict.image == "kosmos-1"
    policy = replace(POLICY, images=(replace(old, until=AT - timedelta(seconds=1)), announced))
    appraisal = judge(GOOD, policy)
    assert appraisal.verdict.result is Result.UNTRUSTED
    assert found(appraisal) == [("image.retired", None)]


def test_phases_are_alternatives_and_both_banks_have_to_be_in_the_same_one() -> None:
    early = uki_boot(phases=(b"enter-initrd", b"leave-initrd"))
    states = tuple(
        state_of(logs.boot(), values_of(logs), 11, name) for logs, name in ((GOOD, "ready"), (early, "early"))
    )
    image = replace(POLICY.images[0], pcrs={**POLICY.images[0].pcrs, 11: states})
    for logs in (GOOD, early):
        assert judge(logs, replace(POLICY, images=(image,))).verdict.result is Result.TRUSTED
    halves = State("chimera", {"sha256": states[0].values["sha256"], "sha384": states[1].values["sha384"]})
    mixed = replace(image, pcrs={**image.pcrs, 11: (halves,)})
    appraisal = judge(GOOD, replace(POLICY, images=(mixed,)))
    assert [(reason.pcr, reason.bank) for reason in appraisal.verdict.reasons] == [(11, "sha384")]


def test_values_without_events_still_find_the_event_too_many() -> None:
    bare = State("ready", POLICY.images[0].pcrs[11][0].values)
    image = replace(POLICY.images[0], pcrs={**POLICY.images[0].pcrs, 11: (bare,)})
    late = uki_boot(phases=(b"enter-initrd", b"leave-initrd", b"sysinit", b"ready", b"shutdown"))
    reason = judge(late, replace(POLICY, images=(image,))).verdict.reasons[0]
    assert "shutdown" in str(reason.event)
    assert reason.expected == f"ready: {bare.values['sha256'].hex()}"


def test_logs_that_do_not_explain_the_quote_are_named() -> None:
    longer = replace(GOOD, systemd=GOOD.systemd + systemd(11, b"shutdown").encode())
    appraisal = judge(GOOD, sent=longer)
    assert found(appraisal) == [("log.replay", 11)] * 2
    assert "1 events more than the TPM" in appraisal.verdict.reasons[0].words
    assert "shutdown" in str(appraisal.verdict.reasons[0].event)
    appraisal = judge(GOOD, sent=replace(GOOD, systemd=b""))
    assert found(appraisal) == [("log.replay", 11), ("log.replay", 15)] * 2
    appraisal = judge(GOOD, sent=replace(GOOD, firmware=b""))
    assert found(appraisal) == [("log.missing", None)]
    appraisal = judge(GOOD, sent=replace(GOOD, systemd=b"\xff"))
    assert found(appraisal) == [("log.malformed", None)]
    assert appraisal.known.marks == ()  # nothing is marked for ever on a log that proves nothing


def test_a_log_with_one_bank_cannot_answer_for_two() -> None:
    one = header((0xB,)) + event(0, 8, b"a", banks=(0xB,))
    assert found(judge(GOOD, sent=Logs(one))) == [("log.replay", None)]


# --- Secure Boot: the state is read from proved texts only ---


def secure(*events: bytes) -> bool:
    return parse_logs(header() + b"".join(events), b"", b"", BANKS).secure_boot


ON, OFF = event(7, 0x80000001, variable("SecureBoot", b"\1")), event(7, 0x80000001, variable("SecureBoot", b"\0"))
END = event(7, 4, bytes(4))


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((ON, END), True),
        ((OFF, END), False),
        ((event(7, 0x80000001, variable("SecureBoot", b"")), END), False),
        ((END, ON), False),
        ((ON,), False),
        ((ON, OFF, END), False),
        ((END,), False),
        ((), False),
        ((event(7, 0x80000001, variable("SecureBoot", b"\1"), measured=variable("SecureBoot", b"\0")), END), False),
        ((OFF[:4] + b"\x05\0\0\0" + OFF[8:], END[:4] + b"\x05\0\0\0" + END[8:], ON, END), False),
        ((event(7, 0x80000001, b"\0" * 16 + variable("SecureBoot", b"\1")[16:]), END), False),
        ((event(1, 0x80000001, variable("SecureBoot", b"\1")), END), False),
        # Off, its text made unreadable; the separator under another type; then what anything may extend later.
        ((OFF[:-1] + b"\7", END[:4] + b"\x05\0\0\0" + END[8:], ON, END), False),
    ],
)
def test_secure_boot_is_believed_only_where_it_is_proved(events: tuple[bytes, ...], expected: bool) -> None:
    assert secure(*events) is expected


def test_without_secure_boot_the_mark_stays_for_ever() -> None:
    off = uki_boot(secure_boot=b"\0")
    approved = replace(POLICY, firmware=policy_for(off).firmware)
    first = judge(off, approved)
    assert (first.verdict.result, first.verdict.secure_boot) == (Result.DEGRADED, False)
    assert [mark.kind for mark in first.known.marks] == [MarkKind.SECURE_BOOT_OFF]
    again = judge(
        off, approved, replace(first.known, clock=None, marks=(replace(first.known.marks[0], since=LONG_AGO),))
    )
    assert [mark.since for mark in again.known.marks] == [LONG_AGO]
    later = judge(GOOD, known=replace(first.known, clock=None))
    assert later.verdict.result is Result.DEGRADED
    assert later.verdict.marks == first.known.marks
    lab = replace(approved, profile=Profile.LAB)
    assert judge(off, lab, replace(KNOWN, profile=Profile.LAB)).verdict.result is Result.TRUSTED


def test_a_lab_host_is_not_an_appliance_later() -> None:
    appraisal = judge(GOOD, known=replace(KNOWN, profile=Profile.LAB))
    assert found(appraisal) == [("profile", None)]


def test_who_vouches_for_the_tpm_has_to_be_accepted() -> None:
    strict = replace(POLICY, endorsement=(Endorsement.HARDWARE,))
    marks = (Mark(MarkKind.SOFTWARE_TPM, AT, "w"),)
    software = replace(KNOWN, endorsement=Endorsement.SOFTWARE, marks=marks)
    assert found(judge(GOOD, strict, software)) == [("ek.endorsement", None)]
    assert judge(GOOD, POLICY, software).verdict.result is Result.DEGRADED


# --- PCR 4: types of events are claims ---


def with_types(logs: Logs, old: int, new: int) -> Logs:
    pattern = (4).to_bytes(4, "little") + old.to_bytes(4, "little")
    assert pattern in logs.firmware
    return replace(logs, firmware=logs.firmware.replace(pattern, pattern[:4] + new.to_bytes(4, "little")))


@pytest.mark.parametrize("kind", [0x80000007, 4, 5, 13, 0x80000004])
def test_a_program_under_another_type_is_still_a_program_too_many(kind: int) -> None:
    extra = uki_boot()
    extra = replace(extra, firmware=extra.firmware + event(4, kind, b"harmless text", measured=b"evil PE"))
    appraisal = judge(extra)
    assert found(appraisal) == [("image.launch", 4)]
    assert appraisal.verdict.reasons[0].expected == "nothing more"


def test_known_actions_in_pcr_4_are_told_by_their_digest() -> None:
    returning = b"Returning from EFI Application from Boot Option"
    more = replace(GOOD, firmware=GOOD.firmware + event(4, 0x80000007, returning) + event(4, 4, bytes(4)))
    assert judge(more).verdict.result is Result.TRUSTED
    forged = replace(GOOD, firmware=GOOD.firmware + event(4, 0x80000007, returning, measured=b"evil PE"))
    assert found(judge(forged)) == [("image.launch", 4)]
    error = replace(GOOD, firmware=GOOD.firmware + event(4, 4, b"\1\0\0\0"))
    assert found(judge(error)) == [("image.launch", 4)]
    relabelled = with_types(GOOD, 0x80000003, 0x80000007)
    assert judge(GOOD, sent=relabelled).verdict.result is Result.TRUSTED  # the digests are what counts


def test_a_program_that_did_not_start_is_missed() -> None:
    shorter = replace(POLICY.images[0], launches=(*POLICY.images[0].launches, Reference("add-on", _values(b"x"))))
    reason = judge(GOOD, replace(POLICY, images=(shorter,))).verdict.reasons[0]
    assert (reason.code, reason.event, reason.found) == ("image.launch", "nothing more was started", None)
    assert str(reason.expected).startswith("add-on: ")


def test_a_program_has_to_be_the_right_one_in_both_banks() -> None:
    first, *rest = POLICY.images[0].launches
    for bank in BANKS:
        half = replace(first, values={**first.values, bank: _values(b"x")[bank]})
        policy = replace(POLICY, images=(replace(POLICY.images[0], launches=(half, *rest)),))
        reason = judge(GOOD, policy).verdict.reasons[0]
        assert (reason.code, reason.bank, reason.found) == ("image.launch", bank, first.values[bank].hex())


def _values(data: bytes) -> dict[str, bytes]:
    return {bank: hashlib.new(bank, data).digest() for bank in BANKS}


def test_the_nearest_image_is_the_one_that_is_explained() -> None:
    far = Image("far", {pcr: (State("far", _values(b"far")),) for pcr in (8, 11, 12, 15)})
    appraisal = judge(uki_boot(command_line=b"debug"), replace(POLICY, images=(far, *POLICY.images)))
    assert [reason.words.split(":")[0] for reason in appraisal.verdict.reasons] == ["image kosmos-1"]


# --- counters ---

LAST = ClockInfo(10_000_000, 5, 2, True)


@pytest.mark.parametrize(
    ("clock", "resets", "restarts", "safe", "words"),
    [
        (10_000_000, 5, 2, True, None),
        (10_000_001, 5, 2, False, None),
        (9_999_999, 5, 2, True, "clock"),
        (9_999_999, 5, 2, False, "clock"),
        (10_000_001, 4, 9, True, "resets"),
        (10_000_001, 5, 1, True, "restarts"),
        (10_000_001, 5, 3, True, None),
        (9_000_000, 5, 3, False, None),
        (9_000_000, 6, 0, True, "clock"),
        (9_000_000, 6, 0, False, None),
        (10_000_000 - CLOCK_UPDATE_MILLISECONDS, 6, 0, False, None),
        (10_000_000 - CLOCK_UPDATE_MILLISECONDS - 1, 6, 0, False, "clock"),
        (20_000_000, 7, 0, True, None),
    ],
)
def test_counters_go_forward(clock: int, resets: int, restarts: int, safe: bool, words: str | None) -> None:
    now = ClockInfo(clock, resets, restarts, safe)
    if words is None:
        require_forward(LAST, now)
    else:
        with pytest.raises(Refused, match=f"TPM's {words}.* went back") as caught:
            require_forward(LAST, now)
        assert caught.value.reason.code == "clock"


def test_only_a_quote_that_was_believed_changes_what_is_known() -> None:
    known = judge(GOOD).known
    assert known.clock == ClockInfo(1000, 5, 0, True)
    for changed in ({"clock": (1000, 4, 0, 1)}, {"magic": 0}, {"digest": bytes(48)}):
        appraisal = judge(uki_boot(secure_boot=b"\0"), known=known, **changed)
        assert appraisal.verdict.result is Result.UNTRUSTED
        assert appraisal.known == known
        assert appraisal.verdict.secure_boot is None
    other = judge(GOOD, known=replace(known, name="box-2"))
    assert found(other) == [("host", None)]


def test_every_event_of_a_real_boot_has_words() -> None:
    for entry in recorded_boot().boot().events:
        assert entry.words.isprintable()
        assert f"PCR {entry.event.pcr} (" in entry.words
        assert len(entry.words) < 300
    told = [entry.words for entry in recorded_boot().boot().of(4)]
    assert any(words.endswith("program started: \\EFI\\debian\\shimx64.efi") for words in told)
    assert recorded_boot().boot().of(10)[0].words.endswith("file boot_aggregate")


def test_words_of_hostile_events_are_one_printable_line() -> None:
    texts = (b"\x1b[2J\x07", "\u202eevil".encode(), b"\xff" * 300, b"a" * 5000, b"", b"\0", "x\ny".encode("utf-16-le"))
    for kind in (1, 4, 6, 13, 0x80000001, 0x80000003, 0x800000E0, 0x12345678):
        for data in (*texts, b"\0" * 31, b"\xff" * 64, variable("a\nb", b"\1"), b"\0" * 32 + b"\4\4\3\0"):
            words = parse_logs(header() + event(7, kind, data), b"", b"", BANKS).events[0].words
            assert words.isprintable(), words
            assert len(words) < 300


def test_all_quoted_pcrs_are_compared() -> None:
    for pcr in PCRS:
        extra = replace(GOOD, firmware=GOOD.firmware + event(pcr, 13, b"unlogged"))
        assert {reason.pcr for reason in judge(extra, sent=GOOD).verdict.reasons} == {pcr}
