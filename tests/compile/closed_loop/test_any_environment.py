"""`jetsight eval` in environments other than PushT: tasks, drivers, refusals, early ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from helpers.runtime import live_planner
from helpers.simulators.base import HZ, PIXELS, Odd, scene

from jetsight import cli
from jetsight.bundle.model_spec import ActionSpec
from jetsight.simulators.differential_drive import ENV_ID, SUCCESS
from jetsight_compile.closed_loop.results import VERSION

HERE = __name__
SHORT = ["--episodes", "2", "--goal-ticks", "6", "--ticks", "8", "--iterations", "1"]
SHORT += ["--replan-every", "4", "--backend", "onnxruntime"]
Capture = pytest.CaptureFixture[str]


class Belt(Odd):
    """A square that the first action moves along, for `LAST` ticks, with its place as state."""

    LAST = 400
    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["rgb_array"],
        "render_fps": HZ,
        "action_names": ["v", "w"],
        "state_names": ["place", "drift"],
    }
    observation_space = gymnasium.spaces.Dict(
        pixels=PIXELS, state=gymnasium.spaces.Box(-99.0, 99.0, (2,), np.float32)
    )
    place = 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        gymnasium.Env.reset(self, seed=seed)
        self.tick, self.place = 0, float(self.np_random.uniform())
        return self.observe(), self.info()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Any]:
        self.place += float(action[0])
        return super().step(action)

    def observe(self) -> Any:
        return {"pixels": scene(self.tick), "state": np.float32([self.place, self.drift()])}

    def drift(self) -> float:
        return 0.0

    def info(self) -> dict[str, Any]:
        return {"hit": self.tick > 3, "task": {"score": self.tick}}

    def over(self) -> tuple[bool, bool]:
        return self.tick >= self.LAST, False


class ShortBelt(Belt):
    LAST = 20


class DriftingBelt(Belt):
    """Not repeatable: a number that counts every tick of the process."""

    count = 0

    def drift(self) -> float:
        DriftingBelt.count += 1
        return DriftingBelt.count % 7


for kind in (Belt, ShortBelt, DriftingBelt):
    if f"closed/{kind.__name__}-v0" not in gymnasium.registry:
        gymnasium.register(f"closed/{kind.__name__}-v0", entry_point=kind)
BELT = "closed/Belt-v0"


def steady(observation: Any, rng: np.random.Generator) -> list[float]:
    return [0.1, 0.0]


def arrived(state: Any, goal_state: Any, info: Any) -> bool:
    return bool(abs(state[0] - goal_state[0]) < 0.02)


def undecided(state: Any, goal_state: Any, info: Any) -> Any:
    return None


@pytest.fixture(scope="module")
def rover(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that plans v and w."""
    action = ActionSpec(
        names=("v", "w"),
        units=("m/s", "rad/s"),
        low=(-0.3, -1.0),
        high=(0.6, 1.0),
        rate_limit_per_s=None,
        neutral=(0.0, 0.0),
        mean=(0.1, 0.0),
        std=(0.3, 0.6),
    )
    target = tmp_path_factory.mktemp("rover") / "rover.jetsight"
    return live_planner.make_planning_bundle(target, action=action).path


def call(options: Sequence[str], capfd: Capture) -> tuple[int, str, str]:
    capfd.readouterr()
    code = cli.main(["eval", *options])
    return int(code or 0), *capfd.readouterr()


def result(options: Sequence[str], capfd: Capture) -> dict[str, Any]:
    code, out, err = call([*options, "--json"], capfd)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_an_environment_brings_its_own_success(rover: Path, capfd: Capture) -> None:
    found = result([str(rover), "--env", ENV_ID, *SHORT], capfd)
    assert found["version"] == VERSION == "2.0"
    task = found["settings"]["task"]
    assert task["criterion"] == SUCCESS
    assert task["measures"] == [["x", "m"], ["y", "m"], ["heading", "rad"]]
    rows = found["rows"]
    assert [row["arm"] for row in rows] == ["bundle", "no-op", "random", "replay"] * 2
    for number in range(2):
        assert len({row["start_sha256"] for row in rows if row["episode"] == number}) == 1
    assert all(row["success"] for row in rows if row["arm"] == "replay")
    assert all(set(row["off"]) == {"x_m", "y_m", "heading_rad"} for row in rows)
    assert all(row["valid_plans"] for row in rows if row["arm"] == "bundle")
    assert (found["settings"]["goal_offset"], found["settings"]["budget"]) == (6, 8)
    pair = found["summary"]["pairs"][0]
    assert pair["first"] == "bundle"
    assert {"low", "high", "p_value"} <= pair["comparison"].keys()


def test_the_table_has_the_units_of_the_state(rover: Path, capfd: Capture) -> None:
    code, out, _ = call([str(rover), "--env", ENV_ID, *SHORT, "--episodes", "1"], capfd)
    assert code == 0
    head = out.splitlines()[0].split("  ")
    assert [cell.strip() for cell in head if cell][-3:] == ["x m", "y m", "heading deg"]


