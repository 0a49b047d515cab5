"""A bundle in one tar: each byte accounted for, hostile archives refused, real tools agree."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
from helpers.runtime.bundle_factory import make_bundle

from jetsight.bundle import manifest
from jetsight.bundle.bundle import Bundle
from jetsight.errors import BundleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny.jetsight").path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny.jetsight.tar", tar=True).path


def _refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_every_flipped_bit_of_a_tar_outside_its_manifest_is_refused(archive: Path) -> None:
    draw = random.Random(1)
    content = archive.read_bytes()
    start = content.index(b"{\n")
    text = range(start, start + len(manifest.dump(Bundle.open(archive).manifest)))
    headers = [member.offset + i for member in _members(archive) for i in range(512)]
    positions = draw.sample(headers, 300) + draw.sample(range(len(content)), 400)
    for position in positions:
        if position not in text:
            changed = bytearray(content)
            changed[position] ^= 1 << draw.randrange(8)
            archive.write_bytes(changed)
            _refusal(archive)
    archive.write_bytes(content)
    Bundle.open(archive)


def _members(archive: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(archive) as opened:
        return opened.getmembers()


def test_truncated_tar_is_refused_at_every_border_and_at_seeded_offsets(archive: Path) -> None:
    content = archive.read_bytes()
    members = _members(archive)
    end = members[-1].offset_data + -(-members[-1].size // 512) * 512 + 1024
    borders = [0, 1, 511, *(m.offset for m in members), *(m.offset_data for m in members)]
    for size in [*borders, end - 1, *random.Random(2).sample(range(end), 50)]:
        archive.write_bytes(content[:size])
        _refusal(archive)
    archive.write_bytes(content[:end])
    Bundle.open(archive)


def test_appended_bytes_are_refused(archive: Path) -> None:
    with archive.open("ab") as stream:
        stream.write(b"\0" * 511 + b"!")
    assert "bytes appended" in _refusal(archive)


def _tar(entries: list[tarfile.TarInfo], format: int = tarfile.USTAR_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))
    return stream.getvalue()


def _entry(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, link, size
    return entry


HOSTILE_TARS = {
    "absolute": ([_entry("/etc/passwd")], "leaves the bundle"),
    "parent": ([_entry("a/../../b")], "leaves the bundle"),
    "backslash": ([_entry("a\\..\\b")], "leaves the bundle"),
    "newline": ([_entry("a\nb")], "leaves the bundle"),
    "symlink": ([_entry("a", tarfile.SYMTYPE, "/etc")], "is a link or device"),
    "hard link": ([_entry("a", tarfile.LNKTYPE, "b")], "is a link or device"),
    "device": ([_entry("a", tarfile.CHRTYPE)], "is a link or device"),
    "pipe": ([_entry("a", tarfile.FIFOTYPE)], "is a link or device"),
    "duplicate": ([_entry("a"), _entry("a")], "appears twice"),
    "dot duplicate": ([_entry("a"), _entry("./a")], "appears twice"),
    "case clash": ([_entry("a"), _entry("A")], "appears twice"),
    "too many": ([_entry(f"f{i}") for i in range(1100)], "too many entries"),
    "unlisted": ([_entry("evil.so", size=3)], "no manifest.json"),
}


@pytest.mark.parametrize("name", HOSTILE_TARS)
def test_hostile_tar_is_refused_and_creates_nothing(tmp_path: Path, name: str) -> None:
    entries, message = HOSTILE_TARS[name]
    path = tmp_path / "x.tar"
    path.write_bytes(_tar(entries))
    assert message in _refusal(path)
    assert os.listdir(tmp_path) == ["x.tar"]


def test_bomb_of_declared_zeros_is_refused_without_reading_it(tmp_path: Path) -> None:
    """A sparse 7 GB member: the manifest caps what may be read, and it is not even listed."""
    path = tmp_path / "x.tar"
    content = _tar([_entry("big")])
    header = bytearray(content[:512])
    header[124:136] = b"%011o\0" % (7 << 30)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(header)
    os.truncate(path, 512 + (7 << 30) + 1024)
    assert "no manifest.json" in _refusal(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-cf", "t.tar", "tiny.jetsight"],
        ["--format=ustar", "-cf", "t.tar", "-C", "tiny.jetsight", "."],
        [
            "--format=ustar",
            "-cf",
            "t.tar",
            "-C",
            "tiny.jetsight",
            "manifest.json",
            "golden.npz",
            "graphs",
        ],
    ],
    ids=["folder", "dot", "names"],
)
def test_tar_made_by_hand_opens(folder: Path, arguments: list[str]) -> None:
    subprocess.run(["tar", *arguments], cwd=folder.parent, check=True)
    assert Bundle.open(folder.parent / "t.tar").manifest == Bundle.open(folder).manifest


def test_pax_tar_is_refused_with_the_command_that_works(folder: Path) -> None:
    path = folder.parent / "t.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(folder, "tiny.jetsight")
    assert "tar --format=ustar -cf NAME.tar FOLDER" in _refusal(path)


def test_standard_tools_read_our_tar(archive: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path], check=True)
    Bundle.open(tmp_path / "tiny.jetsight")
