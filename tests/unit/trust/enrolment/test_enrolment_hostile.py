"""Bytes from outside: whatever an authority or a request sends, the errors are ours and the pair in use stays."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from enrolment_bed import Bed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pki_bed import NOW, openssl, request

pytest.importorskip("urllib3", reason="urllib3 is needed for authorities that are asked by HTTPS (make setup)")

from kosmos_trust.enrolment.backends.base import Issued
from kosmos_trust.enrolment.backends.est import Est
from kosmos_trust.enrolment.backends.http import Answer
from kosmos_trust.enrolment.backends.infisical import Infisical
from kosmos_trust.enrolment.backends.step_ca import StepCa
from kosmos_trust.enrolment.errors import EnrolmentError
from kosmos_trust.enrolment.generations import Pair
from kosmos_trust.enrolment.judge import describe, faults
from kosmos_trust.pki import age
from kosmos_trust.pki.errors import PkiError, RequestRefusedError, StoreError
from kosmos_trust.pki.issue import parse_request
from kosmos_trust.pki.keeper import pem

FEW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CHANGES = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4)
PKCS7 = {"content-type": "application/pkcs7-mime"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("issued"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def changed(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    out = bytearray(data)
    for position, value in changes:
        out[position % len(out)] = value
    return bytes(out)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    made = Bed(tmp_path_factory.mktemp("bed"))
    made.run()
    return made


class Canned:
    """The transport, with one answer for everything: its own tests are in test_enrolment_https.py."""

    who, base = "the authority", "https://localhost"

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def send(self, *words: object, **more: object) -> Answer:
        return self.answer

    def send_json(self, method: str, path: str, *more: object) -> Answer:
        return Answer(200, {}, b'{"accessToken": "t"}') if path.endswith("login") else self.answer

    def refuse(self, answer: Answer, *more: object) -> None:
        raise EnrolmentError("refused")


@FEW
@given(CHANGES)
def test_a_damaged_certificate_is_judged_and_never_crashes(bed: Bed, changes: list[tuple[int, int]]) -> None:
    pair = bed.pair()
    assert pair is not None
    der = changed(pair.certificate.public_bytes(Encoding.DER), changes)
    folder = bed.folder / "hostile"
    folder.mkdir(exist_ok=True)
    text = base64.encodebytes(der).decode()
    (folder / "cert.pem").write_text(f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n")
    (folder / "chain.pem").write_bytes(pem(pair.chain))
    try:
        certificate = bed.enroller().generations.load(folder).certificate
    except StoreError:
        return
    if der == pair.certificate.public_bytes(Encoding.DER):
        return
    assert faults(Pair(pair.folder, certificate, pair.chain), bed.wanted, bed.keys, NOW)
    assert "PRIVATE" not in describe(certificate)


@FEW
@given(CHANGES)
def test_a_damaged_request_is_refused_or_proved(changes: list[tuple[int, int]]) -> None:
    der = x509.load_pem_x509_csr(request()).public_bytes(Encoding.DER)
    try:
        assert parse_request(changed(der, changes)).is_signature_valid
    except RequestRefusedError:
        return


@FEW
@given(CHANGES)
def test_a_damaged_est_answer_is_told(bed: Bed, tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    if not (tmp_path / "p7").exists():
        (tmp_path / "certificates").write_bytes(pem(bed.pki.certificates("agents")))
        words = ("-certfile", tmp_path / "certificates", "-outform", "DER", "-out", tmp_path / "p7")
        openssl("crl2pkcs7", "-nocrl", *words)
    body = base64.b64encode(changed((tmp_path / "p7").read_bytes(), changes))
    for answer in (Answer(200, PKCS7, body), Answer(200, PKCS7, body[:-1]), Answer(200, PKCS7, b"")):
        try:
            assert isinstance(Est(Canned(answer))._send(request()), Issued)  # type: ignore[arg-type]
        except EnrolmentError:
            continue


KEYS = (
    "certificate",
    "certificateChain",
    "issuingCaCertificate",
    "status",
    "certificateRequestId",
    "crt",
    "ca",
    "certChain",
)


@FEW
@given(st.dictionaries(st.sampled_from(KEYS), VALUES) | VALUES)
def test_odd_json_is_told(bed: Bed, content: Any) -> None:
    canned: Any = Canned(Answer(200, {}, json.dumps(content).encode()))
    provisioner: Any = SimpleNamespace(token=lambda *words: "t")
    name = bed.wanted.name
    for backend in (Infisical(canned, "p", lambda: ("a", "b")), StepCa(canned, provisioner)):
        for ask in (
            lambda backend=backend: backend.enrol(request(), name, bed.wanted.lifetime, reuse_key=False),
            lambda backend=backend: backend.collect("r", b""),
        ):
            try:
                ask()
            except EnrolmentError:
                continue


@FEW
@given(st.binary(max_size=300))
def test_rubbish_is_no_bundle(data: bytes) -> None:
    for bundle in (data, age.VERSION + data, age.VERSION + b"-> scrypt " + data):
        with pytest.raises(PkiError):
            age.decrypt(bundle, b"canary correct horse battery staple")
