"""The one transaction and its journal: what is recorded, when, and what reset takes away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.host.apt import Apt, failure, parse_simulation
from ansible_collections.kosmos.appliance.plugins.module_utils.host.dpkg import interrupted, read_status, still_needed
from ansible_collections.kosmos.appliance.plugins.module_utils.host.packages import PackageSet
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import Done, HostError

SIMULATED = """NOTE: This is only a simulation!
Reading package lists...
Remv systemd-timesyncd [257.13-1~deb13u1]
Inst libgnutls30t64 [3.8.9-2] (3.8.9-3+deb13u1 Debian:13.3/stable [amd64])
Inst libevent-2.1-7t64 (2.1.12-stable-10+b1 Debian:13.3/stable [amd64])
Inst chrony (4.6.1-3 Debian:13.3/stable [amd64])
Conf libevent-2.1-7t64 (2.1.12-stable-10+b1 Debian:13.3/stable [amd64])
Conf chrony (4.6.1-3 Debian:13.3/stable [amd64])
"""


def stanza(name: str, state: str = "installed", **fields: str) -> str:
    lines = [f"Package: {name}", f"Status: install ok {state}", "Version: 1", "Architecture: amd64"]
    return "\n".join([*lines, *(f"{key.replace('_', '-')}: {value}" for key, value in fields.items())]) + "\n"


class PowerCut(BaseException):
    """Nothing after this instruction happens."""


class FakeHost:
    """A dpkg database below a folder, and an apt-get that changes it as the simulation says."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls, self.fail_install, self.cut = root, [], None, False
        (root / "var/lib/dpkg/updates").mkdir(parents=True)
        (root / "var/lib/apt/lists").mkdir(parents=True)
        (root / "var/lib/apt/lists/x_Packages").write_text("")
        self.write(stanza("base-files", Essential="yes"), stanza("systemd-timesyncd"), stanza("libgnutls30t64"))

    def write(self, *stanzas: str) -> None:
        (self.root / "var/lib/dpkg/status").write_text("\n".join(stanzas))

    @property
    def unfinished(self) -> bool:
        """Whether the mark of an unfinished run is there."""
        return (self.root / "var/lib/kosmos/packages.unfinished").exists()

    def run(self, argv: list[str], **_: object) -> Done:
        self.calls.append(argv)
        self.marked_at_call = self.unfinished
        if self.cut and "-y" in argv:
            raise PowerCut
        if "-s" in argv:
            return Done(0, SIMULATED if "install" in argv else self.purge_plan(argv), "")
        if "install" in argv and self.fail_install:
            return self.fail_install
        if "install" in argv:
            self.journal_at_install = self.journal()
            new = (stanza("chrony", Depends="libevent-2.1-7t64"), stanza("libevent-2.1-7t64"))
            self.write(stanza("base-files", Essential="yes"), stanza("libgnutls30t64"), *new)
        return Done(0, "", "")

    @staticmethod
    def purge_plan(argv: list[str]) -> str:
        return "".join(f"Purg {name} [1]\n" for name in argv[argv.index("purge") + 1 :])

    def journal(self, name: str = "installed") -> list[str]:
        path = self.root / f"var/lib/kosmos/packages.{name}"
        return path.read_text().split() if path.exists() else []

    def set(
        self, *wanted: str, check: bool = False, displaceable: tuple[str, ...] = ("systemd-timesyncd",)
    ) -> PackageSet:
        apt = Apt(run=self.run, lock=self.root / "no-lock", lists=self.root / "var/lib/apt/lists", now=lambda: 0.0)
        return PackageSet(wanted=wanted, displaceable=displaceable, root=self.root, apt=apt, check=check)


