"""Work for processes of a recording, here because a process imports it by its name."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

from jetsight.errors import DataError
from jetsight_train.record.pool import each_episode


def touch(folder: Path, index: int) -> DataError | None:
    """Leave a file named by the process; episode 3 fails."""
    (folder / f"{index}-{os.getpid()}").touch()
    return DataError("episode 3 is damaged") if index == 3 else None


def wait_for_ever(folder: Path, index: int) -> None:
    (folder / f"{index}-{os.getpid()}").touch()
    signal.pause()


def run_for_ever(folder: str) -> None:
    for _ in each_episode(functools.partial(wait_for_ever, Path(folder)), [0, 1], 2, "waiting"):
        pass
