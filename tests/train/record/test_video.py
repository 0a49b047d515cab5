"""Video: fidelity of the codec, joining without change, and equal bytes of equal frames."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from helpers.paths import RECORDED
from helpers.train.gym_factory import needs_pusht

from jetsight.datasets.lerobot import LeRobotDataset
from jetsight_train.record import video
from jetsight_train.record.episode import RecordingRecipe, simulate

FPS = 10
LEAST_PSNR_DB = 36.0  # measured 38.8 over many episodes; chroma subsampling alone costs that much


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def decoded(file) -> tuple[np.ndarray, list[float], list[bool]]:
    with av.open(file) as container:
        pictures = list(container.decode(video=0))
    frames = np.stack([p.to_ndarray(format="rgb24") for p in pictures])
    return frames, [p.time for p in pictures], [p.key_frame for p in pictures]


@pytest.fixture(scope="module")
def frames_u8() -> np.ndarray:
    return LeRobotDataset.open(RECORDED).episode(0).frames[:40]


@needs_pusht
def test_round_trip_keeps_the_picture():
    frames_u8 = simulate(
        RecordingRecipe("gym_pusht/PushT-v0", 1, 40, 11, "scripted", height_px=96, width_px=96), 0
    ).frames_u8
    decoded_u8, _, _ = decoded(io.BytesIO(video.encode(frames_u8, FPS)))
    assert decoded_u8.shape == frames_u8.shape
    assert min(psnr_db(a, b) for a, b in zip(decoded_u8, frames_u8, strict=True)) > LEAST_PSNR_DB
    # Control: the bar tells a frame from the one before it and red from blue.
    assert psnr_db(decoded_u8[1:], frames_u8[:-1]) < LEAST_PSNR_DB - 3
    assert psnr_db(decoded_u8[..., ::-1], frames_u8) < LEAST_PSNR_DB - 3


def test_frame_t_is_at_t_over_fps_and_every_second_is_a_key_frame(frames_u8):
    _, times_s, keys = decoded(io.BytesIO(video.encode(frames_u8, FPS)))
    assert np.allclose(times_s, np.arange(len(frames_u8)) / FPS, atol=1e-6)
    assert keys == [t % 2 == 0 for t in range(len(frames_u8))]


def test_equal_frames_give_equal_bytes(frames_u8):
    assert video.encode(frames_u8, FPS) == video.encode(frames_u8.copy(), FPS)
    assert video.encode(frames_u8, FPS) != video.encode(frames_u8[:-1], FPS)


def test_joining_copies_every_picture_to_its_place(frames_u8, tmp_path):
    pieces = [frames_u8[:7], frames_u8[7:8], frames_u8[8:]]
    parts = [tmp_path / f"{i}.mp4" for i in range(3)]
    for part, piece in zip(parts, pieces, strict=True):
        part.write_bytes(video.encode(piece, FPS))
    video.join(tmp_path / "all.mp4", parts, [len(p) for p in pieces], FPS)
    joined, times_s, _ = decoded(str(tmp_path / "all.mp4"))
    apart = np.concatenate([decoded(str(part))[0] for part in parts])
    assert np.array_equal(joined, apart)
    assert np.allclose(times_s, np.arange(len(frames_u8)) / FPS, atol=1e-6)
