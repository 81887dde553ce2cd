"""Probes over confinement: AppArmor profiles, what a process may do, other container engines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Arg, Found, Host, Kind
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.probes.files import settings

PROFILES = "/sys/kernel/security/apparmor/profiles"
PROCESS = {"seccomp": "Seccomp", "no_new_privs": "NoNewPrivs", "capabilities": "CapEff"}
ENGINES = {
    "docker": ("/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd", "/snap/bin/docker"),
    "podman": ("/usr/bin/podman", "/usr/local/bin/podman"),
    "containerd": ("/usr/bin/containerd", "/usr/local/bin/containerd"),
    "cri-o": ("/usr/bin/crio", "/usr/local/bin/crio"),
    "lxd": ("/usr/bin/lxd", "/usr/sbin/lxd", "/snap/bin/lxd"),
    "incus": ("/usr/bin/incusd", "/opt/incus/bin/incusd", "/usr/libexec/incus/incusd"),
    "kubelet": ("/usr/bin/kubelet", "/usr/local/bin/kubelet"),
    "k3s": ("/usr/local/bin/k3s", "/usr/bin/k3s"),
    "rke2": ("/usr/local/bin/rke2", "/opt/rke2/bin/rke2"),
    "microk8s": ("/snap/bin/microk8s",),
}


def apparmor(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell whether AppArmor is on, or the mode of one profile, or the profiles that only complain."""
    if args["attribute"] == "enabled":
        text = host.text("/sys/module/apparmor/parameters/enabled")
        return Found((text or "").strip() == "Y", "/sys/module/apparmor/parameters/enabled")
    text = host.text(PROFILES)
    if text is None:
        return Found(None, f"{PROFILES}: absent")
    modes = dict(re.findall(r"^(.*) \((\w+)\)$", text, re.MULTILINE))
    if args["attribute"] == "complaining":
        return Found(sorted(name for name, mode in modes.items() if mode == "complain"), PROFILES)
    return Found(modes.get(str(args["profile"])), f"{PROFILES}: {args['profile']}")


def process(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell an attribute of the first process of a name; absent when none runs."""
    name, attribute = str(args["name"]), str(args["attribute"])
    for pid in sorted((entry for entry in host.names("/proc") or [] if entry.isdigit()), key=int):
        if (host.text(f"/proc/{pid}/comm") or "").strip() != name:
            continue
        if attribute == "apparmor":
            label = host.text(f"/proc/{pid}/attr/apparmor/current") or host.text(f"/proc/{pid}/attr/current")
            return Found((label or "").strip("\0\n") or None, f"/proc/{pid}/attr/apparmor/current ({name})")
        if attribute == "running":
            return Found(True, f"/proc/{pid}/comm")
        match = re.search(rf"^{PROCESS[attribute]}:\s*(\S+)", host.text(f"/proc/{pid}/status") or "", re.MULTILINE)
        return Found(match.group(1) if match else None, f"/proc/{pid}/status ({name})")
    return Found(False if attribute == "running" else None, f"/proc: no process {name}")


def container_engine(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the container engines installed, without those that are allowed or that we installed."""
    own = set(settings(host.text(str(args["own_packages"])) or "")) if args["own_packages"] else set()
    found = []
    for name, places in ENGINES.items():
        there = any(host.path(path).exists() for path in places)
        if there and name not in args["allowed"] and name not in own:
            found.append(name)
    return Found(found, "programs in /usr/bin, /usr/sbin, /usr/local/bin, /opt, /snap/bin")


KINDS = {
    "apparmor": Kind(
        apparmor,
        "AppArmor: `mode` of a loaded profile (enforce, complain, absent), `enabled`, list of `complaining` ones.",
        (
            Arg("attribute", "what to tell", default="mode", choices=("mode", "enabled", "complaining")),
            Arg("profile", "name (for mode)", default=None),
        ),
        rooted=True,
    ),
    "process": Kind(
        process,
        "The first process of that name: `running`, AppArmor label, seccomp (0, 1, 2), no_new_privs, capabilities.",
        (
            Arg("name", "as in /proc/PID/comm (15 characters)", required=True),
            Arg("attribute", "what to tell", default="running", choices=("running", "apparmor", *PROCESS)),
        ),
        rooted=True,
    ),
    "container_engine": Kind(
        container_engine,
        "List of container engines installed.",
        (
            Arg("allowed", "names that do not count", type="list", default=[]),
            Arg("own_packages", "file with names of packages that do not count, one a line", default=None),
        ),
        rooted=True,
    ),
}
