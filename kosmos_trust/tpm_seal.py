"""Seal small secrets to the TPM, with systemd-creds(1): the same TSS and sealing that unlocks the disk.

systemd-creds encrypts the exchange with the TPM, so a probe on its bus learns nothing, and its output can be opened by
hand (`systemd-creds decrypt --name=NAME FILE -`) or handed to a unit (`LoadCredentialEncrypted=`). No PCR is bound:
what the machine booted is judged at the disk and by attestation, and a firmware update must not lose keys.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from .pki.errors import KeyUnavailableError

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class CredentialSealer:
    """systemd-creds on one TPM: `auto`, a device path, or a TCTI such as `swtpm:path=/run/swtpm`."""

    device: str = "auto"

    def seal(self, name: str, secret: bytes) -> bytes:
        """Return an encrypted credential (base64 text) that only this TPM opens, under this name."""
        choice = ("--with-key=tpm2", "--tpm2-pcrs=", f"--tpm2-device={self.device}")
        return self._run("encrypt", name, choice, secret, cure="is there a TPM 2.0? (systemd-analyze has-tpm2)")

    def unseal(self, name: str, sealed: bytes) -> bytes:
        """Return the secret. Raises KeyUnavailableError on another TPM, for another name, after damage."""
        cure = "if the TPM or the board was replaced, restore the PKI from its backup"
        return self._run("decrypt", name, (f"--tpm2-device={self.device}",), sealed, cure=cure)

    @staticmethod
    def _run(verb: str, name: str, options: tuple[str, ...], data: bytes, *, cure: str) -> bytes:
        command = ["systemd-creds", verb, f"--name={name}", *options, "-", "-"]
        try:
            result = subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)
        except FileNotFoundError as error:
            raise KeyUnavailableError(
                f"{name}: systemd-creds is not installed; install systemd 257 or later"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise KeyUnavailableError(f"{name}: the TPM did not answer within {TIMEOUT_SECONDS} s") from error
        if result.returncode != 0:
            lines = result.stderr.decode(errors="replace").strip().splitlines()
            said = lines[-1] if lines else f"exit {result.returncode}"
            raise KeyUnavailableError(f"{name}: systemd-creds {verb} failed: {said}; {cure}")
        return result.stdout
