"""What every lab is made from, each built once and kept in the cache: tools, key, base disk, golden machine."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.paths import ensure_private

from . import accel, image, recipe, snapshot
from .dirs import Dirs
from .machine import Places, Spec, qemu_argv
from .mirror import Mirror, of_this_machine
from .progress import Progress
from .snapshot import Snapshot, below
from .state import stop_all
from .store import Store, key_of, locked
from .tools import BOOT_PACKAGES, OLDEST_QEMU, PACKAGES, Tools, effective_root, host_qemu_major
from .vm import Vm

ALIAS = "kosmos-workshop"
# What a build holds at its peak, measured: packed tree, sparse disk and qcow2; and memory image with its disk layer.
_BASE_GIB, _GOLDEN_GIB = 4, 2


def _abandon(partial: Path) -> None:
    """End what a half-built entry has running: its builder may have been killed."""
    for file in partial.rglob("state.json"):
        stop_all(file)


class Workshop:
    """Gives the parts; builds those that are absent, which takes some minutes the first time."""

    def __init__(self, dirs: Dirs, progress: Progress) -> None:
        self._dirs = dirs
        self._progress = progress
        self._store = Store(dirs.cache, _abandon)

    @cached_property
    def mirror(self) -> Mirror:
        """The archive that this machine's apt configuration names."""
        return of_this_machine()

    @cached_property
    def tools(self) -> Tools:
        """The host's programs when its QEMU is new enough, else the tree in the cache."""
        shared = (self._dirs.state, self._dirs.cache, self._dirs.sockets)
        for directory in shared:
            ensure_private(directory)
        if host_qemu_major() >= OLDEST_QEMU:
            return Tools(None, shared, effective_root())
        return self._tree(PACKAGES, shared)

    def boot_tools(self, *shared: Path, build: bool = True) -> Tools | None:
        """Debian 13's ukify, systemd-measure and cryptenroll, with `shared` shown at the same paths.

        None when they have not been built and `build` is False.
        """
        if not build and not self._store.path("tools", key_of(self._tree_inputs(BOOT_PACKAGES))).is_dir():
            return None
        return self._tree(BOOT_PACKAGES, shared)

    def _tree_inputs(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {"packages": names, "mirror": asdict(self.mirror)}

    def _tree(self, names: tuple[str, ...], shared: tuple[Path, ...]) -> Tools:
        entry = self._store.entry(
            "tools", self._tree_inputs(names), lambda at: image.build_tools(at, names, self.mirror, self._progress)
        )
        return Tools(entry / "root", shared, effective_root())

    @cached_property
    def accelerator(self) -> accel.Accelerator:
        """KVM where a trial guest runs."""
        return accel.choose(self.tools)

    @cached_property
    def key(self) -> Path:
        """The private SSH key of this user's labs, made at the first use."""
        path = ensure_private(self._dirs.state / "labs") / "id_ed25519"
        with locked(self._dirs.locks() / "lab-key"):
            if not path.exists():
                partial = path.with_name(".id_ed25519")
                for leftover in (partial, partial.with_suffix(".pub")):
                    leftover.unlink(missing_ok=True)
                subprocess.run(
                    ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kosmos-lab", "-f", str(partial)], check=True
                )
                partial.with_suffix(".pub").rename(path.with_suffix(".pub"))
                partial.rename(path)
        return path

    def vm(self, directory: Path, alias: str) -> Vm:
        """Return the machine of `directory`; nothing is started."""
        return Vm(directory, alias, self.key, self.tools)

    @cached_property
    def base(self) -> Path:
        """The directory with `disk.qcow2` and `host_keys`: Debian as installed, booted once, then powered off."""
        return self._store.entry("base", self._base_inputs(), self._build_base)

    def _base_inputs(self) -> dict[str, Any]:
        public = self.key.with_suffix(".pub").read_text()
        files = {name: asdict(file) for name, file in recipe.overlay(public, self.mirror).items()}
        return {
            "packages": recipe.PACKAGES,
            "files": files,
            "hooks": recipe.hooks("overlay.tar"),
            "finish": recipe.FINISH,
            "grub": recipe.grub_stub(),
            "layout": [image.DISK_GIB, image.ESP_MIB, recipe.ROOT_UUID, recipe.ESP_SERIAL],
            "mirror": asdict(self.mirror),
        }

    def _build_base(self, target: Path) -> None:
        self._need_room(_BASE_GIB)
        public = self.key.with_suffix(".pub").read_text()
        image.build_disk(target, public, self.mirror, self.tools, self._progress)
        self._progress.say("Starting it once, to install the boot loader as the installer does")
        vm = self.vm(target / "vm", ALIAS)
        spec = Spec()
        vm.prepare(target, spec)
        try:
            took = vm.boot(spec, self.accelerator, self._dirs.sockets, self._progress)
            self._progress.say(f"Answers by ssh after {took:.0f} s; running grub-install and update-grub")
            done = vm.ssh.run("sh -s", root=True, stdin=recipe.FINISH, timeout_seconds=1500)
            if done.returncode != 0:
                raise KosmosError("The base machine could not be finished", why=done.stderr.strip()[-800:])
            vm.power_off()
        finally:
            vm.stop()
        self.tools.run("qemu-img", "commit", "-q", vm.places.disk)
        vm.places.vars.rename(target / "vars.fd")
        shutil.rmtree(target / "vm")

    def golden(self, spec: Spec) -> Snapshot:
        """Return the fresh machine, saved while running, for `spec`; memory images fit one QEMU and one processor."""
        inputs = self._golden_inputs(spec, self.base.name)
        entry = self._store.entry("golden", inputs, lambda at: self._build_golden(at, spec), sync=False)
        return Snapshot.load(entry / "fresh")

    def _golden_inputs(self, spec: Spec, base: str) -> dict[str, Any]:
        argv = qemu_argv(spec, Places(Path("/d"), Path("/s")), 0, self.accelerator.name)
        return {
            "format": snapshot.FORMAT,
            "base": base,
            "machine": hashlib.sha256("\0".join(argv).encode()).hexdigest(),
            "banks": spec.banks,
            "qemu": self.tools.version(),
            "processor": _processor() if self.accelerator.name == "kvm" else "emulated",
        }

    def _build_golden(self, target: Path, spec: Spec) -> None:
        self._need_room(_GOLDEN_GIB)
        self._progress.say("Starting the fresh machine")
        vm = self.vm(target / "vm", ALIAS)
        vm.prepare(self.base, spec)
        try:
            took = vm.boot(spec, self.accelerator, self._dirs.sockets, self._progress)
            self._progress.say(f"Answers by ssh after {took:.0f} s; waiting until it has settled")
            vm.settle()
            self._progress.say("Saving it as the golden machine")
            snapshot.save(vm, target / "fresh", target / "layers")
        finally:
            vm.stop()
        shutil.rmtree(target / "vm")

    def _need_room(self, gib: int) -> None:
        free = shutil.disk_usage(self._dirs.cache).free
        if free < gib << 30:
            raise KosmosError(
                "There is too little room to build the lab",
                where=str(self._dirs.cache),
                why=f"{free >> 20} MiB are free, {gib} GiB are needed",
                cure="free some space ('kosmos-install lab prune' removes what no lab uses), or set XDG_CACHE_HOME",
                exit_code=ExitCode.NO_SPACE,
            )

    def prune(self) -> list[Path]:
        """Remove the disks and golden machines that are neither current nor below the disk of a lab; return them.

        Current is what `up` without options would use, whether it is built or not.
        """
        base = self._store.path("base", key_of(self._base_inputs()))
        golden = self._store.path("golden", key_of(self._golden_inputs(Spec(), base.name)))
        needed = {base, golden}
        for disk in self._dirs.state.glob("labs/*/**/*.qcow2"):
            needed.update(entry for link in below(self.tools, disk) for entry in link.parents)
        removed = []
        for kind in ("golden", "base", "tools"):
            self._store.sweep(kind)
        for kind in ("golden", "base"):
            for entry in sorted((self._dirs.cache / kind).glob("[0-9a-f]*")):
                if entry not in needed:
                    shutil.rmtree(entry)
                    removed.append(entry)
        return removed


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
