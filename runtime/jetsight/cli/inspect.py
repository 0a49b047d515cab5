"""`jetsight inspect BUNDLE`: verify every byte, then show the content of the manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from jetsight.bundle.bundle import Bundle
from jetsight.bundle.gates import meaning
from jetsight.bundle.golden import layout
from jetsight.bundle.manifest import DataDigest, Manifest
from jetsight.bundle.planner_spec import HeadSpec
from jetsight.cli.table import fields, human_bytes, table
from jetsight.storage import strict_json

_DETECTED = {True: "detected", False: "NOT DETECTED"}


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the verified manifest as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Verify BUNDLE, a folder or .tar, and show what is in it.

    Nothing is shown unless every file has the size and SHA-256 the manifest lists.
    """
    opened = Bundle.open(bundle)
    opened.golden()  # its arrays are checked too, not only its digest
    if as_json:
        manifest = json.loads(strict_json.dump(opened.manifest))
        found = {
            "path": str(bundle),
            "verified": True,
            "encode_inputs": _encode_inputs(opened.manifest),
            "manifest": manifest,
        }
        click.echo(json.dumps(found))
        return
    for line in describe(opened.manifest):
        click.echo(line)


def describe(facts: Manifest) -> Iterator[str]:
    """Format the page of a verified manifest, line by line."""
    yield f"{facts.name}  ({facts.format} {facts.version})"
    yield from _section("Model", fields(_model(facts)))
    yield from _section("Camera", fields(_camera(facts)))
    yield from _section("Action", _actions(facts))
    yield from _section("Surprise", fields(_surprise(facts)))
    if facts.heads is not None:
        yield from _section("Heads", fields(_heads(facts.heads)))
    if facts.planners:
        yield from _section("Planners", _planners(facts))
    yield from _section("Families", _families(facts))
    if facts.fallbacks:
        yield from _section("Not as requested", (each.text() for each in facts.fallbacks))
    yield from _section("Gates", _gates(facts))
    if known := list(_meanings(facts)):
        yield from _section("What the gates compare", fields(known))
    yield from _section("Provenance", fields(_provenance(facts)))
    total = sum(entry.bytes for entry in facts.files.values())
    yield ""
    yield f"{len(facts.files)} files, {human_bytes(total)}, every SHA-256 matches the manifest"


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    yield ""
    yield title
    for line in lines:
        yield f"  {line}"


def _model(facts: Manifest) -> Iterator[tuple[str, str]]:
    model, block = facts.model, facts.timing.action_block
    seconds = model.horizon * block / facts.timing.camera_hz
    yield "architecture", f"{model.architecture}, {model.parameters:,} parameters"
    yield "latent", f"{model.latent_size} numbers per frame"
    yield "history", f"{model.history} latents, {block} frames apart"
    yield "horizon", f"{model.horizon} action blocks of {block} actions, {seconds:g} s ahead"


def _camera(facts: Manifest) -> Iterator[tuple[str, str]]:
    frame, (rows, columns) = facts.frame, facts.frame.resize
    top, left, height, width = frame.crop
    order = frame.channel_order
    hz = facts.timing.camera_hz
    yield "frame", f"{frame.height_px} x {frame.width_px} px, {order}, {hz:g} Hz"
    if frame.cameras:
        yield "cameras", ", ".join(frame.cameras)
    if facts.state is not None:
        pairs = zip(facts.state.names, facts.state.units, strict=True)
        yield "state", ", ".join(f"{name} [{unit}]" for name, unit in pairs)
    inputs = [f"{name} {dtype} {shape}" for name, (dtype, shape) in _encode_inputs(facts).items()]
    yield "encode takes", f"{', '.join(inputs)}; one frame per call"
    via = "" if frame.via is None else f"resize {frame.via[0]} x {frame.via[1]} as in training, "
    yield "in graph", f"crop {height} x {width} at ({top}, {left}), {via}resize {rows} x {columns}"


def _encode_inputs(facts: Manifest) -> dict[str, tuple[str, list[int]]]:
    """Return type and shape of each input of `encode`, which has no batch axis."""
    arrays = layout(facts)
    known = {name: arrays[name] for name in ("frame_hwc_u8", "state") if name in arrays}
    return {name: (str(dtype), list(shape)) for name, (dtype, shape) in known.items()}


