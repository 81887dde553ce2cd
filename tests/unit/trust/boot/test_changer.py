"""A rotation by the real programs: a TPM in software, a LUKS2 header, cryptenroll, images of ukify on a folder's ESP.

Two answers are given by the test, because only a running machine has them: what the kernel says of PCR 11, and whether
cryptsetup opens by the kernel's TPM. The same unsealing is proven in test_unlock.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from boot_bed import CMDLINE, Bench
from cuts import run_until
from host_bed import Machine
from test_unlock import Machine as Tpm

from kosmos_trust.boot import gate, pcrsig, pe, signing
from kosmos_trust.boot.changer import Changer, enrol_argv
from kosmos_trust.boot.commands import Done
from kosmos_trust.boot.errors import RotationError
from kosmos_trust.boot.host import Host
from kosmos_trust.boot.prediction import ALL_PATHS, PCR, measure, predict
from kosmos_trust.boot.roles import Role
from kosmos_trust.boot.rotate import Pause, Rotation, Step

TPM_PROGRAMS = ("systemd-cryptenroll", "cryptsetup")


class Whole(Machine):
    """A host with a TPM and one sealed volume, opened in the phases of the running system."""

    def __init__(self, bench: Bench, folder: Path, signing_mode: str = "host") -> None:
        super().__init__(bench, folder, signing_mode)
        self.tpm = Tpm(bench, folder / "t")
        self.settings["volumes"] = [
            {"device": str(self.tpm.volume), "role": "all", "unlock_key": str(self.tpm.passphrase)}
        ]
        self.opened: list[str] = []
        boot = folder / "proc/sys/kernel/random"
        boot.mkdir(parents=True)
        (boot / "boot_id").write_text("first\n")

    def run(self, argv: Sequence[str | Path]) -> Done:
        words = [str(word) for word in argv]
        if words[:2] == ["cryptsetup", "open"]:
            self.opened.append(words[words.index("--token-id") + 1])
            return Done(0, "", "")
        if words[0] in TPM_PROGRAMS:
            self.ran.append(words)
            done = subprocess.run(self.bench.tools.argv(*words), capture_output=True, text=True, check=False)
            return Done(done.returncode, done.stdout, done.stderr)
        return super().run(argv)

    def changer(self, answers: dict[str, tuple[pcrsig.Entry, ...]] | None = None) -> Changer:
        return Changer(self.host, self.state, answers, self.tpm.device)

    def seal(self) -> None:
        """Enrol as the role does: the key in use, the recovery key, no passphrase beside the managing one."""
        host = self.host
        argv = enrol_argv(
            str(self.tpm.volume), Role.ALL, host.public_path(Role.ALL), self.tpm.passphrase, self.tpm.device
        )
        assert self.run(argv).code == 0, self.run(argv).stderr
        argv = ["systemd-cryptenroll", f"--unlock-key-file={self.tpm.passphrase}", "--recovery-key", argv[-1]]
        assert self.run(argv).code == 0

    def restart(self) -> None:
        """Start the newest image: the loader says so, the kernel says what PCR 11 holds in the last phase."""
        entry = self.host.esp.entries()[0]
        self.started(entry.id)
        value = predict(measure(pe.read(entry.path)), "sha256", ALL_PATHS[-1])
        pcr = self.folder / f"sys/class/tpm/tpm0/pcr-sha256/{PCR}"
        pcr.parent.mkdir(parents=True, exist_ok=True)
        pcr.write_text(value.hex().upper() + "\n")
        boot = self.folder / "proc/sys/kernel/random/boot_id"
        boot.write_text(boot.read_text().strip() + "+\n")


@pytest.fixture
def whole(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Whole]:
    made = Whole(bench, bench.folder / request.node.name[:24], getattr(request, "param", "host"))
    with made.tpm.boot({PCR: []}):
        made.seal()
        yield made


def fingerprints(host: Host) -> dict[Role, list[str]]:
    return {role: [pcrsig.fingerprint(key) for key in keys] for role, keys in host.signers().items()}


def test_the_literal_pcrs_are_enrolled_by_value(whole: Whole) -> None:
    volume = whole.tpm.metadata()
    assert [(one.literal_pcrs, one.signed_pcrs) for one in volume.tokens] == [((12,), (PCR,))]
    assert volume.recovery_slots == (2,)
    argv = enrol_argv(
        str(whole.tpm.volume), Role.INITRD, whole.host.public_path(Role.INITRD), whole.tpm.passphrase, whole.tpm.device
    )
    assert whole.run(argv).code == 0
    assert whole.tpm.metadata().tokens[-1].literal_pcrs == (12, 15)
    assert all(one.bound for one in whole.tpm.metadata().tokens), "sealed to zeros, in the order of systemd"


def test_a_whole_rotation_on_the_host(whole: Whole) -> None:
    for turn in range(3):
        whole.initrd += bytes([turn])
        assert whole.updater.update(whole.parts()).entry is not None
    whole.restart()
    before = fingerprints(whole.host)
    rotation = Rotation(whole.state.rotation, whole.changer())
    rotation.start()
    pause = rotation.advance()
    assert isinstance(pause, Pause)
    assert pause.step is Step.RESTART
    assert len(whole.tpm.metadata().fingerprints) == 2
    expected = whole.host.expectation(None)
    for one in whole.host.esp.entries():
        assert gate.judge(one.path.read_bytes(), one.id, expected).passed, "signed with both, and still the same image"
    assert {len(keys) for keys in fingerprints(whole.host).values()} == {2}

    whole.initrd += b"a kernel update in the middle"
    assert whole.updater.update(whole.parts()).entry is not None
    whole.restart()
    assert Rotation(whole.state.rotation, whole.changer()).advance() is None
    after = fingerprints(whole.host)
    assert not {mark for keys in after.values() for mark in keys} & {mark for keys in before.values() for mark in keys}
    volume = whole.tpm.metadata()
    assert volume.fingerprints == set(after[Role.ALL])
    assert whole.opened == [str(volume.tokens[0].number)]
    assert len(volume.slots) == 3, "the managing key, the recovery key and the new one"
    assert sorted(path.name for path in whole.private.iterdir()) == ["all.key", "initrd.key"]
    whole.initrd += b"and after it"
    assert whole.updater.update(whole.parts()).entry is not None


def test_another_pcr_value_is_no_proof(whole: Whole) -> None:
    whole.updater.update(whole.parts())
    whole.restart()
    rotation = Rotation(whole.state.rotation, whole.changer())
    rotation.start()
    rotation.advance()
    whole.restart()
    (whole.folder / f"sys/class/tpm/tpm0/pcr-sha256/{PCR}").write_text("00" * 32)
    pause = rotation.advance()
    assert isinstance(pause, Pause)
    assert "PCR 11 does not hold" in pause.why
    whole.started("debian")
    pause = rotation.advance()
    assert isinstance(pause, Pause)
    assert "no image of ours" in pause.why
    assert len(whole.tpm.metadata().fingerprints) == 2


def test_a_slot_that_a_cut_enrolment_left_is_removed(whole: Whole) -> None:
    whole.updater.update(whole.parts())
    whole.restart()
    rotation = Rotation(whole.state.rotation, whole.changer())
    rotation.start()
    real = whole.changer()
    cut = Rotation(whole.state.rotation, real)

    def orphan(device: str, role: Role) -> None:
        """What cryptenroll leaves when it dies between the slot and its token."""
        key = whole.folder / "orphan"
        key.write_text("orphan")
        whole.tpm.run(
            "cryptsetup", "luksAddKey", "--batch-mode", f"--key-file={whole.tpm.passphrase}", "--pbkdf=pbkdf2",
            "--pbkdf-force-iterations=1000", device, key,
        )  # fmt: skip
        raise RotationError("the power is gone")

    setattr(real, "enrol", orphan)  # noqa: B010
    with pytest.raises(RotationError, match="power"):
        cut.advance()
    assert len(whole.tpm.metadata().orphans) == 2
    assert isinstance(Rotation(whole.state.rotation, whole.changer()).advance(), Pause)
    assert len(whole.tpm.metadata().orphans) == 1, "only the managing key"
    assert len(whole.tpm.metadata().fingerprints) == 2


@pytest.mark.parametrize("whole", ["controller"], indirect=True)
def test_a_rotation_whose_keys_are_on_the_controller(whole: Whole) -> None:
    away = whole.folder / "controller"
    keys = {role: [key.rsa] for role, key in whole.keys.items()}

    def signed() -> dict[str, tuple[pcrsig.Entry, ...]]:
        requests = signing.parse_requests(whole.state.rotation_requests.read_bytes(), "r")
        return signing.parse_answers(signing.answer(requests, keys, CMDLINE), "a")

    whole.updater.update(whole.parts())
    requests = signing.parse_requests(whole.state.requests.read_bytes(), "r")
    whole.updater.finish(signing.answer(requests, keys, CMDLINE), "a")
    whole.restart()
    rotation = Rotation(whole.state.rotation, whole.changer())
    rotation.start()
    pause = rotation.advance()
    assert isinstance(pause, Pause)
    assert pause.step is Step.KEYS

    from boot_bed import make_key

    for role in Role:
        new = make_key(away, f"{role.value}.next")
        keys[role].append(new.rsa)
        (whole.public / f"{role.value}.next.pub").write_bytes(new.public.read_bytes())
    pause = rotation.advance()
    assert isinstance(pause, Pause)
    assert pause.step is Step.IMAGES
    assert "1 images wait" in pause.why
    only_old = {role: held[:1] for role, held in keys.items()}
    entry = whole.host.esp.entries()[0]
    short = {entry.id: tuple(signing.sign_image(pe.read(entry.path), only_old))}
    with pytest.raises(RotationError, match="not enough"):
        Rotation(whole.state.rotation, whole.changer(short)).advance()
    pause = Rotation(whole.state.rotation, whole.changer(signed())).advance()
    assert isinstance(pause, Pause)
    assert pause.step is Step.RESTART
    assert whole.state.waiting() == []
    whole.restart()
    assert rotation.advance() is None
    assert whole.tpm.metadata().fingerprints == set(fingerprints(whole.host)[Role.ALL])
    assert not list(whole.private.iterdir())


def test_promoting_may_be_cut_anywhere(bench: Bench) -> None:
    call, finished = 0, False
    while not finished:
        machine = Machine(bench, bench.folder / f"promote-{call}")
        changer = Changer(machine.host, machine.state)
        marks = changer.new_keys()
        finished = run_until(call, changer.promote)
        changer.promote()
        assert changer.present_keys() == marks
        assert set(machine.host.private_keys()) == set(Role)
        assert not [path for path in machine.private.iterdir() if ".next" in path.name]
        call += 1
    assert call >= 8
