"""Runs of the enrolment with the appliance's own authority and keys in encrypted files."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from enrolment_bed import PASSPHRASE, Bed
from pki_bed import AGENT_NAME, NOW, ORGANIZATION, PROFILES, WEEK, keeper, openssl, request, verify, whole_pki

from kosmos_trust.enrolment.backends.base import Issued
from kosmos_trust.enrolment.enroller import Policy
from kosmos_trust.enrolment.errors import (
    BackendRefusedError,
    BackendUnavailableError,
    ClockError,
    GateRefusedError,
    InstallError,
    KeyStoreError,
)
from kosmos_trust.enrolment.hooks import Hooks
from kosmos_trust.enrolment.keystore import EncryptedFile
from kosmos_trust.enrolment.outcome import Action
from kosmos_trust.pki import crl
from kosmos_trust.pki.authority import serial_text
from kosmos_trust.pki.issue import issue
from kosmos_trust.pki.keys import Encrypted
from kosmos_trust.pki.names import AgentName
from kosmos_trust.pki.profiles import AGENT


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def service(bed: Bed, accept: str = "exit 0") -> Path:
    """Let a real program be the service: it logs its calls, and `accept` decides about validation."""
    log, rule = bed.folder / "calls", bed.folder / "rule"
    rule.write_text(accept)
    code = f"readlink {bed.agent}/current | sed 's/^/VERB /' >> {log}; . {rule}"
    bed.hooks = Hooks(("sh", "-c", code.replace("VERB", "validate")), ("sh", "-c", f"echo reload >> {log}"))
    return log


def test_the_first_run_installs_a_pair_that_openssl_takes(bed: Bed, tmp_path: Path) -> None:
    done = bed.run()
    assert (done.changed, done.action, done.reasons) == (True, Action.ENROL, ("there is no certificate",))
    assert done.renew_at is not None
    assert timedelta(days=54) < done.renew_at - NOW < timedelta(days=65)
    assert done.days_left == pytest.approx(90, abs=0.01)
    current = bed.agent / "current"
    assert current.is_symlink()
    anchor = ("-CAfile", bed.pki.folder / "root/certificate.pem", "-untrusted", current / "chain.pem")
    told = openssl("verify", "-x509_strict", "-purpose", "sslclient", *anchor, current / "cert.pem")
    assert told.endswith(": OK\n")
    (tmp_path / "pass").write_bytes(PASSPHRASE)
    public = openssl("pkey", "-in", current / "key.pem", "-passin", f"file:{tmp_path / 'pass'}", "-pubout")
    assert public == openssl("x509", "-in", current / "fullchain.pem", "-noout", "-pubkey")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (current / "key.pem").read_bytes()
    assert (current / "key.pem").stat().st_mode & 0o777 == 0o600
    assert bed.agent.stat().st_mode & 0o777 == 0o700
    assert [line["step"] for line in bed.heard] == ["begin", "asking", "issued", "flipping", "done"]


def test_the_second_run_changes_nothing_and_needs_no_verdict(bed: Bed) -> None:
    first, content = bed.run(), bed.content()
    again = bed.enroller().run(None)
    assert (again.changed, again.action, again.serial) == (False, Action.NONE, first.serial)
    assert again.before == again.after
    assert bed.content() == content
    assert bed.issued() == 1


def test_check_mode_tells_the_truth_and_writes_nothing(bed: Bed) -> None:
    fresh = bed.check()
    assert (fresh.changed, fresh.action) == (True, Action.ENROL)
    assert fresh.after.startswith("serial: (new)")
    assert not bed.agent.exists()
    with pytest.raises(GateRefusedError):
        bed.enroller().check(None)
    bed.run()
    content = bed.content()
    assert not bed.check().changed
    bed.age(0.73)
    due = bed.check()
    assert (due.changed, due.action, due.reasons) == (True, Action.RENEW, ("it is due for renewal",))
    assert bed.content() == content
    assert bed.run().changed


def test_a_due_certificate_is_renewed_with_a_new_key_and_the_diff_shows_no_key(bed: Bed) -> None:
    first, old = bed.run(), bed.pair()
    bed.age(0.60)
    assert bed.run().action is Action.NONE
    bed.age(0.73)
    second, new = bed.run(), bed.pair()
    assert old is not None
    assert new is not None
    assert second.serial != first.serial
    assert new.certificate.public_key() != old.certificate.public_key()
    assert f"serial: {first.serial}" in second.before
    assert f"serial: {second.serial}" in second.after
    assert "names: spiffe://kosmos.internal/agent/planner-1" in second.after
    assert "not after: " in second.after
    assert "KEY" not in second.before + second.after
    assert bed.run().changed is False


FAULTS = [
    ("revoked", "it was revoked"),
    ("key", "key and certificate are not a pair"),
    ("key gone", "its key cannot be used"),
    ("key open", "its key cannot be used"),
    ("chain", "its chain does not verify"),
    ("cert", "cannot be read"),
    ("link", "No such file"),
]


def damage(bed: Bed, how: str) -> None:
    pair = bed.pair()
    assert pair is not None
    if how == "revoked":
        bed.pki.revoke("agents", pair.serial, "keyCompromise", WEEK)
        made = bed.pki.crl("agents")
        assert made is not None
        bed.lists = (made,)
    elif how == "key":
        bed.keys.create(pair.folder, AGENT_NAME)
    elif how == "key gone":
        (pair.folder / "key.pem").unlink()
    elif how == "key open":
        (pair.folder / "key.pem").chmod(0o644)
    elif how == "chain":
        (pair.folder / "chain.pem").write_bytes(b"")
    elif how == "cert":
        (pair.folder / "cert.pem").write_bytes(b"damaged")
    else:
        pair.folder.rename(pair.folder.with_name("moved"))


def test_a_revoked_intermediate_is_a_reason_that_a_new_one_cures(bed: Bed) -> None:
    bed.run()
    old = bed.pki.load("agents").certificate
    bed.pki.replace(PROFILES["agents"], ORGANIZATION, bed.pki.load("root"))
    assert not bed.run().changed, "the former intermediate is still good"
    bed.pki.revoke("root", serial_text(old.serial_number), "cACompromise", WEEK)
    bed.lists = (*bed.pki.publish("root", WEEK), *bed.pki.publish("agents", WEEK))
    assert bed.check().reasons == ("an authority above it was revoked",)
    assert bed.run().changed
    assert bed.good()


@pytest.mark.parametrize(("how", "said"), FAULTS)
def test_a_pair_that_is_not_what_is_wanted_is_replaced(bed: Bed, how: str, said: str) -> None:
    first = bed.run()
    damage(bed, how)
    planned = bed.check()
    assert planned.action is Action.RENEW
    assert said in planned.reasons[0]
    done = bed.run()
    assert done.changed
    assert done.serial != first.serial
    assert bed.good()
    assert not bed.run().changed


def test_another_identity_storage_or_root_is_a_new_certificate(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.run()
    for organization in ("Other Works", "A/B+C\\D, E=F"):
        monkeypatch.setattr("enrolment_bed.AGENT_NAME", AgentName("kosmos.internal", "planner-1", organization))
        assert "its subject is" in bed.check().reasons[0]
        assert bed.run().changed
        pair = bed.pair()
        assert pair is not None
        (found,) = pair.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        assert found.value == organization
    bed.keys = EncryptedFile(lambda: PASSPHRASE, "P-256")
    with pytest.raises(BackendRefusedError, match="allow it explicitly"):
        bed.run()
    assert bed.pair() == pair, "what was in use is still in use"


# -- the gate ------------------------------------------------------------------------------------------------------
def test_no_verdict_no_certificate(bed: Bed) -> None:
    with pytest.raises(GateRefusedError, match="no attestation verdict"):
        bed.enroller().run(None)
    assert bed.issued() == 0
    assert not (bed.agent / "current").exists()
    bed.run()
    bed.age(0.73)
    content = bed.content()
    with pytest.raises(GateRefusedError):
        bed.enroller().run(None)
    assert bed.content() == content


# -- the service refuses -------------------------------------------------------------------------------------------
def test_a_refused_renewal_is_rolled_back_and_tried_again_without_a_new_certificate(bed: Bed) -> None:
    log = service(bed)
    first = bed.run()
    bed.age(0.73)
    (bed.folder / "rule").write_text("echo 'emerg: key values mismatch' >&2; exit 1")
    with pytest.raises(
        InstallError, match=rf"key values mismatch; the former certificate {first.serial} is in use"
    ) as caught:
        bed.run()
    pair = bed.pair()
    assert pair is not None
    assert pair.serial == first.serial
    assert log.read_text().splitlines()[-1] == "reload"
    assert PASSPHRASE.decode() not in str(caught.value)
    assert bed.issued() == 2
    assert bed.check().action is Action.INSTALL
    with pytest.raises(InstallError):
        bed.run()
    assert bed.issued() == 2, "the authority is not asked again for what the service refuses"
    (bed.folder / "rule").write_text("exit 0")
    done = bed.run()
    assert done.changed
    assert done.serial != first.serial
    assert bed.issued() == 2
    assert not bed.run().changed


def test_both_errors_are_told_when_the_way_back_fails_too(bed: Bed) -> None:
    bed.run()
    bed.age(0.73)
    bed.hooks = Hooks(("sh", "-c", "echo first >&2; exit 1"), ("sh", "-c", "echo second >&2; exit 3"))
    with pytest.raises(
        InstallError, match=r"first; the former .* did not take it: reload command 'sh' failed \(3\): second"
    ):
        bed.run()
    assert bed.pair() is not None


def test_a_first_certificate_that_the_service_refuses_leaves_no_link(bed: Bed) -> None:
    service(bed, "exit 1")
    with pytest.raises(InstallError, match="there is no former certificate"):
        bed.run()
    assert not (bed.agent / "current").is_symlink()
    service(bed)
    assert bed.run().changed
    assert bed.issued() == 1


def test_a_hook_that_hangs_or_is_missing_is_a_refusal(bed: Bed) -> None:
    bed.hooks = Hooks(("sleep", "30"), timeout_seconds=0.2)
    with pytest.raises(InstallError, match="'sleep' did not run: TimeoutExpired"):
        bed.run()
    bed.hooks = Hooks(("no-such-program",))
    with pytest.raises(InstallError, match="FileNotFoundError"):
        bed.run()


# -- the authority is away, or lies --------------------------------------------------------------------------------
class Away:
    name, revokes = "away", True

    def enrol(self, *args: object, **kwargs: object) -> Issued:
        raise BackendUnavailableError("nobody answers")

    def recover(self, csr: bytes) -> None:
        return None

    def revoke(self, serial: str, reason: str, reference: str = "") -> None:
        raise BackendUnavailableError("nobody answers")


def test_offline_a_good_certificate_stays_until_a_tenth_is_left(bed: Bed) -> None:
    first = bed.run()
    bed.backend = Away()
    bed.age(0.89)
    done = bed.run()
    assert (done.changed, done.serial) == (False, first.serial)
    assert "kept the certificate that is in use until" in done.warnings[0]
    assert "nobody answers" in done.warnings[0]
    bed.age(0.91)
    with pytest.raises(BackendUnavailableError, match="nobody answers"):
        bed.run()
    assert not list(bed.agent.glob("staging-*"))


@pytest.mark.parametrize("how", ["key", "revoked", "chain"])
def test_offline_a_bad_certificate_has_no_grace(bed: Bed, how: str) -> None:
    bed.run()
    damage(bed, how)
    bed.backend = Away()
    with pytest.raises(BackendUnavailableError):
        bed.run()


def test_without_the_authoritys_key_the_local_backend_is_unavailable(bed: Bed) -> None:
    bed.run()
    (bed.pki.folder / "agents/key").rename(bed.folder / "offline-key")
    bed.age(0.73)
    assert bed.run().warnings
    (bed.folder / "offline-key").rename(bed.pki.folder / "agents/key")
    assert bed.run().changed


class Lying(Away):
    """An authority of the real kind that grants something else than what was asked for."""

    def __init__(self, bed: Bed, lie: str) -> None:
        self.bed, self.lie = bed, lie

    def enrol(self, csr: bytes, name: AgentName, lifetime: timedelta, *, reuse_key: bool) -> Issued:
        agents, now = self.bed.pki.load("agents"), self.bed.clock.now
        profile = AGENT
        if self.lie == "root":
            agents = whole_pki(keeper(self.bed.folder / "rogue", self.bed.clock), ("root", "agents")).load("agents")
        elif self.lie == "name":
            name, csr = AgentName("kosmos.internal", "other", ORGANIZATION), request(key=self._only(csr))
        elif self.lie == "key":
            csr = request()
        elif self.lie == "life":
            profile = replace(AGENT, lifetime=timedelta(days=365))
        elif self.lie == "serial":
            pair = self.bed.pair()
            assert pair is not None
            number = pair.certificate.serial_number << 1  # the authority drops one bit of what it is given
            made = issue(agents, csr, name, profile, now=now, random=lambda size: number.to_bytes(size, "big"))
            return Issued(made, agents.chain)
        elif self.lie == "usage":
            profile = replace(AGENT, usages=PROFILES["services"].usages)
        return Issued(issue(agents, csr, name, profile, now=now, random=os.urandom), agents.chain)

    def _only(self, csr: bytes) -> ec.EllipticCurvePrivateKey:
        (staging,) = self.bed.agent.glob("staging-*")
        return Encrypted(PASSPHRASE).unwrap("x", (staging / "key.pem").read_bytes())


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("root", "its chain does not verify"),
        ("name", "it names spiffe://kosmos.internal/agent/other"),
        ("key", "key and certificate are not a pair"),
        ("life", "it lives 365 days"),
        ("serial", "its serial was used before"),
        ("usage", "not for client authentication alone"),
    ],
)
def test_what_the_authority_should_not_have_issued_is_not_installed(bed: Bed, lie: str, said: str) -> None:
    bed.run()
    bed.age(0.73)
    before, honest = bed.pair(), bed.backend
    bed.backend = Lying(bed, lie)
    with pytest.raises(BackendRefusedError, match=said):
        bed.run()
    assert bed.pair() == before
    assert not list(bed.agent.glob("staging-*"))
    bed.backend = honest
    assert bed.run().changed


# -- the clock -----------------------------------------------------------------------------------------------------
def test_a_clock_that_fell_back_changes_nothing(bed: Bed) -> None:
    bed.run()
    content = bed.content()
    bed.clock.now = NOW - timedelta(days=400)
    with pytest.raises(ClockError, match="set the clock"):
        bed.run()
    assert bed.content() == content


def test_after_a_long_time_off_an_expired_certificate_is_renewed(bed: Bed) -> None:
    bed.run()
    bed.clock.now = NOW + timedelta(days=200)
    assert "expired" in bed.check().reasons[0]
    assert bed.run().changed
    assert bed.good()


# -- afterwards ----------------------------------------------------------------------------------------------------
def test_a_superseded_certificate_is_revoked_after_a_day_and_openssl_refuses_it(bed: Bed, tmp_path: Path) -> None:
    bed.run()
    old = bed.pair()
    bed.age(0.73)
    bed.run()
    new = bed.pair()
    assert old is not None
    assert new is not None
    assert not bed.run().changed
    bed.clock.now += timedelta(days=1)
    assert bed.check().action is Action.RETIRE
    done = bed.run()
    assert (done.changed, done.action, done.serial) == (True, Action.RETIRE, new.serial)
    assert not bed.run().changed
    made = bed.pki.crl("agents")
    assert made is not None
    (tmp_path / "crl.pem").write_bytes(crl.bundle([made]))
    options = ("-crl_check", "-CRLfile", tmp_path / "crl.pem", "-attime", str(int(bed.clock.now.timestamp())))
    root = bed.pki.certificates("root")[0]
    assert "certificate revoked" in verify(tmp_path, old.certificate, root, old.chain, *options)
    assert verify(tmp_path, new.certificate, root, new.chain, *options).endswith(": OK")


def test_generations_beyond_the_limit_go_with_their_keys(bed: Bed) -> None:
    bed.policy = Policy(keep=2)
    for _ in range(4):
        bed.run()
        bed.age(0.73)
    left = list((bed.agent / "generations").iterdir())
    assert len(left) == 2
    assert bed.pair().folder in left


def test_a_key_in_a_file_is_never_used_again(bed: Bed) -> None:
    bed.run()
    bed.policy = Policy(rekey=False)
    bed.age(0.73)
    with pytest.raises(KeyStoreError, match="not used again"):
        bed.run()
    assert bed.good()


def test_no_secret_leaves_by_any_way(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service(bed)
    shown = [repr(bed.run()), repr(bed.enroller()), repr(bed.keys), repr(bed.backend)]
    bed.age(0.73)
    shown.append(repr(bed.run()))
    bed.keys = EncryptedFile(lambda: b"another-canary-0123456789-0123456789")
    with pytest.raises(GateRefusedError) as caught:
        bed.enroller().run(None)
    shown += [
        str(caught.value),
        repr(bed.check()),
        (bed.agent / "journal.jsonl").read_text(),
        repr(bed.heard),
        caplog.text,
    ]
    private = bed.pki.load("agents").key
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    text = "".join(shown)
    assert "canary" not in text
    assert "PRIVATE" not in text
    assert str(private.private_numbers().private_value) not in text
    assert "canary" not in " ".join(sys.argv)
