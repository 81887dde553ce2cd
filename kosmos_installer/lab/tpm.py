"""Make a TPM 2.0 as its maker would: banks, an endorsement key with its certificate, a platform certificate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .tools import Tools


def manufacture(directory: Path, banks: Sequence[str], tools: Tools) -> None:
    """Fill `directory` with a new TPM whose `banks` are active; its certificates come from a CA made beside it."""
    directory.mkdir(mode=0o700)
    authority = directory / "ca"
    authority.mkdir(mode=0o700)
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
    tools.run(
        "swtpm_setup", "--tpm2", "--tpmstate", directory, "--config", authority / "setup.conf", "--runas", "root",
        "--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--pcr-banks", ",".join(banks), "--overwrite",
    )  # fmt: skip


def set_banks(directory: Path, banks: Sequence[str], tools: Tools) -> None:
    """Change which PCR banks of an existing TPM are active; keys, certificates and NV contents stay."""
    tools.run(
        "swtpm_setup", "--tpm2", "--tpmstate", directory, "--runas", "root", "--reconfigure",
        "--config", directory / "ca/setup.conf", "--pcr-banks", ",".join(banks),
    )  # fmt: skip


def emulator_argv(directory: Path, control: Path) -> list[str]:
    """Return the command of the TPM emulator; it ends by itself when QEMU closes the connection."""
    return [
        "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={directory}",
        "--ctrl", f"type=unixio,path={control}", "--terminate",
    ]  # fmt: skip
