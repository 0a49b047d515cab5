"""A recorded dataset of microseconds' work, with actions or states of the test's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from helpers.train.gym_factory import FADE
from jetsight_train.record.collect import collect
from jetsight_train.record.episode import RecordingRecipe

EPISODES, LENGTH, FPS = 12, 12, 5
Change = Callable[[np.ndarray], np.ndarray]

# For `fade_data`: 3 frames of window context fit into its 12 ticks.
RECIPE = """
name = "fade"
license = "Apache-2.0"
[model]
latent_size = 8
history = 2
horizon = 2
[model.conv]
widths = [4, 8]
kernels = [5, 3]
strides = [4, 2]
hidden = 16
[model.predictor]
depth = 1
heads = 1
head_size = 8
mlp = 16
action_hidden = 8
projector = 0
dropout = 0.0
[frame]
camera = [32, 48]
resize = [16, 24]
[timing]
camera_hz = 5.0
action_block = 2
[action]
names = ["action_0", "action_1"]
units = ["", ""]
low = [-1.0, -1.0]
high = [1.0, 1.0]
[objective]
kind = "vicreg"
[optimiser]
steps = 6
batch = 4
learning_rate = 1e-3
warmup_steps = 2
"""


@cache
def _recorded() -> Path:
    folder = Path(mkdtemp(prefix="fade-")) / "data"
    recipe = RecordingRecipe(FADE, EPISODES, LENGTH, 7, "random", height_px=32, width_px=48)
    collect(recipe, folder)
    return folder


def fade_data(folder: Path, *, column: str = "action", change: Change = lambda rows: rows) -> Path:
    """Write the dataset to `folder`, with the rows `[F, n]` of one column changed."""
    shutil.copytree(_recorded(), folder)
    for file in (folder / "data").rglob("*.parquet"):
        table = pq.read_table(file)
        rows = np.stack(table[column].to_numpy()).astype(np.float32)
        kind = table.schema.field(column).type
        values = pa.array(change(rows).astype(np.float32).tolist(), type=kind)
        place = table.schema.get_field_index(column)
        pq.write_table(table.set_column(place, table.schema.field(column), values), file)
    return folder
