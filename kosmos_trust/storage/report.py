"""The state of sealed storage as JSON data and as lines for people."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import recovery, swap
from .errors import StorageError
from .move import is_moved, old_copy
from .plan import STEPS
from .units import on_volume
from .volume import Volume

CURES = {
    "empty": "run `prepare`",
    "formatted": "run `recovery-key new`",
    "recovery_enrolled": "run `recovery-key drill`",
    "recovery_proved": "run `enrol-tpm`",
    "tpm_enrolled": "run `advance`, after a reboot into the signed image if it asks for one",
}


def collect(volume: Volume, *, ask_tpm: bool = True) -> dict[str, Any]:
    """Return everything that is known, as JSON data; what cannot be looked at stands in "errors"."""
    plan, errors = volume.plan, []
    told: dict[str, Any] = {"device": plan.device, "state": volume.state, "uuid": volume.uuid, "open": volume.mapped}
    told["next"] = None if volume.state == STEPS[-1] else CURES.get(volume.state, "run `advance`")
    try:
        disk = volume.disk()
        told["disk"] = {"verdict": disk.verdict, "findings": [finding.what for finding in disk.findings]}
        told["unaccounted_slots"] = list(volume.unaccounted)
        told["recovery_key"] = asdict(recovery.status(volume, ask_tpm=ask_tpm))
    except StorageError as error:
        errors.append(str(error))
    told["mounted"] = plan.mountpoint.is_mount()
    told["folders"] = [
        {
            "path": folder,
            "on_volume": is_moved(Path(folder), on_volume(plan, folder)) if plan.mountpoint.is_mount() else None,
            "old_copy_in_clear": old_copy(Path(folder)).exists(),
        }
        for folder in plan.folders
    ]
    told["swap"] = [asdict(one) for one in swap.active(plan.root, plan.mountpoint)]
    told["errors"] = errors
    return told


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Yield the same for people."""
    yield f"{told['device']}: {told['state']}" + (f" (next: {told['next']})" if told["next"] else "")
    if "disk" in told:
        yield f"  disk: {told['disk']['verdict']}: {'; '.join(told['disk']['findings']) or 'nothing on it'}"
    yield f"  volume: {'open' if told['open'] else 'closed'}, {'mounted' if told['mounted'] else 'not mounted'}"
    if told.get("unaccounted_slots"):
        yield f"  key slots that this host did not make: {', '.join(map(str, told['unaccounted_slots']))}"
    key = told.get("recovery_key")
    if key:
        yield from _recovery_lines(key)
    for folder in told["folders"]:
        place = {True: "on the volume", False: "NOT on the volume", None: "unknown, the volume is not mounted"}
        old = ", and an OLD COPY IN CLEAR beside it" if folder["old_copy_in_clear"] else ""
        yield f"  {folder['path']}: {place[folder['on_volume']]}{old}"
    for one in told["swap"]:
        yield f"  swap {one['path']}: {'ok' if one['safe'] else 'NOT SAFE'}, {one['why']}"
    yield from (f"  error: {error}" for error in told["errors"])


def _recovery_lines(key: dict[str, Any]) -> Iterator[str]:
    record = key["acknowledged"]
    if key["slot"] is None:
        yield "  recovery key: none that was proved"
        return
    current = record is not None and record["slot"] == key["slot"]
    kept = f"kept by {record['by']} since {_day(record['at'])}" if current else "NOT acknowledged"
    yield f"  recovery key: slot {key['slot']}, {kept}, last drill {_day(key['last_drill'])}"
    uses = ", ".join(f"{use['what']} on {_day(use['at'])}" for use in key["uses"])
    yield f"  recovery key used: {uses or key['suspicion'] or 'never seen'}"
    yield f"    (this would not be seen: {'; '.join(key['unseen'])})"


def _day(seconds: int | None) -> str:
    return "never" if seconds is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
