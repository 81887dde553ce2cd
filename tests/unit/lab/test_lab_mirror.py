"""The archive of this machine, read as Debian 13."""

from __future__ import annotations

import pytest

from kosmos_installer.lab.mirror import carried, codename, translate

TARGETS = """\
http://archive.test/debian/ bookworm main
http://archive.test/debian/ bookworm contrib
http://archive.test/debian/ bookworm main
http://archive.test/debian/ bookworm-updates main
http://archive.test/security/ bookworm-security main
https://vendor.test/repo/ nodistro main
https://vendor.test/other/ bookworm-pgdg main
"""


def test_release_updates_and_security_are_translated_and_foreign_ones_left_out() -> None:
    assert translate(TARGETS, "bookworm") == (
        "deb http://archive.test/debian trixie main contrib",
        "deb http://archive.test/debian trixie-updates main",
        "deb http://archive.test/security trixie-security main",
    )


def test_a_debian_13_machine_keeps_its_sources() -> None:
    assert translate("http://archive.test/debian/ trixie main\n", "trixie") == (
        "deb http://archive.test/debian trixie main",
    )


def test_another_distribution_names_no_archive() -> None:
    assert translate("http://archive.test/ubuntu/ noble main\n", "bookworm") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("VERSION_CODENAME=bookworm\n", "bookworm"), ('ID=x\nVERSION_CODENAME="trixie"\n', "trixie"), ("ID=x\n", "")],
)
def test_codename(text: str, expected: str) -> None:
    assert codename(text) == expected


def test_only_settings_that_decide_about_the_archive_are_carried() -> None:
    dump = (
        'Acquire::Check-Valid-Until "false";\nAcquire::http::Proxy "http://user:secret@proxy.test";\n'
        'APT::Install-Recommends "true";\nAcquire::Retries "3";\n'
    )
    assert carried(dump) == ('Acquire::Check-Valid-Until "false";', 'Acquire::Retries "3";')
