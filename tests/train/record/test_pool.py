"""Processes of a recording: results in any order, failures, and an end with their parent."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.train.pool_work import run_for_ever, touch

from jetsight.errors import DataError
from jetsight_train.record.pool import each_episode

END_LIMIT_S = 60


@pytest.mark.parametrize("workers", [1, 2])
def test_every_episode_is_made_and_a_failure_raised(tmp_path, workers):
    attempt = functools.partial(touch, tmp_path)
    assert len(list(each_episode(attempt, [0, 1, 2], workers, "making"))) == 3
    assert sorted(p.name[0] for p in tmp_path.iterdir()) == ["0", "1", "2"]
    with pytest.raises(DataError, match="episode 3"):
        list(each_episode(attempt, [3, 4], workers, "making"))


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    code = f"from {run_for_ever.__module__} import run_for_ever; run_for_ever({str(tmp_path)!r})"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL
    ) as parent:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        parent.kill()
    pids = [int(path.name.split("-")[1]) for path in tmp_path.iterdir()]
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def wait_until(holds) -> None:
    deadline_s = time.perf_counter() + END_LIMIT_S
    while not holds():
        assert time.perf_counter() < deadline_s
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
