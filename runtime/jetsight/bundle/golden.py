"""Reference data of a bundle, `golden.npz`: float32 inputs and outputs of the PyTorch model.

Shapes: n samples, frame as in `FrameSpec.shape`, s state size, D latent size, K history, H horizon,
A model action size.
Since manifest 1.2 it may also hold planner iterations: for a planner's graph either nothing, or
`<graph>__<tensor>` for each of its inputs, for `mean_next` and for `costs`, with problems as the
first axis, e.g. `imagine_icem_256x5__noise [problems, N, H, A]`.
Headers are checked before any array is allocated; nothing is ever unpickled.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from jetsight.bundle.manifest import Manifest
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.errors import BundleError, first_line

NDArray = npt.NDArray[Any]

_MAX_BYTES = 1 << 30
_MAX_HEADER = 512  # bytes; NumPy pads these headers to 128
PLANNER_OUTPUTS = ("mean_next", "costs")  # the float model's, of a planner's iteration
# Errors of the standard library for a damaged or forged zip.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError),
    *(ValueError, KeyError, OverflowError, MemoryError, NotImplementedError),
)


def dump(arrays: Mapping[str, NDArray]) -> bytes:
    """Write the bytes of `golden.npz`; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # its default date is a constant
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as stream:
                contiguous = np.ascontiguousarray(array)  # the reader refuses Fortran order
                np.lib.format.write_array(stream, contiguous, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def layout(manifest: Manifest) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """List dtype and shape (without the leading n) of every array of a golden file."""
    model, frame = manifest.model, manifest.frame
    latent, action = model.latent_size, model.action_size
    f32 = np.dtype(np.float32)
    past = {"a_hist": (f32, (model.history - 1, action))} if model.history > 1 else {}
    state = {} if manifest.state is None else {"state": (f32, (len(manifest.state.names),))}
    return {
        "frame_hwc_u8": (np.dtype(np.uint8), frame.shape),
        **state,
        "z": (f32, (latent,)),
        "z_hist": (f32, (model.history, latent)),
        **past,
        "actions": (f32, (model.horizon, action)),
        "z_future": (f32, (model.horizon, latent)),
    }


def planner_layout(manifest: Manifest) -> dict[str, dict[str, tuple[int, ...]]]:
    """List name and shape (without the leading axis) of each planner's arrays, all float32."""
    found = {}
    for graph, tensors in PlanSpec.from_manifest(manifest).tensors.items():
        shapes = {**tensors.inputs, **{name: tensors.outputs[name] for name in PLANNER_OUTPUTS}}
        found[graph] = {planner_key(graph, n): s for n, s in shapes.items()}
    return found


def planner_key(graph: str, tensor: str) -> str:
    """Return the key of a tensor of a planner's graph."""
    return f"{graph}__{tensor}"


def load(data: bytes, manifest: Manifest, what: str) -> dict[str, NDArray]:
    """Read the arrays of a golden file, each checked against the sizes in the manifest.

    Raises:
        BundleError: arrays are missing, unexpected, of another dtype or shape, not finite,
            or the file is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _load_all(archive, manifest, what)
    except _DAMAGE as error:
        raise BundleError(f"{what}: not a readable .npz ({first_line(error)})") from None


def _load_all(archive: zipfile.ZipFile, manifest: Manifest, what: str) -> dict[str, NDArray]:
    expected = layout(manifest)
    if {e.compress_type for e in archive.filelist} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise BundleError(f"{what}: compressed in a way that is not supported; use deflate")
    names = archive.namelist()
    groups = [list(expected)]
    for planner in planner_layout(manifest).values():
        if any(f"{name}.npy" in names for name in planner):
            expected.update((name, (np.dtype(np.float32), tail)) for name, tail in planner.items())
            groups.append(list(planner))
    # Lists, not sets: a zip may hold two members of one name, of which the last would count.
    if sorted(names) != sorted(f"{name}.npy" for name in expected):
        raise BundleError(f"{what}: holds {sorted(names)[:10]}, expected arrays {sorted(expected)}")
    arrays = {
        name: _load_one(archive, name, dtype, tail, what)
        for name, (dtype, tail) in expected.items()
    }
    for group in groups:
        counts = {len(arrays[name]) for name in group}
        if len(counts) != 1 or counts == {0}:
            raise BundleError(f"{what}: arrays have {sorted(counts)} samples, expected one number")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BundleError(f"{what}: {name} holds values that are not finite")
    return arrays


def _load_one(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], tail: tuple[int, ...], what: str
) -> NDArray:
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        shape, fortran, found = _read_header(stream, name, what)
        if found.hasobject:  # loading such an array would unpickle it
            raise BundleError(f"{what}: {name} holds Python objects, which are never loaded")
        # Byte order is part of the dtype.
        if found != dtype or fortran or len(shape) != len(tail) + 1 or shape[1:] != tail:
            raise BundleError(
                f"{what}: {name} is {found.str} {_sizes(shape)}, "
                f"expected {dtype.str} {_sizes(['n', *tail])}"
            )
        size = math.prod(shape) * dtype.itemsize
        if size > _MAX_BYTES:
            raise BundleError(f"{what}: {name} declares {size} bytes, at most {_MAX_BYTES} allowed")
        # A zip member never yields more than its own size, so this bounds the read below.
        if member.file_size != stream.tell() + size:
            raise BundleError(f"{what}: {name} has another length than its header says")
        # Over bytes `frombuffer` gives a read-only array without a copy.
        return np.frombuffer(stream.read(size), dtype=dtype).reshape(shape)


def _read_header(
    stream: IO[bytes], name: str, what: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, Fortran order and dtype, without allocating the array."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy warns of headers written by Python 2
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0(stream, max_header_size=_MAX_HEADER)
        if version != (1, 0) or any(type(size) is not int or size < 0 for size in header[0]):
            raise ValueError
    except Exception:  # the reader raises errors of many classes: tokenizer, parser, dtype
        raise BundleError(
            f"{what}: {name} has an unreadable header; write it with numpy.savez"
        ) from None
    return header


def _sizes(shape: Sequence[object]) -> str:
    return f"[{', '.join(map(str, shape))}]"
