"""Read the sections of a PE32+ image, and put one more at its end. Every number in the file is untrusted.

Layout: Microsoft "PE Format", sections "COFF File Header" to "Section Table". A unified kernel image (UAPI
specification "Unified Kernel Image") is such a file; its sections `.linux`, `.initrd`, `.cmdline` ... are the parts of
the boot.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .errors import ImageError

#: Far above what firmware loads: what is larger is not worth reading, what is smaller is the gate's to judge.
MAX_IMAGE_BYTES = 512 * 1024 * 1024
MAX_SECTIONS = 96
MACHINES = {0x8664: "x86-64", 0xAA64: "arm64"}
SUBSYSTEM_EFI_APPLICATION = 10
PE32_PLUS = 0x20B
INITIALIZED_READABLE = 0x40000040  # IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ
_COFF, _SECTION = struct.Struct("<HHIIIHH"), struct.Struct("<8sIIIIIIHHI")
_CURE = "build the image again"
# Offsets inside the optional header, PE32+.
_INITIALIZED, _ALIGNMENT, _IMAGE_SIZE, _CHECKSUM, _SUBSYSTEM, _DIRECTORIES = 8, 32, 56, 64, 68, 108
_SECURITY = 4  # index of the certificate table among the data directories


@dataclass(frozen=True)
class Section:
    """One section: where the loader puts it (address, virtual size) and where the file has it (offset, raw size)."""

    name: str
    address: int
    virtual_size: int
    offset: int
    raw_size: int


@dataclass(frozen=True)
class Image:
    """A PE image in memory. `label` is how messages name it."""

    label: str
    data: bytes
    sections: tuple[Section, ...]
    machine: str
    optional_at: int
    table_at: int
    signed: bool

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The section names in the order of the table."""
        return tuple(section.name for section in self.sections)

    def content(self, name: str) -> bytes:
        """Return a section as the loader lays it out: its virtual size, cut or filled with zeros.

        Raises ImageError when there is none of that name.
        """
        for section in self.sections:
            if section.name == name:
                raw = self.data[section.offset : section.offset + min(section.raw_size, section.virtual_size)]
                return raw.ljust(section.virtual_size, b"\0")
        raise ImageError(f"there is no section {name}", where=self.label, cure=_CURE)

    def text(self, name: str) -> str:
        """Return a section as text without trailing zeros and line ends. Raises ImageError when it is not UTF-8."""
        try:
            return self.content(name).rstrip(b"\0").decode("utf-8").rstrip("\n")
        except UnicodeDecodeError as error:
            raise ImageError(f"section {name} is not text", where=self.label, why=str(error), cure=_CURE) from None

    def _number(self, at: int) -> int:
        value: int = struct.unpack_from("<I", self.data, self.optional_at + at)[0]
        return value


