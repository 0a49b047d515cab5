"""Recorded robot episodes as a camera with past and upcoming actions.

Shapes: T ticks of an episode, n steps, a size of one robot action.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from jetsight.cameras.readings import ReadingsSource
from jetsight.cameras.source import Reading, SourceInfo, StreamRequest
from jetsight.datasets.fit import check_dataset_fits
from jetsight.datasets.lerobot import LeRobotDataset
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
        data = LeRobotDataset.open(self._folder)
        wanted = request.recording_spec
        if not data.action_names:  # streamed as a plain video, whose actions are assumed
            wanted = replace(wanted, action_names=())
        try:
            check_dataset_fits(self._folder, data.spec, wanted)
        except DataError as error:
            raise CameraError(str(error)) from None
        if self._episode is not None:
            data.rows(self._episode)  # a missing episode is an error here, not at the first frame
        self._readings = self._play(data, request)
        known = bool(data.action_names)
        return SourceInfo(self._label, data.height, data.width, data.fps, reports_actions=known)

    def _play(self, data: LeRobotDataset, request: StreamRequest) -> Iterator[Reading]:
        episodes = range(len(data)) if self._episode is None else [self._episode]
        start_ns, period_ns = 0, round(1e9 / data.fps)
        for number, episode in enumerate(episodes):
            actions = data.rows(episode).actions if data.action_names else None
            for t, frame in enumerate(data.frames(episode)):
                # By number: decoding refuses a video whose frames are not evenly spaced.
                media_ns = start_ns + t * period_ns
                yield Reading(
                    frame,
                    media_ns,
                    actions=None if actions is None or t == 0 else actions[t - 1 : t],
                    plan=None if actions is None else actions[t : t + request.plan_ticks],
                    cut=number > 0 and t == 0,
                )
            # One time line for all episodes; the cut keeps histories apart.
            start_ns += data.episode_lengths[episode] * period_ns
