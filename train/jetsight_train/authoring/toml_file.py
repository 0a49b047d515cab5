"""Text of a recipe file: every key with its unit, meaning, and the reason for its value.

Keys that have their default are written as comments, so that a file shows all there is.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jetsight_train.authoring import reference
from jetsight_train.authoring.reference import REQUIRED, RecipeKey, toml_value
from jetsight_train.recipe import Recipe

WIDTH = 100


def render(
    recipe: Recipe, head: Sequence[str], reasons: Mapping[str, str], states: Mapping[str, str]
) -> str:
    """Write a recipe as commented TOML, which reads back as the same recipe.

    Args:
        recipe: to write.
        head: lines at the top, without `#`.
        reasons: by dotted key, why it has its value.
        states: units of the recorded states by name, which anchors could be.
    """
    lines = [line for text in head for line in _comment(text)]
    for section, keys in reference.sections(reference.keys("recipe")).items():
        value = _value(recipe, section)
        if section.startswith("[["):
            lines += ["", *_repeated(section, keys, value, states)]
        elif value is None:
            lines += ["", *_absent(section)]
        else:
            lines += ["", *([section] if section else []), *_keys(keys, value, reasons)]
    return "\n".join(lines) + "\n"


def _value(recipe: Recipe, section: str) -> Any:
    value: Any = recipe
    for name in filter(None, section.strip("[]").split(".")):
        value = getattr(value, name, None)
    return value


def _keys(keys: Sequence[RecipeKey], value: Any, reasons: Mapping[str, str]) -> Iterator[str]:
    for key in keys:
        here = getattr(value, key.name)
        unit = f" ({key.unit})" if key.unit else ""
        why = f" [{reasons[key.path]}]" if key.path in reasons else ""
        is_default = here is None or (key.default != REQUIRED and toml_value(here) == key.default)
        if is_default:
            shown = key.default if key.default not in ("none", REQUIRED) else "..."
            yield from _comment(f"{key.name} = {shown}{unit}: {key.meaning}{why}")
        else:
            yield from _comment(f"{key.name}{unit}: {key.meaning}{why}")
            yield f"{key.name} = {toml_value(here)}"


def _absent(section: str) -> Iterator[str]:
    plain = section.strip("[]")
    yield from _comment(f"{section} is left out; what it may hold: jetsight recipe show {plain}")


def _repeated(
    section: str, keys: Sequence[RecipeKey], entries: Sequence[Any], states: Mapping[str, str]
) -> Iterator[str]:
    """Write the entries of a repeated section; without any, the states that could be some."""
    for entry in entries:
        yield section
        yield from (f"{key.name} = {toml_value(getattr(entry, key.name))}" for key in keys)
    if entries or not states:
        return
    yield from _comment(
        "Anchors supervise dimensions of the latent by recorded states. They help where the robot "
        "knows the pose of itself or of objects; uncomment some, and set objective.anchor to 50. "
        'Give an angle the unit "rad" or "deg". The same columns serve as probes of heads: '
        "jetsight recipe show heads"
    )
    for name, unit in states.items():
        yield from (f"# {section}", f"# column = {toml_value(name)}")
        yield f"# unit = {toml_value(unit or '?')}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
