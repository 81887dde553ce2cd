"""Probes over the kernel: parameters, modules, build options, facilities."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Arg, Found, Host, Kind
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.probes.files import expand, settings

MODULE_FOLDERS = (
    "/usr/lib/modprobe.d/*.conf",
    "/lib/modprobe.d/*.conf",
    "/run/modprobe.d/*.conf",
    "/etc/modprobe.d/*.conf",
)


def release(host: Host) -> str:
    """Return the running kernel's release."""
    return (host.text("/proc/sys/kernel/osrelease") or "").strip()


def sysctl(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the value in force of a kernel parameter, white space folded."""
    path = "/proc/sys/" + str(args["key"]).replace(".", "/")
    text = host.text(path)
    return Found(None, f"{path}: absent") if text is None else Found(" ".join(text.split()), path)


def kernel(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell a fact about the running kernel."""
    if args["attribute"] == "release":
        return Found(release(host) or None, "/proc/sys/kernel/osrelease")
    if args["attribute"] == "btf":
        return Found(host.path("/sys/kernel/btf/vmlinux").is_file(), "/sys/kernel/btf/vmlinux")
    if args["attribute"] == "lsm":
        text = host.text("/sys/kernel/security/lsm")
        return Found(None if text is None else text.strip().split(","), "/sys/kernel/security/lsm")
    text = host.text("/proc/sys/kernel/tainted")
    return Found(None if text is None else int(text), "/proc/sys/kernel/tainted")


def cmdline(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the value of a boot parameter: text, true for a flag, absent."""
    value: str | bool | None = None
    for word in (host.text("/proc/cmdline") or "").split():
        name, equals, text = word.partition("=")
        if name == args["parameter"]:
            value = text if equals else True
    return Found(value, f"/proc/cmdline: {args['parameter']}")


def module(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell whether a kernel module is loaded, built in, available, blacklisted, or disabled (install to false)."""
    name, attribute = _normal(str(args["name"])), str(args["attribute"])
    if attribute == "loaded":
        text = host.text("/proc/modules") or ""
        live = any(_normal(line.split()[0]) == name for line in text.splitlines() if line)
        return Found(live or _in_tree(host, name, "modules.builtin"), "/proc/modules and modules.builtin")
    if attribute == "builtin":
        return Found(_in_tree(host, name, "modules.builtin"), "modules.builtin")
    if attribute == "available":
        there = _in_tree(host, name, "modules.dep") or _in_tree(host, name, "modules.builtin")
        return Found(there, f"/lib/modules/{release(host)}/modules.dep")
    for pattern in MODULE_FOLDERS:
        for path in expand(host, pattern):
            for line in settings(host.text(path) or ""):
                if _says(line.split(), name, attribute):
                    return Found(True, f"{path}: {line}")
    return Found(False, f"no line in {', '.join(MODULE_FOLDERS)}")


def _normal(name: str) -> str:
    return name.replace("-", "_")


def _says(words: list[str], name: str, attribute: str) -> bool:
    if len(words) < 2 or _normal(words[1]) != name:
        return False
    if attribute == "blacklisted":
        return words[0] == "blacklist"
    return words[0] == "install" and len(words) > 2 and words[2].rsplit("/", 1)[-1] in {"false", "true"}


def _in_tree(host: Host, name: str, index: str) -> bool:
    pattern = re.compile(rf"/{re.escape(name).replace('_', '[-_]')}\.ko(\.\w+)?(:|$)", re.MULTILINE)
    return pattern.search(host.text(f"/lib/modules/{release(host)}/{index}") or "") is not None


def config(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell how a kernel option was built: y, m, a value, or absent."""
    path = f"/boot/config-{release(host)}"
    text = host.text(path)
    if text is None and (packed := host.data("/proc/config.gz")) is not None:
        path, text = "/proc/config.gz", gzip.decompress(packed).decode()
    if text is None:
        return Found(None, f"neither {path} nor /proc/config.gz")
    key = str(args["key"]).removeprefix("CONFIG_")
    match = re.search(rf"^CONFIG_{re.escape(key)}=(.*)$", text, re.MULTILINE)
    return Found(match.group(1).strip('"') if match else None, f"{path}: CONFIG_{key}")


def cgroup(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the cgroup version in use, or the controllers of version 2."""
    text = host.text("/sys/fs/cgroup/cgroup.controllers")
    if args["attribute"] == "controllers":
        return Found(None if text is None else text.split(), "/sys/fs/cgroup/cgroup.controllers")
    return Found(1 if text is None else 2, "/sys/fs/cgroup/cgroup.controllers")


def uefi(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell whether firmware is UEFI, and the state of Secure Boot and of its setup mode."""
    if args["attribute"] == "booted":
        return Found(host.path("/sys/firmware/efi").is_dir(), "/sys/firmware/efi")
    name = {"secure_boot": "SecureBoot", "setup_mode": "SetupMode"}[str(args["attribute"])]
    path = f"/sys/firmware/efi/efivars/{name}-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    data = host.data(path)
    # UEFI 2.10 section 3.3: one byte, after the four bytes of attributes that efivarfs puts in front.
    return Found(None if data is None or len(data) < 5 else data[4] == 1, path)


def _kind(probe: Any, text: str, *args: Arg) -> Kind:
    return Kind(probe, text, args, rooted=True)


KINDS = {
    "sysctl": _kind(sysctl, "The value in force of a kernel parameter.", Arg("key", "dotted name", required=True)),
    "kernel": _kind(
        kernel,
        "A fact about the running kernel: release, BTF there, list of security modules, taint number.",
        Arg("attribute", "what to tell", required=True, choices=("release", "btf", "lsm", "tainted")),
    ),
    "kernel_cmdline": _kind(
        cmdline,
        "A boot parameter: its last value, true for a bare flag, absent.",
        Arg("parameter", "name", required=True),
    ),
    "kernel_module": _kind(
        module,
        "State of a kernel module, true or false. `disabled` means: an install line to false or true.",
        Arg("name", "module", required=True),
        Arg(
            "attribute",
            "what to tell",
            required=True,
            choices=("loaded", "builtin", "available", "blacklisted", "disabled"),
        ),
    ),
    "kernel_config": _kind(
        config,
        "How the running kernel was built: y, m or a value.",
        Arg("key", "with or without CONFIG_", required=True),
    ),
    "cgroup": _kind(
        cgroup,
        "The cgroup version (1 or 2), or the list of controllers.",
        Arg("attribute", "what to tell", default="version", choices=("version", "controllers")),
    ),
    "uefi": _kind(
        uefi,
        "Whether the host was booted by UEFI; Secure Boot on; setup mode on.",
        Arg("attribute", "what to tell", required=True, choices=("booted", "secure_boot", "setup_mode")),
    ),
}
