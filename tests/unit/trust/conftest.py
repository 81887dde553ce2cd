"""One manufactured TPM and one enrolled machine for all tests that do not change them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from attestation_bed import GOOD, Machine, authority, booted, policy_for, require_tools
from swtpm_bed import manufacture

from kosmos_trust.attestation.policy import Policy, Profile
from kosmos_trust.attestation.state import KnownHost


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_tools()
    return manufacture(tmp_path_factory.mktemp("tpm") / "box")


@pytest.fixture(scope="session")
def policy() -> Policy:
    return policy_for(GOOD, Profile.LAB)


@pytest.fixture(scope="session")
def box(made: Path, policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, KnownHost]]:
    """One machine, booted and enrolled, for all tests that do not change it."""
    folder = tmp_path_factory.mktemp("box")
    shutil.copytree(made, folder / "state")
    with booted(folder / "state", folder, GOOD) as machine:
        yield machine, machine.enrol(policy, authority(made))
