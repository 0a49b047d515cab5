"""One plan from a held-out frame: from what the camera saw to what it saw one horizon later.

It is what `jetsight imagine` does, so that a reader of the page can repeat it.

Shapes: H horizon, D latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from jetsight.bundle.bundle import Bundle
from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.plan_report import figure
from jetsight.plan_report.report import PlanReport, as_json, distance
from jetsight.plan_report.run import OfflinePlanArgs, plan_once
from jetsight_compile.demo.forecast_images import choose_rows
from jetsight_compile.demo.stream import StreamResult
from jetsight_compile.pipeline.shipped import FAMILY

# `jetsight imagine --json` has them.
_ARRAYS = ("z_future", "candidate_costs", "candidate_violations", "actions")


@dataclass(frozen=True)
class Imagined:
    """A plan, its report and its picture.

    Args:
        report: of the plan.
        picture_svg: its figure.
        recorded: squared distance to the goal at the end of the forecast under the actions that
            were really executed, which reached the goal.
    """

    report: PlanReport
    picture_svg: bytes
    recorded: float

    def facts(self) -> dict[str, Any]:
        """Return the part of `report.json` about the plan."""
        found = as_json(self.report)
        kept = {name: value for name, value in found.items() if name not in _ARRAYS}
        return {
            **kept,
            "samples": self.report.facts.samples,
            "distance_recorded": self.recorded,
        }


def imagine_once(
    bundle: Bundle,
    data: RecordedDataset,
    shown: StreamResult,
    backend: str | None = None,
    features: FeatureMap | None = None,
) -> Imagined:
    """Plan from the frame of the stream that most change follows, to the frame one horizon later.

    The choice looks at what the camera saw, never at how good a plan is.

    Args:
        bundle: with a planner in the family the demo shows.
        data: what was streamed, which is also the library of the picture.
        shown: the stream.
        backend: None for the preferred one.
        features: that `data` was opened with.

    Raises:
        JetsightError: the bundle has no planner, or an engine fails.
    """
    watched, (row,) = shown.watched, choose_rows(shown.errors, 1)
    episode, tick = watched.replay.scenario.place(int(watched.index[row]))
    ahead = watched.spec.horizon * watched.spec.action_block
    wishes = OfflinePlanArgs(
        frame=f"{data.path}#{episode}:{tick}",
        goal=f"{data.path}#{episode}:{tick + ahead}",
        library=data.path,
        family=FAMILY,
        backend=backend,
        features=features or FeatureMap(),
    )
    report, pictures = plan_once(bundle, wishes, _quietly)
    assert report.z_goal is not None  # the goal is an image
    forecast = watched.z_future[row, -1]
    return Imagined(
        report,
        figure.draw(report, pictures, "svg"),
        float(distance(forecast, report.z_goal)),
    )


def _quietly(frames: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda done: None)
