"""A faster recording read at a model's rate: frames, states and actions by the declared rule."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.counted_dataset import CountedDataset

from jetsight.datasets.fit import check_dataset_fits
from jetsight.datasets.resampled import at_rate
from jetsight.errors import DataError, UsageError


@pytest.mark.parametrize(("rule", "actions"), [("hold", [0, 3, 6, 9]), ("mean", [1, 4, 7, 9.5])])
def test_every_tick_has_its_frame_state_and_action(rule: str, actions: list[float]) -> None:
    data = at_rate(CountedDataset([11, 7], fps=30), 10, rule)
    assert (data.fps, data.episode_lengths, len(data)) == (10, [4, 3], 2)
    episode = data.episode(0)
    assert episode.frames[:, 0, 0, 0].tolist() == [0, 3, 6, 9]
    assert episode.states[:, 0].tolist() == [0, 3, 6, 9]
    np.testing.assert_allclose(episode.actions[:, 0], actions, rtol=1e-6)
    np.testing.assert_allclose(episode.timestamps_s, [0, 0.1, 0.2, 0.3])
    assert data.columns(0, ["row"])["row"].tolist() == [0, 3, 6, 9]
    assert data.notes[0] == f"resampled from 30 to 10 Hz: nearest frames, actions by {rule}"
    assert data.digest() == "counted"


def test_rates_that_agree_or_are_too_slow_stay_as_they_are() -> None:
    for fps in (10, 10.04, 5):
        data = CountedDataset([11], fps=fps)
        assert at_rate(data, 10, "hold") is data
    wanted = CountedDataset([1], fps=10).spec
    with pytest.raises(DataError, match=r"recorded at 5 Hz, but the model steps at 10 Hz"):
        check_dataset_fits("x", at_rate(CountedDataset([11], fps=5), 10, "hold").spec, wanted)


def test_unknown_rule_and_episode_are_refused() -> None:
    data = at_rate(CountedDataset([11], fps=30), 10, "median")
    with pytest.raises(UsageError, match="resample is 'median'"):
        data.rows(0)
    for read in (data.frames, data.rows):
        with pytest.raises(UsageError, match="no episode 1"):
            read(1)
