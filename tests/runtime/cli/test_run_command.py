"""`jetsight run` end to end: every output, every exit code, and signals to a real process."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.paths import RECORDED
from helpers.runtime.bundle_factory import pusht_action
from helpers.runtime.live_bundle import make_live_bundle
from helpers.simulators.environments import odd
from helpers.train.gym_factory import needs_pusht

from jetsight import cli
from jetsight.cli.run import StatusLine, describe, status_line
from jetsight.stream import jsonl
from jetsight.stream.frames import Forecast, Mode, Reason

PUSHT = "gym:gym_pusht/PushT-v0"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("bundle") / "tiny.jetsight"
    return str(make_live_bundle(target, action=pusht_action()).path)


@pytest.fixture
def film(tmp_path: Path) -> str:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 12, 8, "yuv420p"
        for i in range(30):
            image = np.full((8, 12, 3), 50 + i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def test_summary_as_json(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", bundle, "--source", PUSHT, "--frames", "40", "--rate", "0", "--json"]
    assert cli.main(command) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert err == ""
    assert (summary["frames"], summary["valid"], summary["drops"]) == (40, 36, 0)
    assert summary["reasons"] == {"warming_up": 4, "ok": 36}
    assert (summary["source"], summary["family"]) == (PUSHT, "cpu-fp32")
    for name in ("encode_ms", "forecast_ms", "overhead_ms", "frame_age_ms", "surprise"):
        assert 0 < summary[name]["p50"] <= summary[name]["p99"] <= summary[name]["max"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Odd", ["--policy", "helpers.simulators.drivers:forward"]),
        ("TwoViews", ["--camera", "pixels.wrist"]),
        ("WideRender", []),
        ("BlackStart", []),
    ],
)
def test_simulator_with_a_camera_and_a_driver_of_ones_own(
    bundle: str, name: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", bundle, "--source", f"gym:{odd(name)}", "--frames", "30", "--rate", "0"]
    assert cli.main([*command, "--json", *options]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["frames"], summary["valid"], summary["rejected"]) == (30, 26, 0)


@needs_pusht
def test_scripted_policy_drives_pusht(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", bundle, "--source", PUSHT, "--frames", "9", "--rate", "0", "--json"]
    assert cli.main([*command, "--policy", "scripted"]) == 0
    assert json.loads(capsys.readouterr().out)["valid"] == 5


def test_summary_for_people(bundle: str, film: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", bundle, "--source", film, "--rate", "0"]) == 0
    out, err = capsys.readouterr()
    assert err == ""  # no status line unless stderr is a terminal
    assert f"30 frames of {film}" in out
    assert "26 valid (else warming_up 4)" in out
    assert "the source reports no actions: forecasts hold for a robot that executes the" in out
    assert cli.main(["run", bundle, "--source", film, "--rate", "0", "--actions", "unknown"]) == 0
    strict = capsys.readouterr().out
    assert "0 valid (else warming_up 4, actions_unknown 26)" in strict
    assert "reports no actions" not in strict
    assert any(line.split() == ["p50", "p99", "max"] for line in out.splitlines())


def test_file_holds_every_forecast(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "forecasts.jsonl"
    arguments = ["--source", PUSHT, "--frames", "30", "--rate", "0", "--out", str(path), "--json"]
    assert cli.main(["run", bundle, *arguments]) == 0
    found = list(jsonl.read(path))
    assert [f.frame_index for f in found] == list(range(30))
    assert sum(f.valid for f in found) == json.loads(capsys.readouterr().out)["valid"] == 26
    assert all(f.z_future is not None and f.z_future.shape == (2, 4) for f in found if f.valid)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_backend_family_threads_and_seed_are_passed_on(
    bundle: str, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--backend", backend, "--family", "cpu-int8", "--threads", "1", "--seed", "5"]
    command = ["run", bundle, "--source", PUSHT, "--frames", "8", "--rate", "0", "--json"]
    assert cli.main([*command, *options]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["backend"], summary["family"]) == (backend, "cpu-int8")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--source", "nowhere.mp4"], 7, "there is no camera or file 'nowhere.mp4'"),
        (["--source", "/dev/video99"], 7, "there is no camera /dev/video99"),
        (["--source", "ftp://x/y"], 2, "ftp:// is not supported"),
        (["--source", PUSHT, "--backend", "abacus"], 2, "there is no backend 'abacus'"),
        (["--source", PUSHT, "--family", "cpu-int3"], 2, "no family 'cpu-int3'"),
        (["--source", PUSHT, "--frames", "0"], 2, "--frames"),
        (["--source", f"gym:{odd('Choices')}"], 7, "only continuous numbers"),
        (["--source", f"gym:{odd('TwoViews')}"], 7, "choose with --camera pixels.top"),
        (["--source", f"gym:{odd('Odd')}", "--camera", "front"], 7, "no one observation 'front'"),
        (["--source", f"gym:{odd('Odd')}", "--policy", "drive"], 7, "policy 'drive' is not usable"),
        (["--source", f"gym:{odd('Odd')}", "--policy", "scripted"], 7, "no scripted policy"),
        (["--source", str(RECORDED), "--policy", "a:b"], 2, "that --policy could drive"),
        (["--source", PUSHT, "--rate", "-1"], 2, "--rate"),
        (["--source", PUSHT, "--actions", "guessed"], 2, "'guessed' is not one of"),
        ([], 2, "--source"),
        (["--source", PUSHT, "--frames", "3", "--out", "/proc/no/file.jsonl"], 8, "/proc/no"),
    ],
)
def test_bad_calls_are_one_line_and_a_code(
    bundle: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert cli.main(["run", bundle, *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jetsight: error: ")
    assert err.count("\n") == 1
    assert words in err


def test_wrong_camera_size_names_both(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = RECORDED
    assert cli.main(["run", bundle, "--source", f"lerobot:{source}#0"]) == 7
    assert "96x96" in (err := capsys.readouterr().err)
    assert "12x8" in err


def test_truncated_film_is_summed_up_and_then_reported(
    bundle: str, film: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = Path(film).read_bytes(), tmp_path / "f.jsonl"
    Path(film).write_bytes(whole[: len(whole) * 3 // 4])
    arguments = ["--source", film, "--rate", "0", "--json", "--out", str(out)]
    assert cli.main(["run", bundle, *arguments]) == 7
    printed = capsys.readouterr()
    frames = json.loads(printed.out)["frames"]
    assert 3 < frames < 30
    assert "of about 30 frames" in printed.err
    assert len(list(jsonl.read(out))) == frames


def _start(bundle: str, out: Path, source: str = PUSHT) -> subprocess.Popen[bytes]:
    code = "import sys; from jetsight.cli import main; sys.exit(main())"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    options = ["--source", source, "--out", str(out), "--json"]
    command = [sys.executable, "-c", code, "run", bundle, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)


def _wait_for_temp(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the writer has its temp, so the stream is about to run."""
    deadline_s = time.perf_counter() + 60
    while not list(folder.glob(".f.jsonl.*")):
        assert process.poll() is None
        assert time.perf_counter() < deadline_s
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_within_a_second_and_keeps_the_file(
    bundle: str, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "f.jsonl"
    process = _start(bundle, out)
    _wait_for_temp(tmp_path, process)
    for _ in range(20):
        time.sleep(0.05)
    start_s = time.perf_counter()
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=20)
    assert time.perf_counter() - start_s < 1.0
    assert process.returncode == code
    assert stderr.strip().startswith(b"jetsight: error: ")
    assert stderr.strip().count(b"\n") == 0
    found = list(jsonl.read(out))
    assert json.loads(stdout)["frames"] == len(found) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["f.jsonl"]


