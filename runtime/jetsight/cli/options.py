"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from jetsight.progress import quiet_progress

Command = TypeVar("Command", bound="Callable[..., object] | click.Command")


def quiet_option(command: Command) -> Command:
    """Add `--quiet`, which keeps the progress of the command off stderr."""

    def silence(context: click.Context, _: click.Parameter, quiet: bool) -> None:
        context.with_resource(quiet_progress(quiet))

    option = click.option(
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=silence,
        help="Show no progress.",
    )
    return option(command)
