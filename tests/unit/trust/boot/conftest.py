"""One bench for all tests of this folder: making an image takes most of a second."""

from __future__ import annotations

import os

import pytest
from boot_bed import Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("boot"))


@pytest.fixture
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the waiting for the disk in tests that write hundreds of times and cut processes, not power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
