"""The doctor on machines we do not have: fake root trees, fake drivers, vanishing files."""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jetsight import cli
from jetsight.backends.registry import BackendInfo
from jetsight.cli.doctor import describe
from jetsight.doctor import examine
from jetsight.doctor.report import Ability, Engines, Report
from jetsight.machine import system
from jetsight.machine.jetson import Jetson
from jetsight.machine.system import Cuda, Gpu
from jetsight.tensorrt.engine_cache import EngineStore
from jetsight.tensorrt.fingerprint import BuildOptions, Fingerprint, HostSpec
from jetsight.tensorrt.record import BuildRecord

NO_CUDA = Cuda(None, None, (), "no NVIDIA driver")
ORIN = Gpu("Orin", 65_000_000_000, "8.7", multiprocessors=16, integrated=True)
RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
OPENVINO = BackendInfo("openvino", "2026.4.1", ("cpu-",), None)
NO_ORT = BackendInfo("onnxruntime", None, ("cpu-",), "run: pip install 'jetsight[cpu]'")


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    return _tree(
        tmp_path,
        {
            "etc/nv_tegra_release": RELEASE,
            "etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nID=ubuntu\n',
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
            "proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable: 50000000 kB\n",
            "proc/cpuinfo": "processor: 0\nmodel name: ARMv8 Processor rev 1\n",
            "var/lib/nvpmodel/status": "pmode:0000\n",
            "dev/video0": "",
            "dev/video10": "",
            "dev/video2": "",
            "sys/class/video4linux/video0/name": "vi-output, imx219\n",
            "sys/class/video4linux/video0/index": "0\n",
            "sys/class/video4linux/video2/index": "1\n",
            "usr/lib/python3.10/dist-packages/tensorrt/__init__.py": "",
        },
    )


def _examine(root: Path, installed: set[str] = frozenset(), **fakes: Any) -> Report:
    def version_of(module: str) -> str | None:
        return "1.2.3" if module in installed else None

    defaults: dict[str, Any] = {
        "cuda": lambda _: NO_CUDA,
        "infos": [OPENVINO, NO_ORT],
        "loads": lambda _: True,
        "store": EngineStore(root / "engines"),
    }
    fakes = {**defaults, **fakes}
    return examine.examine(root, version_of=version_of, **fakes)


def _able(report: Report, start: str) -> Ability:
    (found,) = [able for able in report.abilities if able.what.startswith(start)]
    return found


def test_jetson_is_described(jetson: Path) -> None:
    report = _examine(jetson, cuda=lambda _: Cuda("540.4", "12.6", (ORIN,), None))
    assert report.jetson == Jetson(
        "NVIDIA Jetson AGX Orin Developer Kit", "36.4.3", "6.2", "10.3", "0"
    )
    assert report.system.os == "Ubuntu 22.04.5 LTS"
    assert report.system.processor == "ARMv8 Processor rev 1"
    assert report.system.memory_bytes == 64_000_000 * 1024
    assert [(c.path, c.name) for c in report.cameras] == [
        ("/dev/video0", "vi-output, imx219"),
        ("/dev/video10", None),
    ]
    text = "\n".join(describe(report))
    for part in ("JetPack 6.2, L4T 36.4.3", "Orin 65.0 GB sm 8.7, CUDA 12.6"):
        assert part in text


def test_hidden_tensorrt_of_jetpack_is_advised_about(jetson: Path) -> None:
    assert any("--system-site-packages" in line for line in _examine(jetson).advice)
    assert not any("TensorRT is" in line for line in _examine(jetson, {"tensorrt"}).advice)


