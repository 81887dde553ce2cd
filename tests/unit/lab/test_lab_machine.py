"""The QEMU command: what a test or a person relies on is pinned, whatever else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kosmos_installer.lab.machine import Places, Spec, qemu_argv

PLACES = Places(Path("/lab"), Path("/run/s"))


def options(argv: list[str], name: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv) if word == name]


def device(argv: list[str], start: str) -> str:
    (found,) = [one for one in options(argv, "-device") if one.startswith(start)]
    return found


@pytest.mark.parametrize(("netdev", "slot"), [("management", "0x6"), ("trunk", "0x7"), ("spare", "0x8")])
def test_a_card_sits_in_the_slot_that_gives_it_its_name(netdev: str, slot: str) -> None:
    assert f"addr={slot}," in device(qemu_argv(Spec(), PLACES, 2222, "tcg"), f"virtio-net-pci,netdev={netdev},")


def test_the_system_disk_starts_first_and_the_data_disk_has_its_serial() -> None:
    argv = qemu_argv(Spec(), PLACES, 2222, "tcg")
    assert device(argv, "virtio-blk-pci,drive=system").endswith("addr=0x4,bootindex=0")
    assert device(argv, "virtio-blk-pci,drive=data").endswith("addr=0x5,serial=kosmos-data")


def test_no_slot_is_taken_twice() -> None:
    slots = [word for one in options(qemu_argv(Spec(), PLACES, 2222, "tcg"), "-device") for word in one.split(",")]
    addresses = [word for word in slots if word.startswith("addr=")]
    assert len(addresses) == len(set(addresses)) == 5


def test_ssh_is_forwarded_on_loopback_only() -> None:
    (user,) = [one for one in options(qemu_argv(Spec(), PLACES, 40022, "tcg"), "-netdev") if one.startswith("user,")]
    assert user.endswith("hostfwd=tcp:127.0.0.1:40022-:22")
    assert "net=192.168.222.0/24" in user


def test_without_a_tpm_nothing_of_it_is_left_and_no_card_moves() -> None:
    with_tpm = qemu_argv(Spec(), PLACES, 2222, "tcg")
    without = qemu_argv(Spec(tpm=False), PLACES, 2222, "tcg")
    assert not any("tpm" in word for word in without)
    assert with_tpm[: len(without)] == without


@pytest.mark.parametrize(
    ("accelerator", "processor", "start"), [("kvm", "host", "kvm"), ("tcg", "max", "tcg,thread=multi")]
)
def test_accelerator_and_processor_go_together(accelerator: str, processor: str, start: str) -> None:
    argv = qemu_argv(Spec(), PLACES, 2222, accelerator)
    assert options(argv, "-cpu") == [processor]
    assert options(argv, "-accel")[0].startswith(start)


def test_a_restored_machine_waits_for_its_memory() -> None:
    assert options(qemu_argv(Spec(), PLACES, 2222, "tcg", incoming=True), "-incoming") == ["defer"]
    assert "-incoming" not in qemu_argv(Spec(), PLACES, 2222, "tcg")


def test_a_wrong_clock_and_a_small_memory_are_passed_on() -> None:
    argv = qemu_argv(Spec(rtc="2031-01-01T00:00:00", memory_mib=1024), PLACES, 2222, "tcg")
    assert options(argv, "-rtc") == ["base=2031-01-01T00:00:00"]
    assert options(argv, "-m") == ["1024"]


def test_a_spec_survives_json() -> None:
    spec = Spec(memory_mib=3072, tpm=False, banks=("sha256",), rtc="2031-01-01T00:00:00")
    assert Spec.of(json.loads(json.dumps(spec.data()))) == spec
