"""Progress bars of long work: shown on a terminal, silent in pipes and tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from jetsight.errors import MissingDependency

T = TypeVar("T")


def progress(items: Iterable[T], title: str, **options: Any) -> Iterable[T]:
    """Iterate over `items` with a `tqdm` bar titled `title`; `options` are passed to tqdm."""
    from tqdm import tqdm

    # `disable=None` makes tqdm write to terminals only.
    return tqdm(items, desc=title, disable=None, leave=False, **options)


def episode_bar(episodes: int, extra: str, purpose: str) -> Any:
    """Make a `tqdm` bar that counts episodes.

    Args:
        episodes: total of the bar.
        extra: extra of the distribution that installs tqdm, for the message.
        purpose: work that needs tqdm, as a noun phrase for the message.

    Raises:
        MissingDependency: tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ImportError as problem:
        raise MissingDependency("tqdm", extra, purpose) from problem
    return tqdm(total=episodes, unit="episode", disable=None, leave=False)
