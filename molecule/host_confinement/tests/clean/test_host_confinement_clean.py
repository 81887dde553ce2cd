"""After reset no profile is left."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "path",
    [
        "/etc/apparmor.d/kosmos-agent",
        "/etc/kosmos/seccomp",
        "/var/lib/kubelet/seccomp/profiles/kosmos-agent.json",
        "/opt/kosmos/libexec/confined",
    ],
)
def test_nothing_is_left(host, path: str) -> None:
    with host.sudo():
        assert not host.file(path).exists
