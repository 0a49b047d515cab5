"""The manifest of a bundle (version 1): frozen dataclasses, one to one with `manifest.json`.

The constructors check: lengths agree, numbers are finite and in range, verdicts of gates follow
from their values, paths stay inside the bundle. Shapes are those of `model_spec`.

A newer minor version only adds keys, which are ignored; a newer major version is refused.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jetsight.bundle.fallbacks import Fallback
from jetsight.bundle.model_spec import (
    ActionSpec,
    FrameSpec,
    ModelSpec,
    StateSpec,
    TimingSpec,
    identifier,
    vector,
    within,
)
from jetsight.bundle.planner_spec import HeadSpec, PlannerSpec, check_planners
from jetsight.errors import BundleError
from jetsight.storage import strict_json

FORMAT = "jetsight-bundle"
VERSION = "1.3"
GOLDEN = "golden.npz"
GRAPHS = ("encode", "forecast")  # in every family; planners' graphs are optional
IMAGINE = "imagine_"  # prefix of planners' graphs (since version 1.2)

FILE_NAME = "manifest.json"
_MAX_FILES = 256
_MAX_FILE_BYTES = 2 << 30  # a protobuf, and so an ONNX graph, cannot be larger
_HEX = re.compile(r"[0-9a-f]{64}")
_GRAPH_PATH = re.compile(r"graphs/([^/]+)/([a-z][a-z0-9_]{0,31})\.onnx")
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


@dataclass(frozen=True)
class SurpriseQuantiles:
    """Quantiles of normalised surprise on held-out frames (the median step is 1)."""

    p50: float
    p90: float
    p99: float
    p999: float

    def __post_init__(self) -> None:
        values = (self.p50, self.p90, self.p99, self.p999)
        vector("surprise quantiles", values, 4)
        if self.p50 < 0 or list(values) != sorted(values):
            raise BundleError(f"surprise quantiles {list(values)} do not ascend from 0")


@dataclass(frozen=True)
class LatentStats:
    """Mean and standard deviation of each latent dimension [D], and the scale of surprise."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    surprise_scale: float
    surprise_quantiles: SurpriseQuantiles

    def __post_init__(self) -> None:
        vector("mean", self.mean, len(self.mean))
        vector("std", self.std, len(self.mean), positive=True)
        vector("surprise_scale", (self.surprise_scale,), 1, positive=True)


@dataclass(frozen=True)
class Family:
    """One set of graphs: opset, precision of each graph, and the targets it is for.

    Of the planners' graphs it has those in `precision`.
    `tensors` is the number of quantized tensors (with Q/DQ); None if it was not recorded.
    """

    name: str
    opset: int
    precision: Mapping[str, str]
    targets: tuple[str, ...]
    tensors: int | None = None

    def __post_init__(self) -> None:
        identifier("family name", self.name)
        within("opset", self.opset, 7, 100)
        for graph in GRAPHS:
            if graph not in self.precision:
                raise BundleError(f"precision of graph {graph!r} is missing")
        if not self.targets:
            raise BundleError("targets is empty, expected at least one")
        if self.tensors is not None:
            within("tensors", self.tensors, 0, 10**7)


@dataclass(frozen=True)
class Gate:
    """One measurement of a family against a limit, with a negative control that had to fail.

    `direction` "min" means the value must be at least `limit`, "max" at most; `detail` is the place
    inside the graphs, or the step, of the value (since version 1.1).
    """

    family: str
    name: str
    value: float
    limit: float
    direction: Literal["min", "max"]
    passed: bool
    control_value: float
    control_failed: bool
    detail: str = ""

    def __post_init__(self) -> None:
        vector("value, limit and control_value", (self.value, self.limit, self.control_value), 3)
        # Recomputed: an edited verdict must not contradict its numbers.
        if self.passed != self.holds(self.value):
            raise BundleError(
                f"gate {self.name!r} says passed={self.passed}, but its value {self.value} and "
                f"limit {self.limit} ({self.direction}) say otherwise"
            )
        if self.control_failed == self.holds(self.control_value):
            raise BundleError(
                f"gate {self.name!r} says control_failed={self.control_failed}, but its control "
                f"value {self.control_value} says otherwise"
            )

    def holds(self, value: float) -> bool:
        """Return whether `value` meets the limit."""
        return value >= self.limit if self.direction == "min" else value <= self.limit


