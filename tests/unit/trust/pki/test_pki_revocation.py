"""Register and revocation lists: what was revoked is refused by the real `openssl`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from pki_bed import AGENT_NAME, NOW, ORGANIZATION, PROFILES, WEEK, Clock, keeper, openssl, request, verify, whole_pki

from kosmos_trust.pki import crl
from kosmos_trust.pki.authority import serial_text
from kosmos_trust.pki.errors import PkiError, StoreError
from kosmos_trust.pki.keeper import Keeper
from kosmos_trust.pki.profiles import AGENT
from kosmos_trust.pki.register import Register


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pki(tmp_path: Path, clock: Clock) -> Keeper:
    return whole_pki(keeper(tmp_path / "pki", clock), ("root", "agents"))


def test_openssl_refuses_a_revoked_certificate_and_takes_the_other(pki: Keeper, tmp_path: Path) -> None:
    agents = pki.load("agents")
    stolen, good = (pki.issue("agents", request(), AGENT_NAME, AGENT) for _ in range(2))
    lists = [pki.publish("root", WEEK)[0], pki.publish("agents", WEEK)[0]]
    (tmp_path / "crl.pem").write_bytes(crl.bundle(lists))
    options = ("-crl_check_all", "-CRLfile", tmp_path / "crl.pem")
    assert verify(tmp_path, stolen, agents.root, agents.chain, *options).endswith(": OK")
    assert pki.revoke("agents", serial_text(stolen.serial_number), "keyCompromise", WEEK)
    made = pki.crl("agents")
    assert made is not None
    (tmp_path / "crl.pem").write_bytes(crl.bundle([lists[0], made]))
    assert "certificate revoked" in verify(tmp_path, stolen, agents.root, agents.chain, *options)
    assert verify(tmp_path, good, agents.root, agents.chain, *options).endswith(": OK")
    assert crl.is_revoked(made, stolen)
    assert not crl.is_revoked(made, good)
    told = openssl(
        "crl", "-in", pki.folder / "agents/crl.pem", "-noout", "-text", "-CAfile", pki.folder / "agents/certificate.pem"
    )
    assert "verify OK" in told
    assert "Key Compromise" in told
    assert serial_text(stolen.serial_number) in told
    assert "X509v3 CRL Number" in told


def test_a_revoked_intermediate_is_refused(pki: Keeper, tmp_path: Path) -> None:
    agents = pki.load("agents")
    leaf = pki.issue("agents", request(), AGENT_NAME, AGENT)
    pki.revoke("root", serial_text(agents.certificate.serial_number), "cACompromise", WEEK)
    root_list = pki.crl("root")
    assert root_list is not None
    (tmp_path / "crl.pem").write_bytes(crl.bundle([root_list, pki.publish("agents", WEEK)[0]]))
    said = verify(tmp_path, leaf, agents.root, agents.chain, "-crl_check_all", "-CRLfile", tmp_path / "crl.pem")
    assert "certificate revoked" in said


def test_a_list_past_its_time_is_refused(pki: Keeper, tmp_path: Path, clock: Clock) -> None:
    agents, leaf = pki.load("agents"), pki.issue("agents", request(), AGENT_NAME, AGENT)
    (tmp_path / "crl.pem").write_bytes(crl.bundle([pki.publish("root", WEEK)[0], pki.publish("agents", WEEK)[0]]))
    late = str(int((NOW + WEEK + timedelta(seconds=1)).timestamp()))
    options = ("-crl_check_all", "-CRLfile", tmp_path / "crl.pem", "-attime", late)
    assert "CRL has expired" in verify(tmp_path, leaf, agents.root, agents.chain, *options)


def test_an_earlier_generation_still_revokes_and_publishes(pki: Keeper, tmp_path: Path) -> None:
    """A new intermediate is in use; agents of the old one are refused or taken by the old one's fresh list."""
    old = pki.load("agents")
    stolen, good = (pki.issue("agents", request(), AGENT_NAME, AGENT) for _ in range(2))
    new = pki.replace(PROFILES["agents"], ORGANIZATION, pki.load("root"))
    assert pki.revoke("agents", serial_text(stolen.serial_number), "keyCompromise", WEEK)
    lists = [*pki.publish("root", WEEK), *pki.publish("agents", WEEK)]
    (tmp_path / "crl.pem").write_bytes(crl.bundle(lists))
    options = ("-crl_check_all", "-CRLfile", tmp_path / "crl.pem")
    assert "certificate revoked" in verify(tmp_path, stolen, old.root, old.chain, *options)
    assert verify(tmp_path, good, old.root, old.chain, *options).endswith(": OK")
    leaf = pki.issue("agents", request(), AGENT_NAME, AGENT)
    assert verify(tmp_path, leaf, new.root, new.chain, *options).endswith(": OK")


