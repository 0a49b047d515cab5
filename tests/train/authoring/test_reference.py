"""The reference of recipe keys: complete, and the page in docs/ is the one it makes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from helpers.paths import ROOT

from jetsight.errors import UsageError
from jetsight_train.authoring import reference
from jetsight_train.authoring.reference import KINDS, REQUIRED, documented, find, keys, toml_value

EVERY = [key for kind in KINDS for key in keys(kind)]


def test_the_page_is_the_one_that_is_generated() -> None:
    page = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    assert page == reference.markdown(), (
        "write it again: jetsight recipe show --markdown > docs/recipes.md"
    )


@pytest.mark.parametrize("key", EVERY, ids=lambda key: f"{key.kind} {key.path}")
def test_every_key_has_a_meaning(key: reference.RecipeKey) -> None:
    assert len(key.meaning) > 8, f"document {key.name!r} under Attributes: of its dataclass"
    assert "|" not in key.type
    assert key.default


def test_no_section_documents_a_key_that_is_gone() -> None:
    for kind, cls in KINDS.items():
        known = {key.name for key in keys(kind)} | set(documented(cls))
        assert set(documented(cls)) <= known
        nested = {key.section.strip("[]").split(".")[-1] for key in keys(kind)}
        assert set(documented(cls)) <= {key.name for key in keys(kind)} | nested


def test_an_undocumented_field_would_be_seen() -> None:
    @dataclass(frozen=True)
    class Planted:
        """Planted.

        Attributes:
            one (px): first
                and more.

        Raises:
            two: not a key.
        """

        one: int
        two: int = 3
        three: tuple[float, ...] = field(default_factory=tuple)

    assert documented(Planted) == {"one": ("px", "first and more")}


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("action.neutral", ["action.neutral"]),
        ("neutral", ["action.neutral"]),
        ("timing", ["timing.camera_hz", "timing.action_block"]),
        ("[timing]", ["timing.camera_hz", "timing.action_block"]),
        ("hazard.box", ["hazard.box.columns", "hazard.box.low", "hazard.box.high"]),
    ],
)
def test_sections_and_keys_are_found(name: str, paths: list[str]) -> None:
    assert [key.path for key in find(name)] == paths


@pytest.mark.parametrize(
    ("name", "near"), [("nuetral", "neutral"), ("timin", "timing"), ("model.con", "model.conv")]
)
def test_an_unknown_key_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=rf"did you mean '[a-z_.]*{near}[a-z_.]*'"):
        find(name)


def test_defaults_and_units_are_those_of_the_dataclass() -> None:
    (rate,) = find("action.rate_limit_per_s")
    assert (rate.default, rate.unit, rate.type) == ("none", "units/s", "list of numbers")
    (steps,) = find("monitor.patience")
    assert (steps.default, steps.unit) == ("3", "checks")
    (hz,) = find("timing.camera_hz")
    assert (hz.default, hz.unit) == (REQUIRED, "Hz")


def test_values_are_toml() -> None:
    assert toml_value(('a"b\\', True, 1e-05, 3)) == '["a\\"b\\\\", true, 1e-05, 3]'
