"""The manifest: a table of every refusal, versions, round trips, and hypothesis over mutations."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from typing import Any

import pytest
from helpers.runtime.bundle_factory import make_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetsight.bundle import manifest
from jetsight.bundle.manifest import FileEntry, Manifest
from jetsight.errors import ArtefactError, BundleError

ENTRY = FileEntry(10, "ab" * 32)
PATHS = [f"graphs/{f}/{g}.onnx" for f in ("cpu-fp32", "cpu-int8") for g in ("encode", "forecast")]
GOOD = json.loads(manifest.dump(make_manifest(files=dict.fromkeys([*PATHS, "golden.npz"], ENTRY))))
REMOVE = object()


def _mutated(path: str, value: Any) -> bytes:
    """GOOD with the value at a dotted path replaced, added or removed."""
    if path.startswith("files/"):
        return _replaced(("files", path.removeprefix("files/")), value)
    return _replaced(tuple(int(k) if k.isdecimal() else k for k in path.split(".")), value)


def _replaced(place: tuple[Any, ...], value: Any) -> bytes:
    tree = copy.deepcopy(GOOD)
    node = tree
    for key in place[:-1]:
        node = node[key]
    if value is REMOVE:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return json.dumps(tree).encode()


def _one_line_at_most(data: bytes) -> Manifest | None:
    """Parse; a refusal must be a `BundleError` of one line, anything else fails the test."""
    try:
        return manifest.parse(data)
    except BundleError as error:
        if "\n" in str(error):
            raise AssertionError(f"not one line: {error}") from error
        return None


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += _places(value, (*path, key))
    return found


ENTRY_JSON = dataclasses.asdict(ENTRY)
DEFECTS: list[tuple[str, Any, str]] = [
    ("format", "zip", "format is not 'jetsight-bundle'"),
    ("format", REMOVE, "format is not 'jetsight-bundle'"),
    ("version", "2.0", "newer than this jetsight reads (1.3); upgrade"),
    ("version", "0.9", "no longer read"),
    ("version", "1", "version is missing or not like '1.3'"),
    ("version", 1.0, "version is missing or not like '1.3'"),
    ("version", "1.0\n", "unprintable character"),
    ("name", "../up", "name is '../up', expected letters"),
    ("name", "", "name is ''"),
    ("horizon", 5, "unknown key 'horizon'"),
    ("model.horizons", 5, "model: unknown key 'horizons'; did you mean 'horizon'?"),
    ("model.horizon", REMOVE, "model: the key 'horizon' is missing"),
    ("model.latent_size", 5, "latent.mean has 4 values, but model.latent_size is 5"),
    ("model.latent_size", 0, "model: latent_size is 0, expected 1 to 65536"),
    ("model.latent_size", 4.0, "model.latent_size: is a number 4.0, expected an integer"),
    ("model.history", 10**9, "model: history is 1000000000"),
    ("model.action_size", 6, "model.action_size is 6, but timing.action_block 2 times 2"),
    ("frame.height_px", 0, "frame: height_px is 0"),
    ("frame.channel_order", "yuv", "frame.channel_order: is 'yuv', expected 'rgb'"),
    ("frame.crop", [0, 0, 8], "frame: crop has 3 values, expected 4"),
    ("frame.crop", [0, 6, 8, 8], "is outside the 8x12 frame"),
    ("frame.crop", [-1, 0, 8, 8], "is outside the 8x12 frame"),
    ("frame.resize", [6, 0], "frame: resize is 0"),
    ("frame.std", [0.2, 0.2, 0.0], "frame: std holds 0.0, expected numbers above 0"),
    ("frame.mean", [0.5, 0.5, 1e39], "expected finite float32 numbers"),
    ("timing.camera_hz", 0, "timing: camera_hz is 0.0"),
    ("timing.camera_hz", -1, "timing: camera_hz is -1.0"),
    ("timing.action_block", 0, "timing: action_block is 0"),
    ("action.names", ["x"], "action: units has 2 values, expected 1"),
    ("action.names", ["x", "x"], "action: names ['x', 'x'] repeat"),
    ("action.names", [], "number of action names is 0"),
    ("action.mean", [1.0], "action: mean has 1 values, expected 2"),
    ("action.std", [1.0, 0.0], "action: std holds 0.0"),
    ("action.low", [600.0, 0.0], "action: 'x' has low 600.0 and high 512.0"),
    ("action.neutral", [256.0, 513.0], "action: 'y' has neutral 513.0 outside"),
    ("action.rate_limit_per_s", [1.0], "rate_limit_per_s has 1 values"),
    ("action.rate_limit_per_s", [1.0, 0.0], "rate_limit_per_s holds 0.0"),
    ("latent.std", [1.0], "latent: std has 1 values, expected 4"),
    ("latent.std.2", 0.0, "latent: std holds 0.0"),
    ("latent.surprise_scale", 0.0, "surprise_scale holds 0.0"),
    ("latent.surprise_quantiles.p90", 0.5, "do not ascend"),
    ("families", [], "families [] are empty"),
    ("families.1.name", "cpu-fp32", "repeat themselves"),
    ("families.0.name", "a/b", "families[0]: family name is 'a/b'"),
    ("families.0.opset", 3, "families[0]: opset is 3"),
    ("families.0.precision.encode", REMOVE, "precision of graph 'encode' is missing"),
    ("families.0.targets", [], "families[0]: targets is empty"),
    ("families.0.tensors", -1, "families[0]: tensors is -1"),
    ("gates.0.family", "gpu", "unknown family 'gpu'"),
    ("gates.0.direction", "up", "gates[0].direction: is 'up'"),
    ("gates.0.passed", False, "says passed=False, but its value 0.999"),
    ("gates.0.value", 0.5, "says passed=True, but its value 0.5"),
    ("gates.0.control_value", 0.995, "says control_failed=True, but its control value 0.995"),
    ("provenance.created_utc", "yesterday", "created_utc is 'yesterday'"),
    ("provenance.checkpoint_sha256", "AB" * 32, "checkpoint_sha256 is no SHA-256"),
    ("provenance.calibration.frames", 0, "frames is 0"),
    ("provenance.calibration.episodes", [1, 1], "episodes repeat"),
    ("files/golden.npz", REMOVE, "files does not list golden.npz"),
    (
        "files/graphs/cpu-fp32/encode.onnx",
        REMOVE,
        "files does not list graphs/cpu-fp32/encode.onnx",
    ),
    ("files/golden.npz", {"bytes": 0, "sha256": "ab" * 32}, "files.golden.npz: bytes is 0"),
    ("files/golden.npz", {"bytes": 1 << 40, "sha256": "ab" * 32}, "bytes is 1099511627776"),
    ("files/golden.npz", {"bytes": 1, "sha256": "ab"}, "sha256 is no SHA-256"),
    ("files/evil.so", ENTRY_JSON, "files lists 'evil.so', expected only golden.npz"),
    ("files/../golden.npz", ENTRY_JSON, "files lists '../golden.npz'"),
    ("files//etc/passwd", ENTRY_JSON, "files lists '/etc/passwd'"),
    ("files/graphs/../x/encode.onnx", ENTRY_JSON, "files lists 'graphs/../x/encode.onnx'"),
    ("files/graphs/gpu/encode.onnx", ENTRY_JSON, "files lists 'graphs/gpu/encode.onnx'"),
    ("files/graphs/cpu-int8/encode.onnx\n", ENTRY_JSON, "unprintable character"),
    ("files/graphs\\cpu-int8\\encode.onnx", ENTRY_JSON, "files lists"),
]


@pytest.mark.parametrize(("path", "value", "message"), DEFECTS)
def test_defect_is_refused_with_its_key(path: str, value: Any, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        manifest.parse(_mutated(path, value))
    assert message in str(caught.value)
    assert str(caught.value).startswith("manifest.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", _places(GOOD), ids=str)
def test_value_of_a_wrong_type_is_refused_in_every_field(place: tuple[Any, ...]) -> None:
    with pytest.raises(BundleError):
        manifest.parse(_replaced(place, {"odd": [None]}))


@pytest.mark.parametrize("place", [p for p in _places(GOOD) if isinstance(p[-1], str)], ids=str)
def test_removed_key_is_refused_in_every_field(place: tuple[Any, ...]) -> None:
    optional = {"tensors", "detail", "jetsight", "torch", "heads", "planners", "cameras", "state"}
    optional |= {"via", "resample", "fixed", "fallbacks"}
    data = _replaced(place, REMOVE)
    if place[-1] in optional:
        manifest.parse(data)
    else:
        with pytest.raises(BundleError, match=re.escape(place[-1])):
            manifest.parse(data)


def test_untouched_manifest_parses_and_round_trips() -> None:
    parsed = manifest.parse(json.dumps(GOOD).encode())
    assert manifest.parse(manifest.dump(parsed)) == parsed
    assert manifest.dump(manifest.parse(manifest.dump(parsed))) == manifest.dump(parsed)


def test_newer_minor_version_may_add_keys_and_older_readers_ignore_them() -> None:
    newer = copy.deepcopy(GOOD)
    newer["version"], newer["weather"], newer["model"]["depth"] = "1.7", ["dry"], 6
    parsed = manifest.parse(json.dumps(newer).encode())
    assert parsed.version == "1.7"
    newer["version"] = "1.0"
    with pytest.raises(BundleError, match="unknown key 'weather'"):
        manifest.parse(json.dumps(newer).encode())


def test_a_manifest_from_before_planners_has_none() -> None:
    older = copy.deepcopy(GOOD)
    older["version"] = "1.1"
    del older["planners"], older["heads"]
    assert manifest.parse(json.dumps(older).encode()).planners == ()


def test_a_manifest_from_before_gates_had_details_is_read() -> None:
    older = copy.deepcopy(GOOD)
    older["version"] = "1.0"
    del older["gates"][0]["detail"]
    assert manifest.parse(json.dumps(older).encode()).gates[0].detail == ""


def test_too_many_files_are_refused() -> None:
    tree = copy.deepcopy(GOOD)
    tree["files"].update({f"graphs/cpu-fp32/g{i}.onnx": ENTRY_JSON for i in range(300)})
    with pytest.raises(BundleError, match="files lists 305, expected at most 256"):
        manifest.parse(json.dumps(tree).encode())


def test_constructing_a_contradiction_fails_as_reading_one_does() -> None:
    good = make_manifest()
    with pytest.raises(ArtefactError, match="action_size is 4"):
        make_manifest(timing=dataclasses.replace(good.timing, action_block=3))


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@settings(max_examples=300)
@given(st.sampled_from(_places(GOOD)), ODD)
def test_any_mutation_parses_to_a_valid_manifest_or_raises_bundle_error(
    place: tuple[Any, ...], value: Any
) -> None:
    parsed = _one_line_at_most(_replaced(place, value))
    assert parsed is None or manifest.parse(manifest.dump(parsed)) == parsed


@settings(max_examples=300)
@given(st.integers(0, len(json.dumps(GOOD)) - 1), st.binary(max_size=3))
def test_any_splice_into_the_text_raises_only_bundle_error(position: int, noise: bytes) -> None:
    text = json.dumps(GOOD).encode()
    _one_line_at_most(text[:position] + noise + text[position + 1 :])
