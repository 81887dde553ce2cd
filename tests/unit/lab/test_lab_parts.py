"""Smaller pure parts: the KVM trial's verdict, the image's files, the packages, names, progress."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.lab import accel, packages, recipe
from kosmos_installer.lab.dirs import Dirs
from kosmos_installer.lab.image import bootstrap_argv
from kosmos_installer.lab.mirror import Mirror
from kosmos_installer.lab.peer import ZONES, address_commands
from kosmos_installer.lab.progress import Progress
from kosmos_installer.lab.tools import Tools, qemu_major
from kosmos_installer.lab.vm import free_port

MIRROR = Mirror(("deb http://archive.test/debian trixie main",), ('Acquire::Check-Valid-Until "false";',))
NO_TOOLS = Tools(None, (), as_root=True)


@pytest.mark.parametrize(
    ("code", "message", "name", "reason"),
    [
        (accel.EXPECTED_EXIT, "", "kvm", "a trial guest ran"),
        (None, "", "tcg", "did not answer"),
        (1, "x\nfailed to initialize kvm: Permission denied", "tcg", "Permission denied"),
        (-6, "", "tcg", "exit code -6"),
        (0, "", "tcg", "exit code 0"),
    ],
    ids=["ran", "hung", "refused", "aborted", "ended without running"],
)
def test_only_a_guest_that_ran_means_kvm(code: int | None, message: str, name: str, reason: str) -> None:
    verdict = accel.judge(code, message)
    assert verdict.name == name
    assert reason in verdict.reason


def test_without_a_device_nothing_is_tried(tmp_path: Path) -> None:
    assert accel.choose(NO_TOOLS, tmp_path / "kvm") == accel.Accelerator("tcg", f"there is no {tmp_path}/kvm")


def test_a_device_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "kvm").mkdir()
    assert "cannot be opened" in accel.choose(NO_TOOLS, tmp_path / "kvm").reason


def test_the_boot_sector_is_one() -> None:
    assert len(accel.BOOT_SECTOR) == 512
    assert accel.BOOT_SECTOR.endswith(b"\x55\xaa")


def test_the_overlay_has_the_permissions_that_matter() -> None:
    files = recipe.overlay("ssh-ed25519 AAAA lab\n", MIRROR)
    with tarfile.open(fileobj=io.BytesIO(recipe.archive(files))) as tar:
        modes = {member.name.removeprefix("./"): (member.mode, member.uid, member.gid) for member in tar}
    assert modes["etc/sudoers.d/operator"] == (0o440, 0, 0)
    assert modes["home/operator/.ssh/authorized_keys"][0] == 0o600
    assert files["etc/apt/sources.list"].text == (
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://archive.test/debian trixie main\n"
    )
    assert files["etc/apt/apt.conf.d/90archive"].text == 'Acquire::Check-Valid-Until "false";\n'


def test_the_overlay_is_the_same_each_time() -> None:
    files = recipe.overlay("key", MIRROR)
    assert recipe.archive(files) == recipe.archive(dict(reversed(files.items())))


def test_mmdebstrap_gets_the_settings_and_sources_of_this_machine() -> None:
    argv = bootstrap_argv(Path("/t/root.tar"), "important", ("sudo", "less"), MIRROR)
    assert '--aptopt=Acquire::Check-Valid-Until "false"' in argv
    assert "--include=sudo,less" in argv
    assert argv[-3:] == ["trixie", "/t/root.tar", MIRROR.sources[0]]


def test_missing_packages_are_named_once(tmp_path: Path) -> None:
    present = tmp_path / "ip"
    present.touch()
    find = {"ip": str(present)}.get
    assert packages.absent({"ip": "iproute2", "no-a": "p", "no-b": "p"}, find) == {"p"}
    assert packages.install_command(["a", "b"]).endswith("apt-get install --no-install-recommends a b")


def test_an_old_qemu_of_the_host_asks_for_less(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    old, new = packages.missing(host_qemu=7), packages.missing(host_qemu=10)
    assert "mmdebstrap" in old
    assert "swtpm" not in old
    assert set(old) <= set(new)


def test_require_names_everything_at_once_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "missing", lambda: ["mmdebstrap", "swtpm"])
    with pytest.raises(KosmosError) as caught:
        packages.require()
    assert caught.value.exit_code == ExitCode.USAGE
    assert "mmdebstrap, swtpm" in caught.value.why
    assert "apt-get install --no-install-recommends mmdebstrap swtpm" in caught.value.cure


@pytest.mark.parametrize("name", ["lab", "two-labs", "a", "x" * 32])
def test_names_that_a_host_may_have(name: str) -> None:
    assert Dirs.from_environment({"HOME": "/home/x"}).lab(name) == Path("/home/x/.local/state/kosmos/labs", name)


@pytest.mark.parametrize("name", ["", "..", "a/b", "Lab", "-a", "a-", "1a", "a b", "x" * 33])
def test_names_that_a_host_may_not_have(name: str) -> None:
    with pytest.raises(KosmosError) as caught:
        Dirs.from_environment({"HOME": "/home/x"}).lab(name)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "major"), [("QEMU emulator version 10.0.13 (Debian)", 10), ("QEMU emulator version 7.2.19", 7), ("", 0)]
)
def test_qemu_major(text: str, major: int) -> None:
    assert qemu_major(text) == major


def test_the_tools_tree_is_entered_without_a_shell_seeing_the_command(tmp_path: Path) -> None:
    argv = Tools(tmp_path, (Path("/state"),), as_root=False).argv("qemu-img", "a b; c")
    assert argv[-3:] == ["--", "qemu-img", "a b; c"]
    assert argv[:4] == ["unshare", "--user", "--map-root-user", "--mount"]
    assert NO_TOOLS.argv("qemu-img", Path("x")) == ["qemu-img", "x"]


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(KosmosError, match="failed with exit code") as caught:
        NO_TOOLS.run("ls", "/no/such/place")
    assert "/no/such/place" in caught.value.why


def test_a_taken_port_is_not_chosen() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert free_port(taken) != taken
    assert free_port(taken) == taken


def test_progress_carries_elapsed_seconds() -> None:
    times = iter([100.0, 112.34])
    stream = io.StringIO()
    Progress(stream, lambda: next(times)).say("Building")
    assert stream.getvalue() == "[   12.3 s] Building\n"


def test_zones_are_the_seed_s_with_their_gateways() -> None:
    assert [(one.vlan, one.address, one.gateway) for one in ZONES] == [
        (100, "10.0.1.2/24", "10.0.1.1"),
        (200, "10.0.2.2/24", "10.0.2.1"),
    ]
    assert all(command[0] == "ip" for zone in ZONES for command in address_commands(zone))
    assert [one.gateway6 for one in ZONES] == ["fd6b:6f73:6d6f:100::1", "fd6b:6f73:6d6f:200::1"]
