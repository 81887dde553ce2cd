"""Only what differs is done, and check mode sees the same differences."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.host.livestate import LiveState
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import Done, HostError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sys/module/br_netfilter").mkdir(parents=True)
    (tmp_path / "lib/modules/6.12").mkdir(parents=True)
    (tmp_path / "lib/modules/6.12/modules.builtin").write_text("kernel/fs/overlayfs/over-lay.ko\n")
    security = tmp_path / "sys/kernel/security/apparmor"
    security.mkdir(parents=True)
    (security / "profiles").write_text("a b (enforce)\nkosmos-agent (complain)\n")
    return tmp_path


class Systemctl:
    def __init__(self, *states: tuple[str, str, str]) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.answer = "\n".join(f"LoadState={a}\nActiveState={b}\nUnitFileState={c}\n" for a, b, c in states)

    def __call__(self, argv: tuple[str, ...], **_: object) -> Done:
        self.calls.append(tuple(argv))
        return Done(0, self.answer if "show" in argv else "", "")


def test_loaded_and_builtin_modules_need_nothing(root: Path) -> None:
    live = LiveState(modules=["br-netfilter", "over_lay", "8021q"], root=root, release="6.12")
    assert [step.argv for step in live.differences()] == [("modprobe", "--", "8021q")]


@pytest.mark.parametrize(
    ("state", "verbs"),
    [
        (("loaded", "active", "enabled"), []),
        (("loaded", "inactive", "enabled"), ["start"]),
        (("loaded", "active", "disabled"), ["enable"]),
        (("masked", "inactive", "masked"), ["unmask", "enable", "start"]),
        (("not-found", "inactive", ""), ["enable", "start"]),
    ],
)
def test_a_unit_gets_exactly_what_it_lacks(state: tuple[str, str, str], verbs: list[str]) -> None:
    systemctl = Systemctl(state)
    live = LiveState(units=[{"name": "x.service", "enabled": True, "active": True}], run=systemctl)
    assert [step.argv[1] for step in live.differences()] == verbs


def test_what_is_not_declared_is_left_alone() -> None:
    systemctl = Systemctl(("loaded", "inactive", "disabled"))
    assert LiveState(units=[{"name": "x.service", "enabled": None, "active": None}], run=systemctl).differences() == []


def test_a_complaining_profile_is_enforced_and_an_absent_one_unloaded(root: Path) -> None:
    profile = {"name": "kosmos-agent", "path": "/etc/apparmor.d/kosmos-agent"}
    (step,) = LiveState(profiles=[profile | {"state": "loaded"}], root=root).differences()
    assert (step.before, step.after, step.argv[0]) == ("complain", "enforce", "apparmor_parser")
    gone = LiveState(profiles=[profile | {"state": "absent"}], root=root)
    gone.apply(gone.differences())
    assert (root / "sys/kernel/security/apparmor/.remove").read_text() == "kosmos-agent"


def test_a_failing_program_is_named_with_its_words() -> None:
    live = LiveState(
        modules=["nosuch"], root=Path("/nonexistent"), run=lambda *_, **__: Done(1, "", "FATAL: not found")
    )
    with pytest.raises(HostError, match=r"modprobe -- nosuch.*FATAL: not found"):
        live.apply(live.differences())
