"""Models and graphs the compile tests share; an export takes seconds, so each is made once."""

from __future__ import annotations

import onnx
import pytest
from helpers.compile.tiny_model import model_of

from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import export_encode, export_forecast
from jetsight_train.model.world_model import WorldModel

CPU = Style(20)


class ExportCache:
    """Models and graphs, exported on demand and cached; kinds are `conv`, `vit` and `-resize`."""

    def __init__(self) -> None:
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
            export = {"encode": export_encode, "forecast": export_forecast}[name]
            self._graphs[key] = export(self.model(kind), style)
        return self._graphs[key]


@pytest.fixture(scope="session")
def exports() -> ExportCache:
    return ExportCache()