@dataclass(frozen=True)
class DataDigest:
    """Recorded frames in use: digest of the data set, number of frames, and episode numbers."""

    sha256: str
    frames: int
    episodes: tuple[int, ...]
    path_name: str

    def __post_init__(self) -> None:
        _digest("sha256", self.sha256)
        within("frames", self.frames, 1, 10**12)
        if len(set(self.episodes)) != len(self.episodes) or min(self.episodes, default=0) < 0:
            raise BundleError("episodes repeat or are negative")


@dataclass(frozen=True)
class Provenance:
    """Origin of the bundle: time, tool versions, checkpoint digest, data used, license."""

    created_utc: str
    tool: Mapping[str, str]
    checkpoint_sha256: str
    calibration: DataDigest | None
    held_out: DataDigest | None
    license: str

    def __post_init__(self) -> None:
        if not _UTC.fullmatch(self.created_utc):
            raise BundleError(
                f"created_utc is {self.created_utc!r}, expected a form like 2026-01-31T12:00:00Z"
            )
        _digest("checkpoint_sha256", self.checkpoint_sha256)


@dataclass(frozen=True)
class FileEntry:
    """Size and SHA-256 of one file of the bundle."""

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        within("bytes", self.bytes, 1, _MAX_FILE_BYTES)
        _digest("sha256", self.sha256)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Description of a bundle, read before any other file of it.

    `files` lists every other file, keyed by path with forward slashes; empty until
    `jetsight.bundle.bundle.write_bundle` fills it in. `heads` and `planners` came with version 1.2,
    `frame.cameras`, `frame.via`, `action.resample`, `action.fixed`, `state` and
    `fallbacks`, what the gates of the compile cost, with version 1.3.
    """

    format: Literal["jetsight-bundle"] = "jetsight-bundle"
    version: str = VERSION
    name: str
    model: ModelSpec
    frame: FrameSpec
    timing: TimingSpec
    action: ActionSpec
    latent: LatentStats
    families: tuple[Family, ...]
    gates: tuple[Gate, ...]
    provenance: Provenance
    files: Mapping[str, FileEntry] = dataclasses.field(default_factory=dict)
    heads: HeadSpec | None = None
    planners: tuple[PlannerSpec, ...] = ()
    state: StateSpec | None = None
    fallbacks: tuple[Fallback, ...] = ()

    def __post_init__(self) -> None:
        identifier("name", self.name)
        self._check_sizes()
        check_planners(
            self.planners,
            self.heads,
            history=self.model.history,
            horizon=self.model.horizon,
            step_size=len(self.action.names),
        )
        names = [family.name for family in self.families]
        if not names or len(set(names)) != len(names):
            raise BundleError(f"families {names} are empty or repeat themselves")
        for gate in self.gates:
            if gate.family not in names:
                raise BundleError(f"gate {gate.name!r} is for unknown family {gate.family!r}")

    def _check_sizes(self) -> None:
        block, step = self.timing.action_block, len(self.action.names)
        if self.model.action_size != block * step:
            raise BundleError(
                f"model.action_size is {self.model.action_size}, but timing.action_block {block} "
                f"times {step} action names is {block * step}"
            )
        if len(self.latent.mean) != self.model.latent_size:
            raise BundleError(
                f"latent.mean has {len(self.latent.mean)} values, but model.latent_size is "
                f"{self.model.latent_size}"
            )

    def graphs(self, family: str) -> dict[str, FileEntry]:
        """List the files of a family by the names of their graphs."""
        prefix = f"graphs/{family}/"
        return {
            path.removeprefix(prefix).removesuffix(".onnx"): entry
            for path, entry in self.files.items()
            if path.startswith(prefix)
        }

    def check_files(self) -> None:
        """Raise `BundleError` unless exactly the files of the listed families are listed."""
        families = [family.name for family in self.families]
        if len(self.files) > _MAX_FILES:
            raise BundleError(f"files lists {len(self.files)}, expected at most {_MAX_FILES}")
        for path in self.files:
            match = _GRAPH_PATH.fullmatch(path)
            if path != GOLDEN and not (match and match[1] in families):
                raise BundleError(
                    f"files lists {path[:80]!r}, expected only {GOLDEN} and "
                    "graphs/<family>/<graph>.onnx of a listed family"
                )
        required = [graph_path(family, graph) for family in families for graph in GRAPHS]
        for path in [*required, GOLDEN]:
            if path not in self.files:
                raise BundleError(f"files does not list {path}")
        self._check_planner_files()

    def _check_planner_files(self) -> None:
        """Raise unless every planner's graph has a file, a precision and a planner."""
        known = {planner.graph for planner in self.planners}
        for family in self.families:
            listed = {graph for graph in self.graphs(family.name) if graph.startswith(IMAGINE)}
            named = {graph for graph in family.precision if graph.startswith(IMAGINE)}
            if odd := sorted(listed ^ named) or sorted(named - known):
                raise BundleError(
                    f"{odd[0]} of {family.name} must have a file, a precision and a planner"
                )
        carried = {graph for family in self.families for graph in family.precision}
        if missing := sorted(known - carried):
            raise BundleError(f"no family has the graph of planner {missing[0]}")