def read(path: Path) -> Image:
    """Read and parse an image file. Raises ImageError, also when it cannot be read or is larger than 512 MiB."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise ImageError("the image cannot be read", where=str(path), why=str(error.strerror), cure=_CURE) from error
    return parse(data, str(path))


def parse(data: bytes, label: str) -> Image:
    """Return the image in `data`.

    Raises ImageError when it is truncated or oversized, not an EFI application of a machine that we know, when a
    section leaves the file or overlaps another in memory, or when a name occurs twice.
    """

    def fail(why: str) -> ImageError:
        return ImageError("this is not a PE image that can be started", where=label, why=why, cure=_CURE)

    if len(data) > MAX_IMAGE_BYTES:
        raise fail(f"it is larger than {MAX_IMAGE_BYTES} bytes")
    if len(data) < 64 or data[:2] != b"MZ":
        raise fail("it does not begin with MZ")
    (start,) = struct.unpack_from("<I", data, 0x3C)
    optional_at = start + 4 + _COFF.size
    if start < 64 or optional_at > len(data) or data[start : start + 4] != b"PE\0\0":
        raise fail(f"there is no PE signature at byte {start}")
    machine, count, _, _, _, optional_size, _ = _COFF.unpack_from(data, start + 4)
    if machine not in MACHINES:
        raise fail(f"machine type 0x{machine:04x} is not one of {', '.join(MACHINES.values())}")
    if not 0 < count <= MAX_SECTIONS:
        raise fail(f"{count} sections announced, expected 1 to {MAX_SECTIONS}")
    table_at = optional_at + optional_size
    if optional_size < _DIRECTORIES + 4 or table_at + count * _SECTION.size > len(data):
        raise fail("the headers are truncated")
    (magic,) = struct.unpack_from("<H", data, optional_at)
    (subsystem,) = struct.unpack_from("<H", data, optional_at + _SUBSYSTEM)
    if magic != PE32_PLUS or subsystem != SUBSYSTEM_EFI_APPLICATION:
        raise fail(f"magic 0x{magic:x} and subsystem {subsystem} are not those of a 64-bit EFI application")
    sections = tuple(_sections(data, table_at, count, fail))
    (directories,) = struct.unpack_from("<I", data, optional_at + _DIRECTORIES)
    signed = False
    if directories > _SECURITY and optional_size >= _DIRECTORIES + 4 + 8 * (_SECURITY + 1):
        at, size = struct.unpack_from("<II", data, optional_at + _DIRECTORIES + 4 + 8 * _SECURITY)
        if size and at + size > len(data):
            raise fail(f"its certificate table ends at byte {at + size}, the file at {len(data)}")
        signed = size > 0
    return Image(label, data, sections, MACHINES[machine], optional_at, table_at, signed)


def _sections(data: bytes, table_at: int, count: int, fail: Callable[[str], ImageError]) -> Iterator[Section]:
    seen: set[str] = set()
    end = 0
    for index in range(count):
        raw_name, size, address, raw_size, offset, *_ = _SECTION.unpack_from(data, table_at + index * _SECTION.size)
        try:
            name = raw_name.rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError:
            raise fail(f"the name of section {index} is not ASCII") from None
        if name in seen:
            raise fail(f"section {name} occurs twice")
        seen.add(name)
        if offset + raw_size > len(data):
            raise fail(f"section {name} ends at byte {offset + raw_size}, the file at {len(data)}: it is truncated")
        if size > MAX_IMAGE_BYTES or address < end:
            raise fail(f"section {name} ({size} bytes at address {address}) is too large or overlaps the one before")
        end = address + size
        yield Section(name, address, size, offset, raw_size)


def without_signature(image: Image) -> Image:
    """Return the image without its Secure Boot signature; the same one when it has none.

    Raises ImageError when its certificate table is not what the file ends with.
    """
    if not image.signed:
        return image
    entry = image.optional_at + _DIRECTORIES + 4 + 8 * _SECURITY
    at, size = struct.unpack_from("<II", image.data, entry)
    if at + size != len(image.data) or any(one.offset + one.raw_size > at for one in image.sections):
        raise ImageError("its signature is not at the end of the file", where=image.label, cure=_CURE)
    data = bytearray(image.data[:at])
    struct.pack_into("<II", data, entry, 0, 0)
    return parse(bytes(data), image.label)


def with_last_section(image: Image, name: str, content: bytes) -> bytes:
    """Return the bytes of `image` with `content` as its last section `name`, replacing one that is already the last.

    No other section moves, so no measurement of them changes. The checksum is cleared, as the loader ignores it.
    Raises ImageError when the image has a Secure Boot signature (it would break), when the section exists elsewhere
    than at the end, or when the headers have no room.
    """
    if image.signed:
        raise ImageError("a signed image cannot be extended", where=image.label, cure="take the unsigned image")
    data, kept = bytearray(image.data), image.sections
    if name in image.names:
        if image.names[-1] != name or max(kept, key=lambda one: one.offset).name != name:
            raise ImageError(f"section {name} is not the last one", where=image.label, cure=_CURE)
        data, kept = data[: kept[-1].offset], kept[:-1]
    slot = image.table_at + len(kept) * _SECTION.size
    if slot + _SECTION.size > min(one.offset for one in kept if one.raw_size) or any(
        image.data[slot : slot + _SECTION.size] if name not in image.names else b""
    ):
        raise ImageError("the headers have no room for one more section", where=image.label, cure=_CURE)
    alignment, file_alignment = struct.unpack_from("<II", data, image.optional_at + _ALIGNMENT)
    if not all(0 < one <= 1 << 20 and one & (one - 1) == 0 for one in (alignment, file_alignment)):
        raise ImageError("its alignments are not powers of two", where=image.label, cure=_CURE)
    last = max(kept, key=lambda one: one.address)
    address = _up(last.address + last.virtual_size, alignment)
    offset, raw_size = _up(len(data), file_alignment), _up(len(content), file_alignment)
    data += bytes(offset - len(data)) + content.ljust(raw_size, b"\0")
    old = image.sections[len(kept)].virtual_size if len(kept) < len(image.sections) else 0
    struct.pack_into("<H", data, image.optional_at - _COFF.size + 2, len(kept) + 1)
    _SECTION.pack_into(
        data, slot, name.encode("ascii"), len(content), address, raw_size, offset, 0, 0, 0, 0, INITIALIZED_READABLE
    )
    initialized = (image._number(_INITIALIZED) - old + len(content)) & 0xFFFFFFFF
    for at, value in (
        (_INITIALIZED, initialized),
        (_IMAGE_SIZE, _up(address + len(content), alignment)),
        (_CHECKSUM, 0),
    ):
        struct.pack_into("<I", data, image.optional_at + at, value)
    return bytes(data)


def _up(value: int, step: int) -> int:
    return (value + step - 1) // step * step
