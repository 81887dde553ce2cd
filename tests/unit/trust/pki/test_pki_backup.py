"""The encrypted bundle: opened by the real `age`, refused when one bit is wrong, restored onto another TPM."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from pki_bed import AGENT_NAME, ORGANIZATION, PROFILES, WEEK, Clock, keeper, request, verify, whole_pki
from swtpm_bed import manufacture
from tcti_bed import require_tcti, tcti

from kosmos_trust.pki import age
from kosmos_trust.pki.authority import serial_text
from kosmos_trust.pki.backup import back_up, restore
from kosmos_trust.pki.errors import KeyUnavailableError, PkiError, StoreError
from kosmos_trust.pki.escrow import Escrow
from kosmos_trust.pki.keeper import Keeper
from kosmos_trust.pki.keys import Encrypted, Sealed
from kosmos_trust.pki.profiles import AGENT
from kosmos_trust.tpm_seal import CredentialSealer

PASSPHRASE = b"canary correct horse battery staple"
QUICK = 4  # log2 of scrypt's cost: the format is the same


def sizes() -> list[int]:
    return [0, 1, 100, age.CHUNK - 1, age.CHUNK, age.CHUNK + 1, 3 * age.CHUNK]


@pytest.mark.parametrize("size", sizes())
def test_a_bundle_comes_back_as_it_was(size: int) -> None:
    data = os.urandom(size)
    assert age.decrypt(age.encrypt(data, PASSPHRASE, os.urandom, QUICK), PASSPHRASE) == data


def _ask(words: list[str], data: Path | None) -> int:
    """Run a program that asks for a passphrase at its terminal, as a person would answer."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(words[0], words)
    told = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:
            break
        if not part:
            break
        told += part
        if b"assphrase" in part or b":" in part:
            os.write(terminal, PASSPHRASE + b"\n")
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, told
    return status


needs_age = pytest.mark.skipif(
    shutil.which("age") is None, reason="a real peer is needed: age not installed (package age)"
)


@needs_age
@pytest.mark.parametrize("size", [0, 100, age.CHUNK, age.CHUNK + 1])
def test_the_real_age_opens_ours_and_we_open_its(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "ours").write_bytes(age.encrypt(data, PASSPHRASE, os.urandom, 10))
    _ask(["age", "-d", "-o", str(tmp_path / "plain"), str(tmp_path / "ours")], None)
    opened = (tmp_path / "plain").read_bytes() if size else b""
    assert opened == data
    (tmp_path / "data").write_bytes(data)
    _ask(["age", "-p", "-o", str(tmp_path / "theirs"), str(tmp_path / "data")], None)
    assert age.decrypt((tmp_path / "theirs").read_bytes(), PASSPHRASE) == data


def test_every_flipped_bit_and_every_cut_is_refused() -> None:
    data = b"0123456789" * 3
    bundle = age.encrypt(data, PASSPHRASE, os.urandom, 1)
    for position in range(len(bundle)):
        for bit in (0, 7):
            damaged = bytearray(bundle)
            damaged[position] ^= 1 << bit
            with pytest.raises(age.BundleError):
                age.decrypt(bytes(damaged), PASSPHRASE)
        with pytest.raises(age.BundleError):
            age.decrypt(bundle[:position], PASSPHRASE)
    with pytest.raises(age.BundleError):
        age.decrypt(bundle + b"\0", PASSPHRASE)


def test_chunks_cannot_be_cut_swapped_or_doubled() -> None:
    data = os.urandom(2 * age.CHUNK + 10)
    bundle = age.encrypt(data, PASSPHRASE, os.urandom, 1)
    size = age.CHUNK + age.TAG
    start = len(bundle) - 2 * size - 10 - age.TAG
    head, one, two, last = (
        bundle[:start],
        bundle[start : start + size],
        bundle[start + size : start + 2 * size],
        bundle[start + 2 * size :],
    )
    assert head + one + two + last == bundle
    for forged in (head + one + two, head + two + one + last, head + one + one + two + last, head + one + last, head):
        with pytest.raises(age.BundleError):
            age.decrypt(forged, PASSPHRASE)


