"""A view of a recorded dataset at the rate of a model.

Shapes: T rows of an episode, M ticks of the new rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import RecordedDataset, Rows
from jetsight.datasets.fit import rates_agree
from jetsight.datasets.resample import TickRows


class ResampledDataset(RecordedDataset):
    """Dataset recorded at a higher rate, read at the rate of a model; make it with `at_rate`.

    Each tick has the frame, the states and the columns of the nearest row, and the action that the
    rule makes of the rows of its time. Rows are taken by number, as readers refuse recordings whose
    frames are not evenly spaced.

    Args:
        recorded: the dataset.
        hz: the rate of the model, below that of the dataset.
        rule: of actions, `hold` or `mean`; see `ActionSpec.resample`.
    """

    def __init__(self, recorded: RecordedDataset, hz: float, rule: str) -> None:
        self._recorded, self._rule = recorded, rule
        self.path, self.format, self.robot = recorded.path, recorded.format, recorded.robot
        self.fps = hz
        self.cameras, self.camera_keys = recorded.cameras, recorded.camera_keys
        self.height, self.width = recorded.height, recorded.width
        self.action_names, self.state_names = recorded.action_names, recorded.state_names
        self.missing = recorded.missing
        self.episode_lengths = [len(self._ticks(length)) for length in recorded.episode_lengths]

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]  # those of the dataset may grow
        """Facts that a user must know, the resampling first."""
        how = f", actions by {self._rule}" if self.action_names else ""
        text = f"resampled from {self._recorded.fps:g} to {self.fps:g} Hz: nearest frames{how}"
        return (text, *self._recorded.notes)

    @property
    def episode_numbers(self) -> list[int]:
        """The dataset's own number of each episode."""
        return self._recorded.episode_numbers

    def rows(self, index: int) -> Rows:
        """Read the ticks of episode `index`."""
        rows = self._recorded.rows(index)
        ticks = self._ticks(len(rows.actions))
        actions = ticks.actions(rows.actions, self._rule)
        return Rows(actions, rows.states[ticks.frames], np.arange(len(ticks)) / self.fps)

    def frames(self, index: int) -> Iterator[NDArray[np.uint8]]:
        """Decode episode `index`, and yield the frame nearest to each tick."""
        self.check_index(index)
        return self._nearest(index)

    def columns(self, index: int, names: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """Read columns of episode `index`, at the row nearest to each tick."""
        self.check_index(index)
        chosen = self._ticks(self._recorded.episode_lengths[index]).frames
        columns = self._recorded.columns(index, names)
        return {name: values[chosen] for name, values in columns.items()}

    def digest(self) -> str:
        """Compute the SHA-256 over every recorded file."""
        return self._recorded.digest()

    def verify(self, episodes: Sequence[int] | None = None) -> None:
        """Check files, rows and times of the dataset."""
        self._recorded.verify(episodes)

    def _ticks(self, rows: int) -> TickRows:
        return TickRows.even(rows, self._recorded.fps, self.fps)

    def _nearest(self, index: int) -> Iterator[NDArray[np.uint8]]:
        # A faster recording has a row of its own for each tick.
        chosen = set(self._ticks(self._recorded.episode_lengths[index]).frames.tolist())
        for row, frame in enumerate(self._recorded.frames(index)):
            if row in chosen:
                yield frame


def at_rate(recorded: RecordedDataset, hz: float, rule: str) -> RecordedDataset:
    """View a dataset at the rate of a model.

    Args:
        recorded: the dataset.
        hz: rate of the model.
        rule: of actions, see `ActionSpec.resample`.

    Returns:
        The dataset itself where rates agree, and where it is slower, which `check_dataset_fits`
        refuses.
    """
    if recorded.fps < hz or rates_agree(recorded.fps, hz):
        return recorded
    return ResampledDataset(recorded, hz, rule)
