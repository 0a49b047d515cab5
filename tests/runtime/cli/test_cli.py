"""The command's edge: one line per error, documented exit codes, lazy subcommands, fast help."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from helpers.runtime.bundle_factory import make_bundle

import jetsight
from jetsight import cli, errors
from jetsight.bundle import golden, manifest
from jetsight.cli import group


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny.jetsight").path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    """Run a function as if it were `jetsight inspect`, and return the exit code."""

    def run(body: Callable[[], object]) -> int:
        made = click.Command("inspect", callback=body)
        monkeypatch.setattr(group.LazyGroup, "get_command", lambda *_: made)
        return cli.main(["inspect"])

    return run


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=60)


def _raise(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


def _all_errors() -> list[type[errors.JetsightError]]:
    return [errors.JetsightError, *_below(errors.JetsightError)]


def _below(cls: type[errors.JetsightError]) -> list[type[errors.JetsightError]]:
    direct = [sub for sub in cls.__subclasses__() if sub.__module__ == "jetsight.errors"]
    return [*direct, *(deep for sub in direct for deep in _below(sub))]


@pytest.mark.parametrize("cls", _all_errors())
def test_each_error_is_one_line_with_its_exit_code(
    cls: type[errors.JetsightError],
    command: Callable[[Callable[[], object]], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = cls("av", "camera", "reading video") if cls is errors.MissingDependency else cls("a\nb")
    assert command(_raise(error)) == cls.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jetsight: error: ")
    assert err.count("\n") == 1


def test_every_exit_code_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    codes = {cls.exit_code for cls in _all_errors()}
    codes |= {0, cli.NO_PLAN, cli.INCOMPLETE, cli.BLOCKED, cli.INTERRUPTED, cli.TERMINATED}
    listed = {
        int(word) for line in text.splitlines() for word in line.split()[:1] if word.isdigit()
    }
    assert codes - {cli.TERMINATED} == listed
    assert str(cli.TERMINATED) in text


FOREIGN = [
    (KeyboardInterrupt(), 130, "interrupted"),
    (
        OSError(errno.ENOSPC, "No space left on device", "/data/x"),
        8,
        "no space left while writing /data/x",
    ),
    (OSError(errno.EDQUOT, "Quota exceeded"), 8, "no space left while writing a file"),
    (FileNotFoundError(errno.ENOENT, "No such file", "/data/x"), 1, "/data/x: No such file"),
    (ModuleNotFoundError("no torch", name="torch.nn"), 5, "pip install 'jetsight[train]'"),
    (ImportError("libGL.so.1: cannot open shared object file"), 1, "libGL.so.1"),
    (click.UsageError("bad option."), 2, "bad option; see: jetsight"),
]


@pytest.mark.parametrize(("error", "code", "message"), FOREIGN, ids=lambda v: type(v).__name__)
def test_foreign_errors_become_one_line_too(
    error: BaseException,
    code: int,
    message: str,
    command: Callable[[Callable[[], object]], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(_raise(error)) == code
    err = capsys.readouterr().err.strip()
    assert message in err
    assert "\n" not in err


@pytest.mark.parametrize("error", [RuntimeError("bug"), ImportError("bug", name="jetsight.typo")])
def test_our_own_bugs_keep_their_traceback(
    error: Exception, command: Callable[[Callable[[], object]], int]
) -> None:
    with pytest.raises(type(error), match="bug"):
        command(_raise(error))


def test_command_may_choose_its_exit_code(
    command: Callable[[Callable[[], object]], int],
) -> None:
    assert command(lambda: click.get_current_context().exit(6)) == 6
    assert command(lambda: None) == 0


WAITING = """
import os, signal, sys, time, contextlib, click
from jetsight import cli
from jetsight.cli import group

@contextlib.contextmanager
def cleaning():
    try:
        yield
    finally:
        print("cleaned", flush=True)
        {finally_}

def body():
    with cleaning():
        print("ready", flush=True)
        signal.pause()

group.LazyGroup.get_command = lambda *_: click.Command("run", callback=body)
sys.exit(cli.main(["run"]))
"""


def _signalled(finally_: str, *numbers: int) -> tuple[int, str, str]:
    """Start the waiting command, send signals one after another; code, stdout, stderr."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(finally_=finally_)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert child.stdout is not None
    lines = []
    for number in numbers:
        lines.append(child.stdout.readline())
        child.send_signal(number)
    out, err = child.communicate(timeout=20)
    return child.returncode, "".join(lines) + out, err


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_unwinds_and_ends_with_its_code(number: int, code: int, word: str) -> None:
    returned, out, err = _signalled("", number)
    assert returned == code
    assert out == "ready\ncleaned\n"
    assert err.strip() == f"jetsight: error: {word}"


