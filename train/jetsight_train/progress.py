"""Progress bars on long work: shown on a terminal, silent in pipes and tests."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], title: str, **options: Any) -> Iterable[T]:
    """Iterate over `items` behind a bar titled `title`; `options` go to tqdm.

    Returns:
        A `tqdm` bar, so callers may call `set_postfix` on it.
    """
    from tqdm import tqdm

    return tqdm(items, desc=title, disable=not sys.stderr.isatty(), leave=False, **options)
