"""A host in a folder: its ESP, keys and settings are real, ukify, sbsign and cryptsetup are Debian 13's own.

dracut is replaced (a real run takes long and needs a kernel); so is what only a running machine can say.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boot_bed import CMDLINE, Bench, Key, make_key

from kosmos_trust.boot import build, config
from kosmos_trust.boot.commands import Done
from kosmos_trust.boot.errors import CommandError
from kosmos_trust.boot.host import LOADER, Host
from kosmos_trust.boot.roles import Role
from kosmos_trust.boot.state import State
from kosmos_trust.boot.update import Updater, parts_of

VERSION = "6.12.48+deb13-amd64"
SIGNED = ("ukify", "sbsign", "sbverify")


class Machine:
    """One host; `said` answers programs by their first word, `ran` lists the commands."""

    def __init__(self, bench: Bench, folder: Path, signing: str = "host", *, secure_boot: bool = False) -> None:
        self.bench, self.folder = bench, folder
        self.esp, self.boot, self.public, self.private = (folder / one for one in ("esp", "boot", "pub", "keys"))
        for one in (self.esp / "EFI/Linux", self.boot, self.public, self.private):
            one.mkdir(parents=True)
        self.keys = {role: self._key(role, signing) for role in Role}
        self.initrd, self.said, self.ran = bench.initrd.read_bytes(), dict[str, Done](), list[list[str]]()
        self.built: Path | None = None
        self.stub = folder / build.STUB.relative_to("/")
        self.stub.parent.mkdir(parents=True)
        self.stub.write_bytes(bench.kernel.read_bytes())
        self.install(VERSION)
        (folder / "etc").mkdir()
        (folder / "etc/os-release").write_text("ID=debian\n")
        self.settings: dict[str, Any] = {
            "esp": str(self.esp), "state": str(folder / "state"), "cmdline": CMDLINE, "signing": signing,
            "public_keys": str(self.public), "private_keys": str(self.private) if signing == "host" else None,
            "volumes": [],
        }  # fmt: skip
        if secure_boot:
            self.settings["secure_boot"] = self._secure_boot()

    def _key(self, role: Role, signing: str) -> Key:
        key = make_key(self.private, role.value)
        shutil.move(key.public, self.public / f"{role.value}.pub")
        if signing == "controller":
            away = self.folder / "controller"
            away.mkdir(exist_ok=True)
            shutil.move(key.private, away / key.private.name)
        return key

    def _secure_boot(self) -> dict[str, str]:
        key, certificate = self.folder / "db.key", self.folder / "db.crt"
        self.bench.tools.run(
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=owner", "-keyout", key,
            "-out", certificate,
        )  # fmt: skip
        return {"key": str(key), "certificate": str(certificate)}

    def install(self, version: str) -> None:
        """Install a kernel, as dpkg does before it calls the hooks."""
        (self.boot / f"vmlinuz-{version}").write_bytes(self.bench.kernel.read_bytes())

    def started(self, image: str) -> None:
        """Say that the boot loader has started an image."""
        variable = self.folder / f"sys/firmware/efi/efivars/LoaderEntrySelected-{LOADER}"
        variable.parent.mkdir(parents=True, exist_ok=True)
        variable.write_bytes(b"\x06\0\0\0" + f"{image}\0".encode("utf-16-le"))

    def run(self, argv: Sequence[str | Path]) -> Done:
        words = [str(word) for word in argv]
        self.ran.append(words)
        if words[0] in self.said:
            return self.said[words[0]]
        if words[0] == "dracut":
            Path(words[-1]).write_bytes(self.initrd)
            return Done(0, "", "")
        if words[0] == "ukify" and self.built is not None:  # what ukify made before, from the same parts
            shutil.copy(self.built, words[-1].removeprefix("--output="))
            return Done(0, "", "")
        assert words[0] in SIGNED, words
        done = subprocess.run(self.bench.tools.argv(*words), capture_output=True, text=True, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    @property
    def host(self) -> Host:
        return Host(config.parse(self.settings, "boot.json"), self.run, self.folder)

    @property
    def state(self) -> State:
        return State(self.folder / "state")

    @property
    def updater(self) -> Updater:
        return Updater(self.host, self.state)

    def parts(self, version: str = VERSION) -> build.Parts:
        return parts_of(self.host, version)

    def names(self) -> list[str]:
        return sorted(path.name for path in (self.esp / "EFI/Linux").iterdir())

    def write_settings(self) -> Path:
        path = self.folder / "boot.json"
        path.write_text(json.dumps(self.settings))
        return path


__all__ = ["VERSION", "CommandError", "Machine"]
