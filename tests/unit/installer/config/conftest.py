from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
import yaml

from kosmos_installer import config
from kosmos_installer.errors import FileError, Problem
from kosmos_installer.model import Appliance, example

TODAY = date(2026, 11, 22)
CHECKS = frozenset({"host.time.synchronised", "host.aide.baseline"})
NAME = "kosmos.yml"

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def surroundings() -> config.Surroundings:
    return config.Surroundings(TODAY, lambda: CHECKS)


@pytest.fixture
def kosmos() -> dict[str, Any]:
    """The smallest valid `kosmos`, to be changed by the test."""
    return copy.deepcopy(example())


@pytest.fixture
def accept(surroundings: config.Surroundings) -> Callable[[dict[str, Any]], Appliance]:
    """Read `kosmos` as a file; the test fails when it is refused."""

    def read(kosmos: dict[str, Any]) -> Appliance:
        return config.parse(yaml.safe_dump({"kosmos": kosmos}), NAME, surroundings)

    return read


@pytest.fixture
def refuse(surroundings: config.Surroundings) -> Callable[[Any], tuple[Problem, ...]]:
    """The problems of a file, given as `kosmos` or as text; the test fails when it is accepted."""

    def read(content: Any) -> tuple[Problem, ...]:
        text = content if isinstance(content, str) else yaml.safe_dump({"kosmos": content}, sort_keys=False)
        with pytest.raises(FileError) as caught:
            config.parse(text, NAME, surroundings)
        return caught.value.problems

    return read
