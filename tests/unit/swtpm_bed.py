"""A real software TPM for tests: manufactured once, copied and started per test, talked to over a socket."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kosmos_trust.tpm import MAX_RESPONSE, TpmError

NEEDED = ("swtpm", "swtpm_setup", "swtpm_localca")
START = ("swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear")
WAIT_SECONDS = 20


def require_swtpm() -> None:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"a real TPM is needed: {', '.join(missing)} not installed (packages swtpm, swtpm-tools)")


def manufacture(state: Path, banks: str = "sha256,sha384", *, ek_certificate: bool = True) -> Path:
    """Make a TPM with the PCR banks and, if asked, EK certificates signed by a CA of its own."""
    state.mkdir(parents=True)
    authority = state.parent / f"{state.name}-ca"
    authority.mkdir()
    (authority / "localca.conf").write_text(
        f"statedir = {authority}\nsigningkey = {authority}/key.pem\n"
        f"issuercert = {authority}/cert.pem\ncertserial = {authority}/serial\n"
    )
    (authority / "options").write_text("")
    (authority / "setup.conf").write_text(
        f"create_certs_tool = {shutil.which('swtpm_localca')}\n"
        f"create_certs_tool_config = {authority}/localca.conf\n"
        f"create_certs_tool_options = {authority}/options\n"
    )
    command = ["swtpm_setup", "--tpm2", "--tpmstate", str(state), "--config", str(authority / "setup.conf")]
    command += ["--pcr-banks", banks, "--overwrite", *(["--create-ek-cert", "--lock-nvram"] if ek_certificate else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return state


class SocketTransport:
    """One command and one response over swtpm's data socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_SECONDS)
        self.socket.connect(str(path))

    def exchange(self, command: bytes) -> bytes:
        try:
            self.socket.sendall(command)
            return self.socket.recv(MAX_RESPONSE)
        except OSError as error:
            raise TpmError(f"swtpm: {error}") from error

    def close(self) -> None:
        self.socket.close()


@contextmanager
def powered(state: Path, data: Path) -> Iterator[Path]:
    """Start a TPM on its state, as firmware does; yield the socket it serves; stop it by its own process.

    The control socket beside it is what the tools' `swtpm:path=` wants.
    """
    data.unlink(missing_ok=True)
    control = data.with_name(f"{data.name}.ctrl")
    command = [*START, "--tpmstate", f"dir={state}", "--server", f"type=unixio,path={data}"]
    process = subprocess.Popen(
        [*command, "--ctrl", f"type=unixio,path={control}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + WAIT_SECONDS
        while not data.exists():
            assert process.poll() is None and time.monotonic() < end, "swtpm did not start"
            time.sleep(0.02)
        yield data
    finally:
        process.terminate()
        process.wait(timeout=WAIT_SECONDS)


@contextmanager
def running(manufactured: Path, folder: Path) -> Iterator[SocketTransport]:
    """Start a copy of a manufactured TPM and talk to it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(manufactured, folder / "state")
    with powered(folder / "state", folder / "s") as data:
        transport = SocketTransport(data)
        try:
            yield transport
        finally:
            transport.close()
