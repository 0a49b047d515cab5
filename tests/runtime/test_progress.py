from __future__ import annotations

import io

import pytest

from jetsight.progress import Progress, StageLines, duration, progress, quiet_progress
from jetsight.testing import FakeClock

S = 1_000_000_000


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(seconds_per_step: float, steps: int, **options: object) -> list[str]:
    """Work through `steps` of that length with a log; return the lines of it."""
    clock, log = FakeClock(), io.StringIO()
    with Progress("train", steps, "step", clock=clock, stream=log, **options) as shown:  # type: ignore[arg-type]
        for _ in range(steps):
            clock.advance(round(seconds_per_step * S))
            shown.update()
    return log.getvalue().splitlines()


def test_short_work_says_nothing_in_a_log() -> None:
    assert lines_of(0.09, 100) == []


def test_a_log_has_a_line_every_ten_seconds_with_the_time_left() -> None:
    lines = lines_of(1.0, 100)
    assert len(lines) == 10
    assert lines[0] == "  train: 10%, step 10 of 100, 1 min 30 s left"
    assert lines[-1] == "  train: 100%, step 100 of 100, 0 s left"


def test_long_work_has_a_line_per_minute_at_least_and_one_soon() -> None:
    lines = lines_of(1.0, 36_000)
    assert 590 <= len(lines) <= 601
    assert lines[0] == "  train: 0%, step 10 of 36000, 9 h 59 min left"


def test_work_of_minutes_has_a_line_per_twentieth() -> None:
    assert 19 <= len(lines_of(1.0, 600)) <= 21


def test_time_left_does_not_count_what_an_earlier_run_did() -> None:
    clock, log = FakeClock(), io.StringIO()
    shown = Progress("train", 100, "step", initial=50, clock=clock, stream=log)
    clock.advance(10 * S)
    shown.update(10)
    assert log.getvalue() == "  train: 60%, step 60 of 100, 40 s left\n"


def test_notes_stay_until_they_are_replaced() -> None:
    clock, log = FakeClock(), io.StringIO()
    shown = Progress("train", None, "step", clock=clock, stream=log)
    shown.update(notes={"loss": "0.5", "rank": 3})
    clock.advance(11 * S)
    shown.update()
    assert log.getvalue() == "  train: 2 steps in 11 s, loss 0.5, rank 3\n"


def test_a_terminal_rewrites_one_line_and_clears_it() -> None:
    clock, terminal = FakeClock(), Terminal()
    with Progress("train", 10, "step", clock=clock, stream=terminal) as shown:
        clock.advance(S)
        shown.update()
        shown.update()  # too soon to be shown
    text = terminal.getvalue()
    assert text.count("train: [##..................] 10%, step 1 of 10, 9 s left") == 1
    assert "\n" not in text
    assert text.endswith("\r\x1b[2K")


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet_shows_nothing_anywhere(stream: type[io.StringIO]) -> None:
    clock, out = FakeClock(), stream()
    with quiet_progress(), Progress("train", 2, "step", clock=clock, stream=out) as shown:
        clock.advance(20 * S)
        shown.update()
    assert out.getvalue() == ""
    with quiet_progress(False), Progress("train", 2, "step", clock=clock, stream=out) as shown:
        clock.advance(20 * S)
        shown.update()
    assert out.getvalue() != ""  # the control


def test_stages_are_lines_with_a_rough_time_left() -> None:
    clock, log = FakeClock(), io.StringIO()
    say = StageLines(4, clock=clock, stream=log)
    for stage in ("read", "export", "gate", "write", "one more"):
        say(stage)
        clock.advance(8 * S)
    assert log.getvalue().splitlines() == [
        "  read",
        "  export",
        "  gate (3 of 4, about 16 s left)",
        "  write (4 of 4, about 8 s left)",
        "  one more",
    ]
    with quiet_progress():
        StageLines(4, clock=clock, stream=log)("silent")
    assert "silent" not in log.getvalue()


def test_iteration_passes_everything_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(iter("abc"), "read", "letter", total=3)) == list("abc")
    assert list(progress([], "read", "letter")) == []
    assert capsys.readouterr() == ("", "")


def test_a_closed_stream_does_not_end_the_work() -> None:
    clock, log = FakeClock(), io.StringIO()
    shown = Progress("train", 2, "step", clock=clock, stream=log)
    log.close()
    clock.advance(20 * S)
    shown.update()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (3600 * 30, "30 h 00 min")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
