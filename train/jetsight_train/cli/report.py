"""`jetsight report`: measure a checkpoint on held-out episodes and write its model card."""

from __future__ import annotations

import json
from pathlib import Path

import click

from jetsight.cli.dataset_options import dataset_options
from jetsight.datasets.dataset import FeatureMap

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint", metavar="CKPT", type=PATH)
@click.option(
    "--data", required=True, type=PATH, help="Held-out recorded dataset to measure the card on."
)
@dataset_options
@click.option(
    "--probe-data",
    type=PATH,
    help="Dataset to fit the linear probe on.  [default: every other episode of --data]",
)
@click.option(
    "--probe-episodes",
    default=60,
    show_default=True,
    type=click.IntRange(min=1),
    help="Use at most this many episodes of --probe-data.",
)
@click.option(
    "--run",
    "run_folder",
    type=PATH,
    help="Run folder with the metrics to draw.  [default: that of the checkpoint]",
)
@click.option(
    "--control",
    type=PATH,
    help="Run folder of `jetsight train --no-anti-collapse`, drawn as a collapsing control.",
)
@click.option("--out", type=PATH, help="Folder to write.  [default: that of the weights]")
@click.option("--json", "as_json", is_flag=True, help="Print report.json instead of the card.")
def report(
    checkpoint: Path,
    data: Path,
    features: FeatureMap,
    probe_data: Path | None,
    probe_episodes: int,
    run_folder: Path | None,
    control: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write MODEL_CARD.md, card.png and report.json for CKPT."""
    from jetsight.storage.atomic import write_file
    from jetsight_train.checkpoint import load
    from jetsight_train.data.encoded import read_recorded
    from jetsight_train.data.windows import check_metadata, load_recording, split
    from jetsight_train.evaluation import model_card as cards
    from jetsight_train.training.trainer import METRICS

    model, about = load(checkpoint)
    for path in (data, probe_data):
        if path is not None:
            check_metadata(path, model.recording_spec, features)
    held_out, measured = load_recording(data, None, model.recording_spec, features), None
    if probe_data is None:
        measured = range(1, len(held_out.starts) - 1, 2)  # the second half of `split`
        fit, held_out = split(held_out)
    else:
        fit = load_recording(probe_data, probe_episodes, model.recording_spec, features)
    columns = about.heads.recipe.columns if about.heads else ()
    recorded = read_recorded(data, columns, measured, model.recording_spec, features)
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    run = (run_folder or folder.parent) / METRICS
    card = cards.measure(
        model,
        held_out,
        fit,
        # The default run folder may be absent, as for a shipped checkpoint; a given one may not.
        run=cards.read_curve(run) if run_folder or run.is_file() else None,
        control=cards.read_curve(control / METRICS) if control else None,
        heads=about.heads,
        recorded=recorded,
    )
    target = out or folder
    target.mkdir(parents=True, exist_ok=True)
    text = cards.markdown(card, about, sum(p.numel() for p in model.parameters()))
    numbers = json.dumps(card.as_dict(), indent=2) + "\n"
    for name, content in (
        ("card.png", cards.picture(card)),
        ("report.json", numbers.encode()),
        ("MODEL_CARD.md", text.encode()),
    ):
        write_file(target / name, content)
    click.echo(numbers if as_json else text, nl=False)
