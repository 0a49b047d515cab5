"""Bad input to `jetsight build`: one line with the fix, and nothing in the cache."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
from helpers.bad_input import Capture, Case, Table, check
from helpers.runtime.bundle_factory import make_bundle
from helpers.runtime.engine_factory import encode, make_tensorrt_bundle
from onnx import helper

TINY = "tiny.jetsight"
CASES = Table()


def _nothing(folder: Path) -> None:
    pass


def _good(folder: Path) -> None:
    make_tensorrt_bundle(folder / TINY)


CASES.row("bundle that is not there", "build", TINY, code=3, says=[TINY, "No such"])(_nothing)
CASES.row("no bundle", "build", code=2, says=["BUNDLE", "jetsight build --help"])(_nothing)
CASES.row("level 9", "build", TINY, "--level", "9", code=2, says=["--level", "9"])(_nothing)
CASES.row("no memory", "build", TINY, "--workspace-mb", "0", code=2, says=["--workspace-mb"])(
    _nothing
)
CASES.row(
    *("family that is not there", "build", TINY, "--family", "trt-op20-fp16"),
    code=2,
    says=[TINY, "no family 'trt-op20-fp16'", "it has: trt-op23-fp16"],
)(_good)
CASES.row(
    *("graph that is not there", "build", TINY, "--graph", "imagine"),
    code=2,
    says=[TINY, "no graph 'imagine'", "encode, forecast"],
)(_good)
CASES.row(
    *("checkpoint for nothing", "build", TINY, "--checkpoint", "ckpt"),
    code=2,
    says=["--checkpoint", "--via torch-tensorrt"],
)(_good)
CASES.row(
    *("torch-tensorrt without a checkpoint", "build", TINY, "--via", "torch-tensorrt"),
    code=2,
    says=["add --checkpoint CKPT"],
)(_good)
CASES.row(
    *("no torch-tensorrt", "build", TINY, "--via", "torch-tensorrt", "--checkpoint", "ckpt"),
    code=5,
    says=["'torch_tensorrt'", "pip install 'jetsight[torch-tensorrt]'"],
    without=["torch_tensorrt"],
)(_good)
CASES.row(
    *("no torch", "build", TINY, "--via", "torch-tensorrt", "--checkpoint", "ckpt"),
    code=5,
    says=["'torch'", "pip install 'jetsight["],
    without=["torch"],
)(_good)
CASES.row(
    *("no TensorRT", "build", TINY),
    code=5,
    says=["TensorRT needs", "pip install 'jetsight[rtx]'"],
    without=["tensorrt", "tensorrt_rtx"],
)(_good)


@CASES.row(
    *("no TensorRT family", "build", TINY),
    code=2,
    says=[TINY, "cpu-fp32, cpu-int8", "none for TensorRT", "jetsight compile --target rtx"],
)
def _cpu_only(folder: Path) -> None:
    make_bundle(folder / TINY)


@CASES.row(*("CPU family", "build", TINY, "--family", "cpu-int8"), code=2, says=["needs no engine"])
def _cpu_family(folder: Path) -> None:
    make_bundle(folder / TINY)


@CASES.row(
    *("operator the parser lacks", "build", TINY),
    code=10,
    says=["'head/Fourier'", "cannot parse", "--target orin-jp6", "log is in", "build.log"],
)
def _operator(folder: Path) -> None:
    odd = helper.make_node("Fourier", ["z"], ["odd"], name="head/Fourier", domain="com.me")
    make_tensorrt_bundle(folder / TINY, encode=encode(extra=[odd]).SerializeToString())


@CASES.row(
    *("graph no kernel fits", "build", TINY),
    code=10,
    says=["cannot compile the graph", "log is in", "build.log"],
)
def _kernel(folder: Path) -> None:
    """One query against many keys: TensorRT fuses attention or refuses it."""
    f32 = onnx.TensorProto.FLOAT
    ports = [helper.make_tensor_value_info(n, f32, (1, p, 192)) for n, p in (("q", 1), ("k", 257))]
    node = helper.make_node(
        "Attention", ["q", "k", "k"], ["y"], name="one", q_num_heads=3, kv_num_heads=3
    )
    out = helper.make_tensor_value_info("y", f32, (1, 1, 192))
    graph = helper.make_graph([node], "one-query", ports, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    make_tensorrt_bundle(folder / TINY, encode=model.SerializeToString())


@CASES.row(
    *("weights outside the bundle", "build", TINY),
    code=10,
    says=["trt-op23-fp16 encode", "weight 'w' is outside the bundle", "jetsight compile"],
)
def _external(folder: Path) -> None:
    model = encode()
    tensor = model.graph.initializer[0]
    (folder / "secret.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    make_tensorrt_bundle(folder / TINY, encode=model.SerializeToString())


@CASES.row("graph that is none", "build", TINY, code=10, says=["not a readable ONNX graph"])
def _no_graph(folder: Path) -> None:
    make_tensorrt_bundle(folder / TINY, encode=b"\xff" * 100)


@pytest.mark.skipif(not find_spec("tensorrt_rtx"), reason="pip install 'jetsight[rtx]'")
@pytest.mark.parametrize("row", CASES, ids=lambda row: row.name)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    row: Case,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Capture,
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    check(row, tmp_path, monkeypatch, capfd)
    left = [p.name for p in cache.rglob("*") if p.is_file()]
    assert set(left) <= {"build.log", *(n for n in left if n.endswith(".lock"))}, "an engine"


def test_rows_have_distinct_names() -> None:
    names = [row.name for row in CASES]
    assert len(set(names)) == len(names)