def test_kill_leaves_no_file_under_the_final_name(bundle: str, tmp_path: Path) -> None:
    process = _start(bundle, tmp_path / "f.jsonl")
    _wait_for_temp(tmp_path, process)
    process.kill()
    process.communicate(timeout=20)
    assert not (tmp_path / "f.jsonl").exists()


def test_terminal_shows_one_line_that_is_rewritten(bundle: str) -> None:
    master, slave = pty.openpty()
    code = "import sys; from jetsight.cli import main; sys.exit(main())"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "120"}
    command = [sys.executable, "-c", code, "run", bundle, "--source", PUSHT, "--frames", "8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, env=env) as process:
        os.close(slave)
        shown = b""
        while process.poll() is None or select.select([master], [], [], 0)[0]:
            if select.select([master], [], [], 0.05)[0]:
                try:
                    shown += os.read(master, 4096)
                except OSError:  # Linux says EIO when the other end is closed
                    break
        assert b"8 frames of" in (process.stdout.read() if process.stdout else b"")
    os.close(master)
    assert shown.count(b"\r\x1b[2Kframe ") >= 2
    assert b"\n" not in shown


def test_status_line_fits_a_terminal_and_says_the_essentials() -> None:
    forecast = Forecast(
        frame_index=123, age_ms=4.5, surprise=9.5, surprising=True, reason=Reason.OK, mode=Mode.OK
    )
    line = status_line(forecast)
    assert len(line) <= 120
    assert all(word in line for word in ("123", "4.5 ms", "9.50!", "OK"))
    assert "-" in status_line(Forecast(reason=Reason.CAMERA_LOST))


def test_nothing_is_written_to_a_pipe() -> None:
    stream = io.StringIO()
    status = StatusLine(stream)
    status.show(Forecast())
    status.close()
    assert stream.getvalue() == ""


def test_rejected_frames_are_in_the_summary() -> None:
    zero = {"p50": 0.0, "p99": 0.0, "max": 0.0}
    measured = ("encode_ms", "forecast_ms", "overhead_ms", "frame_age_ms", "surprise")
    summary = {
        **{"frames": 0, "seconds": 0.0, "source": "x", "backend": "b", "family": "f", "valid": 0},
        **{"reasons": {}, "drops": 3, "stalls": 0, "surprising": 0, "stamps": "driver"},
        **{"rejected": 3, "notes": [], "last_defect": "frame 2 is all black"},
        **dict.fromkeys(measured, zero),
    }
    assert "3 rejected, the last because frame 2 is all black" in list(describe(summary))
