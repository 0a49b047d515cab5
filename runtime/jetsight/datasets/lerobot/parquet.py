"""Parquet tables of a LeRobot dataset, through PyArrow (extra `camera`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.features import RecordedFeature
from jetsight.errors import DataError, MissingDependency, first_line


def read_table(
    file: Path,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    episode: int | None = None,
) -> Any:
    """Read columns of a parquet file as a PyArrow table.

    Args:
        file: path of the file.
        columns: names of the columns.
        optional: names of columns that may be absent.
        episode: read only row groups that can hold this episode; all if None.

    Raises:
        DataError: the file is missing or damaged, or has no such column.
        MissingDependency: PyArrow is not installed.
    """
    with _opened(file) as reader:
        known = reader.schema_arrow.names
        absent = [key for key in columns if key not in known]
        if absent:
            raise DataError(f"{file} has no column {absent[0]!r}; copy the dataset again")
        groups = [
            i
            for i in range(reader.num_row_groups)
            if episode is None or _may_hold(reader.metadata.row_group(i), episode)
        ]
        wanted = dict.fromkeys([*columns, *(key for key in optional if key in known)])
        return reader.read_row_groups(groups, columns=list(wanted))


def unlisted_columns(file: Path, known: Sequence[str]) -> list[RecordedFeature]:
    """List the columns of numbers that `meta/info.json` does not list.

    Raises:
        DataError: the file is missing or damaged.
        MissingDependency: PyArrow is not installed.
    """
    found = []
    with _opened(file) as reader:
        keys = [key for key in reader.schema_arrow.names if key not in known]
        first: Any = next(reader.iter_batches(batch_size=1, columns=keys), None) if keys else None
        for key in keys if first is not None and first.num_rows else ():
            try:
                shape = np.asarray(first[key][0].as_py(), dtype=np.float32).shape
            except (TypeError, ValueError):
                continue  # text, pictures or ragged lists
            found.append(RecordedFeature(key, shape, listed=False))
    return found


def to_matrix(column: Any, size: int, key: str, file: Path) -> NDArray[np.float32]:
    """Convert a numeric column to float32 [T,size]; LeRobot keeps size 1 as scalars.

    Raises:
        DataError: it has gaps, another size, or numbers that are not finite.
    """
    # One piece: `flatten` of a chunked column takes structs apart, not lists.
    flat = column = column.combine_chunks()
    while hasattr(flat, "flatten") and flat.type.num_fields:
        flat = flat.flatten()
    try:
        values = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32)
    except (TypeError, ValueError):
        # Reported below, with the sizes.
        values = np.zeros(0, dtype=np.float32)
    if values.size != len(column) * size or column.null_count:
        raise DataError(
            f"{file} has gaps or the wrong size in column {key!r}, expected {size} numbers per "
            "row; record it or copy the dataset again"
        )
    return values.reshape(-1, size)


def check_finite(values: NDArray[np.float32], key: str, where: object) -> None:
    """Refuse NaN and infinities, which a model would learn.

    Args:
        values: `[T,size]` of one episode.
        key: the column.
        where: the episode, first words of the message.

    Raises:
        DataError: one is not finite.
    """
    broken = np.flatnonzero(~np.isfinite(values).all(1))
    if len(broken):
        raise DataError(
            f"{where}: column {key!r} has NaN or infinity at tick {broken[0]} ({len(broken)} of "
            f"{len(values)} rows), expected a number everywhere; record it again or remove the "
            "episode"
        )


def _may_hold(group: Any, episode: int) -> bool:
    """Return whether a row group can hold `episode`; True if it has no statistics."""
    for i in range(group.num_columns):
        column = group.column(i)
        # Without statistics the group is read: that costs time, skipping it would cost frames.
        if column.path_in_schema == "episode_index" and column.is_stats_set:
            return bool(column.statistics.min <= episode <= column.statistics.max)
    return True


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        # Here, because a robot with a live camera needs no PyArrow.
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as problem:
        raise MissingDependency("pyarrow", "camera", "reading a LeRobot dataset") from problem
    try:
        with pq.ParquetFile(file) as reader:
            yield reader
    except (OSError, pa.ArrowException) as problem:
        raise DataError(
            f"cannot read {file} ({first_line(problem)}); copy the dataset again"
        ) from problem
