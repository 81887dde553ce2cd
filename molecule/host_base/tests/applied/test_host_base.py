"""What host_base guarantees, asked of the machine itself."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

KEY = re.compile(r"[0-9a-f]{6}(-[0-9a-f]{6}){3}/[0-9a-f]+-[0-9a-f]+")


def keys() -> list[Path]:
    return sorted(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "keys").glob("*-journal-*.key"))


def test_the_name_resolves_without_network(host) -> None:
    assert host.check_output("getent hosts kosmos-lab.kosmos.internal").split()[0] == "127.0.1.1"
    assert host.file("/etc/hostname").content_string.strip() == "kosmos-lab"


def test_the_journal_of_packages_names_what_came_and_nothing_else(host) -> None:
    with host.sudo():
        names = host.file("/var/lib/kosmos/packages.installed").content_string.split()
        assert host.file("/var/lib/kosmos").mode == 0o700
    assert {"aide", "chrony"} <= set(names)
    assert not {"openssh-server", "sudo", "systemd", "python3"} & set(names)
    assert all(host.package(name).is_installed for name in names)


def test_chrony_accepts_its_configuration(host) -> None:
    with host.sudo():
        printed = host.run("chronyd -p -f /etc/chrony/chrony.conf")
    assert printed.rc == 0, printed.stderr
    assert "local stratum 10" in printed.stdout
    assert "pool" not in printed.stdout


def test_only_security_updates_come_by_themselves(host) -> None:
    with host.sudo():
        told = host.run("unattended-upgrade --dry-run --debug")
    allowed = next(line for line in (told.stdout + told.stderr).splitlines() if "Allowed origins are" in line)
    assert "label=Debian-Security" in allowed
    assert "label=Debian," not in allowed + ","
    assert allowed.count("origin=") == 1


def test_the_verification_key_is_with_the_operator_only(host) -> None:
    (path,) = keys()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    key = path.read_text().strip()
    assert KEY.fullmatch(key)
    seed = key.split("/")[0]
    with host.sudo():
        receipt = json.loads(host.file("/var/lib/kosmos/host_base/journal-sealing.json").content_string)
        found = host.run(
            f"grep -rlF {seed} /etc /var/lib /var/log /root /home /tmp /run/kosmos /opt --exclude='*.journal'"
        )
        journal = host.run(f"journalctl --no-pager --grep {seed}")
    assert receipt["state"] == "delivered"
    assert path.name.endswith(f"-{receipt['key_sha256'][:12]}.key")
    assert found.stdout == ""
    assert seed not in journal.stdout.replace(f"--grep {seed}", "").replace(f"grep -rlF {seed}", "")


def test_the_journal_verifies_with_that_key(host) -> None:
    key = keys()[0].read_text().strip()
    with host.sudo():
        verified = host.run(f"journalctl --verify --verify-key={key}")
        header = host.check_output("journalctl --header --system")
    assert verified.rc == 0, verified.stderr
    assert "PASS" in verified.stderr + verified.stdout
    assert "FAIL" not in verified.stderr + verified.stdout
    assert "SEALED" in header


def test_a_service_cannot_write_a_core_dump(host) -> None:
    with host.sudo():
        assert host.check_output("systemctl show --property DefaultLimitCORE --value") == "0"


def test_the_audit_rules_are_all_understood(host) -> None:
    with host.sudo():
        rules = host.file("/etc/audit/rules.d/50-kosmos.rules").content_string
    keys_of_rules = re.findall(r"-F key=(\S+)", rules)
    assert len(keys_of_rules) > 40
    assert "kosmos" in keys_of_rules
