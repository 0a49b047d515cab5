"""Nothing that is refused ever reaches TensorRT's deserializer, which may run what it reads."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from helpers.runtime.engine_factory import ORIN, make_plan, make_record
from helpers.runtime.fake_builder import FakeTensorRT

from jetsight.errors import EngineError
from jetsight.tensorrt import backend as backend_module
from jetsight.tensorrt.backend import TensorRtBackend
from jetsight.tensorrt.engine_cache import EngineStore
from jetsight.tensorrt.fingerprint import HostSpec

GRAPH = b"an ONNX graph"
PLAN = make_plan()


class Spied:
    """A backend over a store with one engine, a TensorRT that only counts, and a host to choose."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trt, self.store, self.host = FakeTensorRT(), EngineStore(tmp_path / "engines"), ORIN
        self.store.add(PLAN, make_record(PLAN, graph_sha256=hashlib.sha256(GRAPH).hexdigest()), "")
        (self.path,) = self.store.root.glob("*/engine.plan")
        monkeypatch.setattr(backend_module, "host_spec", lambda library: self.host)
        self.loaded: list[bytes] = []  # the one way to the deserializer
        monkeypatch.setattr(
            TensorRtBackend, "load_plan", lambda _, plan, renamed=None: self.loaded.append(plan)
        )

    def load(self) -> None:
        device: object = object()  # touched by nothing that is refused
        TensorRtBackend(
            device=device,
            store=self.store,
            library=self.trt.library(),  # type: ignore[arg-type]
        ).load(GRAPH)

    def refused(self, says: str) -> None:
        with pytest.raises(EngineError, match=says) as caught:
            self.load()
        assert "jetsight build BUNDLE" in str(caught.value)
        assert self.loaded == self.trt.deserialized == []


@pytest.fixture
def spied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spied:
    return Spied(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", [f.name for f in fields(HostSpec) if f.name != "power_mode"])
def test_another_machine(spied, name) -> None:
    value = getattr(ORIN, name)
    spied.host = replace(ORIN, **{name: value + 1 if isinstance(value, int) else "9.9.9.9"})
    spied.refused(r"built for \| found: ")


def _cut(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size)


def _flip(bit: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray(PLAN)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)

    return damage


CUTS = [0, 1, 4, 8, 16, 24, 27, 28, *random.Random(3).sample(range(len(PLAN)), 50)]
FLIPS = random.Random(4).sample(range(8 * len(PLAN)), 50)


def test_a_damaged_engine(spied) -> None:
    for damage in [*map(_cut, CUTS), *map(_flip, FLIPS)]:
        spied.path.write_bytes(PLAN)
        damage(spied.path)
        spied.refused("its record says|does not match the SHA-256")


def test_an_engine_swapped_for_another(spied) -> None:
    spied.path.write_bytes(make_plan(body=b"evil" * 70))
    spied.refused("does not match the SHA-256")


def test_no_engine_at_all(spied) -> None:
    spied.path.unlink()
    spied.refused("No such file")


def test_the_spy_sees_what_passes(spied) -> None:
    """The negative control: an engine that fits does reach the deserializer."""
    spied.load()
    assert spied.loaded == [PLAN]
