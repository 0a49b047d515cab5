"""`jetsight build BUNDLE`: build engines for this machine, and keep those that are proven."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from jetsight.cli.table import human_bytes, table
from jetsight.errors import UsageError


@click.command(short_help="Build and prove TensorRT engines here.")
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option(
    "--family",
    "families",
    multiple=True,
    metavar="NAME",
    help="Graph family; repeatable.  [default: those for this machine]",
)
@click.option(
    "--graph",
    "graphs",
    multiple=True,
    metavar="NAME",
    help="encode, forecast, ...; repeatable.  [default: all]",
)
@click.option(
    "--workspace-mb",
    type=click.IntRange(1, 1 << 20),
    metavar="N",
    help="Most scratch memory a layer may take.  [default: TensorRT's, all of it]",
)
@click.option(
    "--level",
    type=click.IntRange(0, 5),
    help="Effort of the search for faster kernels.  [default: TensorRT's, 3]",
)
@click.option(
    "--via",
    type=click.Choice(("onnx", "torch-tensorrt")),
    default="onnx",
    show_default=True,
    help="Compiler front end.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="The PyTorch model of the bundle, for --via torch-tensorrt.",
)
@click.option("--no-measure", is_flag=True, help="Do not measure latency.")
@click.option("--force", is_flag=True, help="Rebuild existing engines.")
@click.option("--list", "listing", is_flag=True, help="Show the engines of this machine instead.")
@click.option("--json", "as_json", is_flag=True, help="Print the build records as JSON.")
def build(bundle: Path | None, listing: bool, as_json: bool, **options: Any) -> None:
    """Build engines from BUNDLE with this machine's TensorRT and keep those that pass.

    Each is compiled, its precision is proven layer by layer, its outputs are compared with the
    bundle's reference data, and its latency is measured. Engines are kept in
    $XDG_CACHE_HOME/jetsight/engines; an existing engine is not built again.
    """
    from jetsight.tensorrt.engine_cache import EngineStore

    if listing:
        _show(EngineStore(), as_json)
        return
    if bundle is None:
        raise UsageError("Missing argument 'BUNDLE'; see: jetsight build --help")
    engines = _build(bundle, options)
    records = [engine.record for engine in engines]
    if as_json:
        click.echo(_json(records, [{"reused": engine.reused} for engine in engines]))
        return
    for line in describe(records):
        click.echo(line)
    reused = sum(engine.reused for engine in engines)
    old = f", {reused} there before (--force builds again)" if reused else ""
    click.echo(f"\nengines: {len(engines)}{old}; kept in {EngineStore().root}")


def _build(bundle: Path, options: dict[str, Any]) -> list[Any]:
    from jetsight.bundle.bundle import Bundle
    from jetsight.tensorrt.builder.build import build_bundle
    from jetsight.tensorrt.builder.progress import ProgressLine
    from jetsight.tensorrt.builder.request import BuildContext, BuildRequest
    from jetsight.tensorrt.fingerprint import BuildOptions

    if options["via"] == "onnx" and options["checkpoint"] is not None:
        raise UsageError("--checkpoint is only read with --via torch-tensorrt; leave it out")
    request = BuildRequest(
        options["families"],
        options["graphs"],
        BuildOptions(options["workspace_mb"], options["level"], options["via"]),
        options["checkpoint"],
        measure=not options["no_measure"],
        force=options["force"],
    )
    opened = Bundle.open(bundle)
    return build_bundle(opened, request, BuildContext.here(), ProgressLine(sys.stderr))


def describe(records: Sequence[Any]) -> Iterator[str]:
    """Format the table of build records, and below it the checks that were skipped."""
    head = ("family", "graph", "engine", "build", "precision", "attention", "cosine", "p50", "p99")
    yield from table(head, map(_row, records))
    reasons: dict[str, list[str]] = {}
    for check in ("proof", "parity", "latency"):
        for record in records:
            if check in record.skipped:
                text = f"{check}: skipped, {record.skipped[check]}"
                reasons.setdefault(text, []).append(record.graph)
    if reasons:
        yield ""
    for text, graphs in reasons.items():
        yield f"{text} ({', '.join(graphs)})"


def _row(record: Any) -> tuple[str, ...]:
    from jetsight.tensorrt.builder.precision_proof import shares_text

    proof, parity, latency = record.proof, record.parity, record.latency
    return (
        record.fingerprint.family,
        record.graph,
        human_bytes(record.plan_bytes),
        f"{record.seconds:.1f} s",
        "-" if proof is None else f"{shares_text(proof)}, {proof.reformat_layers} reformats",
        "-" if proof is None else "fused" if proof.fused_attention else "not fused",
        "-" if parity is None else f"{parity.smallest_cosine:.5f}",
        "-" if latency is None else f"{latency.p50_ms:.3f} ms",
        "-" if latency is None else f"{latency.p99_ms:.3f} ms",
    )


def _show(store: Any, as_json: bool) -> None:
    """List the engines of the store."""
    store.sweep()
    records = store.records()
    if as_json:
        click.echo(_json(records, [{}] * len(records)))
        return
    if not records:
        click.echo(f"no engines in {store.root}; next: jetsight build BUNDLE")
        return
    head = ("bundle", "family", "graph", "built for", "when", "size", "proof", "p50")
    for line in table(head, map(_listed, records)):
        click.echo(line)


def _listed(record: Any) -> tuple[str, ...]:
    host, proof, latency = record.fingerprint.host, record.proof, record.latency
    return (
        record.bundle,
        record.fingerprint.family,
        record.graph,
        f"{host.gpu or 'no GPU'}, {record.plan_version}",
        record.built_utc[:16].replace("T", " "),
        human_bytes(record.plan_bytes),
        "no" if record.parity is None else "parity" if proof is None else "parity, precision",
        "-" if latency is None else f"{latency.p50_ms:.3f} ms",
    )


def _json(records: Sequence[Any], more: Sequence[dict[str, bool]]) -> str:
    from jetsight.tensorrt import record as build_record

    values = [json.loads(build_record.dump(r)) | m for r, m in zip(records, more, strict=True)]
    return json.dumps({"engines": values})
