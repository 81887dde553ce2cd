"""What the console says decides at once whether waiting for a machine makes sense."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kosmos_installer.errors import KosmosError
from kosmos_installer.lab.state import Process, State
from kosmos_installer.lab.tools import Tools
from kosmos_installer.lab.vm import StalledError, Vm

STALL = "[ 26.1] rcu: rcu_preempt kthread timer wakeup didn't happen for 5025 jiffies!\n"


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Vm]:
    """A machine directory whose recorded QEMU is a living process that answers nothing."""
    with subprocess.Popen(["sleep", "60"]) as child:
        one = Vm(tmp_path, "kosmos-lab", tmp_path / "key", Tools(None, (), as_root=True))
        accelerator = {"name": "tcg", "reason": "test"}
        State([Process.of("qemu", child.pid)], ssh_port=1, accelerator=accelerator).save(one.state_file)
        yield one
        child.kill()


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("Kernel panic - not syncing: x\n", "the kernel panicked"),
        ("You are in emergency mode. After\n", "it stopped in emergency mode"),
        (STALL * 3, "an emulated processor has stalled"),
    ],
)
def test_a_hopeless_machine_is_not_waited_for(vm: Vm, said: str, meaning: str) -> None:
    (vm.directory / "console.log").write_text(said)
    with pytest.raises(KosmosError, match=meaning):
        vm.wait_ssh(30)


def test_only_a_stall_may_be_started_again(vm: Vm) -> None:
    console = vm.directory / "console.log"
    console.write_text(STALL * 3)
    with pytest.raises(StalledError):
        vm.wait_ssh(30)
    console.write_text("Kernel panic\n")
    with pytest.raises(KosmosError) as caught:
        vm.wait_ssh(30)
    assert not isinstance(caught.value, StalledError)


@pytest.mark.parametrize("said", ["", STALL * 2, "login:"])
def test_a_slow_machine_is_waited_for_until_the_time_is_up(vm: Vm, said: str) -> None:
    (vm.directory / "console.log").write_text(said)
    with pytest.raises(KosmosError, match="did not answer by ssh in 1 seconds"):
        vm.wait_ssh(1)


def test_what_an_earlier_boot_said_does_not_count(vm: Vm) -> None:
    text = "Kernel panic\n"
    (vm.directory / "console.log").write_text(text)
    state = vm.state
    state.console_from = len(text)
    state.save(vm.state_file)
    with pytest.raises(KosmosError, match="did not answer"):
        vm.wait_ssh(1)


def test_an_ended_qemu_is_not_waited_for(vm: Vm) -> None:
    vm.stop()
    (vm.directory / "qemu.log").write_text("qemu: no such file\n")
    state = vm.state
    state.accelerator = {"name": "tcg", "reason": "test"}
    state.save(vm.state_file)
    with pytest.raises(KosmosError, match="QEMU ended") as caught:
        vm.wait_ssh(30)
    assert "no such file" in caught.value.why
