"""Events of the boot logs in words, for reasons and reports. Only for people: nothing is decided here.

Event texts come from the machine that is being judged, so every one is cut and cleaned before it is shown.
Numbers and names: TCG PC Client Platform Firmware Profile 1.06, sections 3.3.4 (PCRs) and 10.4.1 (event types);
Linux TPM PCR Registry (UAPI group) for PCR 8 and above.
"""

from __future__ import annotations

import struct

MAX_WORDS = 120
PCRS = {
    0: "firmware code",
    1: "firmware configuration",
    2: "option ROM code",
    3: "option ROM configuration",
    4: "boot loader and kernel images",
    5: "boot loader configuration and partition table",
    6: "vendor's own",
    7: "Secure Boot state and keys",
    8: "GRUB commands and kernel command line",
    9: "initrd and files read by the boot loader",
    10: "files measured by IMA",
    11: "unified kernel image and boot phases",
    12: "kernel command line, credentials and add-ons from outside the image",
    13: "system extensions",
    14: "shim's keys",
    15: "machine identity and volumes",
    16: "debug",
    23: "application",
}
TYPES = {
    0x00: "pre-boot certificate",
    0x01: "firmware code",
    0x03: "note",
    0x04: "separator",
    0x05: "action",
    0x06: "tagged event",
    0x07: "firmware root of trust",
    0x08: "firmware version",
    0x09: "CPU microcode",
    0x0A: "platform configuration",
    0x0B: "table of devices",
    0x0C: "compact hash",
    0x0D: "boot loader measurement",
    0x0E: "partition data",
    0x0F: "non-host code",
    0x10: "non-host configuration",
    0x11: "non-host information",
    0x12: "boot devices left out",
    0x80000001: "Secure Boot variable",
    0x80000002: "boot variable",
    0x80000003: "program started",
    0x80000004: "boot driver started",
    0x80000005: "runtime driver started",
    0x80000006: "partition table",
    0x80000007: "action",
    0x80000008: "firmware volume",
    0x80000009: "firmware tables",
    0x8000000A: "firmware volume",
    0x8000000B: "firmware tables",
    0x8000000C: "boot variable",
    0x80000010: "hardware root of trust",
    0x800000E0: "Secure Boot authority",
    0x800000E1: "device firmware",
    0x800000E2: "device firmware configuration",
}
VARIABLES = (0x80000001, 0x80000002, 0x8000000C, 0x800000E0)
IMAGES = (0x80000003, 0x80000004, 0x80000005)
SEPARATORS = {bytes(4): "end of what firmware measures here", b"\xff\xff\xff\xff": "end, firmware had an error"}


def describe(kind: int, data: bytes) -> str:
    """Return what one firmware event is, in words."""
    name = TYPES.get(kind, f"event type 0x{kind:08x}")
    if kind == 0x04:
        told = SEPARATORS.get(data, "")
    elif kind in VARIABLES:
        told = _variable(data)
    elif kind in IMAGES:
        told = _file_path(data[32:])
    elif kind in (0x80000006, 0x80000008, 0x80000009):
        told = ""  # structures without any text
    else:
        told = text_of(data[8:] if kind == 0x06 else data)
    return f"{name}: {told}" if told else name


def text_of(data: bytes) -> str:
    """Return the readable text in event data (UTF-8 or UTF-16), without control characters, cut to MAX_WORDS."""
    wide = len(data) >= 2 and len(data) % 2 == 0 and not any(data[1:MAX_WORDS:2])
    text = data[: 4 * MAX_WORDS].decode("utf-16-le" if wide else "utf-8", "replace").rstrip("\0")
    shown = "".join(character if character.isprintable() else " " for character in text).strip()
    if not shown or shown.count("\ufffd") * 4 > len(shown):
        return ""
    return shown if len(shown) <= MAX_WORDS else f"{shown[:MAX_WORDS]}..."


def ima_text(template: bytes) -> str:
    """Return the file name in an IMA template: the last of its length-prefixed fields that is text."""
    found, position = "", 0
    while position + 4 <= len(template):
        size = int.from_bytes(template[position : position + 4], "little")
        field = template[position + 4 : position + 4 + size]
        if field and field.rstrip(b"\0").isascii():
            found = text_of(field) or found
        position += 4 + size
    return found


def _variable(data: bytes) -> str:
    if len(data) < 32:
        return ""
    size, content = struct.unpack("<QQ", data[16:32])
    name = text_of(data[32 : 32 + 2 * min(size, MAX_WORDS)])
    value = data[32 + 2 * size :] if size < len(data) else b""
    if content == len(value) == 1:
        return f"{name} = {('off', 'on')[value[0]] if value[0] < 2 else value.hex()}"
    return f"{name} ({content} bytes)"


def _file_path(path: bytes) -> str:
    """Return the file in an EFI device path (UEFI 2.10, 10.3.5.4), '' where it names none."""
    while len(path) >= 4:
        kind, subkind, size = struct.unpack("<BBH", path[:4])
        if size < 4 or kind == 0x7F:
            return ""
        if (kind, subkind) == (4, 4):
            return text_of(path[4:size])
        path = path[size:]
    return ""
