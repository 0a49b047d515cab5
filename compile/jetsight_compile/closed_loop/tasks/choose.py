"""Choice of an evaluation's task: what the user states, else the environment's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jetsight.errors import UsageError, did_you_mean
from jetsight.simulators.environment import Environment
from jetsight.simulators.registry import PUSHT, load_module
from jetsight_compile.closed_loop.tasks.criteria import FormulaTask, FunctionTask
from jetsight_compile.closed_loop.tasks.formula import GOAL, Formula
from jetsight_compile.closed_loop.tasks.probe import ProbeReader
from jetsight_compile.closed_loop.tasks.pusht import PushingTask
from jetsight_compile.closed_loop.tasks.region import RegionFrame
from jetsight_compile.closed_loop.tasks.task import EvalTask

# No formula has a colon outside of quotes. A file may stand for a module, as `envs/my_robot.py:ok`.
_FUNCTION = re.compile(r"(?P<module>[\w./~-]+):(?P<name>[A-Za-z_][\w.]*)")
METADATA = "success"  # key under which an environment states its own formula


@dataclass(frozen=True)
class FunctionName:
    """A function of the user by name; `load` imports it."""

    text: str

    def load(self) -> Callable[..., Any]:
        """Import the function.

        Raises:
            UsageError: it cannot be imported, or is no function.
        """
        match = _FUNCTION.fullmatch(self.text)
        assert match is not None
        found: Any = load_module(match["module"], f"--success {self.text!r}")
        for part in match["name"].split("."):
            if not hasattr(found, part):
                hint = did_you_mean(part, [name for name in dir(found) if name[0] != "_"], "it has")
                raise UsageError(f"--success {self.text!r}: there is no {part!r}; {hint}")
            found = getattr(found, part)
        if not callable(found):
            raise UsageError(f"--success {self.text!r} is {str(found)[:60]!r}, expected a function")
        function: Callable[..., Any] = found
        return function


def parse_success(text: str | None) -> Formula | FunctionName | None:
    """Parse `--success`: a formula, or `module:function`.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    return FunctionName(text) if _FUNCTION.fullmatch(text) else Formula.parse(text)


def needed_info(success: str | None) -> tuple[str, ...]:
    """Return the entries of info that a formula reads, which an environment has to keep."""
    parsed = parse_success(success)
    return parsed.info_names if isinstance(parsed, Formula) else ()


def choose_task(
    success: str | None,
    environment: Environment,
    probe: ProbeReader,
    region_columns: Sequence[str] = (),
) -> EvalTask:
    """Make the task of an evaluation.

    Args:
        success: formula or function of the user; None for the environment's own.
        environment: open.
        probe: for quantities that the state lacks.
        region_columns: that hold the position of the robot; empty for the task's own, if any.

    Raises:
        UsageError: a name is unknown, or nothing says what success is.
    """
    names, where = environment.state_names, f"environment {environment.env_id!r}"
    task = _task(success, environment, probe, where)
    if region_columns:
        task.region = RegionFrame.of(region_columns, names, where)
    return task


def _task(
    success: str | None, environment: Environment, probe: ProbeReader, where: str
) -> EvalTask:
    if success is None and environment.env_id == PUSHT:
        return PushingTask(environment.state_names, environment.env_id)
    if success is None:
        success = _own(environment, where)
    parsed = parse_success(success)
    if isinstance(parsed, FunctionName):
        return FunctionTask(parsed.text, parsed.load())
    assert parsed is not None
    for name in parsed.info_names:
        if name not in environment.keep:  # of a formula of the environment's own
            hint = did_you_mean(name, environment.keep, "it keeps")
            raise UsageError(f"--success: {where} does not keep {name!r} of its info; {hint}")
    return FormulaTask(
        parsed,
        environment.state_names,
        where,
        units=environment.state_units,
        probed=probe.names,
        read=probe,
    )


def _own(environment: Environment, where: str) -> str:
    """Return the formula that an environment states in its metadata."""
    metadata = getattr(environment.unwrapped, "metadata", None) or {}
    own = metadata.get(METADATA)
    if own is None:
        raise UsageError(
            f"{where} does not say what success is; state it, for example --success "
            f"'{_example(environment.state_names)}', or --success MODULE:FUNCTION"
        )
    return str(own)


def _example(names: Sequence[str]) -> str:
    """Write a formula over the first names of a state."""
    gaps = [
        f"{name} - {GOAL}{name}"
        if name.replace(".", "_").isidentifier()
        else f'state("{name}") - goal("{name}")'
        for name in list(names)[:2]
    ]
    return f"hypot({', '.join(gaps)}) < 0.1" if gaps else "info.success"
