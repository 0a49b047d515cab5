"""Columns of a recording's state, as recipes name them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProbeColumn:
    """A recorded column; one in `rad` or `deg` becomes its cosine and sine."""

    column: str
    unit: str

    @property
    def is_angle(self) -> bool:
        """Whether its values come back to where they began after a turn."""
        return self.unit in ("rad", "deg")
