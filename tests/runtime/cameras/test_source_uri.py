"""What a `--source` text stands for, and what it says when a library is missing."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import RECORDED
from helpers.runtime.camera_factory import REQUEST

from jetsight.cameras import Camera, Source
from jetsight.cameras.gym import GymSource
from jetsight.cameras.images import ImageFolderSource
from jetsight.cameras.lerobot import EpisodeSource
from jetsight.cameras.physical import DeviceSource, RtspSource
from jetsight.cameras.source_uri import open_source
from jetsight.cameras.video import VideoSource
from jetsight.errors import CameraError, JetsightError, MissingDependency, UsageError
from jetsight.testing import FakeClock


@pytest.mark.parametrize(
    ("src", "kind"),
    [
        ("gym:gym_pusht/PushT-v0", GymSource),
        ("rtsp://host/x", RtspSource),
        ("/dev/video3", DeviceSource),
        (f"lerobot:{RECORDED}", EpisodeSource),
        (f"lerobot:{RECORDED}#2", EpisodeSource),
        (str(RECORDED), EpisodeSource),
        (f"{RECORDED}#2", EpisodeSource),
    ],
)
def test_source_text_names_its_kind(src: str, kind: type) -> None:
    assert isinstance(open_source(src, clock=FakeClock()), kind)


def test_files_and_folders_are_told_apart_even_with_odd_names(tmp_path: Path) -> None:
    (tmp_path / "film#3").mkdir()
    (tmp_path / "a:b.mp4").touch()
    assert isinstance(open_source(str(tmp_path / "film#3"), clock=FakeClock()), ImageFolderSource)
    assert isinstance(open_source(str(tmp_path / "a:b.mp4"), clock=FakeClock()), VideoSource)


@pytest.mark.parametrize(
    ("src", "error"),
    [
        ("nowhere.mp4", CameraError),
        ("http://x/y", UsageError),
        (f"lerobot:{RECORDED}#x", UsageError),
    ],
)
def test_unknown_source_text_lists_what_there_is(src: str, error: type[JetsightError]) -> None:
    with pytest.raises(error):
        Camera.open(src)


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("av", lambda path: VideoSource(path)),
        ("av", lambda path: ImageFolderSource(path.parent)),
        ("av", lambda path: RtspSource("rtsp://127.0.0.1/x", clock=FakeClock())),
        ("gymnasium", lambda path: GymSource("CartPole-v1")),
    ],
)
def test_missing_library_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, make: Callable[[Path], Source]
) -> None:
    path = tmp_path / "a.png"
    path.touch()
    real = builtins.__import__

    def fake(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == module:
            raise ImportError(name, name=module)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", fake)
    monkeypatch.setattr("importlib.import_module", fake)
    with pytest.raises(MissingDependency, match=r"pip install 'jetsight\[(camera|sim)\]'"):
        make(path).start(REQUEST)
