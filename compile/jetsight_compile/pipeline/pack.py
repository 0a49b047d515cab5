"""The last pass: all that a robot must know about the graphs, in one atomic write.

`golden.npz` holds the float model's answers, so a robot proves parity without torch; latent
statistics and surprise quantiles come from the held-out half of the recording.

Shapes: n golden samples, K history, H horizon, A action-block size, D latent size.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jetsight.bundle import golden
from jetsight.bundle.bundle import Bundle, write_bundle
from jetsight.bundle.fallbacks import Fallback
from jetsight.bundle.manifest import (
    GOLDEN,
    Family,
    Gate,
    LatentStats,
    Manifest,
    Provenance,
    SurpriseQuantiles,
    graph_path,
)
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.errors import BundleError, StorageError
from jetsight.storage.atomic import refuse_used
from jetsight_compile.calibration.data import Episodes, Side
from jetsight_compile.planner_graph.signature import head_spec
from jetsight_compile.validate.metrics import rollout, surprise
from jetsight_train.checkpoint import CheckpointDescription
from jetsight_train.model.world_model import WorldModel

GOLDEN_SAMPLES = 4
_TOOLS = ("jetsight", "torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Contents:
    """Everything that goes into one bundle.

    Attributes:
        model: the float model.
        about: description of it in the checkpoint.
        episodes: recorded data that calibrated, and that judged.
        families: in the order they are listed.
        graphs: ONNX bytes by family and graph name.
        gates: verdicts of all families.
        notes: tool versions and choices to add to the provenance.
        planners: of which the families have graphs.
        reference: one iteration of each float planner, for `golden.npz`.
        fallbacks: what failed gates cost.
    """

    model: WorldModel
    about: CheckpointDescription
    episodes: Episodes
    families: Sequence[Family]
    graphs: Mapping[tuple[str, str], bytes]
    gates: Sequence[Gate]
    notes: Mapping[str, str]
    planners: tuple[PlannerSpec, ...] = ()
    reference: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    fallbacks: tuple[Fallback, ...] = ()


def write(target: Path, contents: Contents, *, tar: bool = False, force: bool = False) -> Bundle:
    """Write the bundle in one step and return it opened.

    Args:
        target: its final name.
        contents: the files and what the manifest says of them.
        tar: True writes one archive instead of a folder.
        force: True replaces an older bundle of that name.

    Raises:
        BundleError: the contents do not make a readable bundle.
        StorageError: the name is taken, or the disk is full or not writable.
    """
    files = {graph_path(*place): data for place, data in contents.graphs.items()}
    arrays = _golden(contents.model, contents.episodes.held_out)
    files[GOLDEN] = golden.dump({**arrays, **contents.reference})
    manifest = _manifest(contents)
    if force and target.exists():
        return _replace(target, manifest, files, tar=tar)
    return write_bundle(target, manifest, files, tar=tar)


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a name that could not be written to, before any work.

    Raises:
        StorageError: something is there that may not be replaced.
    """
    if not (force and target.exists()):
        refuse_used(target)
        return
    # With --force only a bundle is replaced: a wrong name must not remove a user's folder.
    try:
        Bundle.open(target)
    except BundleError as error:
        raise StorageError(
            f"{target} is no jetsight bundle, so --force does not replace it ({error}); "
            "choose another name or remove it"
        ) from None


def _replace(target: Path, manifest: Manifest, files: Mapping[str, bytes], *, tar: bool) -> Bundle:
    """Complete the new bundle under another name, then swap; the old one is whole until then."""
    fresh, old = (target.with_name(f".{target.name}.{what}") for what in ("new", "old"))
    # Left behind by a run that was interrupted.
    for leftover in (fresh, old):
        _remove(leftover)
    # Complete before the old one moves; a folder cannot be renamed onto one that is not empty.
    write_bundle(fresh, manifest, files, tar=tar)
    os.rename(target, old)
    try:
        os.rename(fresh, target)
    except OSError:
        # Back, so that a failure leaves the old bundle under its name.
        os.rename(old, target)
        raise
    _remove(old)
    return Bundle.open(target)


def _remove(path: Path) -> None:
    # Of a link only the link goes: what it points to is not part of the bundle.
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _golden(model: WorldModel, held_out: Side) -> dict[str, npt.NDArray[Any]]:
    windows = held_out.windows.thinned(GOLDEN_SAMPLES)
    newest = windows.rows[:, windows.history - 1]
    inputs = [windows.inputs(index) for index in range(len(windows))]
    stacked = {name: np.stack([sample[name] for sample in inputs]) for name in inputs[0]}
    return {
        **held_out.inputs(newest),
        "z": held_out.z[newest],
        **stacked,
        "z_future": rollout(model, windows),
    }


def _manifest(contents: Contents) -> Manifest:
    about, model = contents.about, contents.model
    return Manifest(
        name=about.name,
        model=model.spec,
        frame=about.frame,
        timing=about.timing,
        action=about.action,
        latent=_latent(model, contents.episodes.held_out),
        families=tuple(contents.families),
        gates=tuple(contents.gates),
        provenance=_provenance(contents),
        heads=head_spec(model),
        planners=contents.planners,
        state=about.state,
        fallbacks=contents.fallbacks,
    )


def _latent(model: WorldModel, held_out: Side) -> LatentStats:
    mean, std = held_out.z.mean(0), held_out.z.std(0)
    values = surprise(model, held_out.windows, std)
    # Median and not mean: a few surprising windows must not set the unit of surprise.
    scale = float(np.median(values))
    quantiles = np.quantile(values / scale, (0.5, 0.9, 0.99, 0.999))
    return LatentStats(
        tuple(mean.tolist()), tuple(std.tolist()), scale, SurpriseQuantiles(*quantiles.tolist())
    )


def _provenance(contents: Contents) -> Provenance:
    return Provenance(
        created_utc=_now(),
        tool={**{tool: metadata.version(tool) for tool in _TOOLS}, **contents.notes},
        checkpoint_sha256=contents.about.weights.sha256,
        calibration=contents.episodes.calibration.digest,
        held_out=contents.episodes.held_out.digest,
        license=contents.about.recipe.license,
    )


def _now() -> str:
    """Time of creation, or SOURCE_DATE_EPOCH for builds that must be repeatable."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    utc = datetime.timezone.utc
    when = datetime.datetime.fromtimestamp(int(epoch), utc) if epoch else datetime.datetime.now(utc)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