def test_wrong_and_short_passphrases_are_refused_and_never_shown() -> None:
    bundle = age.encrypt(b"x", PASSPHRASE, os.urandom, QUICK)
    with pytest.raises(age.BundleError, match="wrong passphrase") as caught:
        age.decrypt(bundle, b"canary wrong horse battery staple")
    assert "canary" not in str(caught.value)
    with pytest.raises(PkiError, match="at least 20"):
        age.encrypt(b"x", b"short", os.urandom)


def test_a_bundle_that_asks_for_too_much_memory_is_refused() -> None:
    bundle = age.encrypt(b"x", PASSPHRASE, os.urandom, QUICK)
    with pytest.raises(age.BundleError):
        age.decrypt(bundle.replace(b" 4\n", b" 30\n", 1), PASSPHRASE)


# -- the PKI -------------------------------------------------------------------------------------------------------
def filled(made: Keeper, escrow: Escrow) -> str:
    whole_pki(made)
    leaf = made.issue("agents", request(), AGENT_NAME, AGENT)
    serial = serial_text(leaf.serial_number)
    made.revoke("agents", serial, "superseded", WEEK)
    escrow.ensure("database")
    return serial


def proved(old: Keeper, new: Keeper, serial: str, folder: Path) -> None:
    """The restored PKI is the same one: it issues what the old root verifies, and knows what was revoked."""
    leaf = new.issue("agents", request(), AGENT_NAME, AGENT)
    assert verify(folder, leaf, old.certificates("root")[0], new.load("agents").chain).endswith(": OK")
    assert serial in new.register("agents").revoked()
    before, after = old.crl("agents"), new.publish("agents", WEEK)[0]
    assert before is not None
    assert after.get_revoked_certificate_by_serial_number(int(serial, 16)) is not None


def test_a_restore_brings_everything_and_running_it_again_changes_nothing(tmp_path: Path) -> None:
    old, escrow = keeper(tmp_path / "old/pki"), Escrow(tmp_path / "old/escrow.json", os.urandom, Clock())
    serial = filled(old, escrow)
    bundle = back_up(old, PROFILES, PASSPHRASE, escrow, QUICK)
    new = keeper(tmp_path / "new/pki", protector=Encrypted(b"0123456789" * 4))
    moved = Escrow(tmp_path / "new/escrow.json", os.urandom, Clock())
    told = restore(bundle, PASSPHRASE, new, moved)
    assert sorted(told.authorities) == sorted(PROFILES)
    assert moved.ensure("database") == (escrow.ensure("database")[0], False)
    proved(old, new, serial, tmp_path)
    register = new.register("agents").path.read_bytes()
    assert restore(bundle, PASSPHRASE, new, moved) == told
    assert new.register("agents").path.read_bytes() == register, "what was issued since must stay known"
    for path in (tmp_path / "new").rglob("key"):
        assert path.stat().st_mode & 0o777 == 0o600
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in path.read_bytes()


def test_earlier_generations_come_along_and_the_newest_is_in_use(tmp_path: Path) -> None:
    old = whole_pki(keeper(tmp_path / "old"), ("root", "agents"))
    leaf = old.issue("agents", request(), AGENT_NAME, AGENT)
    newest = old.replace(PROFILES["agents"], ORGANIZATION, old.load("root"))
    bundle = back_up(old, ["root", "agents"], PASSPHRASE, None, QUICK)
    new = keeper(tmp_path / "new")
    for _ in range(2):
        restore(bundle, PASSPHRASE, new)
        assert new.load("agents").certificate == newest.certificate
    assert new.revoke("agents", serial_text(leaf.serial_number), "keyCompromise", WEEK)
    assert len(new.publish("agents", WEEK)) == 2


def test_nothing_of_the_pki_is_readable_in_the_bundle(tmp_path: Path) -> None:
    old, escrow = keeper(tmp_path / "pki"), Escrow(tmp_path / "escrow.json", os.urandom, Clock())
    filled(old, escrow)
    bundle = back_up(old, PROFILES, PASSPHRASE, escrow, QUICK)
    for word in (
        b"PRIVATE KEY",
        b"CERTIFICATE",
        b"manifest",
        b"agents",
        PASSPHRASE,
        escrow.ensure("database")[0].text().encode(),
    ):
        assert word not in bundle


