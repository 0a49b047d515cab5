"""Every TensorRT family of every shipped recipe, compiled by NVIDIA's compiler, and what came out.

The counts in `pinned_engines.json` are those of the network TensorRT parsed. A change of them is a
change of speed or of numbers on some device: look before you update it with
`JETSIGHT_WRITE_PINS=1 pytest -m '' tests/compile/pipeline/test_pinned_engines.py`.
"""

from __future__ import annotations

import importlib.util
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.compile import tensorrt_rtx
from helpers.compile.tiny_model import geometry_of
from helpers.paths import RECORDED

import jetsight_train
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.errors import UsageError
from jetsight_compile.calibration.data import load_episodes
from jetsight_compile.calibration.planner_samples import imagine_samples
from jetsight_compile.config.precision import QUANTIZED, WEIGHT_ONLY
from jetsight_compile.config.targets import TARGETS, FamilyPlan, plan
from jetsight_compile.export import onnx_graph
from jetsight_compile.export.onnx_export import Ports, Sizes, finished
from jetsight_compile.pipeline.family import EXPORTS
from jetsight_compile.planner_graph.export import PlannerExporter
from jetsight_compile.planner_graph.settings import PlannerSettings, parse, specs
from jetsight_compile.planner_graph.signature import ImaginePorts
from jetsight_compile.quantize import schemes
from jetsight_compile.quantize.quantized import Quantized, rebase
from jetsight_train import checkpoint
from jetsight_train.recipe import load_recipe

PINS = Path(__file__).with_name("pinned_engines.json")
WRITE = os.environ.get("JETSIGHT_WRITE_PINS") == "1"
SHIPPED = "pusht-nano"
# The planner for short deadlines, with the shipped model's heads and limits.
PLANNER = "imagine_icem_64x5"
RECIPES = ("pusht-nano", "pusht-nano-vit", "lewm")  # pusht-nano-encoder is the first's encoder
# Of the unrolled forecast, which takes seconds each, these come with `make test`, all the rest
# with `make test-engines`.
ALWAYS = ("trt-op20-int8", "trt-op23-fp16", "trt-op23-fp8", "trt-op23-nvfp4")
COUNTED = {
    "products": "MATRIX_MULTIPLY",
    "convolutions": "CONVOLUTION",
    "norms": "NORMALIZATION",
    "attention": "ATTENTION_INPUT",
    "quantize": "QUANTIZE",
    "dequantize": "DEQUANTIZE",
}
NAMES = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.FLOAT: "float32"}

needs_compilers = pytest.mark.skipif(
    not (importlib.util.find_spec("tensorrt_rtx") and importlib.util.find_spec("modelopt")),
    reason="needs pip install 'jetsight[rtx,quantize]'",
)


def families() -> dict[str, FamilyPlan]:
    """All TensorRT families there are: each target in each precision it runs, each once."""
    plans = [
        family
        for target in TARGETS.values()
        if target.prefix != "cpu"
        for family in plan([target.name], target.allowed)
    ]
    return {family.name: family for family in plans}


FAMILIES = families()


@cache
def model(recipe: str):
    return geometry_of(load_recipe(recipe))


@cache
def shipped():
    return checkpoint.load(Path(jetsight_train.__file__).parent / "zoo" / SHIPPED)[0]


def planner() -> PlannerSpec:
    (spec,) = specs(
        [parse(PLANNER.removeprefix("imagine_").replace("_", ":"))], shipped(), PlannerSettings()
    )
    assert spec.graph == PLANNER
    return spec


def sizes(recipe: str, name: str) -> Ports:
    return ImaginePorts.of(shipped(), planner()) if name == PLANNER else Sizes.of(model(recipe))


def precision_of(name: str, family: FamilyPlan) -> str:
    return family.precision["forecast" if name == PLANNER else name]


@cache
def exported(recipe: str, name: str, style) -> onnx.ModelProto:
    if name == PLANNER:
        return PlannerExporter(shipped(), style).export(planner())
    return EXPORTS[name](model(recipe), style)


def samples(recipe: str, name: str) -> list[dict[str, np.ndarray]]:
    if name == PLANNER:
        data = RECORDED
        windows = load_episodes(data, shipped()).calibration.windows
        return list(imagine_samples(windows, planner(), shipped(), most=4))
    rng, size = np.random.default_rng(0), Sizes.of(model(recipe))
    shapes = {
        "z_hist": (size.K, size.D),
        "a_hist": (size.K - 1, size.A),
        "actions": (size.H, size.A),
    }
    if name == "encode":
        shape = size.frame
        return [{"frame_hwc_u8": rng.integers(0, 256, shape, dtype=np.uint8)} for _ in range(4)]
    return [
        {k: rng.standard_normal(v).astype(np.float32) for k, v in shapes.items()} for _ in range(4)
    ]


@cache
def quantized(recipe: str, name: str, style, precision: str) -> Quantized | None:
    """A quantization of a random model: its numbers mean nothing, its structure is the shipped one.

    None where no layer of the graph has a form in that precision.
    """
    exact, inputs = exported(recipe, name, style.computing("fp32")), samples(recipe, name)
    if precision in WEIGHT_ONLY:
        return schemes.weight_only(exact, precision, inputs)
    return schemes.tensorrt(exact, precision, inputs, methods=("max",), smoothing=False)


