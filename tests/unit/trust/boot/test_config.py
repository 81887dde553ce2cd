"""The settings, the command line policy, and the commands that build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kosmos_trust.boot import build, config
from kosmos_trust.boot.commands import Done, run
from kosmos_trust.boot.errors import CommandError, ConfigError
from kosmos_trust.boot.roles import Role

CMDLINE = "root=PARTUUID=6b6f736d-6f73-4c61-8b00-726f6f740013 ro quiet panic=30"
GOOD: dict[str, Any] = {
    "esp": "/boot/efi", "state": "/var/lib/kosmos/boot", "cmdline": CMDLINE, "signing": "controller",
    "public_keys": "/etc/kosmos/boot-keys",
    "volumes": [{"device": "/dev/disk/by-partlabel/data", "role": "all", "unlock_key": "/var/lib/kosmos/data.key"}],
}  # fmt: skip


def test_settings_are_read(tmp_path: Path) -> None:
    path = tmp_path / "boot.json"
    path.write_text(json.dumps(GOOD | {"secure_boot": {"certificate": "/etc/kosmos/db.crt"}, "consoles": ["ttyS0"]}))
    found = config.load(path)
    assert found.volumes[0].role is Role.ALL
    assert found.secure_boot == config.SecureBoot(Path("/etc/kosmos/db.crt"), None)
    assert found.consoles == ("ttyS0",)
    assert config.parse(GOOD | {"signing": "host", "private_keys": "/v/keys"}, "x").private_keys == Path("/v/keys")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"signing": "both"}, "expected controller or host"),
        ({"signing": "host"}, "private_keys"),
        ({"private_keys": "/v/keys"}, "private_keys"),
        ({"esp": "boot"}, "not an absolute path"),
        ({"volumes": [{"device": "/dev/x", "role": "root", "unlock_key": "/k"}]}, "root"),
        ({"volumes": [{"device": "/dev/x"}]}, "role"),
        ({"volumes": None}, "TypeError"),
        ({"secure_boot": {}}, ""),
        ({"secure_boot": {"key": "/k"}}, "certificate"),
        ({"cmdline": "quiet"}, "root=PARTUUID"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, Any], why: str) -> None:
    if change == {"secure_boot": {}}:
        assert config.parse(GOOD | change, "x").secure_boot is None, "empty means off"
        return
    with pytest.raises(ConfigError, match=why):
        config.parse(GOOD | change, "boot.json")


def test_settings_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        config.load(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "broken.json")


@pytest.mark.parametrize(
    "word",
    [
        "init=/bin/sh", "rdinit=/bin/sh", "rd.break", "rd.break=pre-mount", "rd.shell", "rd.shell=1", "single", "s",
        "1", "emergency", "rescue", "rw", "systemd.unit=rescue.target", "systemd.debug-shell", "systemd.debug_shell=1",
        "rd.systemd.unit=emergency.target", "systemd.run=/bin/sh", "console=ttyS1", "root=/dev/sda2", "\u00e9", "",
        "x" * 2048, "a\tb", "systemd.setenv=A=b", "rd.systemd.debug_shell",
    ],
)  # fmt: skip
def test_words_that_give_the_machine_away(word: str) -> None:
    with pytest.raises(ConfigError, match="not accepted"):
        config.check_command_line(f"{CMDLINE} {word}", ("tty0",), "x")


@pytest.mark.parametrize(
    "line",
    [
        "ro", "root=UUID=6b6f736d-6f73-4c61-8b00-726f6f740013 ro", "root=LABEL=root ro",
        "root=PARTUUID=6B6F736D-6F73-4C61-8B00-726F6F740013 ro",
        "root=PARTUUID=6b6f736d-6f73-4c61-8b00-726f6f740013", f"{CMDLINE} {CMDLINE.split(maxsplit=1)[0]}", "",
    ],
)  # fmt: skip
def test_a_root_that_is_not_one_partition_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="not accepted"):
        config.check_command_line(line, (), "x")


def test_words_that_stay_allowed() -> None:
    words = "rd.shell=0 rd.emergency=reboot console=ttyS0,115200 lsm=landlock,apparmor slab_nomerge init_on_alloc=1"
    config.check_command_line(f"{CMDLINE} {words}", ("ttyS0,115200",), "x")


def test_the_newest_kernel_is_compared_by_number(tmp_path: Path) -> None:
    for version in ("6.12.9+deb13-amd64", "6.12.48+deb13-amd64", "6.1.170-amd64", "6.12.48+deb13-amd64.dpkg-new"):
        (tmp_path / f"vmlinuz-{version}").touch()
    (tmp_path / "vmlinuz-6.12.48+deb13-amd64.dpkg-new").unlink()
    (tmp_path / "vmlinuz").touch()
    assert build.newest_kernel(tmp_path) == "6.12.48+deb13-amd64"
    (tmp_path / "vmlinuz-6.12.48+deb13.1-amd64").touch()
    assert build.newest_kernel(tmp_path) == "6.12.48+deb13.1-amd64"
    with pytest.raises(CommandError, match="there is no kernel"):
        build.newest_kernel(tmp_path / "empty")


def test_a_missing_part_stops_the_build_before_any_program(tmp_path: Path) -> None:
    def never(argv: object) -> Done:
        raise AssertionError(argv)

    parts = build.Parts("6.12", CMDLINE, tmp_path / "all.pub", boot=tmp_path)
    with pytest.raises(CommandError, match="a part of the image is missing"):
        build.build(parts, tmp_path / "staging", never)
    assert not (tmp_path / "staging").exists()


def test_a_program_has_no_shell_no_input_and_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert run(["printf", "%s", "$HOME; `id`"]).stdout == "$HOME; `id`"
    told = run(["sh", "-c", "env; umask; cat"])
    assert "SECRET" not in told.stdout
    assert "0077" in told.stdout
    assert run(["no-such-program"]).code == 127
    assert run(["false"]).code == 1