def _actions(facts: Manifest) -> Iterator[str]:
    action = facts.action
    rates = action.rate_limit_per_s or ["none"] * len(action.names)
    how = ["held: never varied in training" if held else "" for held in action.held]
    columns = (action.names, action.units, action.low, action.neutral, action.high, rates, how)
    head = ("name", "unit", "low", "neutral", "high", "rate limit/s", "")
    return table(head, [tuple(map(_plain, row)) for row in zip(*columns, strict=True)])


def _surprise(facts: Manifest) -> Iterator[tuple[str, str]]:
    quantiles = facts.latent.surprise_quantiles
    yield "typical", "1.0 (median one-step error on held-out frames)"
    shown = {"p50": quantiles.p50, "p90": quantiles.p90, "p99": quantiles.p99}
    shown["p99.9"] = quantiles.p999
    yield "held-out", ", ".join(f"{name} {value:.2f}" for name, value in shown.items())


def _heads(heads: HeadSpec) -> Iterator[tuple[str, str]]:
    read = [f"{n} ({u})" if u else n for n, u in zip(heads.quantities, heads.units, strict=True)]
    yield "probe reads", ", ".join(read) or "nothing"
    for hazard in heads.hazards:
        yield (
            f"hazard {hazard.name}",
            f"threshold misses at most {100 * hazard.miss_rate:.3g} % of held-out hazards",
        )
    yield "support", "says how far from the training data" if heads.support else "none"


def _planners(facts: Manifest) -> Iterator[str]:
    seconds = facts.timing.action_block / facts.timing.camera_hz
    rows = [
        (
            planner.graph,
            f"{planner.samples} x {planner.iterations}",
            f"{planner.horizon} blocks, {planner.horizon * seconds:g} s",
            str(planner.context),
            "yes" if planner.rate_limited else "no",
            f"{planner.start}, noise 1/f^{planner.noise_beta:g}",
        )
        for planner in facts.planners
    ]
    head = ("graph", "samples x iterations", "looks ahead", "latents", "rate limits", "starts from")
    return table(head, rows)


def _families(facts: Manifest) -> Iterator[str]:
    rows = []
    for family in facts.families:
        graphs = ", ".join(
            f"{name} {family.precision.get(name, '?')} {human_bytes(entry.bytes)}"
            for name, entry in facts.graphs(family.name).items()
        )
        quantized = "-" if family.tensors is None else str(family.tensors)
        rows.append((family.name, str(family.opset), quantized, ", ".join(family.targets), graphs))
    return table(("family", "opset", "quantized tensors", "for", "graphs"), rows)


def _gates(facts: Manifest) -> Iterator[str]:
    if not facts.gates:
        return iter(["none recorded"])
    rows = [
        (
            gate.family,
            gate.name,
            f"{gate.value:.6g}",
            f"{'>=' if gate.direction == 'min' else '<='} {gate.limit:.6g}",
            "passed" if gate.passed else "FAILED",
            f"{gate.control_value:.4g}, fault {_DETECTED[gate.control_failed]}",
            gate.detail,
        )
        for gate in facts.gates
    ]
    head = ("family", "gate", "value", "limit", "verdict", "negative control", "where")
    return table(head, rows)


def _meanings(facts: Manifest) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(gate.name for gate in facts.gates):
        if known := meaning(name):
            yield name, known


def _provenance(facts: Manifest) -> Iterator[tuple[str, str]]:
    source = facts.provenance
    yield "created", source.created_utc
    yield "tools", ", ".join(f"{name} {version}" for name, version in sorted(source.tool.items()))
    yield "checkpoint", f"sha256 {source.checkpoint_sha256[:16]}..."
    yield "calibration", _digest(source.calibration)
    yield "held out", _digest(source.held_out)
    yield "license", source.license


def _digest(data: DataDigest | None) -> str:
    if data is None:
        return "none"
    episodes, digest = len(data.episodes), data.sha256[:16]
    return f"{data.path_name}: {data.frames} frames of {episodes} episodes, sha256 {digest}..."


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
