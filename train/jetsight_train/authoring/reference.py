"""Reference of all recipe keys, read from the recipe dataclasses and their docstrings.

The section `Attributes:` of a dataclass documents its keys, one `name (unit): meaning.` each.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jetsight.errors import UsageError, did_you_mean
from jetsight_train.heads.recipe import HeadsRecipe
from jetsight_train.recipe import Recipe

KINDS: Mapping[str, type[Any]] = {"recipe": Recipe, "heads": HeadsRecipe}
TITLES = {"recipe": "World model", "heads": "Heads"}
INTRO = {
    "recipe": "A recipe of a world model: `jetsight train FILE --data DIR`.",
    "heads": "A recipe of heads: `jetsight train FILE --probe CHECKPOINT --data DIR`.",
}
REQUIRED = "required"
_SECTIONS = re.compile(r"^(Args|Attributes|Raises|Returns|Example|Yields):$")
_ENTRY = re.compile(r"(\w+)(?: \(([^)]+)\))?: (.+)")


@dataclass(frozen=True)
class RecipeKey:
    """One key of a recipe file.

    Attributes:
        kind: `"recipe"` or `"heads"`.
        section: TOML table of the key; empty for the top level.
        name: name of the key.
        type: form of its value.
        unit: its unit; empty for none.
        default: value where it is left out, as TOML; `REQUIRED` where there is none.
        meaning: one sentence or two.
    """

    kind: str
    section: str
    name: str
    type: str
    unit: str
    default: str
    meaning: str

    @property
    def path(self) -> str:
        """Dotted name of the key."""
        plain = self.section.strip("[]")
        return f"{plain}.{self.name}" if plain else self.name


def documented(cls: type[Any]) -> dict[str, tuple[str, str]]:
    """Read unit and meaning of each documented field of a dataclass."""
    found: dict[str, tuple[str, str]] = {}
    inside, name = False, ""
    for line in inspect.cleandoc(cls.__doc__ or "").splitlines():
        text = line.strip()
        if _SECTIONS.match(text) and not line.startswith(" "):
            inside = text in ("Attributes:", "Args:")
        elif inside and (match := _ENTRY.fullmatch(text)) and re.match(r" {4}\S", line):
            name = match[1]
            found[name] = (match[2] or "", match[3])
        elif inside and name and text:
            unit, meaning = found[name]
            found[name] = (unit, f"{meaning} {text}")
    return {name: (unit, meaning.rstrip(".")) for name, (unit, meaning) in found.items()}


def keys(kind: str) -> list[RecipeKey]:
    """List every key of a kind of recipe, section by section in the order of the file."""
    return list(_keys(kind, KINDS[kind], ""))


def find(name: str) -> list[RecipeKey]:
    """Find the keys of a section, or of a name with or without its section.

    Raises:
        UsageError: there is neither; the nearest name is given.
    """
    every = [key for kind in KINDS for key in keys(kind)]
    plain = name.strip("[]")
    for chosen in (
        [key for key in every if key.kind == plain],
        [k for k in every if k.section and f"{k.section.strip('[]')}.".startswith(f"{plain}.")],
        [key for key in every if plain in (key.path, key.name)],
    ):
        if chosen:
            return chosen
    known = {key.section.strip("[]") for key in every} - {""} | set(KINDS)
    hint = did_you_mean(name, sorted(known | {text for k in every for text in (k.path, k.name)}))
    if not hint.startswith("did you mean"):  # a list of all keys would be longer than a screen
        hint = f"sections: {', '.join(sorted(known))}"
    raise UsageError(f"there is no recipe section or key {name[:100]!r}; {hint}")


def markdown() -> str:
    """Write the page `docs/recipes.md`."""
    lines = [
        "# Recipes",
        "",
        "A recipe is a TOML file; with the data it determines the result of a training run. "
        "`jetsight recipe new --data DIR`",
        "writes one from a dataset, `jetsight recipe check FILE --data DIR` checks it, and "
        "`jetsight recipe show` prints this page.",
        "Keys without a default are required; an unknown key is refused, and the nearest known "
        "one is named.",
        "",
        "This page is generated: `jetsight recipe show --markdown > docs/recipes.md`.",
    ]
    for kind in KINDS:
        lines += ["", f"## {TITLES[kind]}", "", INTRO[kind]]
        for section, chosen in sections(keys(kind)).items():
            lines += ["", f"### {heading(kind, section)}", "", *_table(chosen)]
    return "\n".join(lines) + "\n"


def sections(chosen: list[RecipeKey]) -> dict[str, list[RecipeKey]]:
    """Group keys by their section, in order."""
    found: dict[str, list[RecipeKey]] = {}
    for key in chosen:
        found.setdefault(key.section, []).append(key)
    return found


def heading(kind: str, section: str) -> str:
    """Name a section for people; both kinds of recipe have some of the same name."""
    name = section or "top level"
    return name if kind == "recipe" else f"{kind}: {name}"


def _table(chosen: list[RecipeKey]) -> Iterator[str]:
    yield "| key | value | unit | default | meaning |"
    yield "|---|---|---|---|---|"
    for key in chosen:
        cells = (f"`{key.name}`", key.type, key.unit, _code(key.default), key.meaning)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _code(default: str) -> str:
    return default if default in (REQUIRED, "none", "") else f"`{default}`"


def _keys(kind: str, cls: type[Any], section: str) -> Iterator[RecipeKey]:
    hints, meanings = get_type_hints(cls), documented(cls)
    plain, nested = [], []
    for each in dataclasses.fields(cls):
        inner, several = _dataclass_in(hints[each.name])
        name = f"{section.strip('[]')}.{each.name}".strip(".")
        if inner is None:
            unit, meaning = meanings.get(each.name, ("", ""))
            form = _form(hints[each.name])
            plain.append(
                RecipeKey(
                    kind,
                    section,
                    each.name,
                    type=form,
                    unit=unit,
                    default=_default(each),
                    meaning=meaning,
                )
            )
        else:
            nested.append((inner, f"[[{name}]]" if several else f"[{name}]"))
    yield from plain
    for inner, name in nested:
        yield from _keys(kind, inner, name)


def _dataclass_in(hint: Any) -> tuple[type[Any] | None, bool]:
    """Return the dataclass of a section's annotation, and whether the section repeats."""
    several = get_origin(hint) is tuple
    for each in (hint, *get_args(hint)):
        if isinstance(each, type) and dataclasses.is_dataclass(each):
            return each, several
    return None, False


def _form(hint: Any) -> str:
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    if get_origin(hint) is Literal:
        return " or ".join(f'"{each}"' for each in get_args(hint))
    if get_origin(hint) is tuple:
        return f"list of {_form(get_args(hint)[0])}s"
    parts = [each for each in get_args(hint) if each is not type(None)]
    return names[hint] if not parts else _form(parts[0])


def _default(each: dataclasses.Field[Any]) -> str:
    if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
        return REQUIRED
    value = each.default if each.default is not dataclasses.MISSING else None
    if value is None:
        return "none"
    return toml_value(value)


def toml_value(value: object) -> str:
    """Format a value as TOML.

    Example:
        >>> toml_value((1.0, True, "a"))
        '[1.0, true, "a"]'
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)
