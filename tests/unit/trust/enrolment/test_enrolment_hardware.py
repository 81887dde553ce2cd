"""Keys in a TPM and in a PKCS #11 token: the same runs, with a real software TPM and a real SoftHSM."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from enrolment_bed import Bed
from pki_bed import AGENT_NAME, openssl
from swtpm_bed import manufacture
from tcti_bed import require_tcti, tcti

from kosmos_trust.enrolment.enroller import Policy
from kosmos_trust.enrolment.errors import BackendUnavailableError, KeyStoreError
from kosmos_trust.enrolment.pkcs11 import Pkcs11
from kosmos_trust.tpm_keys import TpmKeys

MODULES = Path("/usr/lib/x86_64-linux-gnu/ossl-modules")
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "canary-4711"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_tcti()
    if not (MODULES / "tpm2.so").exists():
        pytest.skip("OpenSSL's tpm2 provider is needed (package tpm2-openssl)")
    return manufacture(tmp_path_factory.mktemp("tpm") / "made", ek_certificate=False)


@pytest.fixture
def device(made: Path, tmp_path: Path) -> Iterator[str]:
    with tcti(made, tmp_path / "tpm") as found:
        yield found


def renewed(bed: Bed) -> None:
    """A first certificate and its renewal, each good, each followed by a run that changes nothing."""
    for changed in (True, False):
        assert bed.run().changed is changed
    bed.age(0.73)
    for changed in (True, False):
        assert bed.run().changed is changed
    assert bed.good()


def test_a_tpm_key_never_leaves_and_its_certificate_is_renewed(device: str, tmp_path: Path) -> None:
    bed = Bed(tmp_path, keys=TpmKeys(device))
    renewed(bed)
    key = bed.agent / "current/key.pem"
    assert b"BEGIN TSS2 PRIVATE KEY" in key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError):
        load_pem_private_key(key.read_bytes(), None)
    words = ("-provider", "tpm2", "-provider", "default", "-propquery", "?provider=tpm2")
    (tmp_path / "data").write_text("challenge")
    environment = {**os.environ, "TPM2OPENSSL_TCTI": device}
    signing = ("-sign", key, "-out", tmp_path / "signature", tmp_path / "data")
    openssl("dgst", *words, "-sha384", *signing, env=environment)
    public = openssl("x509", "-in", bed.agent / "current/cert.pem", "-noout", "-pubkey")
    (tmp_path / "public").write_text(public)
    checking = ("-verify", tmp_path / "public", "-signature", tmp_path / "signature", tmp_path / "data")
    assert "Verified OK" in openssl("dgst", "-sha384", *checking)


def test_a_tpm_key_may_be_used_again(device: str, tmp_path: Path) -> None:
    bed = Bed(tmp_path, keys=TpmKeys(device), policy=Policy(rekey=False))
    bed.run()
    old = bed.pair()
    bed.age(0.73)
    bed.run()
    new = bed.pair()
    assert old is not None
    assert new is not None
    assert new.serial != old.serial
    assert new.certificate.public_key() == old.certificate.public_key()
    assert bed.good()


def test_a_tpm_key_of_another_tpm_is_a_reason_for_a_new_one(made: Path, tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    other = manufacture(tmp_path / "other", ek_certificate=False)
    with tcti(made, tmp_path / "run1") as first:
        bed.keys = TpmKeys(first)
        bed.run()
    with tcti(other, tmp_path / "run2") as second:
        bed.keys = TpmKeys(second)
        assert "its key cannot be used" in bed.check().reasons[0]
        assert bed.run().changed
        assert bed.good()


def test_p256_in_a_tpm_only_when_told(device: str, tmp_path: Path) -> None:
    from kosmos_trust.enrolment.backends.local import Local

    bed = Bed(tmp_path, keys=TpmKeys(device, "P-256"))
    bed.backend = Local(bed.pki, fallback=True)
    assert bed.run().changed
    assert bed.good()
    bed.keys = TpmKeys(device)
    assert "its key is not on P-384" in bed.check().reasons[0]


def test_no_tpm_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    bed = Bed(tmp_path, keys=TpmKeys(f"device:{tmp_path}/tpmrm0"))
    with pytest.raises(KeyStoreError, match=r"the TPM cannot be used: .*No such file"):
        bed.run()
    assert not list(bed.agent.glob("staging-*"))
    assert bed.issued() == 0


# -- PKCS #11 ------------------------------------------------------------------------------------------------------
@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pkcs11:
    missing = [name for name in ("softhsm2-util", "pkcs11-tool") if shutil.which(name) is None]
    missing += [str(path) for path in (MODULES / "pkcs11.so", SOFTHSM) if not path.exists()]
    if missing:
        pytest.skip(f"missing: {', '.join(missing)} (packages softhsm2, opensc, pkcs11-provider of Debian 13)")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "hsm.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "hsm.conf"))
    words = ["softhsm2-util", "--init-token", "--free", "--label", "kosmos one", "--pin", PIN, "--so-pin", PIN]
    subprocess.run(words, check=True, capture_output=True)
    pin = tmp_path / "pin"
    pin.write_text(PIN + "\n")
    pin.chmod(0o600)
    return Pkcs11(SOFTHSM, "kosmos one", pin, os.urandom)


def objects(token: Pkcs11, kind: str = "privkey") -> str:
    words = ["pkcs11-tool", "--module", token.module, "--token-label", token.token, "--login", "--pin", PIN, "-O"]
    return subprocess.run([*map(str, words), "--type", kind], capture_output=True, text=True, check=True).stdout


def test_a_token_key_never_leaves_and_goes_with_its_generation(token: Pkcs11, tmp_path: Path) -> None:
    bed = Bed(tmp_path, keys=token, policy=Policy(keep=1))
    renewed(bed)
    assert b"BEGIN PKCS#11 PROVIDER URI" in (bed.agent / "current/key.pem").read_bytes()
    told = objects(token)
    assert told.count("Private Key Object") == 1
    assert "never extractable" in told
    assert objects(token, "pubkey").count("Public Key Object") == 1
    for path in bed.agent.rglob("*"):
        assert not path.is_file() or PIN.encode() not in path.read_bytes()


def test_a_token_key_may_be_used_again_and_stays_while_one_needs_it(token: Pkcs11, tmp_path: Path) -> None:
    bed = Bed(tmp_path, keys=token, policy=Policy(keep=1, rekey=False))
    renewed(bed)
    assert objects(token).count("Private Key Object") == 1


def test_a_run_without_an_answer_leaves_nothing_in_the_token(token: Pkcs11, tmp_path: Path) -> None:
    class Away:
        name, revokes = "away", False

        def enrol(self, *args: object, **kwargs: object) -> None:
            raise BackendUnavailableError("nobody answers")

    bed = Bed(tmp_path, keys=token)
    bed.backend = Away()
    with pytest.raises(BackendUnavailableError):
        bed.run()
    assert objects(token).count("Private Key Object") == 0


def test_a_wrong_pin_is_told_and_never_shown(token: Pkcs11, tmp_path: Path) -> None:
    bed = Bed(tmp_path, keys=token)
    token.pin_file.write_text("canary-wrong")
    with pytest.raises(KeyStoreError, match="CKR_PIN_INCORRECT") as caught:
        bed.run()
    assert "canary" not in str(caught.value)
    token.pin_file.chmod(0o644)
    with pytest.raises(KeyStoreError, match="has to be 0600"):
        token.create(tmp_path, AGENT_NAME)


def test_a_token_that_is_not_there_is_told(token: Pkcs11, tmp_path: Path) -> None:
    other = Pkcs11(SOFTHSM, "gone", token.pin_file, os.urandom)
    with pytest.raises(KeyStoreError, match="token 'gone'"):
        other.create(tmp_path, AGENT_NAME)
