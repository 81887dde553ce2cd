"""Runs the role again from inside a test, with other variables."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EPHEMERAL = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "."))
CONVERGE = Path(__file__).parents[1] / "converge.yml"
Preflight = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def preflight() -> Preflight:
    """Return a function that runs the converge playbook with extra variables."""

    def run(*flags: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        command = [
            "ansible-playbook",
            "-i",
            str(EPHEMERAL / "inventory"),
            str(CONVERGE),
            "-e",
            json.dumps(variables),
            *flags,
        ]
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(EPHEMERAL / "ansible.cfg"),
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_NOCOLOR": "1",
        }
        return subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )

    return run
