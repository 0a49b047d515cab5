"""Recorded robot episodes as a camera with past and upcoming actions.

Shapes: T ticks of an episode, n steps, a size of one robot action.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from jetsight.cameras.readings import ReadingsSource
from jetsight.cameras.source import Reading, SourceInfo, StreamRequest
from jetsight.datasets.dataset import RecordedDataset
from jetsight.datasets.fit import check_dataset_fits
from jetsight.datasets.open import open_for
from jetsight.datasets.resampled import at_rate
from jetsight.errors import CameraError, DataError


class EpisodeSource(ReadingsSource):
    """Replay of one episode of a LeRobot v3 dataset, or of all of them with cuts between.

    Frame t has the action taken at t - 1, and the recorded actions from t on as its plan.

    Args:
        folder: the dataset.
        episode: number of the episode; None for all in order.
    """

    def __init__(self, folder: Path, episode: int | None) -> None:
        super().__init__(str(folder) + ("" if episode is None else f"#{episode}"))
        self._folder = folder
        self._episode = episode

    def start(self, request: StreamRequest) -> SourceInfo:
        """Open the dataset.

        Raises:
            CameraError: it was recorded at another rate or with other actions.
            DataError: it cannot be read.
            UsageError: there is no such episode.
        """
        wanted = request.recording_spec
        recorded = open_for(self._folder, wanted)
        data = at_rate(recorded, request.camera_hz, request.resample)
        if not data.action_names:  # streamed as a plain video: its forecasts are never valid
            wanted = replace(wanted, action_names=())
        try:
            check_dataset_fits(self._folder, data.spec, wanted)
        except DataError as error:
            raise CameraError(str(error)) from None
        if self._episode is not None:
            data.rows(self._episode)  # a missing episode is an error here, not at the first frame
        self._readings = self._play(data, request)
        resampled = data is not recorded and data.action_names
        notes = (f"recorded actions are resampled by {request.resample}",) if resampled else ()
        return SourceInfo(
            self._label,
            data.height,
            data.width,
            recorded.fps,
            notes=notes,
            cameras=len(data.camera_keys),
            has_state=True,  # checked by name above
        )

    def _play(self, data: RecordedDataset, request: StreamRequest) -> Iterator[Reading]:
        episodes = range(len(data)) if self._episode is None else [self._episode]
        start_ns, period_ns = 0, round(1e9 / data.fps)
        for number, episode in enumerate(episodes):
            rows = data.rows(episode)
            actions = rows.actions if data.action_names else None
            states = rows.states[:, [data.state_names.index(n) for n in request.state_names]]
            for t, frame in enumerate(data.frames(episode)):
                # By number: decoding refuses a video whose frames are not evenly spaced.
                media_ns = start_ns + t * period_ns
                yield Reading(
                    frame,
                    media_ns,
                    actions=None if actions is None or t == 0 else actions[t - 1 : t],
                    plan=None if actions is None else actions[t : t + request.plan_ticks],
                    cut=number > 0 and t == 0,
                    state=states[t] if request.state_names else None,
                )
            # One time line for all episodes; the cut keeps histories apart.
            start_ns += data.episode_lengths[episode] * period_ns
