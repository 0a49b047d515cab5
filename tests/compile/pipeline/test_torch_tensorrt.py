"""The route through torch-tensorrt, against a stand-in that has the real function's signature."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.compile.tiny_model import save_checkpoint
from helpers.runtime.bundle_factory import make_manifest

from jetsight.bundle.manifest import Family, Manifest
from jetsight.bundle.model_spec import ModelSpec
from jetsight.errors import EngineError, MissingDependency, UsageError
from jetsight.tensorrt.bindings import TensorRtModule
from jetsight.tensorrt.fingerprint import BuildOptions
from jetsight_compile.pipeline import torch_tensorrt
from jetsight_train import checkpoint as checkpoints

PLAN = b"ftrt" + bytes(20) + bytes((11, 0, 0, 114)) + b"rest"


class Route:
    """What a stand-in was asked, and how it answers."""

    def __init__(self, *, names_outputs: bool) -> None:
        self.calls: list[dict[str, Any]] = []
        self.fails: Exception | None = None
        self.function = self._newer if names_outputs else self._older

    def _older(  # the parameters of torch-tensorrt 2.13.0
        self,
        exported_program,
        inputs=None,
        *,
        arg_inputs=None,
        kwarg_inputs=None,
        device=None,
        disable_tf32=False,
        assume_dynamic_shape_support=False,
        sparse_weights=False,
        engine_capability=None,
        num_avg_timing_iters=1,
        workspace_size=0,
        dla_sram_size=0,
        dla_local_dram_size=0,
        dla_global_dram_size=0,
        truncate_double=False,
        require_full_compilation=False,
        min_block_size=5,
        torch_executed_ops=None,
        torch_executed_modules=None,
        pass_through_build_failures=False,
        max_aux_streams=None,
        version_compatible=False,
        optimization_level=None,
        use_python_runtime=False,
        use_fast_partitioner=True,
        enable_experimental_decompositions=False,
        dryrun=False,
        hardware_compatible=False,
        timing_cache_path="",
        lazy_engine_init=False,
        cache_built_engines=False,
        reuse_cached_engines=False,
        engine_cache_dir="",
        engine_cache_size=0,
        custom_engine_cache=None,
        use_fp32_acc=False,
        refit_identical_engine_weights=False,
        strip_engine_weights=False,
        immutable_weights=True,
        enable_weight_streaming=False,
        tiling_optimization_level="none",
        l2_limit_for_tiling=-1,
        offload_module_to_cpu=False,
        use_distributed_mode_trace=False,
        decompose_attention=False,
        attn_bias_is_causal=True,
        **kwargs,
    ) -> bytes:
        assert not kwargs, "an option that 2.13 would ignore in silence"
        return self._answer(locals())

    def _newer(
        self,
        exported_program,
        inputs=None,
        *,
        arg_inputs=None,
        workspace_size=0,
        require_full_compilation=False,
        min_block_size=5,
        optimization_level=None,
        attn_bias_is_causal=True,
        arg_input_binding_names=None,
        kwarg_input_binding_names=None,
        output_binding_names=None,
        **kwargs,
    ) -> bytes:
        assert not kwargs
        return self._answer(locals())

    def _with_typing(  # what matters of torch-tensorrt 2.8, which computes in float32 by default
        self,
        exported_program,
        inputs=None,
        *,
        arg_inputs=None,
        workspace_size=0,
        require_full_compilation=False,
        min_block_size=5,
        optimization_level=None,
        use_explicit_typing=False,
        timing_cache_path="/tmp/shared",
        **kwargs,
    ) -> bytes:
        assert not kwargs
        return self._answer(locals())

    def _answer(self, given: dict[str, Any]) -> bytes:
        if self.fails is not None:
            raise self.fails
        self.calls.append(given)
        return PLAN


def stand_in(name: str) -> Any:
    """A module that torch, which looks whether they exist, takes for real."""
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    return module


@pytest.fixture
def install(monkeypatch):
    """Put a stand-in where torch_tensorrt and tensorrt are imported from."""

    def put(route: Route | None, tensorrt: str = "11.0.0.114") -> None:
        module, library = stand_in("torch_tensorrt"), stand_in("tensorrt")
        if route is not None:
            name = "convert_exported_program_to_serialized_trt_engine"
            module.dynamo = types.SimpleNamespace(**{name: route.function})
        library.__version__ = tensorrt
        monkeypatch.setitem(sys.modules, "torch_tensorrt", module if route else None)
        monkeypatch.setitem(sys.modules, "tensorrt", library)
        monkeypatch.setattr(torch_tensorrt, "_device", lambda: torch.device("cpu"))

    return put


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Manifest]:
    """A tiny checkpoint and the manifest of a bundle that came from it."""
    from helpers.compile.tiny_model import model_of

    model = model_of(vit=True, projector=24)
    path = save_checkpoint(tmp_path_factory.mktemp("ckpt") / "tiny", model)
    base, (_, about) = make_manifest(), checkpoints.load(path)
    size = model.config
    facts = ModelSpec("vit", 1, size.latent_size, size.history, size.horizon, model.action_size)
    frame = replace(base.frame, height_px=24, width_px=24, crop=(0, 0, 24, 24))
    latent = replace(base.latent, mean=(0.0,) * size.latent_size, std=(1.0,) * size.latent_size)
    provenance = replace(base.provenance, checkpoint_sha256=about.weights.sha256)
    return path, replace(base, model=facts, frame=frame, latent=latent, provenance=provenance)


def library(version: str = "11.0.0.114", name: str = "tensorrt") -> TensorRtModule:
    numbers = tuple(map(int, version.split(".")))
    return TensorRtModule(types.SimpleNamespace(__version__=version), name, numbers)  # type: ignore[arg-type]


def convert(made, tmp_path, graph="encode", precision="fp16", **changes):
    path, manifest = made
    family = Family(
        f"trt-op23-{precision}",
        23,
        dict.fromkeys(("encode", "forecast"), precision),
        ("x86-trt11",),
    )
    given = {"library": library(), "options": BuildOptions(64, 2, "torch-tensorrt"), "gpu": "H100"}
    given = {**given, **changes}
    return torch_tensorrt.convert(
        path,
        manifest,
        family,
        graph,
        log=tmp_path / "build.log",
        **given,
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("graph", ["encode", "forecast"])
def test_the_exported_program_computes_the_graph(install, made, tmp_path, graph, precision):
    route = Route(names_outputs=False)
    install(route)
    found = convert(made, tmp_path, graph, precision)
    (call,) = route.calls
    model, _ = checkpoints.load(made[0])
    model.eval()
    torch.manual_seed(1)
    inputs = [
        torch.randint(0, 255, t.shape, dtype=t.dtype)
        if t.dtype == torch.uint8
        else torch.randn_like(t)
        for t in call["arg_inputs"]
    ]
    with torch.no_grad():
        ours = call["exported_program"].module()(*inputs)
        if graph == "encode":
            theirs = model.encode(inputs[0][None])[0]
        else:
            theirs = model.rollout(*(x[None] for x in inputs))[0]
    assert torch.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999
    assert found.plan == PLAN
    assert found.renamed == {"output0": {"encode": "z", "forecast": "z_future"}[graph]}


def test_options_are_passed_on_and_traps_avoided(install, made, tmp_path):
    route = Route(names_outputs=True)
    install(route)
    found = convert(made, tmp_path)
    (call,) = route.calls
    assert call["workspace_size"] == 64 << 20
    assert call["optimization_level"] == 2
    assert call["require_full_compilation"] is True
    assert call["attn_bias_is_causal"] is False
    assert call["output_binding_names"] == ["z"]
    assert found.renamed == {}
    assert found.inputs == {"frame_hwc_u8": ("uint8", (24, 24, 3))}
    assert found.outputs == {"z": ("float32", (16,))}


def test_old_versions_keep_the_types_and_kernel_times_stay_private(install, made, tmp_path):
    route = Route(names_outputs=False)
    route.function = route._with_typing
    install(route)
    convert(made, tmp_path)
    (call,) = route.calls
    assert call["use_explicit_typing"] is True
    assert Path(call["timing_cache_path"]).parent == tmp_path


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"gpu": None}, EngineError, "needs a GPU"),
        ({"library": library("10.16.2.10")}, EngineError, r"11\.0\.0\.114.*TensorRT 10\.16\.2\.10"),
        ({"library": library("1.7.1.116", "tensorrt_rtx")}, EngineError, "TensorRT-RTX 1.7.1.116"),
        ({"precision": "int8"}, UsageError, "Q/DQ is in the ONNX graph alone"),
        ({"graph": "imagine"}, UsageError, "no torch form"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_model_is_read(
    install, made, tmp_path, monkeypatch, changes, kind, says
):
    route = Route(names_outputs=False)
    install(route)
    monkeypatch.setattr(checkpoints, "load", lambda path: pytest.fail("the model was read"))
    with pytest.raises(kind, match=says) as caught:
        convert(made, tmp_path, **changes)
    assert "leave --via torch-tensorrt out" in str(caught.value)
    assert not route.calls


def test_without_torch_tensorrt_the_extra_is_named(install, made, tmp_path):
    install(None)
    with pytest.raises(MissingDependency, match=r"jetsight\[torch-tensorrt\]"):
        convert(made, tmp_path)


def test_another_checkpoint_is_refused(install, made, tmp_path):
    install(Route(names_outputs=False))
    path, manifest = made
    other = replace(manifest.provenance, checkpoint_sha256="ab" * 32)
    with pytest.raises(UsageError, match="compiled from abababababab"):
        convert((path, replace(manifest, provenance=other)), tmp_path)


def test_whatever_it_raises_is_one_line(install, made, tmp_path):
    route = Route(names_outputs=False)
    route.fails = AssertionError("Node x\nis not\nsupported")
    install(route)
    with pytest.raises(EngineError, match="cannot compile the graph: Node x is not supported"):
        convert(made, tmp_path)
