"""Strict JSON: what is refused, what survives a round trip, and that only one error comes out."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetsight.errors import CheckpointError
from jetsight.storage import strict_json


@dataclass(frozen=True)
class Inner:
    low: float
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.low > 10:
            raise ValueError(f"low is {self.low}, expected at most 10")


@dataclass(frozen=True)
class Outer:
    name: str
    count: int
    on: bool
    kind: Literal["a", "b"]
    inner: Inner
    rows: tuple[Inner, ...]
    sizes: Mapping[str, int]
    maybe: float | None
    free: Any = None


GOOD: dict[str, Any] = {
    "name": "n",
    "count": 3,
    "on": True,
    "kind": "a",
    "inner": {"low": 1},
    "rows": [{"low": 0.5, "tags": ["x"]}],
    "sizes": {"k": 1},
    "maybe": None,
}


def _parse(value: Any) -> Outer:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return strict_json.parse(data, Outer, "file.json", error=CheckpointError)


def test_good_object_becomes_the_dataclass() -> None:
    outer = _parse(GOOD)
    inner, rows = Inner(1.0), (Inner(0.5, ("x",)),)
    assert outer == Outer("n", 3, True, "a", inner, rows, sizes={"k": 1}, maybe=None)
    assert type(outer.inner.low) is float


BAD_VALUES = [
    ("name", 1, "file.json: name: is an integer 1, expected a string"),
    ("count", 3.0, "file.json: count: is a number 3.0, expected an integer"),
    ("count", True, "file.json: count: is true or false True, expected an integer"),
    ("count", None, "file.json: count: is null , expected an integer"),
    ("on", 1, "file.json: on: is an integer 1, expected true or false"),
    ("kind", "c", "file.json: kind: is 'c', expected 'a' or 'b'"),
    ("inner", [], "file.json: inner: is a list , expected an object"),
    ("inner", {"low": "1"}, "file.json: inner.low: is a string '1', expected a number"),
    ("inner", {"low": 11}, "file.json: inner: low is 11.0, expected at most 10"),
    ("inner", {"lo": 1}, "file.json: inner: unknown key 'lo'; did you mean 'low'?"),
    ("inner", {}, "file.json: inner: the key 'low' is missing"),
    ("inner", {"low": 1, "zzz": 1}, "inner: unknown key 'zzz'; known keys: low, tags"),
    ("rows", [{"low": 1}, {"low": None}], "file.json: rows[1].low: is null"),
    ("sizes", {"k": 1.5}, "file.json: sizes.k: is a number 1.5"),
    ("maybe", "x", "file.json: maybe: is a string 'x', expected a number"),
    ("name", "two\nlines", "unprintable character in 'two\\nlines'"),
    ("name", "esc\x1b[2J", "unprintable character"),
    ("free", {"deep": ["\u202e"]}, "unprintable character"),
    ("free", {"a\nb": 1}, "unprintable character"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD_VALUES)
def test_bad_value_names_the_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        _parse({**GOOD, key: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_BYTES = [
    (b"", "not JSON"),
    (b"\xff\xfe{}", "not UTF-8 text at byte 0"),
    (b"[1]", "expected a JSON object, got a list"),
    (b"null", "expected a JSON object, got null"),
    (b'{"a": 1, "a": 2}', "the key 'a' appears twice"),
    (b'{"a": {"b": 1, "b": 1}}', "the key 'b' appears twice"),
    (b'{"a": NaN}', "NaN is not a JSON number"),
    (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
    (b'{"a": 1e999}', "out of range"),
    (b'{"a": ' + b"9" * 100_000 + b"}", "a number has 100000 digits"),
    (b'{"a": 0.' + b"1" * 100_000 + b"}", "out of range"),
    (b'{"a": ' * 100_000, "nested deeper"),
    (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "nested deeper than 32 levels"),
    (b'{"a": "\\ud800"}', "unprintable character"),
    (b'{"a": 1} trailing', "not JSON: Extra data at line 1"),
    (b"\xef\xbb\xbf{}", "not JSON"),
    (b" " * (2 << 20), "refused unread"),
]


@pytest.mark.parametrize(("data", "message"), BAD_BYTES, ids=range(len(BAD_BYTES)))
def test_bad_bytes_are_refused_quickly_in_one_line(data: bytes, message: str) -> None:
    start = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        _parse(data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert time.process_time() - start < 1.0


def test_unknown_keys_pass_only_when_asked_for() -> None:
    data = json.dumps({**GOOD, "added_later": 1, "inner": {"low": 1, "new": []}}).encode()
    with pytest.raises(CheckpointError, match="added_later"):
        strict_json.parse(data, Outer, "f", error=CheckpointError)
    outer = strict_json.parse(data, Outer, "f", error=CheckpointError, allow_unknown=True)
    assert outer.inner == Inner(1.0)


def test_dump_is_canonical_and_readable() -> None:
    one, two = (
        Outer("ä", 1, False, "b", Inner(0.1), (), sizes=sizes, maybe=1e-30, free=free)
        for sizes, free in (
            ({"b": 1, "a": 2}, {"y": [1], "x": None}),
            ({"a": 2, "b": 1}, {"x": None, "y": [1]}),
        )
    )
    assert strict_json.dump(one) == strict_json.dump(two)
    assert _parse(strict_json.dump(one)) == one
    assert b'"tags": []' in strict_json.dump(one)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_dump_refuses_what_could_not_be_read_back(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json.dump({"low": [value]})


@given(st.binary(max_size=200))
def test_any_bytes_raise_only_the_given_error(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        _parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_value_under_a_known_key_parses_or_raises_the_given_error(key: str, value: Any) -> None:
    with contextlib.suppress(CheckpointError):
        outer = _parse({**GOOD, key: value})
        assert _parse(strict_json.dump(outer)) == outer
