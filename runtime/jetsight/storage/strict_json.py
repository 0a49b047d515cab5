"""Frozen dataclasses to JSON and back, for files that are not trusted.

Refused: bytes that are not UTF-8 JSON, duplicate keys, NaN and infinities, overlong numbers, text
with control or invisible characters, unknown keys (the nearest known one is named), missing keys,
and values of another type than the field's annotation. Limits that relate fields to one another
belong in `__post_init__` of the dataclass.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jetsight.errors import ArtefactError, JetsightError, did_you_mean

T = TypeVar("T")

_MAX_DEPTH = 32
_MAX_DIGITS = 25  # longer than any 64-bit integer or round-trip float, short enough to be cheap


def parse(
    data: bytes,
    cls: type[T],
    what: str,
    *,
    error: type[JetsightError] = ArtefactError,
    allow_unknown: bool = False,
    max_bytes: int = 1 << 20,
) -> T:
    """Read `data` as one JSON object with exactly the fields of the dataclass `cls`.

    Field types may be `int`, `float`, `str`, `bool`, `Literal`, `X | None`, `tuple[X, ...]`,
    `Mapping[str, X]`, other dataclasses, and `Any` for plain JSON. A field with a default may be
    absent. An `int` is accepted where a `float` is expected, never the other way round.

    Args:
        data: the file's bytes.
        cls: dataclass to build.
        what: name of the file, first words of every message.
        error: exception class to raise.
        allow_unknown: ignore unknown keys, for files of a newer minor version.
        max_bytes: limit above which a file is refused unparsed.

    Raises:
        error: anything is wrong with `data`; one line that names the key.
    """
    value = parse_object(data, what, error=error, max_bytes=max_bytes)
    try:
        return _build(cls, value, "", allow_unknown)
    except _Wrong as wrong:
        raise error(f"{what}: {wrong}") from None


def parse_object(
    data: bytes,
    what: str,
    *,
    error: type[JetsightError] = ArtefactError,
    max_bytes: int = 1 << 20,
) -> dict[str, Any]:
    """Read `data` as one JSON object without a schema; same strictness about JSON itself.

    Raises:
        error: `data` is not strict JSON, or not an object.
    """
    if len(data) > max_bytes:
        raise error(f"{what}: {len(data)} bytes, expected at most {max_bytes}; refused unread")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
            parse_int=_parse_int,
        )
        _check_text(value, 0)
    except _Wrong as wrong:
        raise error(f"{what}: {wrong}") from None
    except RecursionError:  # json recurses before `_check_text` counts the levels
        raise error(f"{what}: nested deeper than {_MAX_DEPTH} levels") from None
    except UnicodeDecodeError as wrong:
        raise error(f"{what}: not UTF-8 text at byte {wrong.start}") from None
    except json.JSONDecodeError as wrong:
        raise error(f"{what}: not JSON: {wrong.msg} at line {wrong.lineno}") from None
    if not isinstance(value, dict):
        raise error(f"{what}: expected a JSON object, got {_kind(value)}")
    return value


def dump(value: object) -> bytes:
    """Return the JSON of a dataclass, the same bytes for equal values.

    Fields are in the order of declaration, keys of mappings sorted. For readability objects are
    indented and lists of plain values stay on one line.

    Raises:
        ValueError: a float is not finite; such a file could not be read back.
    """
    return (_encode(value, "") + "\n").encode()


class _Wrong(Exception):
    """Defect of a value and its place; `parse` turns it into the caller's exception class."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path}: {text}" if path else text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        # json keeps the last of equal keys, another reader may keep the first.
        if key in found:
            raise _Wrong("", f"the key {_shown(key)} appears twice in one object")
        found[key] = value
    return found


def _refuse_constant(text: str) -> Any:
    # json accepts NaN and Infinity, which the standard does not have.
    raise _Wrong("", f"{text} is not a JSON number")


def _parse_int(text: str) -> int:
    # Before `int`, whose time grows with the square of the number of digits.
    if len(text) > _MAX_DIGITS:
        raise _Wrong("", f"a number has {len(text)} digits")
    return int(text)