def graph_path(family: str, graph: str) -> str:
    """Return the path of a graph inside the bundle."""
    return f"graphs/{family}/{graph}.onnx"


def parse(data: bytes, what: str = FILE_NAME) -> Manifest:
    """Read `manifest.json`, and check all of it.

    Args:
        data: the file's bytes.
        what: name of the file in messages, e.g. "nano.jetsight/manifest.json".

    Raises:
        BundleError: anything is wrong; one line that names the key.
    """
    # Format and version first: the strict pass would blame the first key of a newer format.
    head = strict_json.parse_object(data, what, error=BundleError)
    if head.get("format") != FORMAT:
        raise BundleError(f"{what}: format is not {FORMAT!r}; this is no jetsight bundle")
    newer = _is_newer_minor(head.get("version"), what)
    manifest = strict_json.parse(data, Manifest, what, error=BundleError, allow_unknown=newer)
    try:
        # Not in the constructor: the compiler makes a manifest before its files are known.
        manifest.check_files()
    except BundleError as error:
        raise BundleError(f"{what}: {error}") from None
    return manifest


def dump(manifest: Manifest) -> bytes:
    """Write `manifest.json`: equal manifests give equal bytes."""
    return strict_json.dump(manifest)


def _is_newer_minor(version: object, what: str) -> bool:
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", version) if isinstance(version, str) else None
    if match is None:
        raise BundleError(f"{what}: version is missing or not like {VERSION!r}")
    own_major, own_minor = (int(part) for part in VERSION.split("."))
    major, minor = int(match[1]), int(match[2])
    if major > own_major:
        raise BundleError(
            f"{what}: version {major}.{minor} is newer than this jetsight reads ({VERSION}); "
            "upgrade jetsight on this machine"
        )
    if major < own_major:
        raise BundleError(f"{what}: version {major}.{minor} is no longer read; compile again")
    return minor > own_minor


def _digest(key: str, value: str) -> None:
    if not _HEX.fullmatch(value):
        raise BundleError(f"{key} is no SHA-256 in 64 lowercase hex digits")
