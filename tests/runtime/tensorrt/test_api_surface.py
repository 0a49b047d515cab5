"""Only what TensorRT 10.3 and 11 share is used of TensorRT, and the fake has nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from helpers.runtime.tensorrt_factory import Rig, run

from jetsight.tensorrt import backend, execution

FILES = [Path(module.__file__) for module in (backend, execution)]

# Found in the bindings' sources of both releases; per kind of object, and enumerations dotted.
ALLOWED = {
    "trt": {
        "ILogger",
        "Runtime",
        "DataType",
        "ExecutionContextAllocationStrategy",
        "ExecutionContextAllocationStrategy.USER_MANAGED",
        "TensorIOMode",
        "TensorIOMode.INPUT",
        "TensorIOMode.OUTPUT",
        "TensorLocation",
        "TensorLocation.DEVICE",
        "TensorLocation.HOST",
    },
    "runtime": {
        "deserialize_cuda_engine",
        "max_threads",
        "engine_host_code_allowed",
        "load_runtime",
    },
    "cuda_engine": {
        "num_io_tensors",
        "get_tensor_name",
        "get_tensor_mode",
        "get_tensor_shape",
        "get_tensor_dtype",
        "get_tensor_location",
        "get_tensor_format_desc",
        "get_tensor_profile_shape",
        "num_aux_streams",
        "hardware_compatibility_level",
        "refittable",
        "device_memory_size_v2",
        "create_execution_context",
        "create_engine_inspector",
    },
    "context": {
        "set_input_shape",
        "get_tensor_shape",
        "get_tensor_strides",
        "infer_shapes",
        "set_tensor_address",
        "set_output_allocator",
        "set_device_memory",
        "set_optimization_profile_async",
        "set_aux_streams",
        "set_input_consumed_event",
        "persistent_cache_limit",
        "nvtx_verbosity",
        "enqueue_emits_profile",
        "report_to_profiler",
        "execute_async_v3",
    },
}


def _used(source: str) -> set[tuple[str, str]]:
    """What is used of objects called like TensorRT's: kind and attribute, `trt.A.B` in full."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        path = ast.unparse(node)
        parts = path.split(".")
        if parts[0] == "trt":
            found.add(("trt", ".".join(parts[1:])))
        elif "(" not in path and len(parts) > 1 and parts[-2] in ALLOWED:
            found.add((parts[-2], parts[-1]))
    return found


def _foreign(source: str) -> set[tuple[str, str]]:
    return {(kind, name) for kind, name in _used(source) if name not in ALLOWED[kind]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_what_both_releases_share_is_used(path: Path) -> None:
    source = path.read_text()
    assert _foreign(source) == set()
    # Nothing reaches TensorRT under another name.
    tree = ast.parse(source)
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & {"device_memory_size", "execute_v2", "execute_async_v2", "get_binding_shape"}
    assert "hasattr" not in source
    assert "getattr" not in source


def test_the_walk_sees_what_it_must() -> None:
    """Negative control: each of these is gone in 11 or absent in 10.3."""
    assert _used(FILES[1].read_text()) >= {
        ("trt", "Runtime"),
        ("runtime", "deserialize_cuda_engine"),
        ("cuda_engine", "device_memory_size_v2"),
        ("context", "execute_async_v3"),
    }
    for line in (
        "cuda_engine.device_memory_size",
        "self.cuda_engine.create_execution_context_without_device_memory()",
        "plan.context.execute_async_v2([], 0)",
        "trt.BuilderFlag.FP16",
        "shared.runtime.deserialize_engine(x)",
        "trt.nptype(kind)",
    ):
        assert _foreign(line), line


def test_the_fake_has_only_names_that_the_real_one_has() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    rig = Rig()
    engine = rig.doubler()
    assert run(engine, 1, 2, 3) == [2, 4, 6]
    (runtime,) = rig.trt.runtimes
    plan = engine._plan
    for fake, real, kind in (
        (runtime, trt.Runtime, "runtime"),
        (plan.cuda_engine, trt.ICudaEngine, "cuda_engine"),
        (plan.context, trt.IExecutionContext, "context"),
    ):
        names = {name for name in dir(fake) if not name.startswith("_")}
        assert names <= ALLOWED[kind]
        assert all(hasattr(real, name) for name in names)
    for name in ("TensorLocation", "TensorIOMode", "ExecutionContextAllocationStrategy"):
        real_enum, fake_enum = getattr(trt, name), getattr(rig.trt, name)
        assert {member.name for member in fake_enum} <= set(real_enum.__members__)
    assert {member.name for member in rig.trt.DataType} <= set(trt.DataType.__members__)
