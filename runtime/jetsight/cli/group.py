"""Command group; the module of a subcommand is imported when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

import click

from jetsight.errors import UsageError, missing
from jetsight.version import __version__

EPILOG = """\b
Exit codes:
  0  done
  1  another error
  2  wrong usage: option, recipe key, requested shape
  3  a bundle or checkpoint was refused: damaged, tampered with, unknown version
  4  recorded data cannot be used
  5  an optional package is missing; the message names the extra
  6  a compiled graph failed its gate, no bundle was written
  7  a camera or other frame source failed
  8  disk full, not writable, or the target already exists
  9  training stopped: the representation collapsed, or a number was no longer finite
  10 a backend cannot load or run a graph
  11 imagine: there is no plan, for the reason printed
  12 compile: written, but something failed a gate and was left out or is in float
  13 data check: errors that block training, listed on the page
  130 interrupted (Ctrl-C), 143 terminated (SIGTERM)
"""


@dataclass(frozen=True)
class _Lazy:
    where: str  # module:attribute
    help: str


# In the order of work, not of the alphabet.
COMMANDS = {
    "collect": _Lazy("jetsight_train.cli.collect:collect", "Record a robot into a dataset."),
    "data": _Lazy("jetsight_train.cli.data:data", "Check recorded data, or convert it."),
    "recipe": _Lazy("jetsight_train.cli.recipe:recipe", "Write, check and explain recipes."),
    "train": _Lazy("jetsight_train.cli.train:train", "Train a world model from a recipe."),
    "report": _Lazy("jetsight_train.cli.report:report", "Write the model card of a checkpoint."),
    "targets": _Lazy("jetsight_compile.cli.targets:targets", "Show what can be compiled for."),
    "compile": _Lazy("jetsight_compile.cli.compile_:compile_", "Turn a checkpoint into a bundle."),
    "build": _Lazy("jetsight.cli.build:build", "Build and prove TensorRT engines here."),
    "run": _Lazy("jetsight.cli.run:run", "Stream frames through a bundle."),
    "imagine": _Lazy("jetsight.cli.imagine:imagine", "Plan actions towards a goal, once."),
    "eval": _Lazy("jetsight_compile.cli.eval_:eval_", "Let a bundle act in a simulator."),
    "demo": _Lazy("jetsight_compile.cli.demo:demo", "Compile, stream and report, in one go."),
    "bench": _Lazy("jetsight_compile.cli.bench:bench", "Measure this machine against torch."),
    "bench-compile": _Lazy(
        "jetsight_compile.cli.bench_compile:bench_compile", "Measure what each precision loses."
    ),
    "inspect": _Lazy("jetsight.cli.inspect:inspect", "Verify a bundle and show what is in it."),
    "doctor": _Lazy("jetsight.cli.doctor:doctor", "Show what this machine can run."),
}


class LazyGroup(click.Group):
    """Group that imports its commands on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names in the order of work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; a missing optional package becomes one line naming its extra."""
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        module, _, attribute = lazy.where.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            known = missing(error, f"jetsight {cmd_name}")
            if known is None:
                raise
            raise known from error
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one line per command, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jetsight")
def cli() -> None:
    """From a PyTorch JEPA world model to live latent forecasts on a robot."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; `jetsight.cli.main` maps the exceptions."""
    try:
        # Else Click prints errors and exits with codes of its own.
        code = cli.main(list(arguments), prog_name="jetsight", standalone_mode=False)
    except click.exceptions.Abort:  # Click's form of Ctrl-C
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        if not arguments:
            error.show()  # the help page
            return error.exit_code
        raise UsageError(_usage(error)) from error
    return code if isinstance(code, int) else 0  # the code of `Context.exit`


def _usage(error: click.ClickException) -> str:
    """Add the command of the help page to Click's message."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "jetsight"
    return f"{error.format_message().rstrip('.')}; see: {path} --help"
