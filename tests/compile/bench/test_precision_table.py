"""`jetsight bench-compile` on a tiny model, from checkpoint to page."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from helpers.compile.tiny_model import save_checkpoint, square_episode, write_dataset

from jetsight.bundle.manifest import Gate
from jetsight.cli import main
from jetsight_compile.bench import precision_table

needs_compilers = pytest.mark.skipif(
    not (importlib.util.find_spec("tensorrt_rtx") and importlib.util.find_spec("modelopt")),
    reason="needs pip install 'jetsight[rtx,quantize]'",
)


@pytest.fixture(scope="module")
def inputs(exports, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_checkpoint(folder / "ckpt", exports.model("conv"))
    write_dataset(folder / "calib", [square_episode(seed) for seed in range(4)])
    return folder


@pytest.fixture(scope="module")
def found(exports, inputs) -> precision_table.PrecisionTable:
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        exports.stand_in(patch)
        made = precision_table.measure(
            inputs / "ckpt", inputs / "calib", ["orin-jp6"], ["max"], said.append
        )
    assert "build forecast of trt-op20-int8" in said
    return made


@needs_compilers
def test_every_graph_of_every_family_is_a_row(found) -> None:
    rows = {(row.family, row.graph): row for row in found.rows}
    assert set(rows) == {
        (f"trt-op20-{p}", g) for p in ("fp32", "fp16", "int8") for g in ("encode", "forecast")
    }
    assert list(found.left_out) == ["trt-op20-bf16"]
    int8, fp16 = (rows[f"trt-op20-{p}", "encode"] for p in ("int8", "fp16"))
    # TensorRT has no INT8 kernel for a convolution of 3 to 12 channels; ModelOpt leaves it float.
    assert (int8.quantize, int8.dequantize, int8.quantized, int8.products) == (3, 6, 3, 4)
    assert (fp16.quantize, fp16.dequantize, fp16.quantized, fp16.products) == (0, 0, 0, 4)
    assert fp16.onnx_bytes < rows["trt-op20-fp32", "encode"].onnx_bytes
    assert all(row.build_s > 0 and row.engine_bytes > 10_000 for row in found.rows)


@needs_compilers
def test_every_family_is_judged_beside_controls_that_fail(found) -> None:
    families = {row.family for row in found.rows}
    assert {gate.family for gate in found.gates} == families
    by_name = {(g.family, g.name): g for g in found.gates}
    assert all(gate.control_failed for gate in found.gates)
    losses = [by_name[f"trt-op20-{p}", "latent_sqnr_db"].value for p in ("fp32", "fp16", "int8")]
    assert losses == sorted(losses, reverse=True)


@needs_compilers
def test_the_page_shows_every_number_and_what_failed(found) -> None:
    text = "\n".join(precision_table.lines(found))
    assert text.startswith("tiny compiled by tensorrt_rtx 1.")
    assert "trt-op20-bf16 was left out: ONNX has bfloat16 convolutions from opset 22" in text
    assert "faults detected" in text
    gate = Gate(
        "trt-op20-int8",
        "latent_cosine",
        value=0.5,
        limit=0.995,
        direction="min",
        passed=False,
        control_value=0.999,
        control_failed=False,
    )
    blind = precision_table.PrecisionTable("tiny", "x", found.rows, [*found.gates[:-1], gate], {})
    shown = "\n".join(precision_table.lines(blind))
    assert "FAILED" in shown
    assert "0.999, fault NOT DETECTED" in shown
    assert "fail: trt-op20-int8" in shown


def test_targets_that_are_not_for_tensorrt_are_refused(inputs, capsys) -> None:
    where = ["--checkpoint", str(inputs / "ckpt"), "--data", str(inputs / "calib")]
    assert main(["bench-compile", *where, "--target", "cpu"]) == 2
    assert "'cpu' is no TensorRT target; choose one or more of orin-jp6" in capsys.readouterr().err


@needs_compilers
def test_the_command_prints_json(found, inputs, capsys, monkeypatch) -> None:
    monkeypatch.setattr(precision_table, "measure", lambda *arguments: found)
    where = ["--checkpoint", str(inputs / "ckpt"), "--data", str(inputs / "calib")]
    assert main(["bench-compile", *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["family"] == "trt-op20-fp32"
