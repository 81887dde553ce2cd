"""Makes the collection importable as Ansible imports it: ansible_collections.kosmos.appliance."""

from __future__ import annotations

import sys
from pathlib import Path

COLLECTIONS = str(Path(__file__).parents[2] / "collections")
if COLLECTIONS not in sys.path:
    sys.path.insert(0, COLLECTIONS)
