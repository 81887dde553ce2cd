"""Reset takes away what apply brought, keeps the way in, and the appliance can be built again."""

from __future__ import annotations

import pytest

from kosmos_installer.errors import ExitCode

from .conftest import NAME, Suite

pytestmark = pytest.mark.vm


def test_reset_needs_the_name(applied: Suite) -> None:
    refused = applied.kosmos("reset", "--confirm", "somebody-else")
    assert refused.code == ExitCode.USAGE, refused.told


def test_reset_then_clean_then_apply_again(applied: Suite) -> None:
    reset = applied.kosmos("reset", "--confirm", NAME)
    assert reset.code == 0, reset.told
    clean = applied.kosmos("verify", "--clean")
    assert clean.code == 0, clean.told
    assert clean.data["checks"]["counts"]["passed"] > 0
    again = applied.kosmos("apply")
    assert again.code == 0, again.told
    verify = applied.kosmos("verify")
    assert verify.code == 0, verify.told
