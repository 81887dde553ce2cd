from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Answer]

FLAGS = {
    "--host": "192.0.2.10",
    "--ntp": "ntp1.example.org",
    "--management-interface": "eno1",
    "--allowed-cidrs": "192.0.2.0/24, 2001:db8::/48",
    "--trunk": "eno2",
    "--data-disk": "/dev/disk/by-id/data",
}
