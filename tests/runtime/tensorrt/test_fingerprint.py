"""Everything an engine depends on is in its key; the facts come from the machine."""

from __future__ import annotations

import types
from dataclasses import fields, replace

import pytest
from helpers.runtime.engine_factory import ORIN, make_plan, make_record

from jetsight.machine import system
from jetsight.machine.jetson import Jetson
from jetsight.tensorrt import fingerprint
from jetsight.tensorrt.bindings import TensorRtModule
from jetsight.tensorrt.fingerprint import BuildOptions, Fingerprint, HostSpec, host_spec

PRINT = make_record(make_plan()).fingerprint


@pytest.mark.parametrize("name", [field.name for field in fields(HostSpec)])
def test_every_fact_of_the_machine_is_in_the_key(name: str) -> None:
    value = getattr(ORIN, name)
    other = replace(ORIN, **{name: value + 1 if isinstance(value, int) else "other"})
    assert replace(PRINT, host=other).key != PRINT.key
    assert replace(PRINT, host=other).host_key != PRINT.host_key
    assert bool(ORIN.differences(other)) == (name != "power_mode")


def test_a_driver_update_within_its_major_version_keeps_engines() -> None:
    other = replace(ORIN, driver="540.5.1")
    assert ORIN.differences(other) == []
    assert replace(PRINT, host=other).key == PRINT.key
    assert ORIN.differences(replace(ORIN, driver="580.4.0")) == ["driver 540.4.0 | 580.4.0"]


def test_a_driver_that_is_not_said_yet_is_the_one_of_the_l4t_release() -> None:
    """Its module may be loaded after the service that runs the engines has started."""
    early = replace(ORIN, driver=None)
    assert ORIN.differences(early) == early.differences(ORIN) == []
    assert ORIN.differences(replace(early, l4t="36.5.0")) == ["l4t 36.4.3 | 36.5.0"]
    card = replace(ORIN, l4t=None)  # elsewhere drivers come alone
    assert card.differences(replace(card, driver=None)) == ["driver 540.4.0 | none"]


@pytest.mark.parametrize(
    "changes",
    [
        {"graph_sha256": "cd" * 32},
        {"family": "trt-op20-int8"},
        {"precision": "int8"},
        {"options": BuildOptions(workspace_mb=64)},
        {"options": BuildOptions(level=5)},
        {"options": BuildOptions(via="torch-tensorrt")},
    ],
)
def test_graph_recipe_and_options_are_in_the_key(changes) -> None:
    assert replace(PRINT, **changes).key != PRINT.key
    assert replace(PRINT, **changes).host_key == PRINT.host_key


def test_equal_facts_make_an_equal_key() -> None:
    twin = Fingerprint(PRINT.graph_sha256, PRINT.family, "fp16", BuildOptions(), replace(ORIN))
    assert twin.key == PRINT.key
    assert len(PRINT.key) == 32


def test_differences_are_built_for_and_found() -> None:
    found = replace(ORIN, gpu="Thor", sm="11.0", library="tensorrt_rtx", l4t=None)
    assert ORIN.differences(found) == [
        "library TensorRT | TensorRT-RTX",
        "gpu Orin | Thor",
        "sm 8.7 | 11.0",
        "l4t 36.4.3 | none",
    ]


def test_facts_come_from_driver_and_board(monkeypatch) -> None:
    gpu = system.Gpu("Orin", (15616 << 20) + 5_000_000, "8.7", 16, True)
    board = Jetson("Orin NX", "36.4.3", "6.2", "10.3", "0")
    monkeypatch.setattr(system, "cuda", lambda root: system.Cuda("540.4.0", "12.6", (gpu,), None))
    monkeypatch.setattr(fingerprint, "jetson", lambda root: board)
    library = TensorRtModule(types.SimpleNamespace(), "tensorrt", (10, 3, 0, 26))
    assert host_spec(library) == ORIN


@pytest.mark.parametrize("megabytes", [3437, 7620, 15656, 30697, 62841, 125772, 8188, 24564])
def test_a_boot_that_reserves_more_or_less_keeps_engines(monkeypatch, megabytes) -> None:
    """Memory of the Jetson modules and of two cards; 100 MB are more than kernels differ by."""
    library = TensorRtModule(types.SimpleNamespace(), "tensorrt", (10, 3, 0, 26))

    def facts(size_mb: int) -> HostSpec:
        gpu = system.Gpu("Orin", size_mb << 20, "8.7", 16, True)
        cuda = system.Cuda("540.4.0", "12.6", (gpu,), None)
        monkeypatch.setattr(system, "cuda", lambda root: cuda)
        return host_spec(library)

    assert facts(megabytes - 100) == facts(megabytes) == facts(megabytes + 100)
    assert facts(megabytes) != facts(2 * megabytes)  # another module


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({}, "orin-jp6"),
        ({"l4t": "39.2.0"}, "orin-jp7"),
        ({"l4t": "38.2.0", "sm": "11.0"}, "thor-jp70"),
        ({"l4t": "39.2.0", "sm": "11.0"}, "thor-jp7"),
        ({"l4t": None}, "x86-trt10"),
        ({"l4t": None, "version": "11.4.0.106"}, "x86-trt11"),
        ({"l4t": None, "library": "tensorrt_rtx"}, "rtx"),
    ],
)
def test_the_compile_target_of_a_machine(changes, target) -> None:
    assert replace(ORIN, **changes).target == target
