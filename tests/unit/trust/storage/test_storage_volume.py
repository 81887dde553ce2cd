"""The key slots of the volume, with the real tools on an image: order, proofs, refusals, and a cut at every command."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from storage_bed import Bed, PowerCut, SoftwareTpm, memory, need, need_tpm

from kosmos_trust.storage import luks, recovery
from kosmos_trust.storage.errors import ForeignDiskError, StorageError, WaitingError

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> SoftwareTpm:
    need_tpm()
    return SoftwareTpm(tmp_path_factory.mktemp("tpm"))


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Bed]:
    """A bed without a TPM."""
    need("cryptsetup", "systemd-cryptenroll", "wipefs", "blkid")
    with memory() as folder:
        yield Bed(tmp_path, folder)


@pytest.fixture
def bed(tmp_path: Path, tpm: SoftwareTpm) -> Iterator[Bed]:
    need("cryptsetup", "wipefs", "blkid", "unshare")
    tpm.extended.pop(12, None)
    with memory() as folder:
        made = Bed(tmp_path, folder, tpm)
        tpm.sign_policy(made.plan.seal.signature)
        yield made


def installed(bed: Bed) -> bytes:
    """Go from an empty disk to TPM and recovery key only; return the recovery key."""
    bed.volume().prepare()
    key = bed.volume().new_recovery_key()
    bed.volume().drill(key)
    bed.volume().enrol_tpm()
    bed.volume().prove_tpm()
    bed.volume().wipe_temporary()
    return key


def test_only_the_tpm_and_the_operator_open_an_installed_volume(bed: Bed) -> None:
    key = installed(bed)
    volume = bed.volume()
    assert volume.state == "temporary_wiped"
    assert volume.disk().verdict == "ours"
    header = luks.read_header(str(bed.image))
    assert header.untold == ()
    assert {token.type for token in header.tokens} == {luks.TPM2_TOKEN, luks.RECOVERY_TOKEN}
    (token,) = (one for one in header.tokens if one.type == luks.TPM2_TOKEN)
    assert (token.literal_pcrs, token.signed_pcrs, token.bank) == ((12,), (11,), "sha256")
    assert token.public_key.strip() == bed.plan.seal.public_key.read_bytes().strip()
    assert bed.opens(key)
    assert not bed.plan.temporary_key.exists()
    volume.prove_tpm()


def test_the_tpm_refuses_when_something_came_in_from_outside(bed: Bed) -> None:
    """An SMBIOS string changes the command line with PCR 11 as it was; it shows in PCR 12 only."""
    installed(bed)
    assert bed.tpm is not None
    bed.tpm.extended[12] = hashlib.sha256(b"init=/bin/sh").digest()
    with pytest.raises(StorageError, match="the TPM does not open the volume"):
        bed.volume().prove_tpm()


def test_the_tpm_refuses_an_image_that_nobody_signed(bed: Bed) -> None:
    installed(bed)
    assert bed.tpm is not None
    before = dict(bed.tpm.extended)
    bed.tpm.extended[11] = hashlib.sha256(b"another image").digest()
    try:
        with pytest.raises(StorageError, match="the TPM does not open the volume"):
            bed.volume().prove_tpm()
    finally:
        bed.tpm.extended = before


def test_the_temporary_slot_stays_when_the_tpm_has_ceased_to_open(bed: Bed) -> None:
    """The proof was given before; it has to hold at the moment when the slot is destroyed."""
    volume = bed.volume()
    volume.prepare()
    volume.drill(volume.new_recovery_key())
    volume.enrol_tpm()
    volume.prove_tpm()
    assert bed.tpm is not None
    bed.tpm.extended[12] = hashlib.sha256(b"addon").digest()
    with pytest.raises(StorageError, match="the TPM does not open the volume"):
        volume.wipe_temporary()
    assert bed.opens(bed.plan.temporary_key.read_bytes())


def test_a_pcr_12_that_is_not_zero_is_not_sealed(bed: Bed) -> None:
    volume = bed.volume()
    volume.prepare()
    volume.drill(volume.new_recovery_key())
    assert bed.tpm is not None
    bed.tpm.extended[12] = hashlib.sha256(b"credential").digest()
    with pytest.raises(StorageError, match="PCR 12 is not zero"):
        volume.enrol_tpm()
    assert luks.read_header(str(bed.image)).of_type(luks.TPM2_TOKEN) == ()


def test_a_signature_that_does_not_fit_adds_no_slot(bed: Bed) -> None:
    volume = bed.volume()
    volume.prepare()
    volume.drill(volume.new_recovery_key())
    bed.plan.seal.signature.write_text('{"sha256": []}')
    slots = luks.read_header(str(bed.image)).slots
    with pytest.raises(StorageError, match="systemd-cryptenroll"):
        volume.enrol_tpm()
    assert luks.read_header(str(bed.image)).slots == slots
    assert volume.state == "recovery_proved"


def test_without_a_signed_boot_the_install_waits_and_goes_on_after_it(bed: Bed) -> None:
    signature = bed.plan.seal.signature.read_text()
    bed.plan.seal.signature.unlink()
    volume = bed.volume()
    volume.prepare()
    key = volume.new_recovery_key()
    volume.drill(key)
    volume.enrol_tpm()
    with pytest.raises(WaitingError, match="reboot into the signed image"):
        volume.prove_tpm()
    bed.reboot()
    bed.plan.seal.signature.write_text(signature)
    volume = bed.volume()
    volume.prepare()
    volume.prove_tpm()
    volume.wipe_temporary()
    assert luks.read_header(str(bed.image)).untold == ()
    assert bed.opens(key)


def test_steps_out_of_order_are_refused_by_name(plain: Bed) -> None:
    volume = plain.volume()
    for call in (volume.new_recovery_key, volume.enrol_tpm, volume.prove_tpm, volume.wipe_temporary):
        with pytest.raises(WaitingError, match="the next step is: formatted"):
            call()
    volume.prepare()
    volume.new_recovery_key()
    with pytest.raises(WaitingError, match="recovery_proved"):
        volume.enrol_tpm()


def test_a_foreign_disk_stays_as_it_is(plain: Bed) -> None:
    with plain.image.open("r+b") as stream:
        stream.seek(20 << 20)
        stream.write(b"somebody's data")
    before = hashlib.sha256(plain.image.read_bytes()).digest()
    with pytest.raises(ForeignDiskError, match="data at byte"):
        plain.volume().prepare()
    assert hashlib.sha256(plain.image.read_bytes()).digest() == before
    assert plain.volume().state == "empty"
    assert not plain.plan.temporary_key.exists()


def test_a_wrong_recovery_key_is_refused_and_may_be_made_again(plain: Bed) -> None:
    volume = plain.volume()
    volume.prepare()
    first = volume.new_recovery_key()
    with pytest.raises(StorageError, match="not the recovery key"):
        volume.drill(first[::-1])
    second = volume.new_recovery_key()
    assert not plain.opens(first)
    assert volume.drill(second + b"\n") == luks.read_header(str(plain.image)).of_type(luks.RECOVERY_TOKEN)[0]


def test_an_old_recovery_key_works_until_the_new_one_is_proved(plain: Bed) -> None:
    volume = plain.volume()
    volume.prepare()
    old = volume.new_recovery_key()
    volume.drill(old)
    plain.reboot()
    new = plain.volume().new_recovery_key(lent=old)
    assert plain.opens(old)
    with pytest.raises(StorageError, match="old recovery key"):
        plain.volume().drill(old)
    plain.volume().drill(new)
    assert plain.opens(new)
    assert not plain.opens(old)


def test_after_a_reboot_nothing_is_formatted_over_a_key_that_the_operator_may_hold(plain: Bed) -> None:
    volume = plain.volume()
    volume.prepare()
    key = volume.new_recovery_key()
    plain.reboot()
    with pytest.raises(WaitingError, match="start-over"):
        plain.volume().prepare()
    assert plain.opens(key)
    plain.volume().prepare(start_over=True)
    assert not plain.opens(key)
    assert plain.volume().state == "formatted"


def test_a_volume_that_may_hold_data_is_never_formatted_again(plain: Bed) -> None:
    volume = plain.volume()
    volume.prepare()
    volume.journal.begun("filesystem")
    plain.reboot()
    for start_over in (False, True):
        with pytest.raises(StorageError, match="not formatted again"):
            plain.volume().prepare(start_over=start_over)


def test_keys_are_not_written_to_a_disk(plain: Bed, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="would be written to a disk"):
        plain.volume(memory=tmp_path / "memory").prepare()
    assert plain.volume().disk().verdict == "empty"


def test_swap_in_clear_is_refused_before_a_key_is_made(plain: Bed, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n")
    with pytest.raises(StorageError, match="swapoff /dev/sda2"):
        plain.volume(root=tmp_path).prepare()
    assert not plain.plan.temporary_key.exists()


@pytest.mark.parametrize("same_disk", [True, False])
def test_a_cut_while_formatting_leaves_a_disk_that_is_still_ours_to_format(plain: Bed, same_disk: bool) -> None:
    """luksFormat was stopped when only a part of the header area had been written; or the disk was exchanged then."""
    volume, size = plain.volume(), plain.image.stat().st_size
    uuid = "5c1e7a3a-0000-4000-8000-000000000001"
    volume.journal.begun("formatted", uuid=uuid, device=plain.plan.device, size=size if same_disk else size + 1)
    with plain.image.open("r+b") as stream:
        stream.seek(0x8000)
        stream.write(bytes(range(1, 256)) * 64)
    if same_disk:
        volume.prepare()
        assert volume.state == "formatted"
    else:
        with pytest.raises(ForeignDiskError):
            volume.prepare()


def test_a_torn_line_of_the_journal_is_as_if_it_had_not_been_written(plain: Bed) -> None:
    volume = plain.volume()
    volume.prepare()
    with volume.journal.path.open("ab") as stream:
        stream.write(b'{"at": 1, "facts": {}, "phase": "done", "st')
    assert volume.state == "formatted"
    volume.new_recovery_key()
    assert plain.volume().state == "recovery_enrolled"


def test_a_broken_line_of_the_journal_stops_everything(plain: Bed) -> None:
    volume = plain.volume()
    volume.prepare()
    volume.journal.path.write_bytes(b"{}\n" + volume.journal.path.read_bytes())
    with pytest.raises(StorageError, match="line 1 is not an entry"):
        plain.volume().prepare()


def drive(bed: Bed, held: list[bytes]) -> None:
    """What an installer does, from wherever the volume stands; `held` are the keys that reached the operator."""
    try:
        bed.volume().prepare()
    except WaitingError:
        # The temporary key is gone. An operator who holds a key that opens lends it; one who does not starts over.
        if not any(bed.opens(key) for key in held):
            bed.volume().prepare(start_over=True)
    volume = bed.volume()
    mine = next((key for key in reversed(held) if volume.state != "formatted" and bed.opens(key)), None)
    if mine is None:
        mine = volume.new_recovery_key()
        held.append(mine)
    if not volume.reached("recovery_proved"):
        volume.drill(mine)
    if not volume.reached("tpm_enrolled"):
        volume.enrol_tpm(None if bed.plan.temporary_key.exists() else mine)
    volume.prove_tpm()
    volume.wipe_temporary()


@pytest.mark.parametrize("lose_memory", [False, True], ids=["process killed", "power cut"])
def test_a_cut_at_any_command_converges_and_never_locks_out(
    tmp_path: Path, tpm: SoftwareTpm, lose_memory: bool
) -> None:
    need("cryptsetup", "wipefs", "blkid", "unshare")
    tpm.extended.pop(12, None)
    (tmp_path / "whole").mkdir()
    with memory() as folder:
        whole = Bed(tmp_path / "whole", folder, tpm)
        tpm.sign_policy(whole.plan.seal.signature)
        drive(whole, [])
    changing = [
        number for number, command in enumerate(whole.commands)
        if command.argv[0] == "systemd-cryptenroll" or "luksFormat" in command.argv
    ]  # fmt: skip
    assert len(changing) == 4, "format, recovery key, TPM, and the wipe of the temporary slot"
    for number in changing:
        for when in ("before", "after") if lose_memory else ("after",):
            place = tmp_path / f"{number}-{when}"
            place.mkdir()
            with memory() as folder:
                bed = Bed(place, folder, tpm)
                bed.plan.seal.signature.write_text(whole.plan.seal.signature.read_text())
                bed.cut_at, held = (number, when), []
                with pytest.raises(PowerCut):
                    drive(bed, held)
                proved = bed.volume().reached("recovery_proved")
                assert not proved or any(bed.opens(key) for key in held), "a proved key has to keep working"
                if lose_memory:
                    bed.reboot()
                bed.cut_at = None
                drive(bed, held)
                assert bed.volume().state == "temporary_wiped"
                assert bed.opens(held[-1])
                header = luks.read_header(str(bed.image))
                assert len(header.slots) == 2
                assert header.untold == ()


def test_what_is_known_about_the_recovery_key(plain: Bed) -> None:
    volume = plain.volume()
    volume.prepare()
    key = volume.new_recovery_key()
    with pytest.raises(StorageError, match="drill"):
        recovery.acknowledge(volume, "Ada Lovelace")
    slot = volume.drill(key)
    told = recovery.status(volume, ask_tpm=False)
    assert (told.slot, told.acknowledged, told.drills, told.used) == (slot, None, 1, False)
    recovery.acknowledge(volume, "Ada Lovelace")
    plain.reboot()
    new = plain.volume().new_recovery_key(lent=key)
    plain.volume().drill(new)
    told = recovery.status(plain.volume(), ask_tpm=False)
    assert told.used
    assert [use.what for use in told.uses] == ["lent"]
    assert told.drills == 2
    assert told.acknowledged is not None
    assert (told.acknowledged.by, told.acknowledged.slot) == ("Ada Lovelace", slot)
    assert told.acknowledged.slot != told.slot, "the new key has not been acknowledged"


def test_a_name_that_is_a_key_is_refused(plain: Bed) -> None:
    volume = plain.volume()
    volume.prepare()
    key = volume.new_recovery_key()
    volume.drill(key)
    with pytest.raises(StorageError, match="not a person") as caught:
        recovery.acknowledge(volume, key.decode())
    assert key.decode() not in str(caught.value)


def test_keys_reach_no_argument_no_message_and_no_file(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    held: list[bytes] = []
    bed.volume().prepare()
    temporary = bed.plan.temporary_key.read_bytes()
    drive(bed, held)
    recovery.acknowledge(bed.volume(), "Ada")
    messages = []
    with pytest.raises(StorageError) as caught:
        bed.volume().new_recovery_key(lent=held[0][::-1])
    messages.append(repr(caught.value) + str(caught.value))
    secrets = {held[0], held[0][::-1], held[0].replace(b"-", b""), temporary, temporary.hex().encode()}
    seen = [str(command).encode() for command in bed.commands] + [text.encode() for text in (*messages, caplog.text)]
    seen += [path.read_bytes() for path in bed.plan.state.rglob("*") if path.is_file()]
    seen.append(bed.image.read_bytes())
    assert not [secret for secret in secrets for text in seen if secret in text]


def test_a_full_disk_stops_before_anything_is_changed(plain: Bed) -> None:
    """The journal lies on a file system of 64 KiB that is full: the intention cannot be written, so nothing is done."""

    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("unshare --mount is refused: a small file system cannot be mounted")
    script = f"""