def _parse_float(text: str) -> float:
    value = float(text) if len(text) <= 2 * _MAX_DIGITS else math.nan
    if not math.isfinite(value):  # `float` reads 1e999 as infinity
        raise _Wrong("", f"the number {_shown(text)} is out of range")
    return value


def _check_text(value: Any, depth: int) -> None:
    """Refuse strings that are not printable: a newline or an escape code could forge a message."""
    if depth > _MAX_DEPTH:
        raise _Wrong("", f"nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, str):
        if not value.isprintable():
            raise _Wrong("", f"unprintable character in {_shown(value)}")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, depth)
            _check_text(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_text(item, depth + 1)


def _convert(hint: Any, value: Any, path: str, allow_unknown: bool) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, path, allow_unknown)
    if origin in (Union, types.UnionType):  # X | None, nothing else
        (inner,) = [arg for arg in args if arg is not type(None)]
        return None if value is None else _convert(inner, value, path, allow_unknown)
    if origin is Literal:
        # The type too, because for Python True equals 1.
        if not any(value == known and type(value) is type(known) for known in args):
            raise _Wrong(path, f"is {_shown(value)}, expected {' or '.join(map(repr, args))}")
        return value
    if origin is tuple:
        _expect(list, value, path)
        return tuple(
            _convert(args[0], item, f"{path}[{i}]", allow_unknown) for i, item in enumerate(value)
        )
    if origin is not None:  # Mapping[str, X]
        _expect(dict, value, path)
        return {
            key: _convert(args[1], item, _join(path, key), allow_unknown)
            for key, item in value.items()
        }
    if hint is float and type(value) is int:
        return float(value)
    _expect(hint, value, path)
    return value


def _expect(hint: type, value: Any, path: str) -> None:
    if type(value) is not hint:  # not isinstance: a bool is an int for Python
        raise _Wrong(path, f"is {_kind(value)} {_shown(value)}, expected {_NAMES[hint]}")


def _build(cls: type[T], value: Any, path: str, allow_unknown: bool) -> T:
    _expect(dict, value, path)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    names = [field.name for field in fields]
    if not allow_unknown:
        _refuse_unknown(value, names, path)
    hints = _hints(cls)  # type: ignore[arg-type]
    built = {}
    for field in fields:
        if field.name in value:
            where = _join(path, field.name)
            built[field.name] = _convert(hints[field.name], value[field.name], where, allow_unknown)
        elif field.default is dataclasses.MISSING is field.default_factory:
            raise _Wrong(path, f"the key {field.name!r} is missing")
    try:
        return cls(**built)
    except (JetsightError, ValueError) as wrong:
        raise _Wrong(path, str(wrong)) from None


def _refuse_unknown(value: Mapping[str, Any], names: list[str], path: str) -> None:
    for key in value:
        if key not in names:
            hint = did_you_mean(key, names, "known keys")
            raise _Wrong(path, f"unknown key {_shown(key)}; {hint}")


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)  # slow: it evaluates every annotation again


_NAMES = {
    int: "an integer",
    float: "a number",
    str: "a string",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)


def _shown(value: Any) -> str:
    """Format any value as one short line."""
    text = ascii(value) if isinstance(value, (str, int, float, bool)) else ""
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(path: str, key: str) -> str:
    shown = key if len(key) <= 60 else f"{key[:57]}..."
    return f"{path}.{shown}" if path else shown


def _encode(value: Any, indent: str) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, Mapping):
        value = dict(sorted(value.items()))
    deeper = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_encode(item, deeper)}" for key, item in value.items()]
        return _bracket("{", items, "}", indent)
    if isinstance(value, (list, tuple)):
        items = [_encode(item, deeper) for item in value]
        if any(isinstance(i, (Mapping, list, tuple)) or dataclasses.is_dataclass(i) for i in value):
            return _bracket("[", items, "]", indent)
        return f"[{', '.join(items)}]"
    return json.dumps(value, allow_nan=False)


def _bracket(left: str, items: list[str], right: str, indent: str) -> str:
    if not items:
        return left + right
    line = f",\n{indent}  "
    return f"{left}\n{indent}  {line.join(items)}\n{indent}{right}"
