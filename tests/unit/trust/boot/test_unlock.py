"""The whole chain without a machine: a real TPM in software, a real LUKS2 header, Debian 13's own programs.

The TPM is extended with what the stub and systemd-pcrextend would measure; the signatures are ours. Enrolment is by
systemd-cryptenroll. A sealed secret is opened by systemd-creds: the same unsealing (tpm2-util.c) as cryptsetup's token,
which takes no TPM but the kernel's own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from boot_bed import Bench, Key, write_key

from kosmos_trust.boot import pcrsig, pe, signing, token
from kosmos_trust.boot.prediction import ALL_PATHS, BANKS, PCR, measure, predict
from kosmos_trust.boot.roles import Role
from kosmos_trust.tpm import Tpm

sys.path.insert(0, str(Path(__file__).parents[1]))
from swtpm_bed import SocketTransport
from tpm_commands import extend_pcr

SIZES = {"sha256": 32, "sha384": 48}
SECRET = "what the volume key would be"
#: What systemd says when the TPM refuses, and when no signature fits.
REFUSALS = ("Failed to unseal secret using TPM2", "No signature")


class Machine:
    """A TPM that was started up once, and a volume; `boot` starts it up again, as a restart does."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.folder = bench, folder
        self.state, self.socket = folder / "tpm", folder / "s"
        self.volume, self.passphrase = folder / "volume", folder / "passphrase"
        self.state.mkdir(parents=True)
        self.run("swtpm_setup", "--tpm2", "--tpmstate", self.state, "--pcr-banks", "sha256,sha384", "--overwrite")
        self.passphrase.write_text("for the test")
        self.passphrase.chmod(0o600)
        with self.volume.open("wb") as stream:
            stream.truncate(20 << 20)
        self.run(
            "cryptsetup", "luksFormat", "-q", "--type=luks2", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000",
            f"--key-file={self.passphrase}", self.volume,
        )  # fmt: skip

    def run(self, *command: str | Path) -> str:
        return self.bench.tools.run(*command)

    @contextmanager
    def boot(self, extends: Mapping[int, Sequence[Mapping[str, bytes]]]) -> Iterator[None]:
        """Start the TPM up with all PCRs at zero and extend them: by PCR, a list of digests by bank."""
        self.socket.unlink(missing_ok=True)
        process = subprocess.Popen(
            self.bench.tools.argv(
                "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.state}",
                "--server", f"type=unixio,path={self.socket}", "--ctrl", f"type=unixio,path={self.socket}.ctrl",
                "--flags", "not-need-init,startup-clear",
            ),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            transport = self._connect(process)
            for pcr, events in extends.items():
                for digests in events:
                    extend_pcr(Tpm(transport), pcr, digests)
            transport.close()
            yield
            # Or the TPM counts a restart as one more guess, and locks itself after a few (part 1, 19.8).
            transport = self._connect(process)
            transport.exchange(bytes.fromhex("80010000000c000001450000"))
            transport.close()
        finally:
            process.terminate()
            process.wait(timeout=20)

    def _connect(self, process: subprocess.Popen[bytes]) -> SocketTransport:
        end = time.monotonic() + 20
        while True:
            try:
                return SocketTransport(self.socket)
            except OSError:  # not there, or there and not listening yet
                assert process.poll() is None and time.monotonic() < end, "swtpm did not start"
                time.sleep(0.02)

    @property
    def device(self) -> str:
        return f"swtpm:path={self.socket}"

    def enrol(self, key: Key, *literal: str) -> None:
        self.run(
            "systemd-cryptenroll", f"--unlock-key-file={self.passphrase}", f"--tpm2-device={self.device}",
            f"--tpm2-pcrs={'+'.join(literal)}", f"--tpm2-public-key={key.public}", f"--tpm2-public-key-pcrs={PCR}",
            self.volume,
        )  # fmt: skip

    def metadata(self) -> token.Volume:
        told = self.run("cryptsetup", "luksDump", "--dump-json-metadata", self.volume)
        return token.parse(told, str(self.volume))

    def seal(self, key: Key, name: str) -> None:
        (self.folder / "secret").write_text(SECRET)
        self.run(
            "systemd-creds", "encrypt", "--with-key=tpm2-with-public-key", f"--tpm2-device={self.device}",
            "--tpm2-pcrs=12", f"--tpm2-public-key={key.public}", f"--tpm2-public-key-pcrs={PCR}", f"--name={name}",
            self.folder / "secret", self.folder / name,
        )  # fmt: skip

    def opens(self, signatures: bytes, name: str) -> bool:
        file = self.folder / "signatures.json"
        file.write_bytes(signatures)
        argv = self.bench.tools.argv(
            "systemd-creds", "decrypt", f"--tpm2-device={self.device}", f"--tpm2-signature={file}", f"--name={name}",
            self.folder / name, "-",
        )  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            assert done.stdout == SECRET
            return True
        assert any(sign in done.stderr for sign in REFUSALS), done.stderr
        return False


def events(image: pe.Image, path: str) -> list[dict[str, bytes]]:
    """Return what is extended into PCR 11 up to a phase: one digest by bank for each event."""
    import hashlib

    told: list[dict[str, bytes]] = []
    measured = {bank: measure(image, bank) for bank in BANKS}
    for number, section in enumerate(measured["sha256"]):
        name = section.name.encode() + b"\0"
        told.append({bank: hashlib.new(bank, name).digest() for bank in BANKS})
        told.append({bank: measured[bank][number].digest for bank in BANKS})
    words = [word for word in path.split(":") if word]
    return told + [{bank: hashlib.new(bank, word.encode()).digest() for bank in BANKS} for word in words]


@pytest.fixture(scope="module")
def machine(bench: Bench) -> Machine:
    return Machine(bench, bench.folder / "machine")


@pytest.fixture(scope="module")
def image(bench: Bench) -> pe.Image:
    return pe.read(bench.ukify("unlock.efi"))


def test_our_signatures_open_a_real_volume_in_their_phases_only(
    bench: Bench, machine: Machine, image: pe.Image
) -> None:
    keys = {Role.INITRD: [bench.initrd_key.rsa], Role.ALL: [bench.all_key.rsa]}
    signatures = pcrsig.render(signing.sign_image(image, keys))
    other = pe.read(bench.ukify("unlock-other.efi", cmdline="quiet"))
    with machine.boot({PCR: events(image, ALL_PATHS[-1])}):
        machine.enrol(bench.all_key, "12")
        machine.enrol(bench.initrd_key, "12")
        volume = machine.metadata()
        assert [one.signed_pcrs for one in volume.tokens] == [(PCR,), (PCR,)]
        assert [one.literal_pcrs for one in volume.tokens] == [(12,), (12,)]
        assert volume.tokens[0].fingerprint == pcrsig.fingerprint(bench.all_key.rsa.public_key())
        assert volume.tokens[1].fingerprint == pcrsig.fingerprint(bench.initrd_key.rsa.public_key())
        assert volume.orphans == (0,), "the passphrase"
        assert [one.bound for one in volume.tokens] == [True, True], "our arithmetic is cryptenroll's"

        machine.seal(bench.all_key, "all")
        machine.seal(bench.initrd_key, "initrd")
        assert machine.opens(signatures, "all"), "all phases, in the last one"
        assert not machine.opens(signatures, "initrd"), "the key of the initrd, after the initrd"
        assert not machine.opens(pcrsig.render(signing.sign_image(image, {Role.ALL: [bench.foreign.rsa]})), "all")
        assert not machine.opens(pcrsig.render(signing.sign_image(other, keys)), "all"), "signatures of another image"
    with machine.boot({PCR: events(image, ALL_PATHS[0])}):
        assert machine.opens(signatures, "all")
        assert machine.opens(signatures, "initrd"), "the key of the initrd, in the initrd"
    with machine.boot({PCR: events(other, ALL_PATHS[-1])}):
        assert not machine.opens(signatures, "all"), "another image has started"
        assert machine.opens(pcrsig.render(signing.sign_image(other, keys)), "all"), (
            "and with its own signatures it opens"
        )
    with machine.boot({PCR: events(image, ALL_PATHS[-1]), 12: [{bank: bytes(size) for bank, size in SIZES.items()}]}):
        assert not machine.opens(signatures, "all"), "a longer command line (PCR 12), with PCR 11 unchanged"


def test_why_only_rsa_is_taken(bench: Bench, machine: Machine, image: pe.Image) -> None:
    """systemd 257 seals to a P-256 signing key, and ukify signs with it; but it never opens."""
    from cryptography.hazmat.primitives.asymmetric import ec

    key = write_key(bench.folder, "p256", ec.generate_private_key(ec.SECP256R1()))
    options = [f"--pcr-private-key={key.private}", f"--pcr-public-key={key.public}", "--pcr-banks=sha256"]
    signed = pe.read(bench.ukify("p256.efi", *options, f"--phases={' '.join(ALL_PATHS)}"))
    with machine.boot({PCR: events(signed, ALL_PATHS[-1])}):
        machine.seal(key, "p256")
        assert not machine.opens(signed.content(".pcrsig"), "p256")


def test_a_real_tpm_comes_to_the_predicted_value(machine: Machine, image: pe.Image) -> None:
    for path in ALL_PATHS:
        with machine.boot({PCR: events(image, path)}):
            transport = SocketTransport(machine.socket)
            try:
                for bank in BANKS:
                    assert Tpm(transport).pcr_values(bank, [PCR])[PCR] == predict(measure(image, bank), bank, path)
            finally:
                transport.close()
