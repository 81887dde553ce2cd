"""Keys are made once, and made again when their delivery was cut; somebody else's keys are never touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.host.sealing import Sealing
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import Done, HostError

KEY = "0a1b2c-3d4e5f-010203-a0b0c0/1c7af8-35a4e900"
MACHINE = "3d7544697793a3b49cb8a869f609866d"


@pytest.fixture
def sealing(tmp_path: Path) -> Sealing:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text(f"{MACHINE}\n")
    (tmp_path / "var/log/journal" / MACHINE).mkdir(parents=True)

    def run(argv: list[str], **_: object) -> Done:
        if "--setup-keys" in argv:
            sealing.key_path.write_text("state")
            return Done(0, f"{KEY}\n", "")
        return Done(0, "", "")

    sealing = Sealing(root=tmp_path, run=run)
    return sealing


def test_the_whole_life_of_a_key(sealing: Sealing) -> None:
    assert sealing.state() == "due"
    assert sealing.generate(900) == KEY
    assert sealing.state() == "due", "a key that was not delivered is due again"
    sealing.confirm("ab" * 32)
    assert sealing.state() == "delivered"
    assert KEY.split("/", maxsplit=1)[0] not in sealing.receipt_path.read_text()
    assert sealing.remove()
    assert not sealing.key_path.exists()
    assert not sealing.receipt_path.parent.exists()


def test_a_lost_sealing_key_is_due(sealing: Sealing) -> None:
    sealing.generate(900)
    sealing.confirm("ab" * 32)
    sealing.key_path.unlink()
    assert sealing.state() == "due"


def test_a_copied_disk_with_another_machine_id_is_due(sealing: Sealing) -> None:
    sealing.generate(900)
    sealing.confirm("ab" * 32)
    other = "f" * 32
    (sealing.root / "etc/machine-id").write_text(other)
    (sealing.root / "var/log/journal" / other).mkdir()
    assert sealing.state() == "due"


def test_somebody_elses_keys_stay(sealing: Sealing) -> None:
    sealing.key_path.write_text("theirs")
    assert sealing.state() == "foreign"
    assert not sealing.remove()
    assert sealing.key_path.read_text() == "theirs"


def test_a_failure_never_carries_the_streams(sealing: Sealing) -> None:
    sealing.run = lambda *_, **__: Done(1, KEY.upper(), f"secret {KEY}")
    with pytest.raises(HostError) as caught:
        sealing.generate(900)
    assert KEY not in str(caught.value)
