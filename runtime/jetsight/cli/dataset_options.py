"""Options of every command that reads a recorded dataset: which of its features mean what."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from jetsight.datasets.dataset import FeatureMap

Command = Callable[..., Any]


def dataset_options(command: Command) -> Command:
    """Add `--camera` and `--map`; the command takes both as `features`, a `FeatureMap`."""
    camera = click.option(
        "--camera",
        "cameras",
        multiple=True,
        metavar="KEY",
        help="Camera of the dataset, where it has several; repeat for a model of several.",
    )
    return camera(map_option(command))


def map_option(command: Command) -> Command:
    """Add `--map`; the command takes it as `features`, a `FeatureMap`."""

    @functools.wraps(command)
    def mapped(
        *args: Any, pairs: Sequence[str] = (), cameras: Sequence[str] = (), **options: Any
    ) -> Any:
        return command(*args, features=FeatureMap.parse(pairs, cameras), **options)

    return click.option(
        "--map",
        "pairs",
        multiple=True,
        metavar="ROLE=FEATURE",
        help="Feature of the dataset that holds a role, where it cannot be found: action=KEY, "
        "state=KEY (several joined: KEY,KEY), camera=KEY, rate=HZ; repeatable.",
    )(mapped)


def with_features(path: Path, features: FeatureMap) -> str:
    """Write a dataset as its commands take it: the path, and the options that chose features.

    Example:
        >>> with_features(Path("data"), FeatureMap(action="actions", rate_hz=5.0))
        'data --map action=actions --map rate=5'
    """
    rate = None if features.rate_hz is None else f"{features.rate_hz:g}"
    roles = {"action": features.action, "state": features.state, "rate": rate}
    words = [f"--map {role}={value}" for role, value in roles.items() if value is not None]
    return shlex.quote(str(path)) + "".join(
        f" {word}" for word in [*(f"--camera {key}" for key in features.cameras), *words]
    )
