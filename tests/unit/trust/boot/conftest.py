"""One bench for all tests of this folder: making an image takes most of a second."""

from __future__ import annotations

import pytest
from boot_bed import Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("boot"))
