"""The inventory that `lab up` writes into an empty folder."""

from __future__ import annotations

from pathlib import Path

import yaml

from kosmos_installer.lab.inventory import ensure
from kosmos_installer.paths import ansible_tree

SHIPPED = ansible_tree().inventories


def test_a_lab_of_another_name_gets_its_own_host_and_name(tmp_path: Path) -> None:
    made = ensure(tmp_path, "two", SHIPPED)
    assert made == tmp_path / "inventories/two"
    hosts = yaml.safe_load((made / "hosts.yml").read_text())["appliance"]["hosts"]
    assert list(hosts) == ["kosmos-two"]
    assert "/labs/two/ssh_config" in hosts["kosmos-two"]["ansible_ssh_common_args"]
    kosmos = yaml.safe_load((made / "group_vars/all/kosmos.yml").read_text())["kosmos"]
    assert kosmos["name"] == "two"
    assert kosmos["hostname"] == "kosmos-two"


def test_nothing_but_the_name_differs(tmp_path: Path) -> None:
    made = ensure(tmp_path, "lab", SHIPPED)
    assert made is not None
    for file in (one for one in (SHIPPED / "lab").rglob("*") if one.is_file()):
        assert (made / file.relative_to(SHIPPED / "lab")).read_text() == file.read_text()


def test_an_existing_inventory_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "inventories/lab/hosts.yml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert ensure(tmp_path, "lab", SHIPPED) is None
    assert mine.read_text() == "mine"
    assert [one.name for one in mine.parents[1].iterdir()] == ["lab"]
