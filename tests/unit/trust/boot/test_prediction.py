"""Our arithmetic against systemd-measure of Debian 13, and our signatures against ukify's, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from boot_bed import CMDLINE, MEASURE, Bench

from kosmos_trust.boot import pcrsig, pe, signing
from kosmos_trust.boot.errors import ImageError, SignatureError
from kosmos_trust.boot.prediction import ALL_PATHS, BANKS, PCR, SECTIONS, measure, policies, policy_pcr, predict
from kosmos_trust.boot.roles import Role


@pytest.fixture(scope="module")
def image(bench: Bench) -> pe.Image:
    return pe.read(bench.signed("signed.efi"))


def parts(image: pe.Image, folder: Path) -> list[str]:
    """Return systemd-measure's options for the sections of an image, each in a file."""
    options = []
    for name in SECTIONS:
        if name in image.names:
            file = folder / f"part{name}"
            file.write_bytes(image.content(name))
            options.append(f"--{name[1:]}={file}")
    return options


def test_pcr_11_is_what_systemd_measure_calculates(bench: Bench, image: pe.Image) -> None:
    paths = ["", *ALL_PATHS, "enter-initrd:leave-initrd:sysinit:ready:shutdown:final"]
    told = json.loads(
        bench.tools.run(
            MEASURE, "calculate", "--json=short", *parts(image, bench.folder), *(f"--bank={bank}" for bank in BANKS),
            *(f"--phase={path or ':'}" for path in paths),
        )
    )  # fmt: skip
    for bank in BANKS:
        expected = {one.get("phase", ""): one["hash"] for one in told[bank]}
        assert {path: predict(measure(image, bank), bank, path).hex() for path in paths} == expected
        assert len(set(expected.values())) == len(paths)


def test_every_section_counts_in_the_prediction(bench: Bench, image: pe.Image) -> None:
    whole = measure(image)
    assert {one.name for one in whole} >= {".linux", ".initrd", ".cmdline", ".osrel", ".uname", ".sbat", ".pcrpkey"}
    right = predict(whole, "sha256", ALL_PATHS[0])
    for left_out in whole:
        assert predict([one for one in whole if one is not left_out], "sha256", ALL_PATHS[0]) != right


def test_the_signatures_are_byte_for_byte_those_of_ukify(bench: Bench, image: pe.Image) -> None:
    keys = {Role.INITRD: [bench.initrd_key.rsa], Role.ALL: [bench.all_key.rsa]}
    ours = signing.sign_image(pe.read(bench.ukify("bare.efi")), keys)
    assert pcrsig.render(ours) == image.content(".pcrsig")


def test_what_ukify_signed_verifies_with_the_right_key_only(bench: Bench, image: pe.Image) -> None:
    entries = pcrsig.parse(image.content(".pcrsig"), "image")
    keys = [one.rsa.public_key() for one in (bench.initrd_key, bench.all_key, bench.foreign)]
    assert [sum(pcrsig.verify(one, key) for one in entries) for key in keys] == [2, 8, 0]
    expected = {policy for bank in BANKS for policy in policies(measure(image, bank), bank, ALL_PATHS).values()}
    assert {one.policy for one in entries} == expected


def test_a_changed_signature_or_policy_does_not_verify(bench: Bench, image: pe.Image) -> None:
    entry = pcrsig.parse(image.content(".pcrsig"), "image")[0]
    key = bench.initrd_key.rsa.public_key()
    bad = bytes([entry.signature[0] ^ 1]) + entry.signature[1:]
    assert pcrsig.verify(entry, key)
    for wrong in (
        pcrsig.Entry("sha256", (PCR,), entry.fingerprint, entry.policy, bad),
        pcrsig.Entry("sha256", (PCR,), entry.fingerprint, bytes(32), entry.signature),
        pcrsig.Entry("sha384", (PCR,), entry.fingerprint, entry.policy, entry.signature),
        pcrsig.Entry("sha1", (PCR,), entry.fingerprint, entry.policy, entry.signature),
    ):
        assert not pcrsig.verify(wrong, key)


