"""What this host says about its boot: what started, which keys it has, how its volumes are locked."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from . import pcrsig, token
from .commands import Run, must
from .config import Config, SecureBoot
from .errors import BootError, SignatureError
from .esp import Esp
from .gate import Expectation
from .roles import Role

#: Boot Loader Interface: the vendor of systemd-boot's variables.
LOADER = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
NEXT = ".next"


class Host:
    """One host, by its settings and the programs that it runs; `root` is where its file systems begin."""

    def __init__(self, config: Config, run: Run, root: Path = Path("/")) -> None:
        self.config, self.run, self.root = config, run, root
        self.esp = Esp(config.esp)

    def loader_variable(self, name: str) -> str | None:
        """Return a variable of the boot loader (UTF-16 behind four bytes of attributes); None when it is not set."""
        try:
            data = (self.root / f"sys/firmware/efi/efivars/{name}-{LOADER}").read_bytes()
        except OSError:
            return None
        return data[4:].decode("utf-16-le", errors="replace").rstrip("\0")

    @property
    def booted(self) -> str | None:
        """The id of the image that is running, None when another loader or nothing of ours started it."""
        return self.loader_variable("LoaderEntrySelected")

    @property
    def boot_id(self) -> str:
        """The kernel's identity of this boot."""
        return (self.root / "proc/sys/kernel/random/boot_id").read_text().strip()

    def volumes(self) -> tuple[token.Volume, ...]:
        """Return the state of every declared volume. Raises CommandError or TokenError."""
        return tuple(self.volume(one.device) for one in self.config.volumes)

    def volume(self, device: str) -> token.Volume:
        """Return the state of one volume."""
        argv = ["cryptsetup", "luksDump", "--dump-json-metadata", device]
        return token.parse(
            must(self.run, argv, f"{device} cannot be read as LUKS2", "see whether the device is there"), device
        )

    def public_path(self, role: Role, *, following: bool = False) -> Path:
        """Return where a public key lies; `following` is the one that a rotation brings."""
        return self.config.public_keys / f"{role.value}{NEXT if following else ''}.pub"

    def private_path(self, role: Role, *, following: bool = False) -> Path | None:
        """Return where a private key lies, None when this host has none."""
        folder = self.config.private_keys
        return folder / f"{role.value}{NEXT if following else ''}.key" if folder else None

    def signers(self) -> dict[Role, tuple[RSAPublicKey, ...]]:
        """Return the public keys by role, the present one first. Raises SignatureError when one is missing or unfit."""
        return {role: tuple(self._public(path) for path in self._paths(role)) for role in Role}

    def _paths(self, role: Role) -> list[Path]:
        following = self.public_path(role, following=True)
        return [self.public_path(role), *([following] if following.exists() else [])]

    @staticmethod
    def _public(path: Path) -> RSAPublicKey:
        try:
            return pcrsig.load_public(path.read_bytes(), str(path))
        except OSError as error:
            raise SignatureError(
                "a public signing key is missing", where=str(path), why=str(error.strerror),
                cure="apply the role host_boot again",
            ) from None  # fmt: skip

    @property
    def public_for_images(self) -> Path:
        """The public key that images carry for new enrolments: that of all phases, the following one in a rotation."""
        return self._paths(Role.ALL)[-1]

    def private_keys(self) -> dict[Role, list[RSAPrivateKey]]:
        """Return the private keys to the public ones that are here. Raises SignatureError: not here, or unfit."""
        found = {role: [self._private(role, path) for path in self._paths(role)] for role in Role}
        for role, publics in self.signers().items():
            if [key.public_key() for key in found[role]] != list(publics):
                raise SignatureError(
                    "a private signing key does not belong to its public key", where=str(self.public_path(role)),
                    why="a rotation of the keys was cut", cure="finish it: kosmos-boot rotate-key",
                )  # fmt: skip
        return found

    def _private(self, role: Role, public: Path) -> RSAPrivateKey:
        path = self.private_path(role, following=public.stem.endswith(NEXT))
        if path is None:
            raise SignatureError(
                "this host has no private key", why="signing is done on the controller",
                cure="fetch the request, sign it there, and bring the answer: kosmos-boot update --signatures FILE",
            )  # fmt: skip
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise SignatureError(
                "a private signing key cannot be read", where=str(path), why=type(error).__name__,
                cure="open the sealed volume first; if the key is lost: kosmos-boot rotate-key",
            ) from None  # fmt: skip
        if not isinstance(key, RSAPrivateKey):
            raise SignatureError("a private signing key is not RSA", where=str(path), cure="kosmos-boot rotate-key")
        return key

    def expectation(self, size: int | None) -> Expectation:
        """Return what the gate asks of an image; with `size` also whether one of so many bytes still fits."""
        return Expectation(
            self.config.cmdline,
            self.signers(),
            self.volumes(),
            None if size is None else self.esp.room(size, self.booted),
            partial(self._secure_boot, self.config.secure_boot) if self.config.secure_boot else None,
        )

    def _secure_boot(self, secure: SecureBoot, data: bytes) -> str | None:
        """Return why the owner's certificate does not verify an image, None when it does."""
        self.config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix="verify-", dir=self.config.state) as file:
            file.write(data)
            file.flush()
            done = self.run(["sbverify", "--cert", secure.certificate, file.name])
        return None if done.code == 0 else (done.stderr.strip() or done.stdout.strip() or "it does not verify")

    def sign_for_secure_boot(self, data: bytes) -> bytes:
        """Return the image with the owner's Secure Boot signature, unchanged when Secure Boot is not asked for.

        Raises BootError when the owner's key is not on this host: such images are signed on the controller.
        """
        secure = self.config.secure_boot
        if secure is None:
            return data
        if secure.key is None:
            raise BootError(
                "the Secure Boot key is not on this host", where=str(secure.certificate),
                cure="sign the image where the key is, and bring it: kosmos-boot update --image FILE",
            )  # fmt: skip
        self.config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="sign-", dir=self.config.state) as folder:
            bare, signed = Path(folder) / "bare.efi", Path(folder) / "signed.efi"
            bare.write_bytes(data)
            argv: list[str | Path] = [
                "sbsign",
                "--key",
                secure.key,
                "--cert",
                secure.certificate,
                "--output",
                signed,
                bare,
            ]
            must(self.run, argv, "the image cannot be signed for Secure Boot", "see what sbsign says")
            return signed.read_bytes()
