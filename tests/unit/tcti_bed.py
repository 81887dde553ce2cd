"""A software TPM for programs: systemd-creds and OpenSSL's tpm2 provider reach it through libtss2-tcti-swtpm."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from swtpm_bed import START, WAIT_SECONDS, require_swtpm


def require_tcti() -> None:
    require_swtpm()
    if not any(Path("/usr/lib").rglob("libtss2-tcti-swtpm.so.0")):
        pytest.skip("a program needs libtss2-tcti-swtpm to reach a software TPM (package libtss2-tcti-swtpm0)")


@contextmanager
def tcti(manufactured: Path, folder: Path) -> Iterator[str]:
    """Start a copy of a manufactured TPM and give its TCTI; stop it by its own process."""
    folder.mkdir(parents=True, exist_ok=True)
    state, data = folder / "state", folder / "s"
    shutil.copytree(manufactured, state)
    control = Path(f"{data}.ctrl")  # where the TCTI looks for it
    command = [*START, "--tpmstate", f"dir={state}", "--server", f"type=unixio,path={data}"]
    command += ["--ctrl", f"type=unixio,path={control}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + WAIT_SECONDS
        while not (data.exists() and control.exists()):
            assert process.poll() is None and time.monotonic() < end, "swtpm did not start"
            time.sleep(0.02)
        yield f"swtpm:path={data}"
    finally:
        process.terminate()
        process.wait(timeout=WAIT_SECONDS)
