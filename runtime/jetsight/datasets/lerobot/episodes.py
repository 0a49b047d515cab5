"""Episodes of a LeRobot dataset: their lengths, and the files and clips that hold them.

Version 2 lists them in `meta/episodes.jsonl` and keeps one file each; version 3 has tables in
`meta/episodes/` and many episodes per file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jetsight.datasets.lerobot.files import FileFinder
from jetsight.datasets.lerobot.info import EPISODES_V2, EPISODES_V3, INFO, Info, Layout
from jetsight.datasets.lerobot.parquet import read_table
from jetsight.datasets.names import ranges
from jetsight.errors import DataError
from jetsight.storage import strict_json

_DATA = {
    "v2": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "v3": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
_VIDEO_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_CHUNK = 1000  # episodes in a folder of version 2, where info.json does not say
_MOST_EPISODES = 1_000_000


@dataclass(frozen=True)
class EpisodeLocation:
    """Files of one episode.

    Args:
        number: its number in the dataset, which may have gaps.
        length: its rows, and its frames.
        data_file: parquet file with the rows.
        video_file: file with the frames; None for pictures in the rows.
        start_s: place of its first frame in the video, from the video's first frame on.
        stop_s: end of its frames there; None where the whole video is this episode.
    """

    number: int
    length: int
    data_file: Path
    video_file: Path | None = None
    start_s: float = 0.0
    stop_s: float | None = None

    @property
    def files(self) -> list[Path]:
        """All its files."""
        return [self.data_file, *([] if self.video_file is None else [self.video_file])]


@dataclass(frozen=True)
class _EpisodeLine:
    """One line of `meta/episodes.jsonl`."""

    episode_index: int
    length: int


def locate(
    folder: Path, info: Info, layout: Layout, camera: str | None, finder: FileFinder
) -> list[EpisodeLocation]:
    """List all episodes in the order of their numbers, those without files included.

    Args:
        folder: the dataset.
        info: its `meta/info.json`.
        layout: of its files.
        camera: feature recorded as videos; None where no video is read.
        finder: of its files.

    Raises:
        DataError: the list is missing, damaged, repeats an episode, or points outside `folder`.
    """
    if camera is not None and info.video_path is None and layout == "v3":
        raise DataError(f"{folder / INFO} has no video_path although {camera!r} is a video")
    read = _locate_v2 if layout == "v2" else _locate_v3
    found = sorted(read(folder, info, camera, finder), key=lambda place: place.number)
    numbers = [place.number for place in found]
    twice = next((a for a, b in itertools.pairwise(numbers) if a == b), None)
    if twice is not None:
        raise DataError(f"{folder / 'meta'} lists episode {twice} twice; copy the dataset again")
    if not found:
        raise DataError(f"{folder / 'meta'} lists no episode; record one or copy the dataset again")
    return found


def present(
    folder: Path, listed: Sequence[EpisodeLocation]
) -> tuple[list[EpisodeLocation], list[str]]:
    """Select the episodes whose files exist, with a note on the others.

    Raises:
        DataError: no episode has its rows.
    """
    absent = {place.number: [f for f in place.files if not f.is_file()] for place in listed}
    gone = [number for number, files in absent.items() if files]
    found = [place for place in listed if not absent[place.number]]
    if not gone:
        return found, []
    example = absent[gone[0]][0]
    if not found:
        # Rows are of use without frames; reading a frame reports the file that is missing.
        found = [place for place in listed if place.data_file.is_file()]
        if found:
            return found, [f"no episode has its video: {example} is missing"]
        raise DataError(
            f"{folder}: none of its {len(listed)} episodes has files; {example} is missing: copy "
            "the dataset again"
        )
    return found, [
        f"{len(gone)} of {len(listed)} episodes in meta/ have no files and are left out: "
        f"{ranges(gone)} (for example {example} is missing)"
    ]


def _locate_v2(
    folder: Path, info: Info, camera: str | None, finder: FileFinder
) -> Iterator[EpisodeLocation]:
    path = folder / EPISODES_V2
    data, video = info.data_path or _DATA["v2"], info.video_path or _VIDEO_V2
    for number, line in enumerate(_lines(path), start=1):
        what = f"{path} line {number}"
        entry = strict_json.parse(line, _EpisodeLine, what, error=DataError, allow_unknown=True)
        index = entry.episode_index
        if index < 0 or entry.length < 1:
            raise DataError(
                f"{what}: episode {index} with {entry.length} frames, expected 1 or more; correct "
                "it"
            )
        values = {"episode_index": index, "episode_chunk": index // (info.chunks_size or _CHUNK)}
        yield EpisodeLocation(
            index,
            entry.length,
            finder.find(data, **values),
            None if camera is None else finder.find(video, **values, video_key=camera),
        )


def _lines(path: Path) -> list[bytes]:
    try:
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as problem:
        raise DataError(f"cannot read {path} ({problem.strerror}); copy it again") from problem
    if len(lines) > _MOST_EPISODES:
        raise DataError(f"{path} has {len(lines)} lines, expected at most {_MOST_EPISODES}")
    return lines


def _locate_v3(
    folder: Path, info: Info, camera: str | None, finder: FileFinder
) -> Iterator[EpisodeLocation]:
    spots = ("chunk_index", "file_index", "from_timestamp")
    clip = [] if camera is None else [f"videos/{camera}/{spot}" for spot in spots]
    stop = f"videos/{camera}/to_timestamp"
    keys = ["episode_index", "length", "data/chunk_index", "data/file_index", *clip]
    for row in _episode_rows(folder, keys, ("dataset_from_index", "dataset_to_index", stop)):
        number, length = int(row["episode_index"]), int(row["length"])
        _check_span(folder, row, number, length)
        chunk, file = (int(row[f"data/{spot}"]) for spot in spots[:2])
        data = finder.find(info.data_path or _DATA["v3"], chunk_index=chunk, file_index=file)
        if camera is None:
            yield EpisodeLocation(number, length, data)
            continue
        chunk, file = (int(row[key]) for key in clip[:2])
        assert info.video_path is not None  # checked by `locate`
        yield EpisodeLocation(
            number,
            length,
            data,
            finder.find(info.video_path, video_key=camera, chunk_index=chunk, file_index=file),
            float(row[clip[2]]),
            None if row.get(stop) is None else float(row[stop]),
        )


def _check_span(folder: Path, row: dict[str, Any], number: int, length: int) -> None:
    first, stop = row.get("dataset_from_index"), row.get("dataset_to_index")
    if number < 0 or length < 1:
        raise DataError(
            f"{folder / EPISODES_V3} lists episode {number} with {length} frames; correct it"
        )
    if first is not None and stop is not None and stop - first != length:
        raise DataError(
            f"{folder / EPISODES_V3}: episode {number} has length {length}, but its rows "
            f"{first}..{stop} are {stop - first}; correct the table or copy the dataset again"
        )


def _episode_rows(
    folder: Path, keys: Sequence[str], optional: Sequence[str]
) -> Iterator[dict[str, Any]]:
    files = sorted((folder / EPISODES_V3).glob("**/*.parquet"))
    if not files:
        raise DataError(f"{folder / EPISODES_V3} has no parquet file; copy the dataset again")
    for file in files:
        rows = read_table(file, keys, optional).to_pylist()
        for row in rows:
            for key, value in row.items():
                # Null cells become None; `type`, since a bool is an int as well.
                if type(value) not in (int, float) and (key in keys or value is not None):
                    raise DataError(f"{file} has a gap in column {key!r}; copy the dataset again")
        yield from rows
