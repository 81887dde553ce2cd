"""The command `kosmos-install`: it turns one box into the appliance and proves that it still is one."""

from __future__ import annotations

__version__ = "0.1.0"
