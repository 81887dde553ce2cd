"""One lab: a machine with a name, its snapshots, its second host, and the faults that tests inflict on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kosmos_installer.errors import ExitCode, KosmosError

from . import snapshot
from .dirs import Dirs
from .machine import Spec
from .peer import ZONES
from .progress import Progress, Silence
from .snapshot import Snapshot
from .ssh import Ssh
from .state import State, stop_all
from .store import locked
from .vm import StalledError, Vm, empty_disk
from .workshop import Workshop

FRESH = "fresh"
REBOOT_SECONDS = 900


class Peer:
    """The second host in one zone: commands run in the network namespace behind the trunk's VLAN."""

    def __init__(self, vlan: int, pid: int) -> None:
        self.vlan = vlan
        self._pid = pid

    def argv(self, *command: str) -> list[str]:
        """Return the command that runs `command` there."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self._pid), "--net", *user, "--", *command]

    def run(self, command: Sequence[str], timeout_seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `command` there to its end."""
        return subprocess.run(
            self.argv(*command), capture_output=True, text=True, check=False,
            timeout=timeout_seconds, stdin=subprocess.DEVNULL,
        )  # fmt: skip


class Lab:
    """`Lab("lab").up()` gives a running fresh machine; everything it starts is ended by `down()`.

    now: seconds since 1970, injected by tests.
    """

    def __init__(
        self,
        name: str = "lab",
        dirs: Dirs | None = None,
        progress: Progress | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.dirs = dirs or Dirs.from_environment()
        self.directory = self.dirs.lab(name)
        self.progress = progress or Silence()
        self.workshop = Workshop(self.dirs, self.progress)
        self._now = now

    @property
    def state_file(self) -> Path:
        """Where the lab's processes are recorded."""
        return self.directory / "state.json"

    @property
    def ssh(self) -> Ssh:
        """The way in; it works while the lab runs."""
        return Ssh(self.directory / "ssh_config", self.alias)

    @property
    def alias(self) -> str:
        """The host name in the lab's ssh_config."""
        return f"kosmos-{self.name}"

    @cached_property
    def vm(self) -> Vm:
        """The machine itself; the tools for it are built now if they are not in the cache."""
        return self.workshop.vm(self.directory, self.alias)

    def _alone(self) -> AbstractContextManager[None]:
        return locked(self.dirs.locks() / f"lab-{self.name}", wait=False, what=f"The lab '{self.name}'")

    def up(self, *, from_golden: bool = True, spec: Spec | None = None) -> None:
        """Start the lab, or do nothing when it runs; what a crashed one left is ended first.

        A lab that was stopped or has crashed boots its disks as they are. A new one is the fresh machine: restored
        while running (seconds), or with `from_golden=False` booted from the base disk with a TPM of its own.
        """
        with self._alone():
            condition = self.condition()
            if condition == "running":
                self.progress.say(f"{self.alias} already runs")
                return
            if condition == "crashed":
                self.progress.say(f"{self.alias} had crashed; cleaning what it left")
                stop_all(self.state_file)
            chosen = self.workshop.accelerator
            self.progress.say(f"Accelerator: {chosen.name} ({chosen.reason})")
            wanted = spec or self._spec()
            state = State.load(self.state_file)
            state.home = wanted.data()
            state.save(self.state_file)
            if state.ready and self.vm.places.disk.exists():
                self.progress.say(f"Booting the disks of {self.alias} as they are; 'reset' gives the fresh machine")
                self._boot(wanted, fresh=False)
            elif from_golden:
                self._restore(self._snapshot(FRESH, wanted))
            else:
                self._boot(wanted, fresh=True)

    def reset(self) -> None:
        """Return to the fresh machine in seconds; the named snapshots stay."""
        with self._alone():
            self._restore(self._snapshot(FRESH, self._spec()))

    def snapshot(self, tag: str) -> None:
        """Save the running machine as `tag` (replacing an older one) and let it run on."""
        if tag == FRESH:
            raise KosmosError(f"'{FRESH}' is the golden machine and cannot be replaced", exit_code=ExitCode.USAGE)
        with self._alone():
            self.require_running()
            snapshot.save(self.vm, self._snapshot_directory(tag), self.directory / "layers")
            self._restore(self._snapshot(tag, self._spec()))

    def restore(self, tag: str) -> None:
        """Return to the machine saved as `tag`."""
        with self._alone():
            self._restore(self._snapshot(tag, self._spec()))

    def has_snapshot(self, tag: str) -> bool:
        """Tell whether `restore(tag)` is possible."""
        return tag == FRESH or (self._snapshot_directory(tag) / "snapshot.json").exists()

    def start(
        self,
        *,
        fresh: bool = False,
        tpm: bool = True,
        banks: tuple[str, ...] | None = None,
        rtc: str | None = None,
        data_mib: int | None = None,
        memory_mib: int | None = None,
        wait: bool = True,
    ) -> None:
        """Boot the lab's disks as they are now (fresh: new ones), with changed hardware for fault tests.

        rtc: ISO 8601 time at which the clock starts.  data_mib: replaces the data disk by an empty one of that size.
        """
        with self._alone():
            before = self._spec()
            spec = replace(
                before,
                tpm=tpm,
                banks=banks or before.banks,
                rtc=rtc,
                data_mib=data_mib or before.data_mib,
                memory_mib=memory_mib or before.memory_mib,
            )
            self._boot(spec, fresh=fresh or not self.vm.places.disk.exists(), new_data=data_mib is not None, wait=wait)

    def _boot(self, spec: Spec, *, fresh: bool, new_data: bool = False, wait: bool = True) -> None:
        vm = self.vm
        vm.stop()
        if fresh:
            vm.prepare(self.workshop.base, spec)
        elif new_data:
            empty_disk(vm.tools, vm.places.data, spec.data_mib)
        chosen = self.workshop.accelerator
        if wait:
            took = vm.boot(spec, chosen, self.dirs.sockets, self.progress)
            self.progress.say(f"{self.alias} answers by ssh after {took:.0f} s")
        else:
            vm.start(spec, chosen, self.dirs.sockets)
        self._mark_ready()

    def _restore(self, one: Snapshot) -> None:
        vm = self.vm
        began = time.monotonic()
        snapshot.restore(vm, one, self.dirs.sockets, self._now)
        snapshot.collect(vm.tools, self.directory / "layers", self.directory / "snapshots",
                         [vm.places.disk, vm.places.data])  # fmt: skip
        self._mark_ready()
        self.progress.say(f"{self.alias} is at '{one.directory.name}' after {time.monotonic() - began:.1f} s")

    def _mark_ready(self) -> None:
        state = State.load(self.state_file)
        state.ready = True
        state.save(self.state_file)

    def _spec(self) -> Spec:
        home = State.load(self.state_file).home
        return Spec.of(home) if home else Spec()

    def _snapshot_directory(self, tag: str) -> Path:
        return self.directory / "snapshots" / tag

    def _snapshot(self, tag: str, spec: Spec) -> Snapshot:
        return self.workshop.golden(spec) if tag == FRESH else Snapshot.load(self._snapshot_directory(tag))

    def require_running(self) -> None:
        """Raise `KosmosError` (exit code 2) unless the machine runs."""
        if self.condition() != "running":
            raise KosmosError(
                f"The lab '{self.name}' does not run",
                where=str(self.directory),
                cure=f"kosmos-install lab up --name {self.name}",
                exit_code=ExitCode.USAGE,
            )

    def run(
        self, *words: str, root: bool = False, stdin: str | None = None, timeout_seconds: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine as the operator (root: through sudo)."""
        self.require_running()
        return self.ssh.run(*words, root=root, stdin=stdin, timeout_seconds=timeout_seconds)

    def power_cut(self) -> None:
        """Take the power away: QEMU and the TPM end at once, nothing is flushed by the guest."""
        stop_all(self.state_file)

    kill = power_cut

    def reboot(self) -> float:
        """Restart the machine in order; return the seconds until it answers again."""
        self.require_running()
        before = self.run("cat /proc/sys/kernel/random/boot_id").stdout
        began = time.monotonic()
        self.run("systemctl reboot", root=True)
        while time.monotonic() - began < REBOOT_SECONDS:
            try:
                self.vm.wait_ssh()
            except StalledError as stall:
                self.progress.say(f"{stall.what}; pressing reset")
                self.vm.press_reset()
                continue
            after = self.run("cat /proc/sys/kernel/random/boot_id").stdout
            if after not in {"", before}:
                return time.monotonic() - began
            time.sleep(1)
        raise KosmosError(
            f"{self.alias} did not restart in {REBOOT_SECONDS} seconds", where=str(self.vm.places.console)
        )

    def console(self) -> str:
        """Return what the serial console said, all boots."""
        file = self.vm.places.console
        return file.read_text(errors="replace") if file.exists() else ""

    def peer(self, vlan: int) -> Peer:
        """Return the second host in the zone of `vlan`."""
        self.require_running()
        process = self.vm.state.find(f"zone{vlan}")
        if process is None:
            raise KosmosError(
                f"There is no second host on VLAN {vlan}",
                why="known: " + ", ".join(str(zone.vlan) for zone in ZONES),
                exit_code=ExitCode.USAGE,
            )
        return Peer(vlan, process.pid)

    def condition(self) -> str:
        """Return `running`, `crashed` (recorded as running, but QEMU is gone), `stopped` or `absent`."""
        if not self.state_file.exists():
            return "absent"
        state = State.load(self.state_file)
        if state.find("qemu") is not None:
            return "running"
        return "crashed" if state.processes else "stopped"

    def status(self) -> dict[str, Any]:
        """Return what is known: condition, way in, processes, machine, snapshots, bytes on disk."""
        condition = self.condition()
        if condition == "absent":
            return {"name": self.name, "condition": condition}
        state = State.load(self.state_file)
        return {
            "name": self.name,
            "condition": condition,
            "directory": str(self.directory),
            "ssh_config": str(self.ssh.config),
            "host": self.alias,
            "ssh_port": state.ssh_port,
            "accelerator": state.accelerator,
            "machine": state.spec,
            "processes": [{"role": one.role, "pid": one.pid, "alive": one.alive()} for one in state.processes],
            "snapshots": [FRESH, *sorted(one.parent.name for one in self.directory.glob("snapshots/*/snapshot.json"))],
            "disk_bytes": sum(one.stat().st_blocks * 512 for one in self.directory.rglob("*") if one.is_file()),
        }

    def down(self, *, keep: bool = False) -> bool:
        """End every process of the lab and remove it (keep: leave its disks and snapshots); False if there was none."""
        with self._alone():
            if not self.directory.is_dir():
                return False
            stop_all(self.state_file)
            if not keep:
                shutil.rmtree(self.directory)
            return True