def test_the_same_episodes_under_another_success(rover: Path, capfd: Capture) -> None:
    """The criterion changes who succeeds, and nothing else that happens."""
    base = [str(rover), "--env", ENV_ID, *SHORT, "--no-baselines"]
    never = result([*base, "--success", "x < 0"], capfd)["rows"]
    always = result([*base, "--success", "x > 0"], capfd)["rows"]
    assert [row["success_tick"] for row in never] == [None, None]
    assert [row["success_tick"] for row in always] == [1, 1]
    assert [row["ticks"] for row in never] == [8, 8]
    assert [row["start_sha256"] for row in never] == [row["start_sha256"] for row in always]


def test_a_driver_and_a_function_of_the_user(rover: Path, capfd: Capture) -> None:
    options = [str(rover), "--env", BELT, *SHORT, "--driver", f"{HERE}:steady"]
    by_function = result([*options, "--success", f"{HERE}:arrived"], capfd)
    by_formula = result([*options, "--success", "abs(place - goal_place) < 0.02"], capfd)
    for found in (by_function, by_formula):
        arms = {name: arm["success"]["count"] for name, arm in found["summary"]["arms"].items()}
        assert arms["replay"] == arms["no-op"] == 2, "the driver's last action is its only one"
    plain = [{**row, "off": None, "plan_ms": None} for row in by_formula["rows"]]
    assert plain == [{**row, "off": None, "plan_ms": None} for row in by_function["rows"]]
    assert by_function["settings"]["driver"] == f"{HERE}:steady"


def test_a_random_driver_needs_no_script(rover: Path, capfd: Capture) -> None:
    found = result(
        [str(rover), "--env", BELT, *SHORT, "--driver", "random", "--success", "info.hit"], capfd
    )
    assert all(row["success_tick"] == 1 for row in found["rows"]), "all warm-ups hit"


def test_ticks_that_cannot_be_judged_are_counted_and_said(rover: Path, capfd: Capture) -> None:
    options = [str(rover), "--env", BELT, *SHORT, "--driver", "random", "--no-baselines"]
    options += ["--success", "1 / (place - place) > 0 or place > -99"]
    found = result(options, capfd)
    assert [row["uncomputed_ticks"] for row in found["rows"]] == [8, 8]
    assert found["summary"]["arms"]["bundle"]["success"]["count"] == 0
    _, out, _ = call(options, capfd)
    assert "could not be computed on 16 ticks" in out


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ([], 2, "--success 'hypot(place - goal_place, drift - goal_drift) < 0.1'"),
        (["--success", "plce < 1"], 2, "has no quantity 'plce'; did you mean 'place'?"),
        (["--success", "place"], 2, "is a number, not a condition"),
        (["--success", "__import__('os')"], 2, "calls '__import__'"),
        (["--success", "not info.hitt"], 2, "did you mean 'info.hit'"),
        (["--success", "info.task > 1"], 2, "expected a truth value or one finite number"),
        (["--success", f"{HERE}:undecided"], 4, "returned 'None', expected True or False"),
        (["--success", f"{HERE}:arived"], 2, "did you mean 'arrived'?"),
        (["--success", "nowhere_at_all:f"], 2, "cannot be imported"),
        (["--success", "place < 1"], 2, "no scripted policy for 'closed/Belt-v0'"),
        (["--success", "place < 1", "--driver", "mine"], 2, "there is no policy 'mine'"),
        (["--goal-ticks", "0"], 2, "--goal-ticks is 0"),
        (["--ticks", "0"], 2, "--ticks is 0"),
        (["--region-columns", "place,drift"], 2, "add --keep-out"),
    ],
)
def test_bad_input_ends_in_one_line_before_any_engine_loads(
    rover: Path,
    options: list[str],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Capture,
) -> None:
    monkeypatch.setattr("jetsight_compile.closed_loop.arms.deployed_session", None)
    found, out, err = call([str(rover), "--env", BELT, *options], capfd)
    assert (found, out) == (code, "")
    (line,) = err.splitlines()
    assert says in line


def test_episodes_that_end_too_early_are_named(rover: Path, capfd: Capture) -> None:
    options = [str(rover), *SHORT, "--env", "closed/ShortBelt-v0", "--driver", "random"]
    code, _, err = call([*options, "--success", "place > 0"], capfd)
    assert code == 4
    assert "'closed/ShortBelt-v0' ends its episodes early: only 0 of 40" in err.splitlines()[-1]


def test_a_simulator_that_does_not_repeat_itself_is_refused(rover: Path, capfd: Capture) -> None:
    options = [str(rover), *SHORT, "--env", "closed/DriftingBelt-v0", "--driver", "random"]
    code, _, err = call([*options, "--success", "place > 0"], capfd)
    assert code == 4
    assert "is not repeatable" in err.splitlines()[-1]


def test_every_process_judges_alike(rover: Path, capfd: Capture) -> None:
    options = [str(rover), "--env", ENV_ID, *SHORT, "--no-baselines"]
    alone, shared = (result([*options, "--workers", n], capfd)["rows"] for n in ("1", "2"))
    assert [{**row, "plan_ms": None} for row in alone] == [
        {**row, "plan_ms": None} for row in shared
    ]
