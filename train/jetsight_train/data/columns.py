"""Recorded columns that recipes name, and the quantities made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jetsight.errors import DataError, did_you_mean
from jetsight_train.model.hazard_rules import Columns

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ProbeColumn:
    """A recorded column to predict; an angle in `rad` or `deg` gives its cosine and sine.

    Attributes:
        column: name of a state or of another recorded number per tick.
        unit: its unit; `rad` or `deg` for an angle that repeats after a turn.
    """

    column: str
    unit: str

    @property
    def is_angle(self) -> bool:
        """True for an angle, whose values repeat after a turn."""
        return self.unit in ("rad", "deg")


def quantities(
    probe: Sequence[ProbeColumn], columns: Columns
) -> tuple[tuple[str, ...], tuple[str, ...], FloatArray]:
    """Make names, units and values `[F, P]` of quantities; an angle gives its cosine and sine."""
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


def check_known(name: str, known: Sequence[str], where: str) -> None:
    """Refuse the name of a column that is missing, and suggest the nearest one.

    Raises:
        DataError: `name` is not one of `known`.
    """
    if name in known:
        return
    hint = did_you_mean(name, known, "it has")
    raise DataError(f"{where}: no column {name!r} of one number per tick; {hint}")
