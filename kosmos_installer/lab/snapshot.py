"""Save a running machine and bring it back in seconds: memory by migration to a file, disks as overlay layers.

A layer is never written again once a snapshot names it. Restoring is: overlays on the layers, copies of firmware
variables and TPM state, the same devices, the memory image, `cont`, and the clock first of all.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kosmos_installer.errors import KosmosError

from .accel import Accelerator
from .machine import Spec
from .qmp import Qmp
from .tools import Tools
from .vm import Vm, overlay

FORMAT = 2  # raised when a snapshot's files change: golden machines of another format are made anew
_MEMORY = "memory.migration"


@dataclass(frozen=True)
class Snapshot:
    """A directory with memory, firmware variables and TPM state, and the two disk layers it stands on."""

    directory: Path
    disk: Path
    data: Path
    spec: Spec
    accelerator: Accelerator

    @classmethod
    def load(cls, directory: Path) -> Snapshot:
        """Read a snapshot; raise `KosmosError` when there is none. Layer paths are relative to the directory."""
        try:
            meta = json.loads((directory / "snapshot.json").read_text())
        except FileNotFoundError:
            raise KosmosError(
                f"There is no snapshot '{directory.name}'", where=str(directory), cure="take it first, or use 'fresh'"
            ) from None
        return cls(
            directory,
            (directory / meta["disk"]).resolve(),
            (directory / meta["data"]).resolve(),
            Spec.of(meta["spec"]),
            Accelerator(**meta["accelerator"]),
        )


def save(vm: Vm, directory: Path, layers: Path) -> None:
    """Save the running `vm` into `directory` (replaced when complete) and end it; its disks become layers."""
    state = vm.state
    vm.ssh.run("sync; echo 3 > /proc/sys/vm/drop_caches", root=True)  # an eighth of the memory image remains
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    with vm.qmp() as qmp:
        qmp.execute("stop")
        _mapped_ram(qmp)
        qmp.execute("migrate", uri=f"file:{partial / _MEMORY}")
        _until(qmp, "query-migrate", lambda status: status == "completed", {"failed", "cancelled"})
    vm.stop()
    places = vm.places
    layers.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex[:12]
    disk, data = layers / f"{name}-disk.qcow2", layers / f"{name}-data.qcow2"
    places.disk.rename(disk)
    places.data.rename(data)
    shutil.copyfile(places.vars, partial / "vars.fd")
    shutil.copyfile(places.host_keys, partial / "host_keys")
    if places.tpm.exists():
        shutil.copytree(places.tpm, partial / "tpm")
    meta = {
        "disk": os.path.relpath(disk, directory),
        "data": os.path.relpath(data, directory),
        "spec": state.spec,
        "accelerator": state.accelerator,
    }
    (partial / "snapshot.json").write_text(json.dumps(meta, indent=2) + "\n")
    if directory.exists():
        shutil.rmtree(directory)
    partial.rename(directory)


def restore(vm: Vm, snapshot: Snapshot, sockets_root: Path, now: Callable[[], float] = time.time) -> None:
    """Make `vm` the machine of `snapshot`, running, with its clock at `now()`; whatever ran there before is ended."""
    vm.stop()
    vm.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    places = vm.places
    overlay(vm.tools, snapshot.disk, places.disk)
    overlay(vm.tools, snapshot.data, places.data)
    shutil.copyfile(snapshot.directory / "vars.fd", places.vars)
    shutil.copyfile(snapshot.directory / "host_keys", places.host_keys)
    if places.tpm.exists():
        shutil.rmtree(places.tpm)
    if snapshot.spec.tpm:
        shutil.copytree(snapshot.directory / "tpm", places.tpm)
    vm.start(snapshot.spec, snapshot.accelerator, sockets_root, incoming=True)
    with vm.qmp() as qmp:
        _mapped_ram(qmp)
        qmp.execute("migrate-incoming", uri=f"file:{snapshot.directory / _MEMORY}")
        _until(qmp, "query-status", lambda status: status != "inmigrate", {"internal-error"})
        qmp.execute("cont")
    vm.wait_ssh(300)
    vm.set_clock(now())


def collect(tools: Tools, layers: Path, snapshots: Path, disks: list[Path]) -> None:
    """Remove the layers that neither a snapshot nor one of `disks` stands on."""
    if not layers.is_dir():
        return
    tops = [disk for disk in disks if disk.exists()]
    for file in snapshots.glob("*/snapshot.json"):
        one = Snapshot.load(file.parent)
        tops += [one.disk, one.data]
    needed = {link for top in tops for link in below(tools, top)}
    for layer in layers.iterdir():
        if layer.resolve() not in needed:
            layer.unlink()


def below(tools: Tools, disk: Path) -> list[Path]:
    """Return `disk` and everything that it stands on."""
    chain = json.loads(tools.run("qemu-img", "info", "--force-share", "--backing-chain", "--output=json", disk))
    return [Path(link["filename"]).resolve() for link in chain]


def _mapped_ram(qmp: Qmp) -> None:
    # Pages at fixed offsets of the file: 0.4 s instead of 2.8 s for a 2 GiB machine.
    qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "mapped-ram", "state": True}])


def _until(qmp: Qmp, query: str, done: Callable[[str], bool], failed: set[str], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    status = ""
    while time.monotonic() < deadline:
        answer = qmp.execute(query)
        status = str(answer.get("status", ""))
        if status in failed:
            break
        if status and done(status):
            return
        time.sleep(0.02)
    raise KosmosError(f"The memory image could not be moved: {query} says '{status}'", cure="see qemu.log")