def test_another_pki_is_not_overwritten(tmp_path: Path) -> None:
    old = whole_pki(keeper(tmp_path / "old"), ("root",))
    bundle = back_up(old, ["root"], PASSPHRASE, None, QUICK)
    other = whole_pki(keeper(tmp_path / "other"), ("root",))
    before = other.load("root").certificate
    with pytest.raises(StoreError, match="another authority is in use"):
        restore(bundle, PASSPHRASE, other)
    assert other.load("root").certificate == before


def test_a_bundle_of_mixed_parts_changes_nothing(tmp_path: Path) -> None:
    """Somebody with the passphrase packed a key that is not the certificate's."""
    old = whole_pki(keeper(tmp_path / "old"), ("root", "agents"))
    packed = age.decrypt(back_up(old, ["root", "agents"], PASSPHRASE, None, QUICK), PASSPHRASE)
    members = {}
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        for info in archive:
            stream = archive.extractfile(info)
            assert stream is not None
            members[info.name] = stream.read()
    keys = {name.partition("-")[0]: name for name in members if name.endswith("/key")}
    members[keys["agents"]] = members[keys["root"]]
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    new = keeper(tmp_path / "new")
    with pytest.raises(PkiError, match="not a pair"):
        restore(age.encrypt(out.getvalue(), PASSPHRASE, os.urandom, QUICK), PASSPHRASE, new)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 2000, b"{}"])
def test_content_that_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(age.BundleError):
        restore(age.encrypt(content, PASSPHRASE, os.urandom, QUICK), PASSPHRASE, keeper(tmp_path / "new"))


# -- TPM -----------------------------------------------------------------------------------------------------------
def require_credentials() -> None:
    require_tcti()
    if shutil.which("systemd-creds") is None:
        pytest.skip("systemd-creds is needed (package systemd)")
    version = subprocess.run(["systemd-creds", "--version"], capture_output=True, text=True, check=True).stdout.split()[
        1
    ]
    if int(version.split(".")[0]) < 257:
        pytest.skip(f"systemd 257 is needed to name a software TPM, here is {version} (Debian 13 has it)")


@contextmanager
def tpm(made: Path, folder: Path) -> Iterator[CredentialSealer]:
    with tcti(made, folder) as device:
        yield CredentialSealer(device)


def test_the_pki_moves_to_another_tpm_by_its_backup_and_only_so(tmp_path: Path) -> None:
    require_credentials()
    first, second = (manufacture(tmp_path / name, ek_certificate=False) for name in ("first", "second"))
    escrow = Escrow(tmp_path / "old/escrow.json", os.urandom, Clock())
    with tpm(first, tmp_path / "run1") as sealer:
        old = keeper(tmp_path / "old/pki", protector=Sealed(sealer))
        serial = filled(old, escrow)
        bundle = back_up(old, PROFILES, PASSPHRASE, escrow, QUICK)
    for path in (tmp_path / "old").rglob("key"):
        assert b"PRIVATE KEY" not in path.read_bytes()
    with tpm(second, tmp_path / "run2") as sealer:
        stolen = keeper(tmp_path / "old/pki", protector=Sealed(sealer))
        with pytest.raises(KeyUnavailableError, match="restore the PKI from its backup"):
            stolen.load("agents")
        new = keeper(tmp_path / "new/pki", protector=Sealed(sealer))
        restore(bundle, PASSPHRASE, new, Escrow(tmp_path / "new/escrow.json", os.urandom, Clock()))
        proved(old, new, serial, tmp_path)
        sealed = sealer.seal("one", b"secret")
        with pytest.raises(KeyUnavailableError):
            sealer.unseal("two", sealed)
        with pytest.raises(KeyUnavailableError):
            sealer.unseal("one", sealed[:40] + (b"A" if sealed[40:41] != b"A" else b"B") + sealed[41:])


def test_without_a_tpm_the_reason_is_told(tmp_path: Path) -> None:
    if shutil.which("systemd-creds") is None:
        pytest.skip("systemd-creds is needed (package systemd)")
    with pytest.raises(KeyUnavailableError, match="has-tpm2"):
        CredentialSealer(str(tmp_path / "no-tpm")).seal("agents", b"canary")
