"""The families that a bundle gets: those that passed, under names that say what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jetsight.bundle.fallbacks import Fallback
from jetsight_compile.config.precision import (
    AUTO,
    IMAGINE,
    PRECISIONS,
    family_suffix,
    of_planners,
)
from jetsight_compile.config.targets import TARGETS
from jetsight_compile.pipeline.family import EXPORTS, FamilyGraphs


def renamed(
    families: Sequence[FamilyGraphs], requested: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, FamilyGraphs], list[Fallback]]:
    """Name families by the precisions that they ended with, and merge those that are equal.

    Args:
        families: after their gates.
        requested: precision of each graph before them, by family.

    Returns:
        The families that stay, by their old names; and what happened to the others.
    """
    names = {each.plan.name: name_of(each, requested[each.plan.name]) for each in families}
    found: list[Fallback] = []
    owners: dict[str, FamilyGraphs] = {}
    # Names that stayed the same first: what became equal to such a family is merged into it.
    for family in sorted(families, key=lambda each: names[each.plan.name] != each.plan.name):
        old, new = family.plan.name, names[family.plan.name]
        reason = "that is what passed its gates"
        if (owner := owners.get(new)) is not None:
            targets = tuple(dict.fromkeys((*owner.plan.targets, *family.plan.targets)))
            owners[new] = replace(owner, plan=replace(owner.plan, targets=targets))
            found.append(Fallback(old, "", "merged", new, reason))
            continue
        owners[new] = family
        if new != old:
            found.append(Fallback(old, "", "renamed", new, reason))
    kept = {family.plan.name: (name, family) for name, family in owners.items()}
    return {
        each.plan.name: replace(family, plan=replace(family.plan, name=name))
        for each in families
        if each.plan.name in kept
        for name, family in (kept[each.plan.name],)
    }, found


def name_of(family: FamilyGraphs, requested: Mapping[str, str]) -> str:
    """Return the name of a family in the precisions that its graphs have now."""
    plan, precision = family.plan, family.precision
    same = all(requested[graph] == each for graph, each in precision.items())
    # A search was free to choose, so its name makes no promise.
    if same or AUTO in plan.precision.values():
        return plan.name
    each, base = {graph: precision[graph] for graph in EXPORTS}, plan.style.compute
    planners = [precision[graph] for graph in precision if graph not in EXPORTS]
    coarsest = max(planners, key=PRECISIONS.index, default=None)
    if coarsest is not None and coarsest != of_planners(each, base):
        each[IMAGINE] = coarsest
    usual = "fp32" if plan.backend == "cpu" else "fp16"
    return f"{TARGETS[plan.targets[0]].prefix}-{family_suffix(each, base, usual)}"
