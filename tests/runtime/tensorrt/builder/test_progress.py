"""One line of progress: rewritten on a terminal, plain elsewhere, never going back."""

from __future__ import annotations

import io

import pytest

from jetsight.tensorrt.builder.progress import Phases, ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_line_that_ends_cleared() -> None:
    out = Terminal()
    line = ProgressLine(out)
    line.step("encode: building")
    line.done(0.5, "Timing kernels")
    line.close()
    assert out.getvalue().count("\n") == 0
    assert out.getvalue().split("\r\x1b[2K") == [
        "",
        "encode: building",
        "encode: building  50%  Timing kernels",
        "",
    ]


def test_elsewhere_each_step_is_a_plain_line() -> None:
    out = io.StringIO()
    line = ProgressLine(out)
    line.step("encode: building")
    line.done(0.5, "Timing kernels")
    line.close()
    assert out.getvalue() == "  encode: building\n"


def test_a_terminal_that_went_away_stops_nothing() -> None:
    broken = Terminal()
    line = ProgressLine(broken)
    broken.close()
    line.step("encode: building")
    line.done(0.1, "x")


def test_nested_phases_are_one_number() -> None:
    phases, seen = Phases(), []
    phases.start("build", None, 4)
    phases.step("build", 0)
    seen.append(phases.part())
    phases.start("tactics", "build", 10)
    phases.step("tactics", 4)
    seen.append(phases.part())
    phases.finish("tactics")
    seen.append(phases.part())  # TensorRT ends a phase before it counts the step
    phases.step("build", 1)
    seen.append(phases.part())
    assert seen == pytest.approx([0.25, 0.375, 0.375, 0.5])


def test_phases_that_name_each_other_end() -> None:
    phases = Phases()
    phases.start("a", "b", 1)
    phases.start("b", "a", 1)
    phases.start("root", None, 0)
    phases.start("c", "root", 2)
    phases.step("nobody", 3)
    assert 0.0 <= phases.part() <= 1.0
