"""A sealed volume on an image file, with the real cryptsetup, systemd-cryptenroll and a software TPM; and power cuts.

Nothing here needs device-mapper: slots are added, tried and wiped on the file itself. The TPM is started for each
command and shut down after it, since without a kernel's resource manager a client leaves its sessions behind.
"""

from __future__ import annotations

import base64
import ctypes.util
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from swtpm_bed import WAIT_SECONDS, SocketTransport, manufacture, require_swtpm
from tpm_commands import extend_pcr

from kosmos_trust.storage import programs
from kosmos_trust.storage.luks import Kdf, Seal
from kosmos_trust.storage.plan import Plan
from kosmos_trust.storage.programs import Command, Done
from kosmos_trust.storage.volume import Volume
from kosmos_trust.tpm import Tpm

CHEAP = Kdf(memory_kib=64, lanes=1, passes=4)
IMAGE_BYTES = 34 << 20
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SHARED_MEMORY = Path("/dev/shm")


def need(*names: str) -> None:
    """Skip by name when a program is not installed."""
    missing = [name for name in names if shutil.which(name, path=programs.PROGRAM_PATH) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed ({', '.join(programs.package_of(one) for one in missing)})")


def need_tpm() -> None:
    """Skip when there is no software TPM, or no library through which systemd could reach it."""
    need("systemd-cryptenroll")
    require_swtpm()
    if ctypes.util.find_library("tss2-tcti-swtpm") is None and not list(
        Path("/usr/lib").glob("*/libtss2-tcti-swtpm.so.0")
    ):
        pytest.skip("libtss2-tcti-swtpm not installed (package libtss2-tcti-swtpm0)")
    if os.geteuid() != 0:
        pytest.skip("a mount namespace with a TPM device takes root")


@contextmanager
def memory() -> Iterator[Path]:
    """Yield a folder in memory, as /run is on a host."""
    if not SHARED_MEMORY.is_dir():
        pytest.skip("/dev/shm is not there: a folder in memory is needed")
    folder = Path(tempfile.mkdtemp(prefix="kosmos-test-", dir=SHARED_MEMORY))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _connected(socket: Path) -> SocketTransport:
    """Connect; the socket is there a moment before somebody listens."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return SocketTransport(socket)
        except ConnectionRefusedError:
            assert time.monotonic() < end, "swtpm does not listen"
            time.sleep(0.01)


class SoftwareTpm:
    """A manufactured TPM that boots for each use. `extended`: what firmware and stub measured before, by PCR."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.extended = folder, {11: hashlib.sha256(b"image").digest()}
        self.state = manufacture(folder / "state", "sha256", ek_certificate=False)

    @contextmanager
    def booted(self) -> Iterator[Path]:
        """Start it, measure, and yield the socket; shut it down in order, or it counts an attack."""
        socket = Path(tempfile.mkdtemp(dir=self.folder)) / "s"
        process = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate", f"dir={self.state}",
             "--server", f"type=unixio,path={socket}", "--ctrl", f"type=unixio,path={socket}.ctrl"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            end = time.monotonic() + WAIT_SECONDS
            while not (socket.exists() and socket.with_name("s.ctrl").exists()):
                assert process.poll() is None and time.monotonic() < end, "swtpm did not start"
                time.sleep(0.01)
            self._speak(socket, lambda device: [extend_pcr(device, p, {"sha256": d}) for p, d in self.extended.items()])
            yield socket
            self._speak(socket, lambda device: device.command(0x145, struct.pack(">H", 0)))
        finally:
            process.terminate()
            process.wait(timeout=WAIT_SECONDS)

    @staticmethod
    def _speak(socket: Path, words: Callable[[Tpm], object]) -> None:
        with Tpm(_connected(socket)) as device:
            words(device)

    def read(self, pcrs: tuple[int, ...]) -> dict[int, bytes]:
        """Return PCR values, as the library asks for them."""
        with self.booted() as socket, Tpm(_connected(socket)) as device:
            return device.pcr_values("sha256", pcrs)

    def sign_policy(self, path: Path, key: rsa.RSAPrivateKey = RSA_KEY) -> None:
        """Write what systemd-measure would sign for today's PCR 11 (part 3, 23.7: TPM2_PolicyPCR)."""
        selection = struct.pack(">IHB", 1, 0xB, 3) + (1 << 11).to_bytes(3, "little")
        values = hashlib.sha256(self.read((11,))[11]).digest()
        policy = hashlib.sha256(bytes(32) + struct.pack(">I", 0x17F) + selection + values).digest()
        public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
        signed = {
            "pcrs": [11],
            "pkfp": hashlib.sha256(public).hexdigest(),
            "pol": policy.hex(),
            "sig": base64.b64encode(key.sign(policy, padding.PKCS1v15(), hashes.SHA256())).decode(),
        }
        path.write_text(json.dumps({"sha256": [signed]}))


class PowerCut(BaseException):
    """The machine stops. Not an Exception: nothing may catch it and go on."""


class Bed:
    """The image, the plan, the runner, and a count of the commands; `cut_at` stops at one, before or after it."""

    def __init__(self, folder: Path, memory_folder: Path, tpm: SoftwareTpm | None = None) -> None:
        self.folder, self.tpm = folder, tpm
        self.image = folder / "disk.img"
        with self.image.open("wb") as stream:
            stream.truncate(IMAGE_BYTES)
        public = folder / "pcr.pub"
        public.write_bytes(RSA_KEY.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))  # fmt: skip
        seal = Seal(public_key=public, signature=folder / "signature.json")
        self.plan = Plan(
            str(self.image),
            folder / "state",
            memory_folder / "keys",
            seal,
            CHEAP,
            mountpoint=folder / "mnt",
            folders=(),
        )
        self.commands: list[Command] = []
        self.environment: list[bytes] = []
        self.cut_at: tuple[int, str] | None = None

    def volume(self, **changes: object) -> Volume:
        """Return a new object on the same files: what a fresh process would see."""
        read = self.tpm.read if self.tpm else lambda pcrs: {pcr: bytes(32) for pcr in pcrs}
        return Volume(replace(self.plan, **changes), run=self.run, read_pcrs=read)  # type: ignore[arg-type]

    def run(self, command: Command, stdin: bytes | None = None) -> Done:
        number = len(self.commands)
        self.commands.append(command)
        if self.cut_at == (number, "before"):
            raise PowerCut
        done = self._real(command, stdin)
        if self.cut_at == (number, "after"):
            raise PowerCut
        return done

    def _real(self, command: Command, stdin: bytes | None) -> Done:
        argv = command.argv
        if self.tpm and "--token-only" in argv and "--test-passphrase" in argv:
            with self.tpm.booted() as socket:
                tool = str(Path(__file__).with_name("storage_kernel_tpm.py"))
                front = ("unshare", "--mount", sys.executable, tool, str(socket), str(self.plan.seal.signature))
                return programs.run(replace(command, argv=(*front, *argv)), stdin)
        if self.tpm and "--tpm2-device=auto" in argv:
            with self.tpm.booted() as socket:
                named = tuple(f"--tpm2-device=swtpm:path={socket}" if a == "--tpm2-device=auto" else a for a in argv)
                return programs.run(replace(command, argv=named), stdin)
        return programs.run(command, stdin)

    def opens(self, key: bytes) -> bool:
        """Try a key with cryptsetup itself."""
        done = subprocess.run(
            ["cryptsetup", "open", "--test-passphrase", "--batch-mode", "--key-file", "-", str(self.image)],
            input=key, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 2), done.stderr
        return done.returncode == 0

    def reboot(self) -> None:
        """Lose what lay in memory."""
        shutil.rmtree(self.plan.memory, ignore_errors=True)
