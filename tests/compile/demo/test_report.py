"""The demo over a live bundle: change caught, control not, reports whole and self-contained.

Shapes: T rows, h, w frame size; the model is K=3, B=2, H=2, D=4 on an 8 x 12 px camera.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.runtime.live_bundle import HEIGHT, WIDTH, make_live_bundle

from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import LatentStats, SurpriseQuantiles
from jetsight.datasets.dataset import Episode, Rows
from jetsight.datasets.fit import RecordingSpec
from jetsight.datasets.names import ACTION_KEY, unnamed
from jetsight.engine import NDArray
from jetsight_compile.demo.forecast_images import choose_rows
from jetsight_compile.demo.page import number, picture
from jetsight_compile.demo.report import report_facts, write_reports
from jetsight_compile.demo.stream import StreamResult, stream_and_judge

KEYS = {
    "frames",
    "source",
    "backend",
    "precision",
    "encode_ms",
    "forecast_ms",
    "frame_age_ms",
    "drops",
    "skill_vs_persistence",
    "surprise",
    "engine_parity",
}
# What a browser would fetch: attributes that load, imports of style sheets, fonts and pictures.
LOADS = re.compile(
    r"""(?:src|href|data|poster|action)\s*=\s*["']?(?!data:|\#)[^\s"'>]+|@import|<script|<link|
        url\((?!["']?(?:data:|\#))|\bhttps?://""",
    re.VERBOSE | re.IGNORECASE,
)


class Recorded:
    """A dataset of six still scenes with a little noise; `scenes` says which picture each shows."""

    path, fps = Path("still"), 10.0
    spec = RecordingSpec(HEIGHT, WIDTH, fps, unnamed(ACTION_KEY, 2))
    state_names = ("agent_x", "agent_y")

    def __init__(self, scenes: list[int]) -> None:
        self._scenes = scenes
        self.episode_lengths = [60] * len(scenes)

    def __len__(self) -> int:
        return len(self._scenes)

    def episode(self, index: int) -> Episode:
        rng = np.random.default_rng((self._scenes[index], 1))
        still = rng.integers(0, 250, (1, HEIGHT, WIDTH, 3), np.uint8)
        noise = np.random.default_rng((index, 2)).integers(0, 4, (60, HEIGHT, WIDTH, 3), np.uint8)
        states = np.full((60, 2), self._scenes[index], np.float32)
        return Episode(np.zeros((60, 2), np.float32), states, np.arange(60) / 10, still + noise)

    def frames(self, index: int) -> Iterator[NDArray]:
        return iter(self.episode(index).frames)

    def rows(self, index: int) -> Rows:
        episode = self.episode(index)
        return Rows(episode.actions, episode.states, episode.timestamps_s)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The live bundle, calibrated on episodes 0 and 1, surprised by a tenth of a latent."""
    quantiles = SurpriseQuantiles(1.0, 2.0, 3.0, 4.0)
    latent = LatentStats((0.0,) * 4, (1.0,) * 4, 0.02, quantiles)
    return make_live_bundle(tmp_path_factory.mktemp("demo") / "b.jetsight", latent=latent)


def show(bundle: Bundle, scenes: list[int]) -> StreamResult:
    data: Any = Recorded(scenes)
    return stream_and_judge(bundle, data, frames=90, rate_hz=0)  # 0: as fast as it goes, no drops


@pytest.fixture(scope="module")
def shown(bundle: Bundle) -> StreamResult:
    return show(bundle, [0, 1, 2, 3, 4, 5])


@pytest.fixture(scope="module")
def written(shown: StreamResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    write_reports(shown, report_facts(shown, {"compile": 1.0}), out)
    return out


def test_a_change_of_scene_is_caught_on_the_first_frame(shown: StreamResult) -> None:
    assert shown.surprise.caught
    assert shown.surprise.flagged_frame == shown.watched.replay.scenario.change == 75
    assert shown.surprise.false_alarms == 0
    assert not shown.surprise.control_flagged


def test_a_change_to_the_same_scene_is_not(bundle: Bundle) -> None:
    same = show(bundle, [0, 1, 2, 2, 2, 2])
    assert not same.surprise.caught
    assert same.surprise.at_change is not None
    assert same.surprise.at_change < same.surprise.limit


def test_streamed_episodes_calibrated_nothing_and_are_not_in_the_library(
    shown: StreamResult,
) -> None:
    assert shown.watched.replay.scenario.episodes == [2, 3, 4]
    assert shown.library.episodes == [0, 1]
    recorded = [Recorded([0, 1, 2, 3, 4, 5]).episode(i).frames for i in (0, 1)]
    known = np.concatenate(recorded).reshape(120, -1)
    for example in shown.examples:
        for frame in example.expected:
            assert (known == frame.reshape(-1)).all(axis=1).any()


def test_examples_are_chosen_by_what_the_camera_saw() -> None:
    moved = np.full((9, 2), np.nan)
    moved[:6, 1] = [1, 5, 2, 3, 9, 4]
    errors: Any = SimpleNamespace(persistence=moved)
    assert choose_rows(errors, 3) == [1, 3, 4]
    assert choose_rows(errors, 99) == [0, 1, 2, 3, 4, 5]


def test_report_json_has_the_promised_keys(written: Path) -> None:
    report = json.loads((written / "report.json").read_text())
    assert set(report) >= KEYS
    for key in ("encode_ms", "forecast_ms", "frame_age_ms"):
        assert set(report[key]) == {"p50", "p99", "max"}
        assert 0 < report[key]["p50"] <= report[key]["p99"] <= report[key]["max"]
    assert set(report["surprise"]) >= {"normal_p99", "at_change"}
    assert len(report["skill_vs_persistence"]) == 2
    assert report["frames"] == 90
    assert report["drops"] == 0
    assert report["precision"] == {"encode": "int8", "forecast": "int8"}
    assert all(set(graphs) == {"encode", "forecast"} for graphs in report["engine_parity"].values())


def test_the_page_loads_nothing(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert LOADS.findall(page) == []
    assert page.count("<svg") == 3
    assert page.count('src="data:image/png;base64,') >= 8


@pytest.mark.parametrize(
    "loading",
    ['<img src="a.png">', "<script>", '<link rel="x">', "url(b.woff)", '<a href="https://x.org">'],
)
def test_the_check_for_loading_notices_it(loading: str) -> None:
    assert LOADS.search(f"<p>{loading}</p>")


def test_the_page_says_what_happened(bundle: Bundle, written: Path, tmp_path: Path) -> None:
    page = (written / "report.html").read_text()
    assert "on the first changed frame" in page
    assert ">missed<" not in page
    same = show(bundle, [0, 1, 2, 2, 2, 2])
    write_reports(same, report_facts(same, {}), tmp_path)
    assert ">missed<" in (tmp_path / "report.html").read_text()


def test_every_gate_stands_beside_its_control(shown: StreamResult, written: Path) -> None:
    page = (written / "report.html").read_text()
    assert page.count("fault detected") == len(shown.bundle.manifest.gates) > 0


def test_pictures_are_the_frames_pixel_for_pixel() -> None:
    import base64
    import io

    from matplotlib.image import imread

    frame: NDArray = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    data = base64.b64decode(picture(frame).partition(",")[2])
    found = np.round(imread(io.BytesIO(data))[..., :3] * 255).astype(np.uint8)
    assert np.array_equal(found, frame)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (12.345, "12.3"),
        (1234.0, "1234"),
        (0.98765, "0.988"),
        (1e-7, "1.00e-07"),
        (None, "-"),
        (float("nan"), "-"),
        (-3.14159, "-3.14"),
    ],
)
def test_numbers_read_well(value: float | None, text: str) -> None:
    assert number(value) == text
