"""Labels of the hazard head, and the check that episodes record the columns of a recipe.

Shapes: M blocks, B ticks per block, G hazards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jetsight_train.data.action_blocks import IntArray
from jetsight_train.data.columns import check_known
from jetsight_train.data.encoded import Tracks
from jetsight_train.heads.recipe import HeadsRecipe
from jetsight_train.model.hazard_rules import Columns, HazardRule


def check_columns(recipe: HeadsRecipe, tracks: Tracks) -> None:
    """Refuse episodes without a column of the recipe.

    Raises:
        DataError: a column is missing; the nearest one is named.
    """
    for name in recipe.columns:
        check_known(name, list(tracks.columns), tracks.recording.name)


def block_hazards(
    rules: Sequence[HazardRule], columns: Columns, rows: IntArray, block: int
) -> npt.NDArray[np.bool_]:
    """Label each block with the hazards that happen at any of its ticks: `[M, G]`.

    A block from row r leads to the ticks r + 1 ... r + B; it cannot change tick r.
    """
    labels = []
    for rule in rules:
        # Running counts, so that a block needs two look-ups for any number of ticks.
        count = np.concatenate([[0], np.cumsum(rule.happens(columns))])
        labels.append(count[rows + block + 1] > count[rows + 1])
    return np.stack(labels, axis=1)
