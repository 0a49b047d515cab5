"""Models of the benchmark: one that was trained, and LeWorldModel's geometry with random weights.

Shapes: n frames, h, w frame size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from jetsight.bundle.model_spec import ActionSpec, TimingSpec
from jetsight.datasets.open import open_dataset
from jetsight.engine import NDArray
from jetsight_compile.bench.contestants import Subject
from jetsight_compile.config.targets import TARGETS
from jetsight_compile.export.onnx_export import export_encode
from jetsight_compile.quantize.schemes import cpu_int8
from jetsight_train import checkpoint as checkpoints
from jetsight_train.model.world_model import WorldModel
from jetsight_train.recipe import Recipe, load_recipe

POOL = 8  # different frames, encoded in turn
_CALIBRATION = 32


def trained_subject(checkpoint: Path, data: Path) -> Subject:
    """Load the model of a checkpoint, and frames of its size.

    Raises:
        CheckpointError: the checkpoint was refused.
        DataError: the dataset is unreadable.
    """
    model, about = checkpoints.load(checkpoint)
    return _subject(about.name, model, data)


def recipe_subject(name: str, data: Path) -> Subject:
    """Build a model of a shipped recipe with random weights, as fast as a trained one.

    Raises:
        UsageError: there is no such recipe.
        DataError: the dataset is unreadable.
    """
    recipe = load_recipe(name)
    torch.manual_seed(0)
    return _subject(recipe.name, _untrained(recipe).eval(), data)


def _untrained(recipe: Recipe) -> WorldModel:
    action, size = recipe.action, len(recipe.action.names)
    return WorldModel(
        recipe.model,
        recipe.frame.spec,
        TimingSpec(recipe.timing.camera_hz, recipe.timing.action_block),
        ActionSpec(
            names=action.names,
            units=action.units,
            low=action.low,
            high=action.high,
            rate_limit_per_s=action.rate_limit_per_s,
            neutral=action.neutral or (0.0,) * size,
            mean=(0.0,) * size,
            std=(1.0,) * size,
        ),
    )


def _subject(name: str, model: WorldModel, data: Path) -> Subject:
    frames = recorded_frames(data, _CALIBRATION, model.frame.height_px, model.frame.width_px)
    graph = export_encode(model, TARGETS["cpu"].style)
    samples = [{"frame_hwc_u8": frame} for frame in frames]
    quantized = cpu_int8(graph, samples, methods=("max",))  # the method does not change speed
    pair = {"cpu-fp32": graph, "cpu-int8": quantized.model}
    graphs = {family: each.SerializeToString() for family, each in pair.items()}
    return Subject(name, model, graphs, frames[:: len(frames) // POOL][:POOL])


def recorded_frames(data: Path, count: int, height_px: int, width_px: int) -> NDArray:
    """Select frames `[n, h, w, 3]` of the first episode, enlarged by repeating pixels if needed.

    Raises:
        DataError: the dataset is unreadable.
    """
    frames = open_dataset(data).episode(0).frames
    chosen = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    rows = np.arange(height_px) * chosen.shape[1] // height_px
    columns = np.arange(width_px) * chosen.shape[2] // width_px
    return np.ascontiguousarray(chosen[:, rows][:, :, columns])
