"""The gate and the schedule: what is refused, with which reason, and when a certificate is due."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from enrolment_bed import AK, HOST, FoundVerdict
from hypothesis import given, settings
from hypothesis import strategies as st
from pki_bed import AGENT_NAME, NOW, keeper, request, whole_pki

from kosmos_trust.enrolment import schedule
from kosmos_trust.enrolment.errors import ClockError, GateRefusedError
from kosmos_trust.enrolment.gate import Gate
from kosmos_trust.pki.keeper import Keeper
from kosmos_trust.pki.profiles import AGENT

GATE = Gate(HOST, timedelta(seconds=300), AK)
GOOD = FoundVerdict(NOW)

REFUSED = [
    (None, "no attestation verdict"),
    (replace(GOOD, status="untrusted"), "says 'untrusted'"),
    (replace(GOOD, status="Trusted"), "says 'Trusted'"),
    (replace(GOOD, status=""), "says ''"),
    (replace(GOOD, host="box2"), "about 'box2'"),
    (replace(GOOD, ak_name="00"), "another attestation key"),
    (replace(GOOD, degraded=("software-tpm",)), "software-tpm"),
    (replace(GOOD, issued_at=NOW - timedelta(seconds=301)), "301 s old, at most 300 s"),
    (replace(GOOD, issued_at=NOW + timedelta(seconds=31)), "31 s in the future"),
]


@pytest.mark.parametrize(("verdict", "said"), REFUSED)
def test_a_verdict_that_is_not_good_and_fresh_is_refused_with_the_reason(verdict: object, said: str) -> None:
    with pytest.raises(GateRefusedError, match=f"no certificate for {HOST}: .*{said}"):
        GATE.check(verdict, NOW)


def test_good_verdicts_open_the_gate() -> None:
    GATE.check(GOOD, NOW)
    GATE.check(replace(GOOD, issued_at=NOW - timedelta(seconds=300)), NOW)
    GATE.check(replace(GOOD, issued_at=NOW + timedelta(seconds=30)), NOW)
    marked = replace(GOOD, degraded=("software-tpm",))
    replace(GATE, tolerated=frozenset({"software-tpm"})).check(marked, NOW)
    replace(GATE, ak_name=None).check(replace(GOOD, ak_name="other"), NOW)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Keeper:
    return whole_pki(keeper(tmp_path_factory.mktemp("pki")), ("root", "agents"))


def test_renewal_is_at_two_thirds_with_a_stable_spread(pki: Keeper, tmp_path: Path) -> None:
    leaf = pki.issue("agents", request(), AGENT_NAME, AGENT)
    start, life = leaf.not_valid_before_utc, leaf.not_valid_after_utc - leaf.not_valid_before_utc

    @settings(max_examples=50, deadline=None)
    @given(st.text())
    def within(seed: str) -> None:
        part = (schedule.renew_at(leaf, seed) - start) / life
        assert 2 / 3 - 0.05 <= part <= 2 / 3 + 0.05
        assert schedule.renew_at(leaf, seed) == schedule.renew_at(leaf, seed)

    within()
    parts = [(schedule.renew_at(leaf, f"box{number}/agent-a") - start) / life for number in range(300)]
    assert max(parts) > 2 / 3 + 0.045
    assert min(parts) < 2 / 3 - 0.045
    assert len(set(parts)) >= 295


def test_a_clock_that_went_back_is_told_and_grace_ends_at_a_tenth(pki: Keeper) -> None:
    leaf = pki.issue("agents", request(), AGENT_NAME, AGENT)
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    schedule.check_clock(leaf, start - timedelta(minutes=5))
    with pytest.raises(ClockError, match="set the clock"):
        schedule.check_clock(leaf, start - timedelta(minutes=5, seconds=1))
    edge = start + (end - start) * 0.9
    assert schedule.in_grace(leaf, edge - timedelta(seconds=1))
    assert not schedule.in_grace(leaf, edge + timedelta(seconds=1))
