"""Models and graphs the compile tests share; an export takes seconds, so each is made once."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import onnx
import pytest
from helpers.compile.tiny_model import model_of

from jetsight.storage.atomic import write_file
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import export_encode, export_forecast
from jetsight_compile.pipeline import family as families
from jetsight_train.model.world_model import WorldModel

CPU = Style(20)
REGISTRATION = "torch.onnx._internal.exporter._registration"
EXPORT = {"encode": export_encode, "forecast": export_forecast}


class ExportCache:
    """Models and graphs, exported on demand and cached; kinds are `conv`, `vit` and `-resize`.

    Graphs are kept in `folder`, which the processes of one test run share.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models: dict[str, WorldModel] = {}
        self._graphs: dict[tuple[str, str, Style], onnx.ModelProto] = {}

    def model(self, kind: str) -> WorldModel:
        if kind not in self._models:
            camera = (30, 40) if kind.endswith("-resize") else (24, 24)
            vit = kind.startswith("vit")
            self._models[kind] = model_of(vit=vit, projector=24 if vit else 0, camera=camera)
        return self._models[kind]

    def graph(self, kind: str, name: str, style: Style = CPU) -> onnx.ModelProto:
        """An exported graph; not to be modified."""
        key = (kind, name, style)
        if key not in self._graphs:
            written = "-".join(map(str, (kind, name, *vars(style).values())))
            path = self._folder / f"{written}.onnx"
            if not path.exists():
                graph = EXPORT[name](self.model(kind), style)
                write_file(path, graph.SerializeToString())
            self._graphs[key] = onnx.load(path)
        return self._graphs[key]

    def stand_in(self, patch: pytest.MonkeyPatch, kind: str = "conv") -> None:
        """Let the compiler take these graphs for those of a checkpoint of the same model."""
        for name in EXPORT:
            patch.setitem(families.EXPORTS, name, partial(self._exported, kind, name))

    def _exported(self, kind: str, name: str, model: WorldModel, style: Style) -> onnx.ModelProto:
        assert model.config == self.model(kind).config
        return self.graph(kind, name, style)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> ExportCache:
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "exports"
    folder.mkdir(exist_ok=True)
    return ExportCache(folder)


@pytest.fixture(scope="session", autouse=True)
def _operators_are_read_once() -> Iterator[None]:
    """torch reads 500 operators from their sources for every export, a third of a small one."""
    try:
        registry = importlib.import_module(REGISTRATION).ONNXRegistry
        read = functools.cache(registry.from_torchlib)
    except (ImportError, AttributeError):  # another torch: slower, and nothing else
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "from_torchlib", staticmethod(read))
        yield