def test_list_numbers_rise_even_when_the_clock_falls(pki: Keeper, clock: Clock) -> None:
    def number(made: x509.CertificateRevocationList) -> int:
        return made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    first = number(pki.publish("agents", WEEK)[0])
    clock.now += timedelta(hours=1)
    second = number(pki.publish("agents", WEEK)[0])
    clock.now -= timedelta(hours=1)
    assert first < second < number(pki.publish("agents", WEEK)[0])


def test_an_entry_leaves_the_list_two_periods_after_its_end(pki: Keeper, clock: Clock) -> None:
    leaf = pki.issue("agents", request(), AGENT_NAME, AGENT, lifetime=timedelta(days=1))
    pki.revoke("agents", serial_text(leaf.serial_number), "superseded", WEEK)
    clock.now = leaf.not_valid_after_utc + 2 * WEEK
    assert crl.is_revoked(pki.publish("agents", WEEK)[0], leaf)
    clock.now += timedelta(seconds=1)
    assert not crl.is_revoked(pki.publish("agents", WEEK)[0], leaf)


def test_only_what_was_issued_can_be_revoked_and_only_once(pki: Keeper) -> None:
    serial = serial_text(pki.issue("agents", request(), AGENT_NAME, AGENT).serial_number)
    with pytest.raises(PkiError, match="no certificate with serial 0A was issued"):
        pki.revoke("agents", "0A", "keyCompromise", WEEK)
    with pytest.raises(PkiError, match="revocation reason 'stolen'"):
        pki.revoke("agents", serial, "stolen", WEEK)
    assert pki.revoke("agents", serial, "keyCompromise", WEEK)
    assert not pki.revoke("agents", serial, "superseded", WEEK)
    assert pki.register("agents").revoked()[serial].reason == "keyCompromise"


def test_a_repeated_serial_is_a_broken_source_of_randomness(tmp_path: Path) -> None:
    made = whole_pki(
        Keeper(tmp_path / "pki", keeper(tmp_path).protector, Clock(), lambda size: b"\x55" * size), ("root",)
    )
    made.register("root").note_issued(made.load("root").certificate)
    with pytest.raises(PkiError, match="source of randomness is broken"):
        made.register("root").note_issued(made.load("root").certificate)


def test_a_torn_last_line_never_counted_and_is_cut_off(pki: Keeper) -> None:
    register = pki.register("agents")
    first = pki.issue("agents", request(), AGENT_NAME, AGENT)
    whole = register.path.read_bytes()
    register.path.write_bytes(whole + b'{"event": "issued", "ser')
    assert list(register.issued()) == [serial_text(first.serial_number)]
    second = pki.issue("agents", request(), AGENT_NAME, AGENT)
    assert list(register.issued()) == [serial_text(one.serial_number) for one in (first, second)]
    assert register.path.read_bytes().startswith(whole)


@pytest.mark.parametrize("damage", [b"x\n", b"[]\n", b"{}\n", b'{"event":"held","serial":"1"}\n', b"\n"])
def test_a_damaged_line_stops_everything(pki: Keeper, damage: bytes) -> None:
    register = pki.register("agents")
    pki.issue("agents", request(), AGENT_NAME, AGENT)
    register.path.write_bytes(register.path.read_bytes() + damage)
    with pytest.raises(StoreError, match="line 2 is damaged"):
        pki.issue("agents", request(), AGENT_NAME, AGENT)
    with pytest.raises(StoreError, match="restore the register"):
        pki.publish("agents", WEEK)[0]


REVOKER = """
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from kosmos_trust.pki.register import Register
register = Register(Path(sys.argv[1]))
while not Path(sys.argv[1]).with_name("start").exists():
    pass
print(sum(register.revoke(serial, "superseded", datetime.now(UTC)) for serial in sys.argv[2:]), flush=True)
"""


def test_processes_that_revoke_at_once_lose_nothing(tmp_path: Path) -> None:
    register = Register(tmp_path / "r.jsonl")
    serials = [serial_text(number + 1) for number in range(40)]
    lines = [
        {"event": "issued", "serial": serial, "subject": "CN=x", "key": "00", "not_after": NOW.isoformat()}
        for serial in serials
    ]
    register.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    register.path.chmod(0o600)
    command = [sys.executable, "-c", REVOKER, str(register.path), *serials]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    time.sleep(1)  # all of them wait for the start
    (tmp_path / "start").touch()
    done = [int(run.communicate(timeout=60)[0]) for run in runs]
    assert sum(done) == 40
    assert list(register.revoked()) == serials
    assert len(register.path.read_text().splitlines()) == 80
