"""The shipped model and its data: their folders, and how the demo compiles them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jetsight_train
from jetsight.bundle.bundle import Bundle
from jetsight.datasets.dataset import FeatureMap
from jetsight.errors import CheckpointError, DataError
from jetsight_compile.pipeline.compile import CompileRequest, compile_checkpoint
from jetsight_compile.planner_graph import settings

FAMILY = "cpu-int8"
SHIPPED = "pusht-nano"
_DATA = Path("calib_data/pusht")
_METHODS = ("max", "percentile")  # entropy takes longest and was never the best here


def find_checkpoint(given: Path | None) -> Path:
    """Return the checkpoint: the one given, or the shipped one.

    Raises:
        CheckpointError: none was given and this installation ships none.
    """
    if given is not None:
        return given
    shipped = Path(jetsight_train.__file__).parent / "zoo" / SHIPPED
    if not (shipped / "model.json").is_file():
        raise CheckpointError(
            f"{shipped} is not there, expected the shipped {SHIPPED}; install jetsight again, or "
            "give a checkpoint folder with --checkpoint"
        )
    return shipped


def find_data(given: Path | None) -> Path:
    """Return the dataset: the one given, else `calib_data/pusht` here or beside the sources.

    Raises:
        DataError: none was given and there is none in either place.
    """
    if given is not None:
        return given
    sources = Path(__file__).resolve().parents[3]
    for folder in (_DATA, sources / _DATA):
        if (folder / "meta" / "info.json").is_file():
            return folder
    raise DataError(
        f"no dataset in {_DATA} or {sources / _DATA}; run the demo from a checkout of the "
        "repository, or name a recorded dataset with --data"
    )


def compile_model(
    checkpoint: Path,
    data: Path,
    target: Path,
    say: Callable[[str], None] = lambda stage: None,
    features: FeatureMap | None = None,
) -> Bundle:
    """Compile to the one family of the demo, with one planner; an older bundle is replaced.

    Raises:
        CheckpointError, DataError: an input is unusable.
        GateError: the quantized graphs do not do what the float model does.
        StorageError: `target` is something that is not a bundle.
    """
    request = CompileRequest(
        checkpoint,
        data,
        target,
        precisions=(FAMILY.removeprefix("cpu-"),),
        methods=_METHODS,
        force=True,
        planners=settings.DEFAULT[:1],
        features=features or FeatureMap(),
        strict=True,  # the demo shows this one family with its planner
    )
    return compile_checkpoint(request, say).bundle
