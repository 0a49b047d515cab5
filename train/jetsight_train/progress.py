"""Progress bars on long work: shown on a terminal, silent in pipes and tests.

With `disable=None` tqdm writes to terminals only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from jetsight.errors import MissingDependency

T = TypeVar("T")


def progress(items: Iterable[T], title: str, **options: Any) -> Iterable[T]:
    """Iterate over `items` behind a bar titled `title`; `options` go to tqdm.

    Returns:
        A `tqdm` bar, so callers may call `set_postfix` on it.
    """
    from tqdm import tqdm

    return tqdm(items, desc=title, disable=None, leave=False, **options)


def episode_bar(episodes: int, extra: str, purpose: str) -> Any:
    """Make a `tqdm` bar that counts episodes.

    Args:
        episodes: how many there will be.
        extra: of the distribution, to install if tqdm is missing.
        purpose: what is counted, as a noun phrase for that message.

    Raises:
        MissingDependency: tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ImportError as problem:
        raise MissingDependency("tqdm", extra, purpose) from problem
    return tqdm(total=episodes, unit="episode", disable=None, leave=False)
