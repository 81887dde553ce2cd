"""The section reader against images of the real ukify, and against broken ones."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
from boot_bed import CMDLINE, OSREL, UNAME, Bench

from kosmos_trust.boot import pe
from kosmos_trust.boot.errors import ImageError


@pytest.fixture(scope="module")
def unsigned(bench: Bench) -> pe.Image:
    return pe.read(bench.ukify("unsigned.efi"))


def test_it_reads_what_ukify_wrote(bench: Bench, unsigned: pe.Image) -> None:
    assert unsigned.text(".cmdline") == CMDLINE
    assert unsigned.text(".uname") == UNAME
    assert unsigned.content(".osrel") == OSREL.encode()
    assert unsigned.content(".initrd") == bench.initrd.read_bytes()
    assert unsigned.content(".linux") == bench.kernel.read_bytes()
    assert unsigned.machine == "x86-64"
    assert not unsigned.signed


def test_names_and_sizes_are_those_that_ukify_inspects(bench: Bench, unsigned: pe.Image) -> None:
    told = json.loads(bench.tools.run("ukify", "inspect", unsigned.label, "--json=short", "--all"))
    told.pop("signature", None)
    assert {name: one["size"] for name, one in told.items()} == {
        one.name: min(one.virtual_size, one.raw_size) for one in unsigned.sections
    }


def test_a_section_that_is_larger_in_memory_ends_in_zeros(unsigned: pe.Image) -> None:
    index = unsigned.names.index(".initrd")
    data = bytearray(unsigned.data)
    real = unsigned.sections[index]
    struct.pack_into("<I", data, unsigned.table_at + index * 40 + 8, real.raw_size + 100)
    grown = pe.parse(bytes(data), "grown").content(".initrd")
    assert len(grown) == real.raw_size + 100
    assert grown.endswith(bytes(100))
    assert grown.startswith(unsigned.content(".initrd"))


@pytest.mark.parametrize("kept", [0, 1, 63, 64, 200, 1000, 100_000, -1])
def test_a_truncated_image_is_refused(unsigned: pe.Image, kept: int) -> None:
    with pytest.raises(ImageError) as caught:
        pe.parse(unsigned.data[:kept], "cut")
    assert caught.value.where == "cut"
    assert caught.value.cure


def change(image: pe.Image, at: int, form: str, value: int) -> bytes:
    data = bytearray(image.data)
    struct.pack_into(form, data, at, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("place", "form", "value", "why"),
    [
        ("start", "<I", 0xFFFFFFF0, "no PE signature"),
        ("machine", "<H", 0x014C, "machine type 0x014c"),
        ("count", "<H", 0, "0 sections"),
        ("count", "<H", 97, "97 sections"),
        ("optional_size", "<H", 0xFFFF, "."),
        ("optional_size", "<H", 16, "truncated"),
        ("magic", "<H", 0x10B, "magic 0x10b"),
        ("subsystem", "<H", 3, "subsystem 3"),
        ("certificates", "<I", 0xFFFFFFFF, "certificate table"),
        ("first_offset", "<I", 0xFFFFFFFF, ".text ends at byte"),
        ("first_size", "<I", 0xFFFFFFFF, "too large"),
        ("second_address", "<I", 0, "overlaps"),
    ],
)
def test_a_lying_header_is_refused(unsigned: pe.Image, place: str, form: str, value: int, why: str) -> None:
    coff = unsigned.optional_at - 20
    at = {
        "start": 0x3C, "machine": coff, "count": coff + 2, "optional_size": coff + 16, "magic": unsigned.optional_at,
        "subsystem": unsigned.optional_at + 68, "certificates": unsigned.optional_at + 112 + 8 * 4 + 4,
        "first_offset": unsigned.table_at + 20, "first_size": unsigned.table_at + 8,
        "second_address": unsigned.table_at + 40 + 12,
    }[place]  # fmt: skip
    with pytest.raises(ImageError, match=why):
        pe.parse(change(unsigned, at, form, value), "lie")


def test_a_name_that_occurs_twice_is_refused(unsigned: pe.Image) -> None:
    data = bytearray(unsigned.data)
    data[unsigned.table_at + 40 : unsigned.table_at + 48] = b".text\0\0\0"
    with pytest.raises(ImageError, match=r"section \.text occurs twice"):
        pe.parse(bytes(data), "twice")


def test_what_is_absent_is_named(unsigned: pe.Image, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no section \.pcrsig"):
        unsigned.content(".pcrsig")
    with pytest.raises(ImageError, match="No such file"):
        pe.read(tmp_path / "absent.efi")


@pytest.mark.parametrize("size", [1, 511, 512, 513, 70_000])
def test_a_section_is_added_and_replaced_without_moving_another(bench: Bench, unsigned: pe.Image, size: int) -> None:
    first = pe.parse(pe.with_last_section(unsigned, ".pcrsig", b"{}"), "first")
    second = pe.parse(pe.with_last_section(first, ".pcrsig", b"x" * size), "second")
    assert second.content(".pcrsig") == b"x" * size
    assert second.sections[:-1] == unsigned.sections
    assert all(second.content(name) == unsigned.content(name) for name in unsigned.names)
    assert second.data == pe.with_last_section(unsigned, ".pcrsig", b"x" * size), "the way there leaves no trace"


def test_debian_s_own_programs_accept_the_added_section(bench: Bench, unsigned: pe.Image, tmp_path: Path) -> None:
    text = b'{"sha256": []}'
    image = bench.folder / "joined.efi"
    image.write_bytes(pe.with_last_section(unsigned, ".pcrsig", text))
    assert bench.section(image, ".pcrsig") == text
    certificate, key = bench.folder / "sb.crt", bench.folder / "sb.key"
    bench.tools.run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=owner", "-keyout", key,
        "-out", certificate,
    )  # fmt: skip
    signed = bench.folder / "joined.signed.efi"
    bench.tools.run("sbsign", f"--key={key}", f"--cert={certificate}", f"--output={signed}", image)
    assert "Signature verification OK" in bench.tools.run("sbverify", f"--cert={certificate}", signed)
    assert pe.read(signed).signed
    with pytest.raises(ImageError, match="signed image cannot be extended"):
        pe.with_last_section(pe.read(signed), ".pcrsig", text)


def test_a_section_that_is_not_last_is_not_replaced(unsigned: pe.Image) -> None:
    with pytest.raises(ImageError, match="not the last one"):
        pe.with_last_section(unsigned, ".cmdline", b"x")


def test_headers_without_room_are_refused(unsigned: pe.Image) -> None:
    image = unsigned
    with pytest.raises(ImageError, match="no room"):
        for number in range(96):
            image = pe.parse(pe.with_last_section(image, f".x{number}", b"x"), "filled")
    assert all(image.content(name) == unsigned.content(name) for name in unsigned.names)


def test_damaged_headers_are_read_or_refused_and_nothing_else(unsigned: pe.Image) -> None:
    chance = random.Random(11)
    refused = 0
    for _ in range(3000):
        data = bytearray(unsigned.data[:4096])
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(1024)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        try:
            image = pe.parse(bytes(data) + unsigned.data[4096:], "damaged")
            pe.parse(pe.with_last_section(pe.without_signature(image), ".pcrsig", b"{}"), "joined")
        except ImageError:
            refused += 1
    assert 100 < refused < 3000
