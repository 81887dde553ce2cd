"""The settings of one host, as the role writes them to /etc/kosmos/boot.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .roles import Role

PATH = Path("/etc/kosmos/boot.json")
MAX_COMMAND_LINE = 2048  # COMMAND_LINE_SIZE of the kernel on x86
_ROOT = re.compile(r"root=PARTUUID=[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: They hand the machine to whoever stands before it, or start something else than the measured system.
_REFUSED = re.compile(
    r"(init=|rdinit=|rd\.break|rd\.shell(=(1|yes|on|true))?$|single$|s$|1$|emergency$|rescue$|rw$|"
    r"(rd\.)?systemd\.(unit|debug.shell|run|setenv))"
)


@dataclass(frozen=True)
class VolumeSetting:
    """A LUKS2 device, the key that opens it, and the key file with which its slots are managed."""

    device: str
    role: Role
    unlock_key: Path


@dataclass(frozen=True)
class SecureBoot:
    """The owner's certificate, and the key when it is on this host."""

    certificate: Path
    key: Path | None


@dataclass(frozen=True)
class Config:
    """Everything that a host needs to know. Paths are absolute.

    signing: `controller` or `host`. public_keys: a folder with `initrd.pub` and `all.pub` (and `*.next.pub` in a
    rotation). private_keys: the folder of their private halves on the sealed volume, in mode `host` only.
    """

    esp: Path
    state: Path
    cmdline: str
    signing: str
    public_keys: Path
    private_keys: Path | None
    volumes: tuple[VolumeSetting, ...]
    secure_boot: SecureBoot | None
    consoles: tuple[str, ...] = ()


def load(path: Path = PATH) -> Config:
    """Read and check the settings. Raises ConfigError."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the settings cannot be read", where=str(path), why=str(error), cure="apply the role host_boot again"
        ) from None
    return parse(content, str(path))


def parse(content: Mapping[str, Any], where: str) -> Config:
    """Return the settings from JSON data. Raises ConfigError that names the first one that is wrong."""

    def fail(why: str) -> ConfigError:
        return ConfigError("the settings are wrong", where=where, why=why, cure="apply the role host_boot again")

    try:
        secure = content.get("secure_boot")
        config = Config(
            Path(content["esp"]),
            Path(content["state"]),
            str(content["cmdline"]),
            str(content["signing"]),
            Path(content["public_keys"]),
            Path(content["private_keys"]) if content.get("private_keys") else None,
            tuple(
                VolumeSetting(str(one["device"]), Role(one["role"]), Path(one["unlock_key"]))
                for one in content["volumes"]
            ),
            SecureBoot(Path(secure["certificate"]), Path(secure["key"]) if secure.get("key") else None)
            if secure
            else None,
            tuple(map(str, content.get("consoles", ()))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise fail(f"{type(error).__name__}: {error}") from None
    if config.signing not in ("controller", "host"):
        raise fail(f"signing is '{config.signing}', expected controller or host")
    if (config.signing == "host") != (config.private_keys is not None):
        raise fail("private_keys is for signing: host, and needed there")
    paths = [config.esp, config.state, config.public_keys, *(one.unlock_key for one in config.volumes)]
    for one in [*paths, *([config.private_keys] if config.private_keys else [])]:
        if not one.is_absolute():
            raise fail(f"{one} is not an absolute path")
    check_command_line(config.cmdline, config.consoles, where)
    return config


def check_command_line(text: str, consoles: tuple[str, ...], where: str) -> None:
    """Refuse a kernel command line that would not start this system and nothing else. Raises ConfigError.

    Needed: one root by PARTUUID (a label or a UUID can be given to another disk), read-only at first, printable ASCII,
    no shell and no other init, and only declared consoles.
    """
    words = text.split(" ")
    roots = [word for word in words if word.startswith("root=")]
    faults = [f"'{word}' gives the machine away" for word in words if _REFUSED.match(word)]
    if len(roots) != 1 or not _ROOT.fullmatch(roots[0]):
        faults.append("it needs one root=PARTUUID=... in lower case")
    if "ro" not in words:
        faults.append("'ro' is missing")
    faults += [
        f"'{word}' is not a declared console"
        for word in words
        if word.startswith("console=") and word.removeprefix("console=") not in consoles
    ]
    if not text.isascii() or not text.isprintable() or "" in words or len(text) >= MAX_COMMAND_LINE:
        faults.append(f"it must be printable ASCII, single spaces, less than {MAX_COMMAND_LINE} characters")
    if faults:
        raise ConfigError(
            "the kernel command line is not accepted", where=where, why="; ".join(faults),
            cure="correct boot.cmdline in the appliance file",
        )  # fmt: skip
