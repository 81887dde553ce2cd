"""The file of revocation lists for the gateway."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pki_bed import AGENT_NAME, WEEK, Clock, keeper, request, verify, whole_pki

from kosmos_trust.enrolment.errors import InstallError
from kosmos_trust.enrolment.gateway import install_lists
from kosmos_trust.enrolment.hooks import Hooks
from kosmos_trust.pki.authority import serial_text
from kosmos_trust.pki.keeper import Keeper
from kosmos_trust.pki.profiles import AGENT


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pki(tmp_path: Path, clock: Clock) -> Keeper:
    return whole_pki(keeper(tmp_path / "pki", clock), ("root", "agents", "services"))


def test_the_file_makes_openssl_refuse_the_revoked_one(pki: Keeper, tmp_path: Path, clock: Clock) -> None:
    path, chain = tmp_path / "edge/crl.pem", pki.certificates("agents")
    stolen, good = (pki.issue("agents", request(), AGENT_NAME, AGENT) for _ in range(2))
    root_list = pki.publish("root", WEEK)[0]
    pki.revoke("agents", serial_text(stolen.serial_number), "keyCompromise", WEEK)
    made = pki.crl("agents")
    assert made is not None
    assert install_lists(path, [pki.publish("services", WEEK)[0], made, root_list], chain, clock.now)
    assert not install_lists(path, [made, root_list], chain, clock.now)
    assert path.stat().st_mode & 0o777 == 0o644
    options = ("-crl_check_all", "-CRLfile", path)
    assert "certificate revoked" in verify(tmp_path, stolen, chain[-1], chain[:-1], *options)
    assert verify(tmp_path, good, chain[-1], chain[:-1], *options).endswith(": OK")


def test_missing_forged_late_and_old_lists_are_refused(pki: Keeper, tmp_path: Path, clock: Clock) -> None:
    path, chain = tmp_path / "crl.pem", pki.certificates("agents")
    other = whole_pki(keeper(tmp_path / "other", clock), ("root", "agents"))
    root_list, old = pki.publish("root", WEEK)[0], pki.publish("agents", WEEK)[0]
    with pytest.raises(InstallError, match=r"no genuine revocation list of .*agents"):
        install_lists(path, [root_list], chain, clock.now)
    with pytest.raises(InstallError, match=r"no genuine revocation list of .*agents"):
        install_lists(path, [root_list, other.publish("agents", WEEK)[0]], chain, clock.now)
    with pytest.raises(InstallError, match="due for renewal"):
        install_lists(path, [root_list, old], chain, clock.now + WEEK)
    assert not path.exists()
    clock.now += timedelta(hours=1)
    new = pki.publish("agents", WEEK)[0]
    assert install_lists(path, [root_list, old, new], chain, clock.now)
    before = path.read_bytes()
    with pytest.raises(InstallError, match="is older than"):
        install_lists(path, [root_list, old], chain, clock.now)
    assert path.read_bytes() == before


def test_a_gateway_that_refuses_gets_the_former_lists_back(pki: Keeper, tmp_path: Path, clock: Clock) -> None:
    path, chain = tmp_path / "crl.pem", pki.certificates("agents")
    lists = [pki.publish("root", WEEK)[0], pki.publish("agents", WEEK)[0]]
    with pytest.raises(InstallError, match="emerg: bad"):
        install_lists(path, lists, chain, clock.now, Hooks(("sh", "-c", "echo emerg: bad; exit 1")))
    assert not path.exists()
    install_lists(path, lists, chain, clock.now)
    before = path.read_bytes()
    with pytest.raises(InstallError, match="the former lists are back"):
        install_lists(path, [lists[0], pki.publish("agents", WEEK)[0]], chain, clock.now, Hooks(("false",)))
    assert path.read_bytes() == before
