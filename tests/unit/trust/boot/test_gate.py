"""The gate against real images: one that is right, and one per way of being wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from boot_bed import CMDLINE, Bench, Key

from kosmos_trust.boot import gate, pcrsig, pe, signing, token
from kosmos_trust.boot.errors import TokenError
from kosmos_trust.boot.esp import Room
from kosmos_trust.boot.findings import Verdict
from kosmos_trust.boot.roles import Role
from kosmos_trust.boot.sealing import sealing_policy

EVERY_RULE = {
    "boot.esp.room", "boot.image.size", "boot.image.readable", "boot.image.sections", "boot.image.command_line",
    "boot.image.public_key", "boot.signature.present", "boot.signature.valid", "boot.signature.policy",
    "boot.signature.scope", "boot.key.enrolled", "boot.key.bound",
}  # fmt: skip


def metadata(*keys: Key, policy: str | None = None) -> str:
    """Return LUKS2 metadata in the form that systemd-cryptenroll 257 writes, with a token for each key."""
    tokens: dict[str, object] = {"0": {"type": "systemd-recovery", "keyslots": ["0"]}}
    for number, key in enumerate(keys, start=1):
        tokens[str(number)] = {
            "type": "systemd-tpm2", "keyslots": [str(number)], "tpm2-blob": "AJ4A", "tpm2-pcrs": [12],
            "tpm2-pcr-bank": "sha256", "tpm2-primary-alg": "ecc", "tpm2_pubkey_pcrs": [11],
            "tpm2-policy-hash": policy or sealing_policy(key.rsa.public_key(), (12,)).hex(),
            "tpm2_pubkey": base64.b64encode(key.public.read_bytes()).decode(), "tpm2_srk": "gQAA",
        }  # fmt: skip
    return json.dumps({"keyslots": {str(slot): {} for slot in range(len(keys) + 1)}, "tokens": tokens})


@pytest.fixture(scope="module")
def right(bench: Bench) -> bytes:
    return bench.signed("right.efi").read_bytes()


def expectation(bench: Bench, *, volumes: Iterable[token.Volume] | None = None, room: bool = True) -> gate.Expectation:
    enrolled = [
        token.parse(metadata(bench.initrd_key), "/dev/vault"),
        token.parse(metadata(bench.all_key), "/dev/data"),
    ]
    return gate.Expectation(
        CMDLINE,
        {Role.INITRD: (bench.initrd_key.rsa.public_key(),), Role.ALL: (bench.all_key.rsa.public_key(),)},
        tuple(enrolled if volumes is None else volumes),
        Room(1000, 1 << 30 if room else 0, ()),
    )


def broken(verdict: Verdict) -> set[str]:
    for one in verdict.failures:
        assert one.found and one.needed and one.cure, one
    return {one.id for one in verdict.failures}


def test_the_right_image_passes_every_rule(bench: Bench, right: bytes) -> None:
    verdict = gate.judge(right, "right", expectation(bench))
    assert verdict.passed, "\n".join(verdict.lines())
    assert {one.id for one in verdict.findings} == EVERY_RULE
    assert len(verdict.findings) == len(EVERY_RULE)


def test_without_signatures(bench: Bench) -> None:
    image = bench.ukify("none.efi").read_bytes()
    assert broken(gate.judge(image, "none", expectation(bench))) == {"boot.signature.present"}
    empty = pe.with_last_section(pe.parse(image, "none"), ".pcrsig", b"{}")
    assert broken(gate.judge(empty, "empty", expectation(bench))) == {"boot.signature.present"}


def test_signed_by_a_foreign_key(bench: Bench) -> None:
    image = bench.signed("foreign.efi", whole=bench.foreign).read_bytes()
    verdict = gate.judge(image, "foreign", expectation(bench))
    assert broken(verdict) == {"boot.signature.valid", "boot.signature.policy", "boot.key.enrolled"}
    enrolled = next(one for one in verdict.failures if one.id == "boot.key.enrolled")
    assert "/dev/data" in enrolled.found
    assert "/dev/vault" not in enrolled.found


def test_a_foreign_signature_beside_ours_is_not_overlooked(bench: Bench, right: bytes) -> None:
    image = pe.parse(right, "right")
    entries = list(pcrsig.parse(image.content(".pcrsig"), "right"))
    entries += signing.sign_image(image, {Role.ALL: [bench.foreign.rsa]})
    verdict = gate.judge(signing.join(image, entries), "both", expectation(bench))
    assert broken(verdict) == {"boot.signature.valid"}


def test_the_command_line_changed_after_signing(bench: Bench, right: bytes) -> None:
    changed = right.replace(b"ro quiet", b"rw quiet")
    assert changed != right
    verdict = gate.judge(changed, "changed", expectation(bench))
    assert broken(verdict) == {"boot.image.command_line", "boot.signature.policy"}


def test_an_old_signature_on_a_new_command_line(bench: Bench, right: bytes) -> None:
    new = CMDLINE + " debug"
    bare = pe.read(bench.ukify("new.efi", cmdline=new))
    mixed = pe.with_last_section(bare, ".pcrsig", pe.parse(right, "right").content(".pcrsig"))
    expected = expectation(bench)
    allowed = gate.Expectation(new, expected.signers, expected.volumes, expected.room)
    assert broken(gate.judge(mixed, "mixed", allowed)) == {"boot.signature.policy"}


def test_any_other_part_changed_after_signing(bench: Bench, right: bytes) -> None:
    image = pe.parse(right, "right")
    for name in (".initrd", ".linux", ".osrel", ".uname", ".sbat"):
        section = next(one for one in image.sections if one.name == name)
        at = section.offset + section.virtual_size // 2
        data = right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :]
        assert "boot.signature.policy" in broken(gate.judge(data, name, expectation(bench))), name


def test_truncated(bench: Bench, right: bytes) -> None:
    for cut in (right[: len(right) // 2], right[:-512], right[:100], b""):
        assert broken(gate.judge(cut, "cut", expectation(bench))) == {"boot.image.readable"}


def test_oversize(bench: Bench, right: bytes) -> None:
    image = pe.parse(right, "right")
    padded = right + bytes(gate.MAX_BYTES - len(right))
    assert broken(gate.judge(padded, "padded", expectation(bench))) == {"boot.image.size"}
    assert broken(gate.judge(padded[:-1], "just", expectation(bench))) == set()
    assert image.signed is False


def test_no_room_and_all_faults_at_once(bench: Bench) -> None:
    image = bench.signed("worst.efi", whole=bench.foreign, cmdline="init=/bin/sh").read_bytes()
    assert broken(gate.judge(image, "worst", expectation(bench, room=False))) == {
        "boot.esp.room", "boot.image.command_line", "boot.signature.valid", "boot.signature.policy",
        "boot.key.enrolled",
    }  # fmt: skip


def test_a_phase_that_nobody_signed(bench: Bench, right: bytes) -> None:
    image = pe.parse(right, "right")
    entries = pcrsig.parse(image.content(".pcrsig"), "right")
    for left_out in (one for one in entries if one.bank == "sha256"):
        rest = [one for one in entries if one != left_out]
        verdict = gate.judge(signing.join(image, rest), "less", expectation(bench))
        assert "boot.signature.policy" in broken(verdict)


def test_the_initrd_key_must_not_sign_a_later_phase(bench: Bench, right: bytes) -> None:
    image = pe.parse(right, "right")
    entries = list(pcrsig.parse(image.content(".pcrsig"), "right"))
    entries += signing.sign_image(image, {Role.ALL: [bench.initrd_key.rsa]})
    assert broken(gate.judge(signing.join(image, entries), "wide", expectation(bench))) == {"boot.signature.scope"}


def test_a_public_key_that_is_not_ours_in_the_image(bench: Bench) -> None:
    expected = expectation(bench)
    swapped = {Role.INITRD: expected.signers[Role.ALL], Role.ALL: expected.signers[Role.INITRD]}
    image = bench.signed("swapped.efi", initrd=bench.all_key, whole=bench.initrd_key).read_bytes()
    verdict = gate.judge(image, "swapped", gate.Expectation(CMDLINE, swapped, expected.volumes, expected.room))
    assert broken(verdict) == {"boot.image.public_key"}


def test_a_missing_part(bench: Bench, right: bytes) -> None:
    renamed = right.replace(b".uname\0\0", b".unknow\0")
    verdict = gate.judge(renamed, "renamed", expectation(bench))
    assert broken(verdict) == {"boot.image.sections", "boot.signature.policy"}


def test_the_enrolled_key_decides(bench: Bench, right: bytes) -> None:
    def volumes(*keys: Key) -> list[token.Volume]:
        return [token.parse(metadata(*keys), "/dev/data")]

    assert broken(gate.judge(right, "i", expectation(bench, volumes=volumes(bench.foreign)))) == {"boot.key.enrolled"}
    both = volumes(bench.foreign, bench.all_key)
    assert broken(gate.judge(right, "i", expectation(bench, volumes=both))) == set()
    assert broken(gate.judge(right, "i", expectation(bench, volumes=volumes()))) == set()


def test_a_token_that_is_sealed_to_something_else(bench: Bench, right: bytes) -> None:
    """As when somebody enrols while PCR 12 is not zero: the token names our key, and would not open."""
    volume = token.parse(metadata(bench.all_key, policy="11" * 32), "/dev/data")
    verdict = gate.judge(right, "i", expectation(bench, volumes=[volume]))
    assert broken(verdict) == {"boot.key.bound"}
    assert "/dev/data: token 1" in verdict.failures[0].found


def test_secure_boot_speaks_through_its_own_program(bench: Bench, right: bytes) -> None:
    seen: list[bytes] = []

    def refuses(data: bytes) -> str | None:
        seen.append(data)
        return "no signature table present"

    expected = expectation(bench)
    verdict = gate.judge(right, "i", gate.Expectation(CMDLINE, expected.signers, secure_boot=refuses))
    assert broken(verdict) == {"boot.image.secure_boot"}
    assert seen == [right]


def test_a_verdict_is_told_in_full(bench: Bench, right: bytes) -> None:
    verdict = gate.judge(right, "image", expectation(bench, room=False))
    told = "\n".join(verdict.lines())
    assert told.startswith("image: REFUSED, 1 rules broken")
    assert all(rule in told for rule in EVERY_RULE)
    assert json.loads(json.dumps(verdict.as_dict()))["passed"] is False
    assert not Verdict("nothing", ()).passed


def test_the_metadata_of_a_volume(bench: Bench) -> None:
    volume = token.parse(metadata(bench.all_key, bench.foreign), "/dev/data")
    assert volume.recovery_slots == (0,)
    assert [one.slots for one in volume.tokens] == [(1,), (2,)]
    assert volume.tokens[0].signed_pcrs == (11,)
    assert volume.tokens[0].literal_pcrs == (12,)
    assert volume.fingerprints == {
        pcrsig.fingerprint(bench.all_key.rsa.public_key()), pcrsig.fingerprint(bench.foreign.rsa.public_key()),
    }  # fmt: skip
    content = json.loads(metadata(bench.all_key))
    content["keyslots"]["7"] = {}
    assert token.parse(json.dumps(content), "/dev/data").orphans == (7,)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{}", '{"tokens": {}}', '{"tokens": {"a": {"type": "systemd-tpm2"}}, "keyslots": {}}',
        '{"tokens": {"0": {"type": "systemd-tpm2", "keyslots": ["x"]}}, "keyslots": {}}',
        '{"tokens": {"0": {"type": "systemd-tpm2", "keyslots": [], "tpm2_pubkey": "*"}}, "keyslots": {}}',
        '{"tokens": {"0": {}}, "keyslots": {}}', "[" * 100_000,
    ],
)  # fmt: skip
def test_other_metadata_is_refused(text: str) -> None:
    with pytest.raises(TokenError, match="/dev/x: the LUKS2 metadata cannot be read"):
        token.parse(text, "/dev/x")


def test_a_token_without_a_usable_key_has_no_fingerprint() -> None:
    for key in ("", base64.b64encode(b"-----BEGIN PUBLIC KEY-----").decode()):
        content = {"tokens": {"0": {"type": "systemd-tpm2", "keyslots": ["1"], "tpm2_pubkey": key}}, "keyslots": {}}
        assert token.parse(json.dumps(content), "/dev/x").fingerprints == frozenset()


def test_the_path_of_a_bad_image_is_in_its_verdict(bench: Bench, tmp_path: Path) -> None:
    verdict = gate.judge(b"MZ", str(tmp_path / "bad.efi"), expectation(bench))
    assert verdict.subject.endswith("bad.efi")
