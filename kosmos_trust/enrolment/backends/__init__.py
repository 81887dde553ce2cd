"""Certificate authorities that can be asked: `local`, `infisical`, `est`, `step_ca`; one small interface."""

from __future__ import annotations

BACKENDS = ("local", "infisical", "est", "step_ca")
