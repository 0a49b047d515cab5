"""Recorded robot episodes as a camera with past and upcoming actions.

Shapes: T ticks of an episode, n steps, a size of one robot action.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from jetsight.cameras.readings import ReadingsSource
from jetsight.cameras.source import Reading, SourceInfo, StreamRequest
from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.datasets.fit import check_dataset_fits
from jetsight.datasets.open import open_for, say_notes
from jetsight.datasets.resampled import at_rate
from jetsight.errors import CameraError, DataError

_LOGGER = logging.getLogger("jetsight")


class EpisodeSource(ReadingsSource):
    """Replay of one episode of a recorded dataset, or of all of them with cuts between.

    Frame t has the action taken at t - 1, and the recorded actions from t on as its plan.

    Args:
        folder: the dataset.
        episode: number of the episode; None for all in order.
        features: which features are actions, states and frames, where that is not clear.
    """

    def __init__(
        self, folder: Path, episode: int | None, features: FeatureMap | None = None
    ) -> None:
        super().__init__(str(folder) + ("" if episode is None else f"#{episode}"))
        self._folder = folder
        self._episode = episode
        self._features = features

    def start(self, request: StreamRequest) -> SourceInfo:
        """Open the dataset.

        Raises:
            CameraError: it was recorded at another rate or with other actions.
            DataError: it cannot be read.
            UsageError: there is no such episode or feature, or several cameras.
        """
        wanted = request.recording_spec
        recorded = open_for(self._folder, wanted, self._features)
        data = at_rate(recorded, request.camera_hz, request.resample)
        if not data.action_names:  # streamed as a plain video, whose actions are assumed
            wanted = replace(wanted, action_names=())
            reason = data.missing.get("action", "it has no actions")
            _LOGGER.warning("%s: streamed without actions: %s", self._folder, reason)
        try:
            check_dataset_fits(self._folder, data.spec, wanted)
        except DataError as error:
            raise CameraError(str(error)) from None
        # Now, since an error at the last episode would end a long run.
        data.verify(None if self._episode is None else [self._episode])
        say_notes(data)
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
            reports_actions=bool(data.action_names),
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