def test_a_second_signal_ends_a_hanging_cleanup_at_once() -> None:
    returned, out, _ = _signalled("signal.pause()", signal.SIGTERM, signal.SIGTERM)
    assert returned == -signal.SIGTERM
    assert out == "ready\ncleaned\n"


FORKING = """
import multiprocessing, os, signal, sys, click
from jetsight import cli
from jetsight.cli import group

def wait(ready):
    os.write(ready, b"x")
    signal.pause()

def body():
    started, ready = os.pipe()
    child = multiprocessing.get_context("fork").Process(target=wait, args=(ready,))
    child.start()
    os.read(started, 1)
    child.terminate()
    child.join()
    print(child.exitcode)

group.LazyGroup.get_command = lambda *_: click.Command("run", callback=body)
sys.exit(cli.main(["run"]))
"""


def test_a_child_that_a_library_forked_and_ends_says_nothing() -> None:
    done = _python(FORKING)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{-signal.SIGTERM}\n", "")


@pytest.mark.parametrize("name", group.COMMANDS)
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert f"Usage: jetsight {name}" in capsys.readouterr().out


def test_help_imports_no_subcommand_and_nothing_heavy() -> None:
    code = (
        "import sys; from jetsight.cli import main; main(['--help']); "
        "print([m for m in ('numpy', 'torch', 'jetsight_train', 'jetsight_compile', "
        "'jetsight.cli.inspect') if m in sys.modules])"
    )
    assert _python(code).stdout.endswith("[]\n")


def _cpu_ms(code: str, runs: int = 7) -> float:
    """Median processor time of a fresh Python; unlike wall time it does not see a busy machine."""
    times = []
    for _ in range(runs):
        command = [sys.executable, "-c", code]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        times.append((usage.ru_utime + usage.ru_stime) * 1000)
    return statistics.median(times)


def test_help_is_fast() -> None:
    """Measured 75 ms over bare Python, 46 of them click; slower processors get room."""
    taken = _cpu_ms("from jetsight.cli import main; main(['--help'])") - _cpu_ms("pass")
    assert taken < 250, f"--help takes {taken:.0f} ms over bare Python"
    heavy = _cpu_ms("import numpy, onnxruntime; from jetsight.cli import main; main(['--help'])", 3)
    assert heavy - _cpu_ms("pass") > taken, "the control: a heavy import must show"


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jetsight, version {jetsight.__version__}\n"


def test_inspect_shows_every_part(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(bundle)]) == 0
    text = capsys.readouterr().out
    for part in (
        "conv, 1,234 parameters",
        "2 action blocks of 2 actions, 0.4 s ahead",
        "8 x 12 px, rgb, 10 Hz",
        "x     px    0    256      512   none",
        "cpu-int8  20     10                 cpu  encode int8 640 B, forecast int8 720 B",
        "cpu-int8  latent_cosine  0.999  >= 0.99  passed   0.1, fault detected  at layer 3",
        "latent_cosine  mean cosine of standardised latents to PyTorch float32; control: half of ",
        "calib_data/pusht: 100 frames of 2 episodes",
        "5 files, 4.7 kB, every SHA-256 matches the manifest",
    ):
        assert part in text


def test_inspect_json_is_the_manifest(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "--json", str(bundle)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["verified"] is True
    written = json.loads((bundle / manifest.FILE_NAME).read_text())
    assert shown["manifest"] == written


def test_inspect_shows_nothing_of_a_damaged_bundle(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "golden.npz").write_bytes(b"x")
    for arguments in ([], ["--json"]):
        assert cli.main(["inspect", str(bundle), *arguments]) == 3
        assert capsys.readouterr().out == ""


def test_inspect_looks_into_the_reference_data_whatever_its_digest_says(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest that lists the digest of reference data that are none."""
    data = golden.dump({"z": np.zeros((1, 4), np.float32)})
    (bundle / "golden.npz").write_bytes(data)
    path = bundle / manifest.FILE_NAME
    listed = json.loads(path.read_text())
    listed["files"]["golden.npz"] = {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    path.write_text(json.dumps(listed))
    for arguments in ([], ["--json"]):
        assert cli.main(["inspect", str(bundle), *arguments]) == 3
        printed = capsys.readouterr()
        assert (printed.out, "golden.npz" in printed.err) == ("", True)
