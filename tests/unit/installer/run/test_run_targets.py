"""Where the hosts of an inventory really are, and which secrets it spells out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kosmos_installer import tasklist
from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.paths import ansible_tree
from kosmos_installer.targets import Target, read, targets_of

LOOKUP = (
    "lookup('ansible.builtin.env', 'XDG_STATE_HOME', default=lookup('ansible.builtin.env', 'HOME') ~ '/.local/state')"
)


def listing(**hosts: dict[str, Any]) -> dict[str, Any]:
    return {"_meta": {"hostvars": hosts}, "appliance": {"hosts": list(hosts)}}


def ssh(argv: list[str]) -> str:
    """Answers as `ssh -G` does for a configuration with one alias."""
    assert argv[:2] == ["ssh", "-G"]
    port = argv[argv.index("-p") + 1] if "-p" in argv else "22"
    if "-F" in argv:
        assert argv[argv.index("-F") + 1] == "/state/kosmos/labs/lab/ssh_config"
        return "host alias\nhostname 127.0.0.1\nport 40022\n"
    return f"user op\nhostname {argv[-1]}\nport {port}\n"


def broken(argv: list[str]) -> str:
    raise subprocess.CalledProcessError(255, argv)


def upper(host: str, _port: int) -> str:
    return host.upper()


@pytest.mark.parametrize(
    ("variables", "key"),
    [
        ({}, "BOX:22"),
        ({"ansible_host": "10.0.0.1"}, "10.0.0.1:22"),
        ({"ansible_host": "h", "ansible_port": 2222}, "H:2222"),
        ({"ansible_connection": "local"}, "local"),
        ({"ansible_connection": "ansible.builtin.local"}, "local"),
        ({"ansible_ssh_common_args": f"-F {{{{ {LOOKUP} }}}}/kosmos/labs/lab/ssh_config"}, "127.0.0.1:40022"),
        ({"ansible_host": "{{ unknown | mystery }}"}, "{{ UNKNOWN | MYSTERY }}:22"),
    ],
)
@pytest.mark.parametrize("environment", [{"XDG_STATE_HOME": "/state", "HOME": "/h"}])
def test_address(variables: dict[str, Any], key: str, environment: dict[str, str]) -> None:
    (target,) = targets_of(listing(box=variables), environment, ssh, upper).hosts
    assert (target.name, target.key) == ("box", key)


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/kosmos"),
        ({"XDG_STATE_HOME": "", "HOME": "/h"}, "/h/.local/state/kosmos"),
        ({"HOME": "/h"}, "/h/.local/state/kosmos"),
        ({}, "/.local/state/kosmos"),
    ],
)
def test_environment_lookup_with_default(environment: dict[str, str], path: str) -> None:
    seen: list[list[str]] = []

    def note(argv: list[str]) -> str:
        seen.append(argv)
        return "hostname x\nport 22\n"

    targets_of(listing(box={"ansible_ssh_common_args": f"-F {{{{ {LOOKUP} }}}}/kosmos"}), environment, note, upper)
    assert seen == [["ssh", "-G", "-F", path, "box"]]


def test_without_ssh_the_inventory_itself_counts() -> None:
    (target,) = targets_of(listing(box={"ansible_host": "h", "ansible_port": 2200}), {}, broken, upper).hosts
    assert target == Target("box", "H", 2200)


def test_hosts_of_child_groups_are_found_once() -> None:
    data = {
        "appliance": {"hosts": ["a"], "children": ["more"]},
        "more": {"hosts": ["b", "a"]},
        "other": {"hosts": ["c"]},
    }
    assert [target.name for target in targets_of(data, {}, ssh, upper).hosts] == ["a", "b"]


def test_secrets_are_collected_once() -> None:
    hosts = {"a": {"db_password": "one"}, "b": {"db_password": "one", "x": {"token": "two"}}}
    assert targets_of(listing(**hosts), {}, ssh, upper).secrets == ("one", "two")


def test_the_shipped_lab_inventory_is_read_by_ansible_and_ssh(tmp_path: Path) -> None:
    config = tmp_path / "kosmos/labs/lab/ssh_config"
    config.parent.mkdir(parents=True)
    config.write_text("Host kosmos-lab\n  HostName 127.0.0.1\n  Port 40022\n")
    tree = ansible_tree()
    environment = tree.environment({**os.environ, "XDG_STATE_HOME": str(tmp_path)})
    found = read(tree.inventories / "lab", environment)
    assert [(target.name, target.key) for target in found.hosts] == [("kosmos-lab", "127.0.0.1:40022")]


def test_an_unreadable_inventory_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("appliance: [broken\n")
    environment = ansible_tree().environment({**os.environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True"})
    with pytest.raises(KosmosError) as caught:
        read(tmp_path / "hosts.yml", environment)
    assert caught.value.exit_code is ExitCode.USAGE
    assert "hosts.yml" in caught.value.why


LISTING = """
playbook: /tree/playbooks/site.yml

  play #1 (appliance): Host\tTAGS: []
    tasks:
      host_base : Write the: time configuration\tTAGS: [host, host_base]
      kosmos.appliance.host_base : Install packages\tTAGS: []
      Refuse without the name\tTAGS: [always]

  play #2 (appliance): Net\tTAGS: []
    tasks:
      net_zones : Load\tTAGS: [net]
      host_base : Once more\tTAGS: [host]
"""


def test_tasks_are_counted_by_role_in_order() -> None:
    assert tasklist.count(LISTING) == [("host_base", 3), ("net_zones", 1)]
    assert tasklist.count("") == []
