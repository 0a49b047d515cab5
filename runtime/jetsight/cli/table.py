"""Plain-text tables and field lists for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Format lines with aligned columns, two spaces apart; the last column is not padded."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head) - 1)]
    for line in lines:
        # The last column has no width, so the widths are one fewer.
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        yield "  ".join([*padded, line[-1]]).rstrip()


def fields(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Format lines of aligned `name  value`."""
    known = list(pairs)
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        yield f"{name.ljust(width)}  {value}"


def human_bytes(size: int) -> str:
    """Format a size in the shortest unit: 640 B, 1.2 MB, 3.4 GB (powers of ten)."""
    for limit, unit in ((1e3, "B"), (1e6, "kB"), (1e9, "MB")):
        if size < limit:
            return f"{size} B" if unit == "B" else f"{size * 1000 / limit:.1f} {unit}"
    return f"{size / 1e9:.1f} GB"
