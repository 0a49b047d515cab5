"""Recorded episodes for compiling: half of them set the quantizer's ranges, half judge the result.

The split is by episode and depends only on their order, so a compile can be repeated. A dataset
that would make the calibration or the verdict worthless is refused: nothing or too little recorded,
another camera, other actions, another rate, frames or actions that never change, and episodes that
occur twice, which would put the same frames on both sides. A recording at a higher rate than the
model's is resampled by the model's rule; one of the size in training serves a model that was given
a larger camera.

Shapes: F frames, W windows, K history, H horizon, A action-block size, D latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from jetsight.bundle.manifest import DataDigest
from jetsight.bundle.model_spec import FrameSpec
from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.datasets.fit import RecordingSpec, check_dataset_fits
from jetsight.datasets.open import open_for, say_notes
from jetsight.datasets.resampled import at_rate
from jetsight.errors import DataError
from jetsight_compile.calibration.camera_frames import EmbeddedFrames, FrameRows
from jetsight_train.data.columns import FloatArray
from jetsight_train.data.encoded import encode_frames
from jetsight_train.data.windows import Recording, WindowSampler, read_recording, split
from jetsight_train.model.world_model import WorldModel

NDArray = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]

# Layers behind the flattened map get one row per frame, and with 32 frames their ranges clip one
# new frame in ten; NVIDIA recommends 500 images, but across a whole domain.
CALIBRATION_FRAMES, CALIBRATION_WINDOWS = 256, 128
# A worst percentile needs a hundred samples; drift is an average and converges earlier.
GATE_FRAMES, GATE_WINDOWS = 200, 100
# Below this a quantile of surprise or a range is noise.
FEWEST_FRAMES, FEWEST_WINDOWS = 32, 16
# A codec turns one picture into slightly different frames: of frozen PushT, mosaics and white noise
# no pixel changed by more than 26 levels, in 40 to 200 frames. In recorded PushT episodes 5 % of
# the pixels and more change by over 32.
_CODEC_LEVELS, _MOVING_SHARE = 32, 0.001
_ENCODE_BATCH = 64


@dataclass(frozen=True)
class CalibrationWindows:
    """Inputs of `forecast` from recorded windows, with the latents that followed.

    Attributes:
        rows: `[W, K+H]` rows of the recording, one action block apart.
        z: `[W, K+H, D]` float latents of those frames.
        blocks: `[W, K-1+H, A]` action blocks executed between them.
        history: K.
    """

    rows: npt.NDArray[np.int64]
    z: F32
    blocks: F32
    history: int

    def inputs(self, index: int) -> dict[str, F32]:
        """Return the inputs of `forecast` for one window; `a_hist` only if K is above 1."""
        newest, blocks = self.history - 1, self.blocks[index]
        past = {"a_hist": blocks[:newest]} if newest else {}
        return {"z_hist": self.z[index, : newest + 1], **past, "actions": blocks[newest:]}

    def __len__(self) -> int:
        return len(self.rows)

    def thinned(self, most: int) -> CalibrationWindows:
        """Select at most `most` windows, evenly spread."""
        rows = spread(len(self), most)
        return CalibrationWindows(self.rows[rows], self.z[rows], self.blocks[rows], self.history)


@dataclass(frozen=True)
class Side:
    """One side of the split.

    Attributes:
        frames_u8: `[F, *frame]` every frame of its episodes, by row.
        z: `[F, D]` their latents by the float model.
        windows: every window of its episodes.
        digest: identity of its episodes, for the manifest.
        states: `[F, s]` the states that the model reads; None for a model without.
    """

    frames_u8: FrameRows
    z: F32
    windows: CalibrationWindows
    digest: DataDigest
    states: F32 | None = None

    def inputs(self, rows: npt.NDArray[np.int64]) -> dict[str, NDArray]:
        """Return the inputs of `encode` at some rows, by name: `[len(rows), ...]` each."""
        frames = {"frame_hwc_u8": self.frames_u8[rows]}
        return frames if self.states is None else {**frames, "state": self.states[rows]}


@dataclass(frozen=True)
class Episodes:
    """Both sides of a recorded dataset."""

    calibration: Side
    held_out: Side


def load_episodes(
    path: Path,
    model: WorldModel,
    features: FeatureMap | None = None,
    trained: FrameSpec | None = None,
) -> Episodes:
    """Read, check, split and encode a recorded dataset.

    Args:
        path: of the dataset.
        model: that it calibrates.
        features: which features are actions, states and frames, where that is not clear.
        trained: frame of training, of a model that was given a larger camera; recordings of that
            size serve as well.

    Raises:
        DataError: the dataset cannot be read, does not fit the model, or is worthless for the
            reasons in the module's docstring.
    """
    # The metadata first, so that a dataset that does not fit costs no decoding.
    recording = read_recording(open_recording(path, model, features, trained))
    _check_content(recording, path)
    halves, episodes = split(recording), len(recording.starts) - 1
    numbers = (tuple(range(0, episodes, 2)), tuple(range(1, episodes, 2)))
    return Episodes(*(_side(h, n, path, model) for h, n in zip(halves, numbers, strict=True)))


def samples(inputs: Mapping[str, NDArray]) -> list[dict[str, NDArray]]:
    """Take stacked inputs of a graph apart, one sample after the other."""
    return [dict(zip(inputs, values, strict=True)) for values in zip(*inputs.values(), strict=True)]


def spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """Select at most `most` of `count` indices, evenly spread and in order."""
    # Both ends are included, which a stride would miss.
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def open_recording(
    path: Path,
    model: WorldModel,
    features: FeatureMap | None = None,
    trained: FrameSpec | None = None,
) -> RecordedDataset:
    """Open a dataset at the model's rate; refuse one that cannot calibrate it, by its metadata.

    Raises:
        DataError: unreadable, of another camera, too low a rate or another robot, or of fewer than
            two episodes.
    """
    wanted = model.recording_spec
    dataset = at_rate(open_for(path, wanted, features), wanted.hz, model.action.resample)
    if trained is not None and _size(dataset.spec) == (trained.height_px, trained.width_px):
        wanted = replace(wanted, height_px=trained.height_px, width_px=trained.width_px)
    check_dataset_fits(path, dataset.spec, wanted)
    dataset.verify()
    say_notes(dataset)
    if len(dataset) < 2:
        raise DataError(
            f"{path}: {len(dataset)} episodes; compiling needs at least 2, one to calibrate with "
            "and one held out to judge by: record more with `jetsight collect`"
        )
    return dataset


def _size(spec: RecordingSpec) -> tuple[int, int]:
    return spec.height_px, spec.width_px


def _check_content(recording: Recording, path: Path) -> None:
    by_actions: dict[bytes, dict[int, tuple[int, int]]] = {}
    moving: NDArray = np.zeros(max(1, len(recording.cameras)), np.bool_)
    for index, (start, stop) in enumerate(_spans(recording)):
        frames, actions = recording.frames_u8[start:stop], recording.actions[start:stop]
        here = _moving(frames)
        moving |= here
        # One camera of several may rightly see nothing for an episode.
        if not here.any():
            raise DataError(
                f"{path}: the picture stays the same in all {len(frames)} frames of episode "
                f"{index}; a frozen camera calibrates nothing: remove it or record it again"
            )
        # Frames are compared where actions, and so lengths, are equal: all pairs take too long.
        for before, (first, last) in by_actions.setdefault(actions.tobytes(), {}).items():
            if _same(recording.frames_u8[first:last], frames):
                raise DataError(
                    f"{path}: episodes {before} and {index} have the same content, so what "
                    "calibrates would also judge; remove one of them"
                )
        by_actions[actions.tobytes()][index] = (start, stop)
    still = [name for name, moved in zip(recording.cameras, moving, strict=False) if not moved]
    if still:
        raise DataError(
            f"{path}: the picture of camera {still[0]!r} stays the same in every episode; a frozen "
            "camera calibrates nothing: record it again, or train without it"
        )
    if (recording.actions == recording.actions[0]).all():
        raise DataError(
            f"{path}: the action is the same in all {len(recording.actions)} rows; the forecast "
            "cannot be calibrated without actions that vary: record a moving robot"
        )


def _same(a_u8: NDArray, b_u8: NDArray) -> bool:
    """Return whether two episodes of equal actions have equal frames, apart from the codec."""
    return all((_moved(a)(b) < _MOVING_SHARE).all() for a, b in zip(a_u8, b_u8, strict=True))


def _moving(frames_u8: NDArray) -> NDArray:
    """Return whether the picture of each camera changes in an episode: `[cameras]`."""
    # Against the first frame, so that slow motion adds up until it is seen.
    share, moving = _moved(frames_u8[0]), np.zeros(1, np.bool_)
    for frame_u8 in frames_u8:
        moving = moving | (share(frame_u8) >= _MOVING_SHARE)
        if moving.all():
            break
    return moving


def _moved(first_u8: NDArray) -> Callable[[NDArray], NDArray]:
    """Return a function: the share of pixels per camera that differ by more than a codec."""
    # Signed, because a difference of uint8 wraps around below zero.
    before = first_u8.astype(np.int16)

    def share(frame_u8: NDArray) -> NDArray:
        off = np.abs(frame_u8 - before).max(axis=-1) > _CODEC_LEVELS
        return np.atleast_1d(off.mean(axis=(-2, -1)))

    return share


def _spans(recording: Recording) -> list[tuple[int, int]]:
    return list(zip(recording.starts[:-1], recording.starts[1:], strict=True))


def _side(half: Recording, numbers: tuple[int, ...], path: Path, model: WorldModel) -> Side:
    config = model.config
    sampler = WindowSampler(half, config.history + config.horizon, model.timing.action_block)
    rows = sampler.rows(sampler.firsts)
    if len(half.frames_u8) < FEWEST_FRAMES or len(rows) < FEWEST_WINDOWS:
        raise DataError(
            f"{path}: episodes {list(numbers)} hold {len(half.frames_u8)} frames and {len(rows)} "
            f"windows; each half of the split needs at least {FEWEST_FRAMES} and "
            f"{FEWEST_WINDOWS}: record more or longer episodes"
        )
    states = half.states_of(model.recording_spec.state_names)
    frames_u8: FrameRows = half.frames_u8
    if _size(half.spec) != _size(model.recording_spec):
        frames_u8 = EmbeddedFrames(half.frames_u8, model.frame)
    z = _encoded(model, frames_u8, states)
    windows = CalibrationWindows(rows, z[rows], sampler.blocks(rows).numpy(), config.history)
    digest = DataDigest(half.digest, len(half.frames_u8), numbers, path.name)
    return Side(frames_u8, z, windows, digest, states)


@torch.inference_mode()
def _encoded(model: WorldModel, frames_u8: FrameRows, states: FloatArray | None) -> F32:
    parts = []
    for start in range(0, len(frames_u8), _ENCODE_BATCH):
        rows = slice(start, start + _ENCODE_BATCH)
        beside = None if states is None else states[rows]
        parts.append(encode_frames(model, frames_u8[rows], beside, _ENCODE_BATCH).numpy())
    return np.concatenate(parts)
