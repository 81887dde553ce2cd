"""Probes over storage: mounts, disks, free space, latency of a flush."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Arg, Found, Host, Kind, ProbeError

#: Labels that KOSMOS gives to what it makes on a disk begin so.
OUR_LABEL = "kosmos"
WRITE_BYTES = 2300  # what etcd's write-ahead log flushes: the size that its maintainers measure disks with


def mount(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell how a path is mounted; absent when it is no mount point."""
    found = None
    for line in (host.text("/proc/self/mounts") or host.text("/proc/mounts") or "").splitlines():
        source, point, fstype, options = line.split()[:4]
        if re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point) == args["path"]:
            found = {"source": source, "fstype": fstype, "options": options.split(",")}
    value: Any = None if found is None else found.get(str(args["attribute"]), True)
    if args["attribute"] == "mounted":
        value = found is not None
    return Found(value, f"/proc/self/mounts: {args['path']}")


def disk(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the size of a disk, or whether it is empty, ours, or somebody else's."""
    device = str(args["device"])
    place = host.path(device)
    if not place.exists():
        return Found(False if args["attribute"] == "exists" else None, f"{device}: absent")
    if args["attribute"] == "exists":
        return Found(True, device)
    real = place.resolve()
    if not stat.S_ISBLK(real.stat().st_mode):
        raise ProbeError(f"{device} is not a block device")
    if args["attribute"] == "size_gib":
        sectors = int((host.text(f"/sys/class/block/{real.name}/size") or "0").strip())
        return Found(round(sectors * 512 / 2**30, 1), f"/sys/class/block/{real.name}/size")
    return _state(host, str(real))


def _state(host: Host, device: str) -> Found:
    name = device.rsplit("/", 1)[-1]
    partitions = [entry for entry in host.names(f"/sys/class/block/{name}") or [] if entry.startswith(name)]
    labels, foreign = [], []
    for node in [device, *(f"/dev/{entry}" for entry in partitions)]:
        argv = ["blkid", "-p", "-o", "export", node]
        done = host.command(argv)
        if done.rc is None:
            raise ProbeError("blkid is not installed (package util-linux)")
        if done.rc not in {0, 2}:  # 2: no signature found
            raise ProbeError(f"`{' '.join(argv)}` ended with {done.rc}: {done.stderr.strip()}")
        facts = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        label = facts.get("LABEL") or facts.get("PART_ENTRY_NAME") or ""
        if label.startswith(OUR_LABEL):
            labels.append(label)
        elif "TYPE" in facts or ("PTTYPE" in facts and not partitions):
            foreign.append(f"{node}: {facts.get('TYPE') or facts['PTTYPE']} {label}".strip())
    if foreign:
        return Found("foreign", f"blkid -p: {'; '.join(foreign)}")
    if labels:
        return Found("ours", f"blkid -p: label {', '.join(labels)}")
    return Found("empty", f"blkid -p {device}: no signature")


def space(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the free space of the file system that holds a path."""
    path = str(args["path"])
    try:
        status = os.statvfs(host.path(path))
    except FileNotFoundError:
        return Found(None, f"{path}: absent")
    values = {
        "free_gib": round(status.f_bavail * status.f_frsize / 2**30, 2),
        "free_percent": round(100 * status.f_bavail / max(status.f_blocks, 1), 1),
        # File systems without a fixed inode table (btrfs) report none at all.
        "free_inodes_percent": round(100 * status.f_favail / status.f_files, 1) if status.f_files else 100.0,
    }
    return Found(values[str(args["attribute"])], f"statvfs {path}: {args['attribute']}")


def fsync(host: Host, args: Mapping[str, Any]) -> Found:
    """Measure the 99th percentile of write + fdatasync in milliseconds, in a file that never has a name."""
    path, writes = str(args["path"]), int(args["writes"])
    block = os.urandom(WRITE_BYTES)
    times: list[float] = []
    try:
        handle = os.open(host.path(path), os.O_TMPFILE | os.O_WRONLY, 0o600)
    except OSError as error:
        raise ProbeError(f"cannot write a nameless file in {path}: {error.strerror}") from error
    end = time.monotonic() + float(args["seconds"])
    try:
        while len(times) < writes and (time.monotonic() < end or len(times) < 10):
            start = time.perf_counter()
            os.write(handle, block)
            os.fdatasync(handle)
            times.append((time.perf_counter() - start) * 1000)
    finally:
        os.close(handle)
    times.sort()
    value = times[min(len(times) - 1, int(len(times) * 0.99))]
    middle = times[len(times) // 2]
    return Found(round(value, 2), f"{path}: {len(times)} writes of {WRITE_BYTES} bytes, median {middle:.2f} ms")


PATH = Arg("path", "absolute path", required=True)
KINDS = {
    "mount": Kind(
        mount,
        "How a mount point is mounted: `mounted` is true or false, `options` a list.",
        (PATH, Arg("attribute", "what to tell", default="mounted", choices=("mounted", "options", "fstype", "source"))),
        rooted=True,
    ),
    "disk": Kind(
        disk,
        f"A block device. `state` is empty, ours (a label that begins with {OUR_LABEL}) or foreign.",
        (
            Arg("device", "path of the device", required=True),
            Arg("attribute", "what to tell", required=True, choices=("exists", "size_gib", "state")),
        ),
        rooted=False,
    ),
    "space": Kind(
        space,
        "Free space of the file system that holds a path.",
        (
            PATH,
            Arg(
                "attribute",
                "what to tell",
                default="free_gib",
                choices=("free_gib", "free_percent", "free_inodes_percent"),
            ),
        ),
        rooted=False,
    ),
    "fsync": Kind(
        fsync,
        "99th percentile of write and flush in milliseconds; leaves no file behind.",
        (
            Arg("path", "folder to measure in", required=True),
            Arg("writes", "how many", type="int", default=120),
            Arg("seconds", "stop after this time (at least ten writes)", type="float", default=2),
        ),
        rooted=False,
    ),
}
