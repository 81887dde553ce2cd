"""Policies and documents: what is unknown, missing, mistyped or dangerous is refused with its path and a cure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attestation_bed import AT, GOOD, NONCE, policy_for, recorded_boot
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmos_trust.attestation import document
from kosmos_trust.attestation.endorsement import Endorsement
from kosmos_trust.attestation.evidence import Evidence, parse_evidence
from kosmos_trust.attestation.policy import Policy, Profile, load_policy, parse_policy
from kosmos_trust.attestation.record import Record
from kosmos_trust.attestation.refusal import Reason, Refused
from kosmos_trust.attestation.state import KnownHost, Mark, MarkKind
from kosmos_trust.attestation.structures import ClockInfo
from kosmos_trust.attestation.verdict import Result, Verdict

POLICY = policy_for(GOOD)
EVIDENCE = Evidence("box-1", b"\1" * 34, b"attest", b"signature", {"sha256": {0: bytes(32), 23: b"\xff" * 32}}, b"log")
KNOWN = KnownHost(
    "box-1",
    Profile.APPLIANCE,
    AT,
    Endorsement.HARDWARE,
    b"ek",
    b"",
    b"ak",
    ClockInfo(2**64 - 1, 1, 0, False),
    (Mark(MarkKind.SECURE_BOOT_OFF, AT, "once"),),
)
VERDICT = Verdict(
    "box-1",
    Result.UNTRUSTED,
    AT,
    NONCE,
    b"\1",
    "box",
    POLICY.digest,
    (Reason("image.pcr", "words", pcr=11, bank="sha256", event="event", found="00", expected="11"), Reason("a", "b")),
    KNOWN.marks,
    secure_boot=False,
    clock=KNOWN.clock,
    tpm_firmware=7,
)


@pytest.mark.parametrize(
    "value", [POLICY, policy_for(recorded_boot()), EVIDENCE, KNOWN, VERDICT], ids=lambda value: type(value).__name__
)
def test_documents_survive_the_round_trip(value: Any) -> None:
    data = document.write(value)
    assert document.read(type(value), data, "document") == value
    assert document.write(document.read(type(value), data, "document")) == data
    assert json.loads(data)["format"] == value.FORMAT


def test_a_record_survives_the_round_trip() -> None:
    record = Record(EVIDENCE, NONCE, KNOWN, VERDICT)
    assert document.read(Record, document.write(record), "record") == record


def test_the_digest_is_of_the_meaning_and_not_of_the_spelling() -> None:
    pretty = json.dumps(json.loads(document.write(POLICY)), indent=3).encode()
    assert parse_policy(pretty).digest == POLICY.digest
    assert replace(POLICY, name="other").digest != POLICY.digest


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    content = json.loads(document.write(POLICY))
    change(content)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.update(format="kosmos.attestation/v2"), "policy.format: is 'kosmos.attestation/v2', expected"),
        (lambda p: p.pop("format"), "policy.format: is None"),
        (lambda p: p.update(firmwares=p.pop("firmware")), "policy.firmwares: is not known; did you mean 'firmware'"),
        (lambda p: p.update(zzz=1), "policy.zzz: is not known; there are: name"),
        (lambda p: p["images"][0].update(unitl="2030-01-01T00:00:00Z"), "unitl: is not known; did you mean 'until'"),
        (lambda p: p.pop("images"), "policy.images: is missing"),
        (lambda p: p.update(images=[]), "no boot could ever be trusted"),
        (lambda p: p.update(images={}), "policy.images: has to be a list"),
        (lambda p: p.update(name=7), "policy.name: has to be of type str, is int"),
        (lambda p: p.update(name="a\nb"), "printable"),
        (lambda p: p.update(profile="labs"), "'labs' is not known; there are: appliance, lab"),
        (lambda p: p.update(pcrs=[True]), r"pcrs\[0\]: has to be of type int, is bool"),
        (lambda p: p.update(pcrs=[-1]), r"pcrs\[0\]: is not between"),
        (lambda p: p.update(pcrs=[0, 24]), "has to list PCRs 0 to 23"),
        (lambda p: p.update(pcrs=[7, 0]), "ascending"),
        (lambda p: p.update(pcrs=[0, 4, 7, 11, 12]), "firmware_pcrs: PCR 2 is not in pcrs"),
        (lambda p: p.update(pcrs=[0, 2, 3, 4, 7, 12]), r"images\[0\].pcrs: PCR 11 is not in pcrs"),
        (lambda p: p.update(pcrs=[0, 2, 3, 7, 11, 12]), r"images\[0\].launches: PCR 4 is not in pcrs"),
        (lambda p: p.update(banks=["sha256"]), "needs one value of the right size in each bank"),
        (lambda p: p.update(banks=["sha1"]), "has to be some of sha256, sha384"),
        (lambda p: p.update(banks=[]), "has to be some of"),
        (lambda p: p.update(endorsement=[]), "no TPM could ever be enrolled"),
        (lambda p: p["images"][0]["pcrs"].pop("12"), "PCR 11 without PCR 12"),
        (lambda p: p["images"][0]["pcrs"].update({"07": []}), "07: has to be a number"),
        (lambda p: p["images"][0]["pcrs"].update({"7": []}), "PCR 7 is judged as firmware already"),
        (lambda p: p["images"][0]["pcrs"].update({"11": []}), "pcrs.11: is empty"),
        (lambda p: p["images"][0].update(pcrs={}, launches=[]), "accept every boot"),
        (lambda p: p["images"].append(p["images"][0]), "share one name"),
        (lambda p: p["firmware"][0]["pcrs"].pop("7"), "exactly the firmware PCRs 0, 2, 3, 7"),
        (lambda p: p["images"][0]["pcrs"]["11"][0]["values"].pop("sha384"), "in each bank"),
        (lambda p: p["images"][0]["pcrs"]["11"][0]["values"].update(sha256="00"), "right size"),
        (lambda p: p["images"][0]["pcrs"]["11"][0]["values"].update(sha256="0 0"), "not hexadecimal"),
        (lambda p: p["images"][0]["pcrs"]["11"][0]["values"].update(sha256="AA" * 32), "not hexadecimal in lower"),
        (lambda p: p["images"][0].update(until="2030-01-01T00:00:00"), "is not a time in UTC"),
        (lambda p: p["images"][0].update(until="0001-01-01T00:00:00+23:00"), "is not a time in UTC"),
        (lambda p: p["images"][0].update(until=5), "is not a time in UTC"),
    ],
)
def test_each_fault_of_a_policy_is_named(change: Callable[[dict[str, Any]], Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        parse_policy(changed(change))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "has to be an object"),
        (b'{"name": "a", "name": "b"}', "the key 'name' stands twice"),
        (b'{"a": NaN}', "NaN is not a value"),
        (b"[" * 100_000, "is not JSON"),
        (b"1" * 5000, "is not JSON"),
        (b'{"format": "kosmos.attestation/v1", "\\ud800": 1}', "printable"),
        (b" " * (document.MAX_BYTES + 1), "more than"),
    ],
)
def test_what_is_no_document_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        parse_policy(data)


def test_a_policy_is_found_by_its_exact_name_only(tmp_path: Path) -> None:
    (tmp_path / "box.json").write_bytes(document.write(POLICY))
    (tmp_path / "copy.json").write_bytes(document.write(POLICY))
    assert load_policy(tmp_path, "box") == POLICY
    for name in ("bx", "", "Box", "../box", "box.json"):
        with pytest.raises(Refused, match="there are: box, copy") as caught:
            load_policy(tmp_path, name)
        assert caught.value.reason.code == "policy.unknown"
    with pytest.raises(Refused, match="share one name"):
        load_policy(tmp_path, "copy")
    with pytest.raises(Refused, match="there are: none"):
        load_policy(tmp_path / "nowhere", "box")


def test_times_are_utc_whatever_they_were_written_in() -> None:
    policy = parse_policy(changed(lambda p: p["images"][0].update(until="2030-01-01T02:00:00+02:00")))
    assert policy.images[0].until == datetime(2030, 1, 1, tzinfo=UTC)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(JUNK, st.data())
def test_a_document_with_junk_anywhere_never_raises_anything_else(junk: Any, data: st.DataObject) -> None:
    for value, kind in ((POLICY, Policy), (EVIDENCE, Evidence), (VERDICT, Verdict), (KNOWN, KnownHost)):
        content = json.loads(document.write(value))
        place: Any = content
        while isinstance(place, dict | list) and place:
            keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
                place[key] = junk
                break
            place = place[key]
        try:
            document.read(kind, json.dumps(content).encode(), "junk")
        except Refused as error:
            assert len(str(error)) <= 1000
            assert str(error).isprintable()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_noise_is_refused(noise: bytes, keep: int) -> None:
    for data in (noise, document.write(EVIDENCE)[:keep] + noise):
        try:
            parse_evidence(data)
        except Refused:
            continue
