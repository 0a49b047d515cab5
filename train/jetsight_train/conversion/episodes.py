"""Choice of episodes by spans, and of those that are held out."""

from __future__ import annotations

from collections.abc import Sequence

from jetsight.errors import UsageError


def choose_episodes(spans: str | None, count: int) -> tuple[int, ...]:
    """Choose episodes by spans such as `"0:50,60,70:"`, without repetition and in order.

    Raises:
        UsageError: not of that form, or no such episode.
    """
    if spans is None:
        return tuple(range(count))
    found: set[int] = set()
    for span in spans.split(","):
        parts = span.strip().split(":")
        numbers = [int(part) if part.isascii() and part.isdigit() else None for part in parts]
        bad = [part for part, number in zip(parts, numbers, strict=True) if part and number is None]
        if bad or len(parts) > 2 or parts == [""]:
            raise UsageError(f"--episodes {spans!r} is not usable; expected for example 0:50,60")
        first = numbers[0] or 0
        last = first + 1 if len(parts) == 1 else (count if numbers[1] is None else numbers[1])
        if not first < last <= count:
            raise UsageError(
                f"--episodes {span.strip()} selects none of the {count} episodes 0..{count - 1}; "
                f"choose a span inside of 0:{count}"
            )
        found.update(range(first, last))
    return tuple(sorted(found))


def spans(episodes: Sequence[int]) -> str:
    """Write ascending numbers as `choose_episodes` reads them.

    Example:
        >>> spans([0, 1, 2, 5, 7, 8])
        '0:3,5,7:9'
    """
    runs: list[list[int]] = []
    for episode in episodes:
        if runs and episode == runs[-1][-1] + 1:
            runs[-1].append(episode)
        else:
            runs.append([episode])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}:{run[-1] + 1}" for run in runs)


def hold_out(episodes: Sequence[int], share: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split episodes into those kept and those held out, which are spread evenly over them.

    Neighbouring episodes are alike, so a block at the end would be of another day; at least one is
    held out, and one is kept.

    Raises:
        UsageError: there are too few episodes.
    """
    if share == 0.0:
        return tuple(episodes), ()
    if len(episodes) < 2:
        raise UsageError(
            f"--hold-out needs at least two episodes, but {len(episodes)} is selected; leave it out"
        )
    count = min(max(1, round(share * len(episodes))), len(episodes) - 1)
    places = {int((i + 0.5) * len(episodes) / count) for i in range(count)}
    held = tuple(episode for i, episode in enumerate(episodes) if i in places)
    return tuple(episode for i, episode in enumerate(episodes) if i not in places), held
