"""Files of a LeRobot dataset, found by the templates of `meta/info.json`."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

from jetsight.datasets.lerobot.info import INFO
from jetsight.errors import DataError

_SUFFIXES = (".parquet", ".mp4", ".mkv", ".avi", ".webm", ".mov")


class FileFinder:
    """Finder of data and video files below the folder of a dataset.

    Attributes:
        elsewhere: folders that files were found in although `meta/info.json` names others, by the
            folder that it names.
        tops: names of the folders directly in the dataset that files were found in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.elsewhere: dict[str, str] = {}
        self.tops: set[str] = set()

    def find(self, template: str, **values: Any) -> Path:
        """Return the file of a template; it may not exist.

        Raises:
            DataError: the template is unusable, or leaves the dataset.
        """
        name = self._name(template, values)
        path = self.folder / name
        if not path.is_file():
            # Copies rename folders and swap their order; the file's own name and the folders of its
            # camera and chunk still tell it from all others.
            key = str(values.get("video_key", ""))
            found = [p for p in self._by_name.get(name.name, ()) if _is_same(name, p, key)]
            if len(found) == 1:
                path = self.folder / found[0]
                self.elsewhere.setdefault(str(name.parent), str(found[0].parent))
        if path.is_file():
            self.tops.add(path.relative_to(self.folder).parts[0])
        return path

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """All files by their name, listed once: most datasets never need it."""
        found = defaultdict(list)
        for path in self.folder.rglob("*.*"):
            name = path.relative_to(self.folder)
            if path.suffix in _SUFFIXES and name.parts[0] != "meta":
                found[path.name].append(name)
        return found

    def _name(self, template: str, values: dict[str, Any]) -> Path:
        """Fill in a template; a dataset may be a download and must not reach out of its folder."""
        try:
            name = Path(template.format(**values))
        # A template of another producer may have any format string; these are its errors.
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as problem:
            raise DataError(
                f"{self.folder / INFO} has the unusable path {template!r}; correct it"
            ) from problem
        if name.is_absolute() or ".." in name.parts:
            raise DataError(
                f"{self.folder / INFO} has the path {template!r}, which leaves the dataset"
            )
        return name


def _is_same(wanted: Path, found: Path, key: str) -> bool:
    """Return whether two paths share all folders but the first, in any order."""
    have, needed = set(found.parts), set(wanted.parts[1:])
    short = (needed - {key}) | {key.rpartition(".")[2]} if key in needed else needed
    return needed <= have or short <= have
