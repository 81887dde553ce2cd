"""What a key rotation does to this host: the ports of `rotate`, by cryptenroll, cryptsetup and the ESP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kosmos_trust import durable

from . import pcrsig, pe, signing, token
from .commands import must
from .errors import RotationError
from .esp import Entry
from .host import Host
from .prediction import ALL_PATHS, PCR, UNLOCK_BANK, measure, predict
from .roles import Role
from .sealing import LITERAL_PCRS
from .state import State


def enrol_argv(device: str, role: Role, public_key: Path, unlock_key: Path, tpm: str = "auto") -> list[str]:
    """Return the command that adds a TPM slot for a role's key; literal PCRs are given by value, not as they are."""
    zero = "0" * 64
    literal = "+".join(f"{pcr}:{UNLOCK_BANK}={zero}" for pcr in LITERAL_PCRS[role])
    return [
        "systemd-cryptenroll", f"--unlock-key-file={unlock_key}", f"--tpm2-device={tpm}", f"--tpm2-pcrs={literal}",
        f"--tpm2-public-key={public_key}", f"--tpm2-public-key-pcrs={PCR}", device,
    ]  # fmt: skip


class Changer:
    """The ports for one host. `answers`: signatures that the controller has made, by the id of the image."""

    def __init__(
        self,
        host: Host,
        state: State,
        answers: Mapping[str, Sequence[pcrsig.Entry]] | None = None,
        tpm: str = "auto",
    ) -> None:
        self.host, self.state, self.answers, self.tpm = host, state, answers or {}, tpm

    def present_keys(self) -> Mapping[Role, str]:
        """Return the fingerprints of the keys in use."""
        return {role: pcrsig.fingerprint(keys[0]) for role, keys in self.host.signers().items()}

    def new_keys(self) -> Mapping[Role, str] | None:
        """Make the new keys in mode `host`; in mode `controller` their public halves must have been brought."""
        for role in Role:
            private, public = self.host.private_path(role, following=True), self.host.public_path(role, following=True)
            if public.exists():
                continue
            if private is None:
                return None
            if not private.exists():
                made = rsa.generate_private_key(public_exponent=65537, key_size=pcrsig.KEY_BITS)
                form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
                durable.replace(private, made.private_bytes(*form))
            loaded = serialization.load_pem_private_key(private.read_bytes(), password=None)
            if not isinstance(loaded, rsa.RSAPrivateKey):
                raise RotationError("a new private key is not RSA", where=str(private), cure="remove it, and go on")
            durable.replace(public, pcrsig.to_pem(loaded.public_key()), 0o644)
        return {role: pcrsig.fingerprint(keys[-1]) for role, keys in self.host.signers().items()}

    def volumes(self) -> Mapping[str, tuple[Role, token.Volume]]:
        """Return each declared volume with the role of the key that opens it."""
        return {one.device: (one.role, self.host.volume(one.device)) for one in self.host.config.volumes}

    def enrol(self, device: str, role: Role) -> None:
        """Add a slot for the new key of a role."""
        argv = enrol_argv(device, role, self.host.public_path(role, following=True), self._unlock_key(device), self.tpm)
        must(self.host.run, argv, f"{device}: the new key cannot be enrolled", "see whether the TPM answers")

    def wipe(self, device: str, slot: int) -> None:
        """Remove a slot, and the token that names it."""
        argv = ["systemd-cryptenroll", f"--unlock-key-file={self._unlock_key(device)}", f"--wipe-slot={slot}", device]
        must(self.host.run, argv, f"{device}: slot {slot} cannot be removed", "see: systemd-cryptenroll " + device)

    def forget(self, device: str, token: int) -> None:
        """Remove a token whose slot is gone already."""
        argv = ["cryptsetup", "token", "remove", "--token-id", str(token), device]
        must(self.host.run, argv, f"{device}: token {token} cannot be removed", "see: cryptsetup luksDump " + device)

    def _unlock_key(self, device: str) -> Path:
        return next(one.unlock_key for one in self.host.config.volumes if one.device == device)

    def sign_images(self) -> str | None:
        """Sign every image that can start with all keys, the oldest first; without keys here, ask for it."""
        signers = self.host.signers()
        pending: list[tuple[Entry, pe.Image]] = []
        for entry in reversed(self.host.esp.entries()):
            if entry.state == "bad":
                continue
            image = pe.without_signature(pe.read(entry.path))
            if signing.unsigned_by(image, signers):
                pending.append((entry, image))
        if self.host.config.signing == "host":
            keys = self.host.private_keys()
            for entry, image in pending:
                self._replace(entry, image, signing.sign_image(image, keys))
            return None
        for entry, image in [one for one in pending if one[0].id in self.answers]:
            self._replace(entry, image, self.answers[entry.id])
            pending.remove((entry, image))
        if not pending:
            self.state.rotation_requests.unlink(missing_ok=True)
            return None
        request = {entry.id: signing.ask(image, signers) for entry, image in pending}
        durable.replace(self.state.rotation_requests, signing.render_requests(request))
        return f"{len(pending)} images wait for signatures; the request is {self.state.rotation_requests}"

    def _replace(self, entry: Entry, image: pe.Image, entries: Sequence[pcrsig.Entry]) -> None:
        """Put the image back with these signatures, when they are all that it needs."""
        signed = signing.join(image, entries)
        lacking = signing.unsigned_by(pe.parse(signed, entry.id), self.host.signers())
        if lacking:
            raise RotationError(
                "these signatures are not enough", where=entry.id, why=f"without key {lacking[0][:12]}",
                cure="sign the request again, with the old and the new keys",
            )  # fmt: skip
        self.host.esp.replace(entry, self.host.sign_for_secure_boot(signed))

    def boot_id(self) -> str:
        """Return the identity of this boot."""
        return self.host.boot_id

    def unproven(self) -> str | None:
        """Return why the new keys have not proved themselves in this boot, None when they have.

        The running image must be signed with them for what PCR 11 really holds, and the TPM must open each volume of
        the running system with its new token. A volume of the initrd cannot be tried any more at this time.
        """
        running = next((one for one in self.host.esp.entries() if one.id == self.host.booted), None)
        if running is None:
            return "what is running is no image of ours"
        image = pe.read(running.path)
        new = {role: keys[-1:] for role, keys in self.host.signers().items()}
        if signing.unsigned_by(image, new):
            return f"the running image {running.id} is not signed with the new keys"
        measured = measure(image)
        if self._pcr() not in {predict(measured, UNLOCK_BANK, path) for path in ALL_PATHS}:
            return f"PCR {PCR} does not hold what the running image {running.id} should measure"
        marks = {role: pcrsig.fingerprint(keys[0]) for role, keys in new.items()}
        for device, (role, volume) in self.volumes().items():
            for one in volume.tokens:
                if role is Role.ALL and one.fingerprint == marks[role] and not self._opens(device, one.number):
                    return f"the TPM does not open {device} with its new token {one.number}"
        return None

    def _pcr(self) -> bytes:
        path = self.host.root / f"sys/class/tpm/tpm0/pcr-{UNLOCK_BANK}/{PCR}"
        try:
            return bytes.fromhex(path.read_text().strip())
        except (OSError, ValueError):
            return b""

    def _opens(self, device: str, number: int) -> bool:
        argv = ["cryptsetup", "open", "--test-passphrase", "--token-only", "--token-id", str(number), device]
        return self.host.run(argv).code == 0

    def promote(self) -> None:
        """Make the new keys the keys; the old private ones are overwritten by the rename."""
        for role in Role:
            for place in (self.host.private_path, self.host.public_path):
                following, present = place(role, following=True), place(role)
                if following is not None and present is not None and following.exists():
                    following.replace(present)
                    durable.sync_folder(present.parent)
