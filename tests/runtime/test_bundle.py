"""Opening and writing bundles: every flipped bit, every cut, everything extra is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundle_factory import make_bundle, make_files, make_golden, make_manifest

from jetsight import golden, manifest
from jetsight.bundle import Bundle, write_bundle
from jetsight.errors import BundleError, StorageError, UsageError

ENCODE = "graphs/cpu-int8/encode.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny.jetsight").path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny.jetsight.tar", tar=True).path


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_untouched_folder_and_tar_open_and_agree(folder: Path, archive: Path) -> None:
    one, two = Bundle.open(folder), Bundle.open(archive)
    assert one.manifest == two.manifest
    files = make_files(make_manifest())
    for bundle in (one, two):
        for family in ("cpu-fp32", "cpu-int8"):
            for graph in ("encode", "forecast"):
                expected = files[f"graphs/{family}/{graph}.onnx"]
                assert bundle.graph(family, graph) == expected
        arrays = bundle.golden()
        for name, array in make_golden(make_manifest()).items():
            np.testing.assert_array_equal(arrays[name], array)
            assert not arrays[name].flags.writeable


def test_every_flipped_bit_in_a_folder_is_refused(folder: Path) -> None:
    draw = random.Random(0)
    for path in _files(folder):
        content = path.read_bytes()
        for position in [0, len(content) - 1, *(draw.randrange(len(content)) for _ in range(38))]:
            _flip(path, content, position, draw.randrange(8))
            if path.name == "manifest.json":
                _open_or_refuse(folder, json.loads(content))
            else:
                assert "does not match its SHA-256" in _refusal(folder)
        path.write_bytes(content)
    Bundle.open(folder)


def _flip(path: Path, content: bytes, position: int, bit: int) -> None:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    path.write_bytes(changed)


def _open_or_refuse(folder: Path, original: object) -> None:
    """A manifest has no digest of its own: a flip in a name is legal text, a lie is not."""
    try:
        opened = Bundle.open(folder)
    except BundleError:
        return
    assert opened.manifest.files == manifest.parse(json.dumps(original).encode()).files


def test_every_flipped_bit_of_a_tar_outside_its_manifest_is_refused(archive: Path) -> None:
    draw = random.Random(1)
    content = archive.read_bytes()
    start = content.index(b"{\n")
    text = range(start, start + len(manifest.dump(Bundle.open(archive).manifest)))
    headers = [member.offset + i for member in _members(archive) for i in range(512)]
    positions = draw.sample(headers, 300) + draw.sample(range(len(content)), 400)
    for position in positions:
        if position not in text:
            _flip(archive, content, position, draw.randrange(8))
            _refusal(archive)
    archive.write_bytes(content)
    Bundle.open(archive)


def _members(archive: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(archive) as opened:
        return opened.getmembers()


@pytest.mark.parametrize("cut", ["nothing left", "one byte", "half", "all but one"])
def test_truncated_file_is_refused(folder: Path, cut: str) -> None:
    for path in _files(folder):
        content = path.read_bytes()
        size = {"nothing left": 0, "one byte": 1, "half": len(content) // 2}.get(
            cut, len(content) - 2 if path.name == "manifest.json" else len(content) - 1
        )
        path.write_bytes(content[:size])
        _refusal(folder)
        path.write_bytes(content)


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


def test_appended_bytes_are_refused(folder: Path, archive: Path) -> None:
    with archive.open("ab") as stream:
        stream.write(b"\0" * 511 + b"!")
    assert "bytes appended" in _refusal(archive)
    with (folder / ENCODE).open("ab") as stream:
        stream.write(b"!")
    assert "has 641 bytes, expected 640" in _refusal(folder)


def _evil_file(folder: Path) -> None:
    (folder / "evil.so").write_bytes(b"x")


def _hidden_file(folder: Path) -> None:
    (folder / "graphs" / ".hidden").write_bytes(b"x")


def _missing(folder: Path) -> None:
    (folder / ENCODE).unlink()


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _linked_file(folder: Path) -> None:
    target = folder.parent / "outside.onnx"
    shutil.move(folder / ENCODE, target)
    (folder / ENCODE).symlink_to(target)


def _linked_folder(folder: Path) -> None:
    target = folder.parent / "outside"
    shutil.move(folder / "graphs", target)
    (folder / "graphs").symlink_to(target)


def _pipe(folder: Path) -> None:
    (folder / ENCODE).unlink()
    os.mkfifo(folder / ENCODE)


def _folder_for_file(folder: Path) -> None:
    (folder / ENCODE).unlink()
    (folder / ENCODE).mkdir()


def _nested_twice(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "copy")
    shutil.move(folder.parent / "copy", folder / folder.name)


def _swapped(folder: Path) -> None:
    one, two = folder / ENCODE, folder / ENCODE.replace("int8", "fp32")
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


TAMPERING: list[tuple[Callable[[Path], None], str]] = [
    (_evil_file, "'evil.so' is not in the manifest"),
    (_hidden_file, "'graphs/.hidden' is not in the manifest"),
    (_missing, f"{ENCODE} is missing"),
    (_no_manifest, "no manifest.json; this is no jetsight bundle"),
    (_linked_file, f"'{ENCODE}' is a link or a device"),
    (_linked_folder, "'graphs' is a link or a device"),
    (_pipe, f"'{ENCODE}' is a link or a device"),
    (_folder_for_file, f"{ENCODE} is missing"),
    (_nested_twice, "is not in the manifest"),
    (_swapped, "does not match its SHA-256"),
]


@pytest.mark.parametrize(("tamper", "message"), TAMPERING, ids=lambda v: getattr(v, "__name__", ""))
def test_tampered_folder_is_refused(
    folder: Path, tamper: Callable[[Path], None], message: str
) -> None:
    Bundle.open(folder)
    tamper(folder)
    assert message in _refusal(folder)


def test_nothing_is_parsed_before_every_file_is_verified(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "load", lambda *_: pytest.fail("parsed before verification"))
    _flip(folder / ENCODE, (folder / ENCODE).read_bytes(), 5, 0)
    _refusal(folder)


def test_file_changed_after_opening_is_never_handed_out(folder: Path, archive: Path) -> None:
    for path, place in ((folder, folder / ENCODE), (archive, archive)):
        bundle = Bundle.open(path)
        content = place.read_bytes()
        position = content.index(b"cpu-int8 encode")
        place.write_bytes(content[:position] + b"X" + content[position + 1 :])
        with pytest.raises(BundleError, match="does not match its SHA-256"):
            bundle.graph("cpu-int8", "encode")
        place.unlink()
        with pytest.raises(BundleError, match="cannot read the bundle"):
            bundle.graph("cpu-int8", "encode")


def test_unknown_family_and_graph_name_what_there_is(folder: Path) -> None:
    bundle = Bundle.open(folder)
    with pytest.raises(UsageError, match="no family 'trt'; it has: cpu-fp32, cpu-int8"):
        bundle.graph("trt", "encode")
    with pytest.raises(UsageError, match="no graph 'imagine'"):
        bundle.graph("cpu-int8", "imagine")


@pytest.mark.parametrize("what", ["absent", "empty folder", "empty file", "text", "device"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, what: str) -> None:
    path = Path("/dev/null") if what == "device" else tmp_path / "x.jetsight"
    if what == "empty folder":
        path.mkdir()
    elif what in ("empty file", "text"):
        path.write_bytes(b"no bundle " * 200 if what == "text" else b"")
    _refusal(path)


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


def test_writing_is_reproducible_and_refuses_a_used_target(tmp_path: Path) -> None:
    for tar in (False, True):
        one = make_bundle(tmp_path / f"a{tar}" / "x.jetsight.tar", tar=tar).path
        two = make_bundle(tmp_path / f"b{tar}" / "x.jetsight.tar", tar=tar).path
        assert _digest(one) == _digest(two)
        with pytest.raises(StorageError, match="already exists"):
            make_bundle(one, tar=tar)


def _digest(path: Path) -> str:
    files = _files(path) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _without(name: str) -> dict[str, bytes]:
    files = make_files(make_manifest())
    del files[name]
    return files


def _with(name: str, data: bytes) -> dict[str, bytes]:
    return {**make_files(make_manifest()), name: data}


BAD_CONTENT = [
    (_without("golden.npz"), "files does not list golden.npz"),
    (_without(ENCODE), f"files does not list {ENCODE}"),
    (_with("extra.txt", b"x"), "files lists 'extra.txt'"),
    (_with("../up", b"x"), "files lists '../up'"),
    (_with(ENCODE, b""), "bytes is 0"),
    (_with("golden.npz", b"x"), "golden.npz: not a readable .npz"),
]


@pytest.mark.parametrize("tar", [False, True])
@pytest.mark.parametrize(("files", "message"), BAD_CONTENT, ids=[m for _, m in BAD_CONTENT])
def test_bad_content_writes_nothing(
    tmp_path: Path, files: dict[str, bytes], message: str, tar: bool
) -> None:
    target = tmp_path / "x.jetsight"
    with pytest.raises(Exception, match=message.replace("(", r"\(")) as caught:
        write_bundle(target, make_manifest(), files, tar=tar)
    assert caught.value.exit_code == 3  # type: ignore[attr-defined]
    assert os.listdir(tmp_path) == []


def test_disk_damage_while_writing_is_noticed_before_the_name_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.write_bytes

    def lossy(path: Path, data: bytes) -> int:
        return real(path, data[:-1] + b"?" if path.name == "encode.onnx" else data)

    monkeypatch.setattr(Path, "write_bytes", lossy)
    with pytest.raises(BundleError, match="does not match its SHA-256"):
        make_bundle(tmp_path / "x.jetsight")
    assert os.listdir(tmp_path) == []