def test_a_policy_over_two_pcrs_is_not_the_one_over_the_first() -> None:
    assert policy_pcr({11: bytes(32)}, "sha256") != policy_pcr({11: bytes(32), 12: bytes(32)}, "sha256")
    assert policy_pcr({11: bytes(32)}, "sha256") != policy_pcr({12: bytes(32)}, "sha256")


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{", b'{"sha256": {}}', b'{"sha256": [1]}', b'{"sha256": [{"pcrs": [11]}]}',
        b'{"sha256": [{"pcrs": [24], "pkfp": "00", "pol": "00", "sig": "AA=="}]}',
        b'{"sha256": [{"pcrs": [true], "pkfp": "00", "pol": "00", "sig": "AA=="}]}',
        b'{"sha256": [{"pcrs": [11], "pkfp": "zz", "pol": "00", "sig": "AA=="}]}',
        b'{"sha256": [{"pcrs": [11], "pkfp": "00", "pol": "00", "sig": "*"}]}',
        b'{"sha256": ' + b"[" * 100_000, b" " * (pcrsig.MAX_BYTES + 1),
        json.dumps({"sha256": [{}] * (pcrsig.MAX_ENTRIES + 1)}).encode(),
    ],
)  # fmt: skip
def test_signatures_of_another_form_are_refused(text: bytes) -> None:
    with pytest.raises(SignatureError, match="cannot be read"):
        pcrsig.parse(text, "image")


def test_only_keys_that_a_tpm_can_verify_are_taken(bench: Bench) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 3072)):
        pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(SignatureError, match="cannot sign PCR policies"):
            pcrsig.load_public(pem, "key")
    with pytest.raises(SignatureError, match="no public key"):
        pcrsig.load_public(bench.all_key.private.read_bytes(), "key")


@pytest.fixture
def request_text(bench: Bench) -> bytes:
    image = pe.read(bench.ukify("request.efi"))
    signers = {Role.INITRD: [bench.initrd_key.rsa.public_key()], Role.ALL: [bench.all_key.rsa.public_key()]}
    return signing.render_requests({"update": signing.ask(image, signers)})


def test_the_controller_signs_without_the_image_and_the_host_joins(bench: Bench, request_text: bytes) -> None:
    keys = {Role.INITRD: [bench.initrd_key.rsa], Role.ALL: [bench.all_key.rsa]}
    answer = signing.answer(signing.parse_requests(request_text, "request"), keys, CMDLINE)
    unsigned = pe.read(bench.folder / "request.efi")
    joined = bench.folder / "joined-by-us.efi"
    joined.write_bytes(signing.join(unsigned, signing.parse_answers(answer, "answer")["update"]))
    assert bench.section(joined, ".pcrsig") == pe.read(bench.signed("by-ukify.efi")).content(".pcrsig")


def test_the_controller_refuses_what_is_not_declared(bench: Bench, request_text: bytes) -> None:
    keys = {Role.INITRD: [bench.initrd_key.rsa], Role.ALL: [bench.all_key.rsa]}
    request = signing.parse_requests(request_text, "request")
    with pytest.raises(SignatureError, match="its command line is"):
        signing.answer(request, keys, CMDLINE + " init=/bin/sh")
    with pytest.raises(SignatureError, match="other signing keys"):
        signing.answer(request, {**keys, Role.ALL: [bench.foreign.rsa]}, CMDLINE)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("apiVersion",), "kosmos.boot/v0", "version"),
        (("requests",), [], "AttributeError"),
        (("requests", "update", "texts", ".cmdline"), "quiet", r"the text of \.cmdline"),
        (("requests", "update", "sections", "sha256", 0, 1), "00", "wrong length"),
        (("requests", "update", "sections", "sha256", 0, 0), ".none", "order"),
        (("requests", "update", "sections", "sha256", 1, 0), ".linux", "order"),
        (("requests", "update", "sections"), {}, "banks"),
        (("requests", "update", "signers", "root"), [], "ValueError"),
        (("requests", "update", "signers"), None, "AttributeError"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(
    request_text: bytes, path: tuple[str | int, ...], value: object, why: str
) -> None:
    content = json.loads(request_text)
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(SignatureError, match=why):
        signing.parse_requests(json.dumps(content).encode(), "request")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"apiVersion": "kosmos.boot/v1", "answers": []}'])
def test_an_answer_of_another_form_is_refused(text: bytes) -> None:
    with pytest.raises(SignatureError, match="no answer with PCR signatures"):
        signing.parse_answers(text, "answer")


def test_signatures_of_another_image_are_not_joined(bench: Bench, image: pe.Image) -> None:
    other = pe.read(bench.ukify("other.efi", cmdline=CMDLINE + " debug"))
    with pytest.raises(SignatureError, match="not for this image"):
        signing.join(other, pcrsig.parse(image.content(".pcrsig"), "image"))
    with pytest.raises(SignatureError, match="there are none"):
        signing.join(other, [])
    with pytest.raises(ImageError, match="no section"):
        signing.ask(pe.read(bench.kernel), {})
