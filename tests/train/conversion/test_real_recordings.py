"""Check and conversion of a real robot's recording, where one is present.

`JETSIGHT_REAL_DATA` names a folder with `unitree_g1_v21`: LeRobot v2.1, 30 Hz, 640x480, 26 actions.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from jetsight.datasets.dataset import FeatureMap
from jetsight.datasets.open import open_dataset
from jetsight_train.conversion.convert import convert
from jetsight_train.conversion.plan import plan_conversion
from jetsight_train.conversion.recipe import ConversionOptions
from jetsight_train.curation.findings import find
from jetsight_train.curation.survey import CheckOptions, examine

REAL = os.environ.get("JETSIGHT_REAL_DATA")
G1 = Path(REAL or "") / "unitree_g1_v21"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(REAL is None, reason="JETSIGHT_REAL_DATA names no folder of recordings"),
]


def test_a_real_camera_of_half_its_declared_rate_is_found():
    survey, _ = examine(G1, CheckOptions(FeatureMap()))
    findings = find(survey)
    assert [f.kind for f in findings if f.level != "note"] == ["repeated"]
    assert "camera of 15 Hz" in next(f for f in findings if f.kind == "repeated").text
    assert any("96 of 100 episodes" in f.text for f in findings)


def test_a_real_recording_becomes_one_for_a_small_model(tmp_path):
    options = ConversionOptions(FeatureMap(), hz=10.0, size_hw=(96, 96), hold_out=0.25)
    kept, held = convert(plan_conversion(G1, options), tmp_path / "g1")
    before, after = open_dataset(G1), open_dataset(kept.path)
    assert (kept.episodes, held.episodes) == (3, 1)
    assert after.spec.action_names == before.spec.action_names
    assert (after.fps, after.height, after.width) == (10.0, 96, 96)
    assert np.array_equal(after.rows(0).actions, before.rows(0).actions[::3])
    assert kept.offset_s < 1e-3
    assert kept.mean_levels < 3
    assert after.labels().tasks == ("Pick up the yellow bottle on the table.",) * 3
