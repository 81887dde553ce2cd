"""What `validate` accepts, the packet filter's own reader accepts: the two judge the same declaration."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_config_rules import BROKEN, FLOW, KEPT, flows

from kosmos_installer.errors import Problem
from kosmos_installer.model import PLACES, Appliance

ROOT = Path(__file__).parents[4]
MODEL = "ansible_collections.kosmos.appliance.plugins.module_utils.zones.model"


@pytest.fixture
def zone_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "collections"))
    yield importlib.import_module(MODEL)
    for name in [name for name in sys.modules if name.startswith("ansible_collections.kosmos")]:
        del sys.modules[name]


def declaration(kosmos: dict[str, Any]) -> dict[str, Any]:
    """As roles/net_zones hands it to the packet filter."""
    management = kosmos["management"]
    return {
        "trunk": kosmos["network"]["trunk"],
        "zones": kosmos["network"]["zones"],
        "management": {"interface": management["interface"], "cidrs": management["allowed_cidrs"]},
        "flows": kosmos["network"].get("flows", []),
    }


def test_the_places_are_the_same(zone_model: Any) -> None:
    assert PLACES == zone_model.WORDS


@pytest.mark.parametrize("change", KEPT)
def test_what_is_accepted_here_is_accepted_there(
    change: dict[str, Any], kosmos: dict[str, Any], zone_model: Any, accept: Callable[[Any], Appliance]
) -> None:
    accept(kosmos | change)
    assert zone_model.parse(declaration(kosmos | change)).management_interface


@pytest.mark.parametrize("change", [change for change, path, _ in BROKEN if path.startswith("network.flows")])
def test_flows_refused_here_are_refused_there(
    change: dict[str, Any], kosmos: dict[str, Any], zone_model: Any, refuse: Callable[[Any], tuple[Problem, ...]]
) -> None:
    refuse(kosmos | change)
    with pytest.raises(zone_model.MatrixError):
        zone_model.parse(declaration(kosmos | change))


@pytest.mark.parametrize("ports", [[1], [65535], ["80-90"], [80, "443"]])
def test_ports_mean_the_same(
    ports: list[Any], kosmos: dict[str, Any], zone_model: Any, accept: Callable[[Any], Appliance]
) -> None:
    change = flows(FLOW | {"proto": "tcp", "ports": ports})
    accept(kosmos | change)
    assert len(zone_model.parse(declaration(kosmos | change)).flows[0].ports) == len(ports)