def test_old_jetpack_and_locked_camera_are_advised_about(
    jetson: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (jetson / "etc/nv_tegra_release").write_text(RELEASE.replace("4.3", "3.0"))
    monkeypatch.setattr(system.os, "access", lambda *_: False)
    advice = " | ".join(_examine(jetson, {"tensorrt"}).advice)
    assert "JetPack 6.0 is too old" in advice
    assert "/dev/video0, /dev/video10 cannot be opened by this user" in advice
    assert "usermod -aG video" in advice


def test_missing_system_library_is_advised_about_where_it_matters(tmp_path: Path) -> None:
    (advice,) = _examine(tmp_path, {"gym_pusht"}, loads=lambda name: "GL" not in name).advice
    assert "without libGL.so.1; on Debian" in advice
    assert _examine(tmp_path, {"gym_pusht"}).advice == ()
    assert _examine(tmp_path, loads=lambda _: False).advice == ()
    assert system.library_loads("libc.so.6")
    assert not system.library_loads("libnone.so.9")


def test_empty_machine_is_still_described(tmp_path: Path) -> None:
    report = _examine(tmp_path, infos=[NO_ORT])
    assert report.jetson is None
    assert report.cameras == ()
    assert report.system.os is None
    assert report.system.memory_bytes is None
    assert not any(able.possible for able in report.abilities)
    assert "unknown" in "\n".join(describe(report))


@pytest.mark.parametrize(
    "gone", ["etc/nv_tegra_release", "proc/meminfo", "var/lib/nvpmodel/status"]
)
@pytest.mark.parametrize("how", ["missing", "a folder", "garbage"])
def test_every_file_is_optional(jetson: Path, gone: str, how: str) -> None:
    (jetson / gone).unlink()
    if how == "a folder":
        (jetson / gone).mkdir()
    elif how == "garbage":
        (jetson / gone).write_bytes(b"\xff\x00\n=:R99\n" * 100)
    report = _examine(jetson)
    assert json.loads(json.dumps(dataclasses.asdict(report)))
    assert list(describe(report))


def test_abilities_name_what_is_missing(tmp_path: Path) -> None:
    report = _examine(tmp_path, {"torch", "av", "onnx"})
    assert _able(report, "run cpu-* bundles with openvino 2026.4.1").possible
    assert _able(report, "read video").possible
    assert _able(report, "read LeRobot").missing == ("pip install 'jetsight[camera]'",)
    assert _able(report, "compile").missing == (
        "pip install 'jetsight[compile]'",
        "pip install 'jetsight[cpu]'",
    )


def test_tensorrt_bundles_need_a_backend_and_a_gpu(tmp_path: Path) -> None:
    backend = BackendInfo("tensorrt", "10.3", ("trt-",), None)
    assert "has no backend" in _able(_examine(tmp_path), "run trt-*").missing[0]
    unusable = dataclasses.replace(backend, reason="no NVIDIA driver")
    for info in (backend, unusable):  # stated once, for any backend
        report = _examine(tmp_path, infos=[info])
        assert _able(report, "run trt-*").missing == ("no NVIDIA driver",)
    report = _examine(tmp_path, infos=[backend], cuda=lambda _: Cuda("1", "12.6", (ORIN,), None))
    assert _able(report, "run trt-*").possible


class FakeDriver:
    """Answers like libcuda: one device, or an error from `cuInit`."""

    def __init__(self, code: int = 0, count: int = 1) -> None:
        self.code, self.count = code, count

    def cuInit(self, flags: int) -> int:
        return self.code

    def cuDriverGetVersion(self, out: Any) -> None:
        out._obj.value = 13020

    def cuDeviceGetCount(self, out: Any) -> None:
        out._obj.value = self.count

    def cuDeviceGet(self, out: Any, ordinal: int) -> None:
        out._obj.value = ordinal

    def cuDeviceGetName(self, buffer: Any, size: int, device: ctypes.c_int) -> None:
        buffer.value = b"NVIDIA Thor"

    def cuDeviceTotalMem_v2(self, out: Any, device: ctypes.c_int) -> None:
        out._obj.value = 128 << 30

    def cuDeviceGetAttribute(self, out: Any, attribute: int, device: ctypes.c_int) -> None:
        out._obj.value = {16: 20, 18: 1, 75: 11, 76: 0}[attribute]


def test_driver_is_asked_for_its_devices(tmp_path: Path) -> None:
    _tree(tmp_path, {"sys/module/nvidia/version": "580.95\n"})
    found = system.cuda(tmp_path, lambda _: FakeDriver())
    thor = Gpu("NVIDIA Thor", 128 << 30, "11.0", multiprocessors=20, integrated=True)
    assert found == Cuda("580.95", "13.2", (thor,), None)


def _no_library(_: str) -> Any:
    raise OSError("libcuda.so.1: cannot open shared object file")


@pytest.mark.parametrize(
    ("load", "problem"),
    [
        (_no_library, "libcuda.so.1 is not installed"),
        (lambda _: FakeDriver(code=100), "no CUDA device"),
        (lambda _: FakeDriver(code=804), "cuInit failed with CUDA error 804"),
        (lambda _: FakeDriver(count=0), "no CUDA device"),
        (lambda _: object(), "libcuda.so.1 is not usable"),
    ],
)
def test_every_driver_problem_is_told(tmp_path: Path, load: Any, problem: str) -> None:
    found = system.cuda(tmp_path, load)
    assert found.devices == ()
    assert problem in (found.problem or "")


def _printed(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_installed_version_finds_without_importing() -> None:
    code = """
import sys
sys.modules["torch"] = None
from jetsight.doctor.examine import installed_version as v
print(v("numpy") is not None, v("torch"), v("no_such_module"), "av" in sys.modules)
"""
    assert _printed(code) == "True None None False"


def test_doctor_imports_nothing_heavy() -> None:
    code = """
import sys
from jetsight.doctor.examine import examine
examine()
print([m for m in ("torch", "onnxruntime", "openvino", "av", "pyarrow") if m in sys.modules])
"""
    assert _printed(code) == "[]"


def test_command_prints_the_page_and_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert "can  what" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {
        field.name for field in dataclasses.fields(Report)
    }


def _keep(store: EngineStore, graph: str, version: str, gpu: str | None) -> None:
    plan = f"plan of {graph} {version}".encode()
    sm, cores = (ORIN.compute_capability, 16) if gpu else (None, None)
    memory = None if gpu is None else round(ORIN.memory_bytes / (1 << 31)) * 2048
    host = HostSpec(
        "tensorrt_rtx", version, "580", "13.0", gpu, sm, multiprocessors=cores, memory_mb=memory
    )
    record = BuildRecord(
        fingerprint=Fingerprint(graph * 64, "trt-op20-fp16", "fp16", BuildOptions(), host),
        bundle="pusht-nano",
        graph="encode",
        built_utc="2026-01-31T12:00:00Z",
        seconds=1.0,
        plan_bytes=len(plan),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_version=version,
        inputs={},
        outputs={},
        layers={},
        skipped={} if gpu else {"parity": "no GPU here"},
    )
    store.add(plan, record, "log")


@pytest.mark.parametrize(("gpus", "usable"), [((ORIN,), 1), ((), 0)])
def test_engines_are_counted_and_usable_ones_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: tuple[Gpu, ...], usable: int
) -> None:
    monkeypatch.setattr(system, "cuda", lambda _: Cuda("580", "13.0", gpus, None))
    store = EngineStore(tmp_path / "engines")
    assert _examine(tmp_path, store=store).engines == Engines(str(store.root), 0, 0, None)
    _keep(store, "a", "1.2.3", "Orin")
    _keep(store, "b", "1.2.3", None)  # built where no GPU was, never proven
    _keep(store, "c", "1.7.1.116", "Orin")  # for another TensorRT
    _keep(store, "d", "1.2.3", "NVIDIA Thor")
    found = _examine(tmp_path, {"tensorrt_rtx"}, store=store)
    assert (found.engines.stored, found.engines.usable) == (4, usable)
    assert f"{usable} of 4 usable here, in {store.root}" in "\n".join(describe(found))
    assert _examine(tmp_path, store=store).engines.usable == 0  # no library to run them


def test_engine_folder_that_others_can_write_to_is_told(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    _keep(store, "a", "1.2.3", "Orin")
    store.root.chmod(0o777)
    report = _examine(tmp_path, {"tensorrt_rtx"}, store=store)
    assert report.engines.usable == 0
    assert "expected 0700" in (report.engines.problem or "")
    assert "chmod 700" in "\n".join(describe(report))
