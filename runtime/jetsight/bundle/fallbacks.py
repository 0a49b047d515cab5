"""Parts that a compile gave back to float, or left out, because a gate failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jetsight.errors import BundleError

Action = Literal["blocks", "float", "renamed", "merged", "left_out"]


@dataclass(frozen=True)
class Fallback:
    """One part of a bundle that is not as it was requested (since manifest version 1.3).

    Args:
        family: name under which it was requested.
        graph: its graph; empty for the whole family.
        action: `"blocks"`: some blocks are in float; `"float"`: all of it is; `"renamed"`: the
            family's name says now what is in it; `"merged"`: that is another family of the bundle;
            `"left_out"`: it is not in the bundle.
        detail: the blocks, the float format, or the new name; empty for what was left out.
        reason: the gate that failed, with its value and limit.
    """

    family: str
    graph: str
    action: Action
    detail: str
    reason: str

    def __post_init__(self) -> None:
        if bool(self.detail) == (self.action == "left_out"):
            raise BundleError(
                f"fallback of {self.family!r} is {self.action!r} with the detail {self.detail!r}, "
                "expected one for all but 'left_out'"
            )

    @property
    def partial(self) -> bool:
        """The part is there in its number format, except for some blocks."""
        return self.action == "blocks"

    def text(self) -> str:
        """Describe it in one line."""
        part = f"{self.family} {self.graph}".strip()
        what = {
            "blocks": f"{self.detail} in float",
            "float": f"all in {self.detail}",
            "renamed": f"is now {self.detail}",
            "merged": f"is the same as {self.detail} now, which is in the bundle",
            "left_out": "LEFT OUT",
        }[self.action]
        return f"{part}: {what}, because {self.reason}"
