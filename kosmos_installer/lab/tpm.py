"""Make a TPM 2.0 as its maker would: banks, an endorsement key with its certificate, a platform certificate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .tools import Tools


def manufacture(directory: Path, banks: Sequence[str], tools: Tools) -> None:
    """Fill `directory` with a new TPM whose `banks` are active; its certificates come from a CA made beside it."""
    directory.mkdir(mode=0o700)
    create = ("--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--overwrite")
    _setup(directory, banks, tools, *create)


def set_banks(directory: Path, banks: Sequence[str], tools: Tools) -> None:
    """Change which PCR banks of an existing TPM are active; keys, certificates and NV contents stay."""
    if active_banks(directory) != tuple(banks):
        _setup(directory, banks, tools, "--reconfigure")


def active_banks(directory: Path) -> tuple[str, ...]:
    """Return the banks that were made active last."""
    return tuple((directory / "banks").read_text().split())


def _setup(directory: Path, banks: Sequence[str], tools: Tools, *options: str) -> None:
    authority = directory / "ca"
    authority.mkdir(mode=0o700, exist_ok=True)
    # Written each time, since a restored TPM lies in another directory than the one it was made in.
    (authority / "localca.conf").write_text(
        f"statedir = {authority}\nsigningkey = {authority}/signkey.pem\n"
        f"issuercert = {authority}/issuercert.pem\ncertserial = {authority}/certserial\n"
    )
    (authority / "options.conf").write_text(
        "--platform-manufacturer KOSMOS\n--platform-version 1\n--platform-model lab\n"
    )
    (authority / "setup.conf").write_text(
        "create_certs_tool = /usr/bin/swtpm_localca\n"
        f"create_certs_tool_config = {authority}/localca.conf\n"
        f"create_certs_tool_options = {authority}/options.conf\n"
    )
    # As root, swtpm_setup would become the user `tss`, who cannot enter this private directory.
    tools.run(
        "swtpm_setup", "--tpm2", "--tpmstate", directory, "--config", authority / "setup.conf", "--runas", "root",
        "--pcr-banks", ",".join(banks), *options,
    )  # fmt: skip
    (directory / "banks").write_text(" ".join(banks))


def emulator_argv(directory: Path, control: Path) -> list[str]:
    """Return the command of the TPM emulator; it ends by itself when QEMU closes the connection."""
    return [
        "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={directory}",
        "--ctrl", f"type=unixio,path={control}", "--terminate",
    ]  # fmt: skip
