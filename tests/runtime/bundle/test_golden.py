"""golden.npz: shapes and dtypes are checked before memory is taken; nothing is unpickled."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runtime.bundle_factory import make_golden, make_manifest

from jetsight.bundle import golden
from jetsight.errors import BundleError

FACTS = make_manifest()
GOOD = golden.dump(make_golden(FACTS))


def _load(data: bytes) -> dict[str, Any]:
    return golden.load(data, FACTS, "golden.npz")


def _changed(**arrays: Any) -> bytes:
    """The good arrays with some replaced (None removes one), as NumPy itself would save them."""
    merged = {**make_golden(FACTS), **arrays}
    stream = io.BytesIO()
    np.savez(stream, **{name: array for name, array in merged.items() if array is not None})
    return stream.getvalue()


def test_numpys_own_files_load_too() -> None:
    assert sorted(_load(_changed())) == sorted(_load(GOOD))


class Canary:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def test_object_array_is_refused_and_its_code_never_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    hostile = np.array([Canary(canary)], dtype=object)
    data = _changed(z=hostile)
    with pytest.raises(BundleError, match="holds Python objects, which are never loaded"):
        _load(data)
    assert not canary.exists()
    np.load(io.BytesIO(data), allow_pickle=True)["z"][0].close()  # the control: it is live
    assert canary.exists()


def _header_only(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _with_raw(name: str, raw: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """The good file with the bytes of one member replaced."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, zipfile.ZipFile(io.BytesIO(GOOD)) as good:
        for member in good.namelist():
            data = raw if member == f"{name}.npy" else good.read(member)
            archive.writestr(member, data, method)
    return stream.getvalue()


def _header_text(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _with_false_size(size: int) -> bytes:
    """A stored member whose zip entry promises `size` bytes, and which holds fewer."""
    raw = _header_only((2, 4)) + b"short"
    true, false = struct.pack("<II", len(raw), len(raw)), struct.pack("<II", len(raw), size)
    data = _with_raw("z", raw)
    assert data.count(true) == 2  # in front of the member, and in the directory at the end
    return data.replace(true, false)


z = make_golden(FACTS)["z"]
DEFECTS = [
    (b"", "not a readable .npz"),
    (GOOD[:100], "not a readable .npz"),
    (GOOD[:-1], "not a readable .npz"),
    (_changed(z=None), "expected arrays"),
    (_changed(extra=z), "expected arrays"),
    (_changed(z=z.astype(np.float64)), "z is <f8 [2, 4], expected <f4 [n, 4]"),
    (_changed(z=z[:, :3]), "z is <f4 [2, 3], expected <f4 [n, 4]"),
    (_changed(z=z[0]), "z is <f4 [4], expected <f4 [n, 4]"),
    (_changed(z=np.asfortranarray(z)), "z is <f4 [2, 4], expected"),
    (_changed(z=z[:1]), "arrays have [1, 2] samples"),
    (_changed(z=np.full_like(z, np.nan)), "z holds values that are not finite"),
    (golden.dump(make_golden(FACTS, samples=0)), "arrays have [0] samples"),
    (_with_raw("z", b""), "z has an unreadable header"),
    (_with_raw("z", b"\x93NUMPY\x09\x00"), "z has an unreadable header"),
    (_with_raw("z", b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16), "z has an unreadable header"),
    (_with_raw("z", _header_only((10**15, 4))), "z declares 16000000000000000 bytes"),
    (_with_raw("z", _header_only((-2, 4))), "z has an unreadable header"),
    (_with_raw("z", _header_only((2, 4)) + b"short"), "another length than its header says"),
    (_with_raw("z", _header_only((2, 4)) + b"x" * 33), "another length than its header says"),
    (
        _with_raw("z", _header_text(b"{'descr':'<f4','fortran_order':False,'shape':(2L,4)}\n")),
        "z has an unreadable header",
    ),
    (
        _with_raw("z", _header_text(b"{'descr':'<f4','fortran_order':False,'shape':(True,4)}\n")),
        "z has an unreadable header",
    ),
    (_with_raw("z", _header_text(b"-" * 500 + b"\n")), "z has an unreadable header"),
    (_with_raw("z", _header_text(b"-" * 60_000 + b"\n")), "z has an unreadable header"),
    (
        _with_raw("z", _header_only((2, 4)) + bytes(1 << 22), zipfile.ZIP_DEFLATED),
        "another length than its header says",
    ),
    (_with_false_size(len(_header_only((2, 4))) + 32), "not a readable .npz"),
    (_with_raw("z", b"x", zipfile.ZIP_BZIP2), "compressed in a way that is not supported"),
]


@pytest.mark.parametrize(("data", "message"), DEFECTS, ids=range(len(DEFECTS)))
def test_defect_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        _load(data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_any_damage_loads_or_raises_bundle_error() -> None:
    """Zip and .npy readers raise a dozen exceptions; only ours may come out."""
    draw = random.Random(0)
    refused = 0
    for _ in range(1500):
        data = bytearray(GOOD)
        for _ in range(draw.choice([1, 1, 1, 4])):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        try:
            _load(bytes(data))
        except BundleError:
            refused += 1
    assert refused > 1000, "damage is hardly ever noticed: the test does not reach the parser"
