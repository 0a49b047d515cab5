"""What heads learn: values of the probe at a tick, and hazards of an action block.

Shapes: F ticks, M blocks, B ticks per block, P probe quantities, G hazards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jetsight_train.data.action_blocks import IntArray
from jetsight_train.data.encoded import FloatArray, Tracks, check_known
from jetsight_train.heads.recipe import HeadsRecipe, ProbeColumn
from jetsight_train.model.hazard_rules import Columns, HazardRule


def check_columns(recipe: HeadsRecipe, tracks: Tracks) -> None:
    """Refuse episodes that do not record what a recipe reads.

    Raises:
        DataError: a column is missing; the nearest one is named.
    """
    for name in recipe.columns:
        check_known(name, list(tracks.columns), tracks.recording.name)


def quantities(
    probe: Sequence[ProbeColumn], columns: Columns
) -> tuple[tuple[str, ...], tuple[str, ...], FloatArray]:
    """Names, units and values `[F, P]` of what a probe reads; an angle is a cosine and a sine."""
    names, units, values = [], [], []
    for entry in probe:
        column = columns[entry.column]
        if entry.is_angle:
            angle = np.deg2rad(column) if entry.unit == "deg" else column
            names += [f"cos {entry.column}", f"sin {entry.column}"]
            units += ["1", "1"]
            values += [np.cos(angle), np.sin(angle)]
        else:
            names.append(entry.column)
            units.append(entry.unit)
            values.append(column)
    return tuple(names), tuple(units), np.stack(values, axis=1).astype(np.float32)


def block_hazards(
    rules: Sequence[HazardRule], columns: Columns, rows: IntArray, block: int
) -> npt.NDArray[np.bool_]:
    """Whether each hazard happens at any tick that a block leads to: `[M, G]`.

    A block from row r leads to the ticks r + 1 ... r + B; what is the case at r is not its doing.
    """
    labels = []
    for rule in rules:
        count = np.concatenate([[0], np.cumsum(rule.happens(columns))])
        labels.append(count[rows + block + 1] > count[rows + 1])
    return np.stack(labels, axis=1)
