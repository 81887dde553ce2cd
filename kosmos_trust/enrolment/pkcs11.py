"""Agent keys in a PKCS #11 token, through OpenSSL's pkcs11 provider (packages pkcs11-provider and opensc).

`key.pem` is a reference ("PKCS#11 PROVIDER URI", RFC 7512) that OpenSSL reads like a key; `key.id` is the object's
CKA_ID, written before the object is made, so that a cut run leaves nothing in the token that cannot be found again. The
PIN stays in its 0600 file: never in argv, in a URI or in a file of ours.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from ..pki.errors import PkiError
from ..pki.names import AgentName
from ..pki.profiles import P384
from ..pki.store import read_file, write_file
from .errors import KeyStoreError
from .keystore import KEY, check_curve
from .openssl import last_words, provider_request, run, scratch

KEY_ID = "key.id"
HEADER = b"-----BEGIN PKCS#11 PROVIDER URI-----"
TIMEOUT_SECONDS = 60
#: Without no-deinit the openssl program dies with the token (SoftHSM, Debian 13): exit order of two users of libcrypto.
CONFIGURATION = """openssl_conf = o
[o]
providers = p
[p]
default = d
pkcs11 = k
[d]
activate = 1
[k]
pkcs11-module-path = {module}
pkcs11-module-token-pin = file:{pin}
pkcs11-module-quirks = no-deinit
pkcs11-module-encode-provider-uri-to-pem = true
activate = 1
"""


class Pkcs11:
    """Key storage `pkcs11`. `module` is the token's library, `pin_file` a 0600 file, `random` names objects."""

    kind = "pkcs11"

    def __init__(
        self, module: Path, token: str, pin_file: Path, random: Callable[[int], bytes], curve: str = P384
    ) -> None:
        for path in (module, pin_file):
            if any(one in str(path) for one in "\n\\$\"'"):
                raise KeyStoreError(f"{path}: this path cannot stand in an OpenSSL configuration")
        self.module, self.token, self.pin_file = module, token, pin_file
        self.random, self.curve = random, check_curve(curve)

    def create(self, folder: Path, name: AgentName) -> None:
        """Make a key in the token, never extractable. Raises KeyStoreError, StoreError."""
        self._log_in()
        identifier = self.random(16)
        write_file(folder / KEY_ID, identifier.hex().encode())
        label = quote(f"{name.common_name}-{identifier.hex()[:8]}")
        wanted = f"pkcs11:token={quote(self.token, safe='')};object={label};id={quote_bytes(identifier)}"
        with self._environment() as environment:
            words = ["genpkey", "-propquery", "provider=pkcs11", "-algorithm", "EC"]
            words += ["-pkeyopt", f"ec_paramgen_curve:{self.curve}", "-pkeyopt", f"pkcs11_uri:{wanted}"]
            done = run(words, environment)
        if done.returncode != 0 or not done.stdout.encode().startswith(HEADER):
            raise KeyStoreError(
                f"{name.common_name}: the token '{self.token}' made no key on {self.curve}: {last_words(done.stderr)}"
            )
        write_file(folder / KEY, done.stdout.encode())

    def request(self, folder: Path, name: AgentName) -> bytes:
        """Return a request in PEM, signed in the token. Raises KeyStoreError, StoreError."""
        if not read_file(folder / KEY).startswith(HEADER):
            raise KeyStoreError(f"{folder / KEY}: not a reference to a key in a token")
        self._log_in()
        with self._environment() as environment:
            return provider_request(str(folder / KEY), name, (), environment)

    def reuse(self, old: Path, new: Path) -> None:
        """Refer to the same object. Raises StoreError."""
        for name in (KEY_ID, KEY):
            write_file(new / name, read_file(old / name))

    def destroy(self, folder: Path) -> None:
        """Remove the object, unless another generation refers to it. Raises KeyStoreError, StoreError."""
        if not (folder / KEY_ID).exists():
            return
        identifier = read_file(folder / KEY_ID)
        agent = folder.parent if folder.name.startswith("staging-") else folder.parent.parent
        others = [path for path in agent.rglob(KEY_ID) if path.parent != folder and "current" not in path.parts]
        if not any(read_file(path) == identifier for path in others):
            for kind in ("privkey", "pubkey"):
                self._tool("--delete-object", "--type", kind, "--id", identifier.decode(), missing_ok=True)
        (folder / KEY).unlink(missing_ok=True)
        (folder / KEY_ID).unlink(missing_ok=True)

    # -- the token -----------------------------------------------------------------------------------------------
    def _log_in(self) -> None:
        """Try the PIN once: the provider tries it several times, and a token locks itself after a few."""
        self._tool("--list-objects", "--type", "cert")

    def _tool(self, *words: str, missing_ok: bool = False) -> None:
        try:
            pin = read_file(self.pin_file).decode().strip()
        except PkiError as error:
            raise KeyStoreError(f"the PIN of token '{self.token}': {error}") from None
        command = ["pkcs11-tool", "--module", str(self.module), "--token-label", self.token]
        command += ["--login", "--pin", "env:KOSMOS_PKCS11_PIN", *words]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=TIMEOUT_SECONDS,
                check=False,
                env={**os.environ, "LC_ALL": "C", "KOSMOS_PKCS11_PIN": pin},
            )
        except FileNotFoundError as error:
            raise KeyStoreError("pkcs11-tool is not installed; install the package opensc") from error
        except subprocess.TimeoutExpired as error:
            raise KeyStoreError(f"token '{self.token}' did not answer within {TIMEOUT_SECONDS} s") from error
        told = done.stdout + done.stderr
        if done.returncode != 0 and not (missing_ok and "object not found" in told):
            errors = [line for line in told.splitlines() if "error" in line.lower()]
            raise KeyStoreError(f"token '{self.token}': {(errors or [last_words(told)])[0].strip()[:300]}")

    @contextmanager
    def _environment(self) -> Iterator[dict[str, str]]:
        with scratch() as folder:
            path = Path(folder) / "provider.cnf"
            path.write_text(CONFIGURATION.format(module=self.module, pin=self.pin_file))
            yield {"OPENSSL_CONF": str(path)}


def quote_bytes(data: bytes) -> str:
    """Return bytes as RFC 7512 writes an id: every byte percent-encoded."""
    return "".join(f"%{byte:02x}" for byte in data)
