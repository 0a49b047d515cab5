"""The record of a run: complete or absent, beside the loop, exact when read back."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jetsight.errors import DataError, StorageError
from jetsight.stream import jsonl
from jetsight.stream.frames import Forecast, Mode, Reason
from jetsight.stream.jsonl import ForecastWriter


def _forecast(i: int, *, valid: bool = True) -> Forecast:
    rng = np.random.default_rng(i)
    return Forecast(
        frame_index=i,
        tick=i + 3,
        captured_ns=10**18 + i,
        age_ms=1.25,
        surprise=0.5 if valid else None,
        valid=valid,
        reason=Reason.OK if valid else Reason.WARMING_UP,
        mode=Mode.DEGRADED,
        z=rng.standard_normal(4).astype(np.float32),
        z_future=rng.standard_normal((2, 4)).astype(np.float32) if valid else None,
    )


def test_what_is_written_is_read_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "out" / "forecasts.jsonl"
    writer = ForecastWriter(path)
    originals = [_forecast(i, valid=i > 1) for i in range(50)]
    for forecast in originals:
        writer.add(forecast)
    assert not path.exists()
    writer.close()
    for found, wanted in zip(jsonl.read(path), originals, strict=True):
        for name in ("frame_index", "tick", "captured_ns", "surprise", "valid", "reason", "mode"):
            assert getattr(found, name) == getattr(wanted, name)
        np.testing.assert_array_equal(found.z, wanted.z)
        assert (found.z_future is None) == (wanted.z_future is None)
        np.testing.assert_array_equal(found.z_future, wanted.z_future)


def test_arrays_are_copied_before_the_loop_goes_on(tmp_path: Path) -> None:
    writer, forecast = ForecastWriter(tmp_path / "f.jsonl"), _forecast(1)
    assert forecast.z is not None
    expected = forecast.z.copy()
    writer.add(forecast)
    forecast.z[:] = 0
    writer.close()
    (found,) = jsonl.read(tmp_path / "f.jsonl")
    np.testing.assert_array_equal(found.z, expected)


def test_lines_are_plain_json(tmp_path: Path) -> None:
    writer = ForecastWriter(tmp_path / "f.jsonl")
    writer.add(_forecast(1, valid=False))
    writer.close()
    line = json.loads((tmp_path / "f.jsonl").read_text())
    assert (line["valid"], line["reason"], line["mode"]) == (False, "warming_up", "DEGRADED")
    assert line["z_future"] is None


def test_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text("old")
    writer = ForecastWriter(path)
    writer.add(_forecast(1))
    assert path.read_text() == "old"
    writer.close()
    assert len(list(jsonl.read(path))) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["f.jsonl"]


def test_without_a_forecast_there_is_no_file_and_an_older_one_stays(tmp_path: Path) -> None:
    ForecastWriter(tmp_path / "new.jsonl").close()
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "old.jsonl"
    path.write_text("old")
    ForecastWriter(path).close()
    assert path.read_text() == "old"


def test_place_that_cannot_be_written_is_known_before_the_first_frame(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="is a folder"):
        ForecastWriter(tmp_path / "folder")


@pytest.mark.parametrize("wait", [False, True])
def test_full_disk_neither_stops_the_loop_nor_leaves_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    written = threading.Event()

    def full(*_: Any) -> str:
        written.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jsonl, "to_line", full)
    writer = ForecastWriter(tmp_path / "f.jsonl", wait=wait)
    writer.add(_forecast(0))
    written.wait(5)
    for i in range(5000):  # more rows than there is room for
        writer.add(_forecast(i % 7))
    with pytest.raises(StorageError, match="no space left"):
        writer.close()
    assert writer.lost > 0
    assert list(tmp_path.iterdir()) == []


def test_slow_disk_loses_rows_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, real = threading.Event(), jsonl.to_line

    def slow(*row: Any) -> str:
        go_on.wait(5)
        return real(*row)

    monkeypatch.setattr(jsonl, "to_line", slow)
    writer, forecast = ForecastWriter(tmp_path / "f.jsonl"), _forecast(0)
    for _ in range(5000):
        writer.add(forecast)
    go_on.set()
    writer.close()
    kept = len(list(jsonl.read(tmp_path / "f.jsonl")))
    assert writer.lost > 0
    assert kept + writer.lost == 5000


@pytest.mark.parametrize(
    "line", ["", "{}", "[]", "not json", '{"z": "!", "z_future": null}', '{"z": null, "x": 1}']
)
def test_line_that_is_no_forecast_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match="line 1 is no forecast"):
        list(jsonl.read(path))