import subprocess, pathlib
state = pathlib.Path({str(plain.plan.state)!r})
state.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(state)], check=True)
with (state / "full").open("wb", buffering=0) as stream:
    try:
        while stream.write(bytes(4096)):
            pass
    except OSError:
        pass
from kosmos_trust.storage.errors import JournalError
from kosmos_trust.storage.luks import Kdf
from kosmos_trust.storage.plan import Plan
from kosmos_trust.storage.volume import Volume
plan = Plan({plain.plan.device!r}, state, pathlib.Path({str(plain.plan.memory)!r}), kdf=Kdf(64, 1, passes=4))
try:
    Volume(plan).prepare()
except JournalError as error:
    print(error)
(state / "full").unlink()
Volume(plan).prepare()
print(Volume(plan).state)
"""
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stdout
    assert "free space" in done.stdout
    assert done.stdout.endswith("formatted\n")


def test_a_declaration_without_pcr_12_is_refused() -> None:
    from kosmos_trust.storage.plan import checked

    with pytest.raises(StorageError, match="PCR 12 is not bound"):
        checked(luks.Seal(literal_zero=(15,)))
    with pytest.raises(StorageError, match="cannot be used"):
        checked(luks.Seal(literal_now=(11,)))
    assert checked(replace(luks.Seal(), literal_zero=(12, 15), literal_now=(7,))).spoken.count("+") == 2


def test_a_slot_that_the_owner_added_is_left_alone(bed: Bed) -> None:
    key = installed(bed)
    escrow = b"a passphrase in escrow"
    for name, content in (("unlock", key), ("escrow", escrow)):
        (bed.folder / name).write_bytes(content)
    subprocess.run(
        ["cryptsetup", "luksAddKey", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
         "--key-slot", "7", "--key-file", str(bed.folder / "unlock"), str(bed.image), str(bed.folder / "escrow")],
        check=True, capture_output=True,
    )  # fmt: skip
    new = bed.volume().new_recovery_key(lent=key)
    bed.volume().drill(new)
    assert bed.opens(escrow)
    assert bed.opens(new)
    assert not bed.opens(key)
    assert len(bed.volume().unaccounted) == 1
    bed.volume().prove_tpm()


def systemd_version() -> int:
    told = subprocess.run(["systemd-cryptenroll", "--version"], capture_output=True, text=True, check=True).stdout
    return int(told.split()[1])


def sealed_with(bed: Bed, **seal: tuple[int, ...]) -> Bed:
    """Install up to the enrolment with other literal PCRs."""
    bed.plan = replace(bed.plan, seal=replace(bed.plan.seal, **seal))  # type: ignore[arg-type]
    volume = bed.volume()
    volume.prepare()
    volume.drill(volume.new_recovery_key())
    volume.enrol_tpm()
    return bed


def test_a_vault_opens_in_the_initrd_only(bed: Bed) -> None:
    """PCR 15 is zero there; once the system is up the machine id is measured into it, and a rogue root sees that."""
    need_tpm()
    if systemd_version() < 255:
        pytest.skip(f"systemd {systemd_version()}: --tpm2-pcrs takes literal values from 255 on")
    assert bed.tpm is not None
    bed.tpm.extended[15] = hashlib.sha256(b"machine-id").digest()
    try:
        sealed_with(bed, literal_zero=(12, 15))
        with pytest.raises(WaitingError, match="in the initrd only"):
            bed.volume().prove_tpm()
        assert bed.run(luks.test_tpm(str(bed.image))).code != 0
    finally:
        del bed.tpm.extended[15]
    assert bed.run(luks.test_tpm(str(bed.image))).code == 0


def test_the_option_that_binds_secure_boot_too(bed: Bed) -> None:
    """PCR 7 as it is today: then a dbx update locks out, which is why it is an option."""
    assert bed.tpm is not None
    bed.tpm.extended[7] = hashlib.sha256(b"db").digest()
    try:
        sealed_with(bed, literal_now=(7,)).volume().prove_tpm()
        bed.tpm.extended[7] = hashlib.sha256(b"db after a dbx update").digest()
        with pytest.raises(StorageError, match="the TPM does not open"):
            bed.volume().prove_tpm()
    finally:
        del bed.tpm.extended[7]