def graph_of(recipe: str, name: str, family: FamilyPlan) -> tuple[onnx.ModelProto, int]:
    """The graph as it ships, and how many of its layers are quantized."""
    precision = precision_of(name, family)
    if precision not in QUANTIZED:
        return exported(recipe, name, family.style.computing(precision)), 0
    made = quantized(recipe, name, family.style, precision)
    made = rebase(made, exported(recipe, name, family.style))
    return finished(made.model, name, sizes(recipe, name)), len(made.layers)


def has_no_form(recipe: str, name: str, family: FamilyPlan) -> bool:
    convolutions = name == "encode" and model(recipe).config.conv is not None
    return convolutions and family.name == "trt-op20-bf16"


def compiled(recipe: str, name: str, family: FamilyPlan) -> dict[str, int] | None:
    """Compile one graph, check its ports and its quantized products; return what is pinned.

    None where ONNX has no form for it: bfloat16 convolutions before opset 22.
    """
    if has_no_form(recipe, name, family):
        with pytest.raises(UsageError, match="bfloat16 convolutions from opset 22"):
            graph_of(recipe, name, family)
        return None
    graph, count = graph_of(recipe, name, family)
    built = tensorrt_rtx.build(graph.SerializeToString())
    ports = [
        {port: (NAMES[kind], shape) for port, (kind, shape) in each.items()}
        for each in sizes(recipe, name).signature(name)
    ]
    assert [built.inputs, built.outputs] == ports
    weights = precision_of(name, family) in WEIGHT_ONLY
    assert (built.quantized, built.weight_only) == ((0, count) if weights else (count, 0))
    assert bool(count) == (precision_of(name, family) in QUANTIZED)
    assert len(built.engine) > 10_000
    pinned = {name: built.layers[kind] for name, kind in COUNTED.items()}
    return {"layers": built.layers.total(), **pinned, "quantized_layers": count}


def pins() -> dict[str, dict[str, dict[str, dict[str, int] | None]]]:
    return json.loads(PINS.read_text()) if PINS.exists() else {}


def is_quick(recipe: str, name: str, family: str) -> bool:
    if name == "encode":
        return recipe != "lewm"
    return (recipe, name) == (SHIPPED, "forecast") and family in ALWAYS


def graphs_of(recipe: str, family: str) -> tuple[str, ...]:
    """A planner beside weights of 4 bits is in the base format, which another family has."""
    if recipe != SHIPPED or FAMILIES[family].precision["forecast"] in WEIGHT_ONLY:
        return tuple(EXPORTS)
    return (*EXPORTS, PLANNER)


def marks(recipe: str, name: str, family: str) -> list:
    """Families of one opset share their exports, so one worker has them all."""
    group = pytest.mark.xdist_group(f"{recipe}-{name}-{FAMILIES[family].style.opset}")
    return [group] if is_quick(recipe, name, family) else [group, pytest.mark.slow]


def cases() -> list:
    return [
        pytest.param(
            recipe,
            name,
            family,
            id=f"{recipe}-{name}-{family}",
            marks=marks(recipe, name, family),
        )
        for recipe in RECIPES
        for family in FAMILIES
        for name in graphs_of(recipe, family)
    ]


@needs_compilers
@pytest.mark.parametrize(("recipe", "name", "family"), cases())
def test_what_tensorrt_makes_of_a_family_is_pinned(recipe: str, name: str, family: str) -> None:
    found, known = compiled(recipe, name, FAMILIES[family]), pins()
    if WRITE:
        known.setdefault(recipe, {}).setdefault(family, {})[name] = found
        PINS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    assert known[recipe][family][name] == found


@pytest.mark.skipif(WRITE, reason="the pins are being written")
def test_every_family_of_every_recipe_is_pinned_and_none_twice() -> None:
    known = pins()
    assert set(known) == set(RECIPES)
    for recipe in RECIPES:
        found = {family: set(graphs) for family, graphs in known[recipe].items()}
        assert found == {family: set(graphs_of(recipe, family)) for family in FAMILIES}
    same = [load_recipe(name) for name in ("pusht-nano", "pusht-nano-encoder")]
    assert same[0].model.conv == same[1].model.conv
    assert same[0].frame == same[1].frame


@pytest.mark.skipif(WRITE, reason="the pins are being written")
def test_pins_say_what_a_precision_is() -> None:
    for recipe, by_family in pins().items():
        for family, by_graph in by_family.items():
            for name, found in by_graph.items():
                if found is None:
                    assert has_no_form(recipe, name, FAMILIES[family])
                    continue
                precision = precision_of(name, FAMILIES[family])
                activations, quantized_at_all = precision in ("int8", "fp8"), precision in QUANTIZED
                assert (found["quantize"] > 0) == activations, (recipe, family, name)
                assert (found["dequantize"] > 0) == quantized_at_all, (recipe, family, name)


@needs_compilers
def test_a_quantization_that_vanished_would_be_seen() -> None:
    """The control: the float graph under the name of a quantized one."""
    family = FAMILIES["trt-op20-int8"]
    built = tensorrt_rtx.build(exported("pusht-nano", "encode", family.style).SerializeToString())
    assert (built.quantized, built.weight_only) == (0, 0)
    pinned = pins()["pusht-nano"]["trt-op20-int8"]["encode"]
    assert built.layers["QUANTIZE"] != pinned["quantize"]
    assert built.layers.total() != pinned["layers"]


def test_the_families_are_these() -> None:
    both = ("fp32", "fp16", "bf16", "fp8", "int8")
    assert set(FAMILIES) == {
        *(f"trt-op20-{p}" for p in both),
        *(f"trt-op23-{p}" for p in (*both, "int4", "nvfp4")),
    }
    assert onnx_graph.WEIGHTED == ("Conv", "Gemm", "MatMul")
