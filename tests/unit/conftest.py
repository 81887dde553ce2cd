"""Makes the collection importable as Ansible imports it: ansible_collections.kosmos.appliance, filters included."""

from __future__ import annotations

from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

init_plugin_loader([str(Path(__file__).parents[2] / "collections")])
