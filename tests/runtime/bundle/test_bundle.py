"""Opening and writing bundles: every flipped bit, every cut, everything extra is refused."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.runtime.bundle_factory import make_bundle, make_files, make_golden, make_manifest

from jetsight.bundle import golden, manifest
from jetsight.bundle.bundle import Bundle, write_bundle
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


def test_appended_bytes_are_refused(folder: Path) -> None:
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
