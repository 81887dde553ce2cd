"""Agent keys that never leave the TPM: made and used by OpenSSL's tpm2 provider (package tpm2-openssl).

`key.pem` is a "TSS2 PRIVATE KEY": the key wrapped by a primary key of this TPM's owner hierarchy (fixedTPM, so
useless elsewhere). Services take it where their OpenSSL configuration activates the provider. Format:
draft-bottomley-tpm2-keys.
"""

from __future__ import annotations

from pathlib import Path

from .enrolment.errors import KeyStoreError
from .enrolment.keystore import KEY, check_curve
from .enrolment.openssl import last_words, provider_request, run
from .pki.names import AgentName
from .pki.profiles import P256, P384
from .pki.store import read_file, write_file
from .tpm import DeviceTransport, Tpm, TpmError

PROVIDERS = ("-provider", "tpm2", "-provider", "default", "-propquery", "?provider=tpm2")
HEADER = b"-----BEGIN TSS2 PRIVATE KEY-----"


class TpmKeys:
    """Key storage `tpm`. `tcti` names the TPM as tpm2-tss does: `device:/dev/tpmrm0`, `swtpm:path=...`."""

    kind = "tpm"

    def __init__(self, tcti: str = "device:/dev/tpmrm0", curve: str = P384) -> None:
        self.tcti, self.curve = tcti, check_curve(curve)

    def create(self, folder: Path, name: AgentName) -> None:
        """Make a key in the TPM. Raises KeyStoreError, StoreError."""
        self._probe()
        words = ["genpkey", *PROVIDERS, "-algorithm", "EC", "-pkeyopt", f"group:{self.curve}"]
        done = run(words, self._environment)
        if done.returncode != 0 or not done.stdout.encode().startswith(HEADER):
            raise KeyStoreError(
                f"{name.common_name}: the TPM ({self.tcti}) made no key on {self.curve}: {last_words(done.stderr)}; "
                "are the package tpm2-openssl and the TPM there?"
            )
        write_file(folder / KEY, done.stdout.encode())

    def request(self, folder: Path, name: AgentName) -> bytes:
        """Return a request in PEM, signed in the TPM. Raises KeyStoreError, StoreError."""
        if not read_file(folder / KEY).startswith(HEADER):
            raise KeyStoreError(f"{folder / KEY}: not a key of a TPM")
        return provider_request(str(folder / KEY), name, PROVIDERS, self._environment)

    def reuse(self, old: Path, new: Path) -> None:
        """Take the wrapped key along. Raises KeyStoreError."""
        data = read_file(old / KEY)
        if not data.startswith(HEADER):
            raise KeyStoreError(f"{old / KEY}: not a key of a TPM, it is not used again")
        write_file(new / KEY, data)

    def destroy(self, folder: Path) -> None:
        """Remove the file; the TPM itself keeps nothing."""
        (folder / KEY).unlink(missing_ok=True)

    @property
    def _environment(self) -> dict[str, str]:
        return {"TPM2OPENSSL_TCTI": self.tcti}

    def _probe(self) -> None:
        """Ask the device for its curves first: the provider's own words about a missing one help nobody."""
        kind, _, path = self.tcti.partition(":")
        if kind != "device":
            return
        try:
            with Tpm(DeviceTransport(Path(path))) as device:
                curves = device.curves()
        except TpmError as error:
            raise KeyStoreError(f"the TPM cannot be used: {error}") from error
        if self.curve not in curves:
            hint = f"; {P256} has to be allowed explicitly" if self.curve == P384 and P256 in curves else ""
            raise KeyStoreError(f"the TPM has no curve {self.curve}, only {', '.join(curves)}{hint}")