@pytest.fixture
def fake(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def test_simulation_tells_new_from_upgraded_from_removed() -> None:
    plan = parse_simulation(SIMULATED)
    assert plan.new == ("chrony", "libevent-2.1-7t64")
    assert plan.upgraded == ("libgnutls30t64",)
    assert plan.removed == ("systemd-timesyncd",)


def test_the_journal_is_on_disk_before_anything_is_installed(fake: FakeHost) -> None:
    outcome = fake.set("chrony").install()
    assert outcome.changed
    assert fake.journal_at_install == ["chrony", "libevent-2.1-7t64"]
    assert fake.journal("displaced") == ["systemd-timesyncd"]


def test_second_run_calls_nothing(fake: FakeHost) -> None:
    fake.set("chrony").install()
    fake.calls.clear()
    assert not fake.set("chrony").install().changed
    assert fake.calls == []


def test_check_mode_calls_and_writes_nothing(fake: FakeHost) -> None:
    outcome = fake.set("chrony", check=True).install()
    assert outcome.changed
    assert outcome.installed == ["chrony"]
    assert fake.calls == []
    assert not (fake.root / "var/lib/kosmos").exists()


def test_a_cut_installation_keeps_the_journal_and_the_next_run_merges(fake: FakeHost) -> None:
    fake.fail_install = Done(100, "", "E: Failed to fetch http://x/y  Connection timed out")
    with pytest.raises(HostError) as caught:
        fake.set("chrony").install()
    assert caught.value.reason == "mirror_unreachable"
    (fake.root / "var/lib/kosmos/packages.installed").write_text("older\n" + "\n".join(fake.journal()) + "\n")
    fake.fail_install = None
    fake.set("chrony").install()
    assert set(fake.journal()) == {"chrony", "libevent-2.1-7t64", "older"}


def test_a_foreign_package_is_never_removed(fake: FakeHost) -> None:
    with pytest.raises(HostError) as caught:
        fake.set("chrony", displaceable=()).install()
    assert caught.value.reason == "conflict"
    assert "systemd-timesyncd" in str(caught.value)
    assert fake.journal() == []


def test_purge_takes_exactly_what_came_and_brings_back_what_went(fake: FakeHost) -> None:
    fake.set("chrony").install()
    fake.calls.clear()
    outcome = fake.set().purge()
    purged = next(argv for argv in fake.calls if "purge" in argv and "-s" not in argv)
    assert purged[purged.index("purge") + 1 :] == ["chrony", "libevent-2.1-7t64"]
    assert outcome.installed == ["systemd-timesyncd"]
    assert fake.journal() == fake.journal("displaced") == []


def test_purge_keeps_what_a_foreign_package_needs(fake: FakeHost) -> None:
    fake.set("chrony").install()
    text = (fake.root / "var/lib/dpkg/status").read_text()
    fake.write(text, stanza("operators-tool", Depends="libevent-2.1-7t64 (>= 2), libc6 | musl"))
    outcome = fake.set().purge()
    assert outcome.removed == ["chrony"]
    assert outcome.kept == {"libevent-2.1-7t64": "operators-tool"}


def test_an_alternative_of_somebody_else_frees_ours(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(
        "\n".join([stanza("ours", Provides="mta"), stanza("theirs", Provides="mta"), stanza("mailer", Depends="mta")])
    )
    assert still_needed(read_status(status), ["ours"]) == {}
    status.write_text("\n".join([stanza("ours", Provides="mta"), stanza("mailer", Depends="mta")]))
    assert still_needed(read_status(status), ["ours"]) == {"ours": "mailer"}


def test_an_interrupted_dpkg_is_finished_first(fake: FakeHost) -> None:
    fake.write(stanza("base-files"), stanza("libevent-2.1-7t64", state="half-configured"))
    outcome = fake.set("chrony").install()
    assert fake.calls[0][:3] == ["dpkg", "--configure", "-a"]
    assert outcome.repaired == ["libevent-2.1-7t64"]


def test_a_run_of_ours_that_was_cut_off_is_marked_and_finished(fake: FakeHost) -> None:
    """dpkg may have left nothing but pending triggers, which count as half done for nobody else."""
    fake.cut = True
    with pytest.raises(PowerCut):
        fake.set("chrony").install()
    assert fake.unfinished
    fake.cut = False
    fake.calls.clear()
    outcome = fake.set("chrony").install()
    assert fake.calls[0][:3] == ["dpkg", "--configure", "-a"]
    assert outcome.changed
    assert not fake.unfinished
    assert not fake.set("chrony").install().changed


def test_a_removal_that_was_cut_off_is_marked_and_finished(fake: FakeHost) -> None:
    fake.set("chrony").install()
    fake.cut = True
    with pytest.raises(PowerCut):
        fake.set().purge()
    assert fake.unfinished
    fake.cut = False
    fake.calls.clear()
    fake.set().purge()
    assert fake.calls[0][:3] == ["dpkg", "--configure", "-a"]
    assert not fake.unfinished


def test_dpkgs_own_journal_counts_as_interrupted(tmp_path: Path) -> None:
    (tmp_path / "0001").write_text("")
    assert interrupted({}, tmp_path) == ["(dpkg's own journal)"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (unattended-upgr)",
            "apt_locked",
        ),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "no_space"),
        ("dpkg: error processing archive x (--unpack): cannot copy: No space left on device", "no_space"),
        ("E: Release file for http://m/InRelease is not valid yet (invalid for another 3d 4h).", "clock"),
        ("E: Failed to fetch http://m/x  Temporary failure resolving 'm'", "mirror_unreachable"),
        ("E: Unable to locate package nosuch", "unknown_package"),
        ("E: Unable to correct problems, you have held broken packages.", "conflict"),
        ("E: Sub-process /usr/bin/dpkg returned an error code (1)", "apt"),
    ],
)
def test_every_failure_has_a_reason_and_a_cure(text: str, reason: str) -> None:
    error = failure(Done(100, "", text), "install x")
    assert error.reason == reason
    assert error.cure.endswith(".")


def test_a_locked_apt_names_its_holder(tmp_path: Path, hold_lock: Callable[[Path], int]) -> None:
    lock = tmp_path / "lock-frontend"
    pid = hold_lock(lock)
    clock = iter(range(100))
    apt = Apt(lock_timeout_seconds=3, lock=lock, sleep=lambda _: None, monotonic=lambda: float(next(clock)))
    with pytest.raises(HostError) as caught:
        apt.wait_for_lock()
    assert caught.value.reason == "apt_locked"
    assert f"(pid {pid})" in str(caught.value)


def test_what_another_package_run_did_while_we_waited_counts(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.write(stanza("base-files"), stanza("chrony", state="unpacked"))
    packages = fake.set("chrony")
    monkeypatch.setattr(packages.apt, "wait_for_lock", lambda: fake.write(stanza("base-files"), stanza("chrony")))
    outcome = packages.install()
    assert (outcome.repaired, outcome.installed) == ([], [])
    assert fake.calls == []
