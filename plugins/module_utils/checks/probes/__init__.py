"""The probe kinds: one small file per concern, one function per kind."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Kind
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.probes import (
    accounts,
    apt,
    clock,
    confinement,
    files,
    find,
    hardware,
    kernel,
    measured,
    network,
    storage,
    system,
)

KINDS: Mapping[str, Kind] = {
    **files.KINDS,
    **find.KINDS,
    **accounts.KINDS,
    **kernel.KINDS,
    **hardware.KINDS,
    **system.KINDS,
    **apt.KINDS,
    **storage.KINDS,
    **network.KINDS,
    **clock.KINDS,
    **confinement.KINDS,
    **measured.KINDS,
}
