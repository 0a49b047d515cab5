"""`jetsight build` on a real GPU: every gate passes on a good engine and fails on a spoiled one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.bad_input import here
from helpers.paths import ROOT

from jetsight.bundle import golden, manifest
from jetsight.bundle.bundle import Bundle, write_bundle
from jetsight.errors import EngineError
from jetsight.tensorrt.bindings import RTX, open_library
from jetsight.tensorrt.builder import precision_proof
from jetsight.tensorrt.engine_cache import EngineStore
from jetsight.tensorrt.fingerprint import host_spec

pytestmark = pytest.mark.gpu
MODEL = ROOT / "train" / "jetsight_train" / "zoo" / "pusht-nano"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    """The shipped model, compiled in fp16 for this machine."""
    from jetsight import cli

    path = tmp_path_factory.mktemp("bundle") / "nano.jetsight"
    target = host_spec(open_library()).target
    command = ["compile", str(MODEL), "--calib", str(ROOT / "calib_data" / "pusht")]
    assert (
        cli.main([*command, "--target", str(target), "--precision", "fp16", "--out", str(path)])
        == 0
    )
    return Bundle.open(path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _private_cache(cache, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def test_engines_pass_parity_and_are_measured(bundle, capfd) -> None:
    code, out, err = here(["build", str(bundle.path), "--json"], capfd)
    assert code == 0, err
    engines = {engine["graph"]: engine for engine in json.loads(out)["engines"]}
    assert set(engines) == {"encode", "forecast"}
    for engine in engines.values():
        assert engine["fingerprint"]["host"]["gpu"]
        assert engine["parity"]["smallest_cosine"] >= engine["parity"]["limit"]
        latency = engine["latency"]
        assert 0 < latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"] <= latency["max_ms"]
        assert latency["runs"] >= 20
        assert engine["skipped"] == {} or set(engine["skipped"]) == {"proof"}


def test_the_precision_is_proven_or_the_record_says_why_not(bundle, capfd) -> None:
    _, out, _ = here(["build", str(bundle.path), "--json"], capfd)
    for engine in json.loads(out)["engines"]:
        if engine["proof"] is None:
            assert open_library().name == RTX, "TensorRT itself always shows its layers"
            assert engine["skipped"]["proof"]
            continue
        assert engine["proof"]["shares"]["fp16"] > 0.5
        assert sum(engine["proof"]["shares"].values()) == pytest.approx(1.0)


def test_a_proof_of_another_precision_fails(bundle, capfd) -> None:
    """The negative control: what runs in fp16 must not pass for INT8."""
    here(["build", str(bundle.path)], capfd)
    library, record = open_library(), EngineStore().records()[0]
    if record.proof is None:
        pytest.skip(f"no proof on this library: {record.skipped['proof']}")
    plan = EngineStore().find(record.fingerprint.graph_sha256, host_spec(library)).plan
    claimed = precision_proof.prove(precision_proof.inspect(library, plan), "int8")
    with pytest.raises(EngineError, match="silent precision fallback"):
        precision_proof.refuse_fallback(claimed, "x")


def test_engines_are_found_again_and_by_no_other_machine(bundle, capfd) -> None:
    here(["build", str(bundle.path)], capfd)
    host, store = host_spec(open_library()), EngineStore()
    record = store.records()[0]
    assert store.find(record.fingerprint.graph_sha256, host).record == record
    with pytest.raises(EngineError, match=r"built for \| found: gpu"):
        store.find(record.fingerprint.graph_sha256, replace(host, gpu="another"))


def test_reference_data_of_another_model_fails_parity(bundle, tmp_path, capfd) -> None:
    """The negative control of parity: the same graphs, latents of the wrong samples."""
    arrays = {name: np.array(a) for name, a in bundle.golden().items()}
    arrays["z"] = np.roll(arrays["z"], 1, axis=1)
    files = {path: bundle._read(path) for path in bundle.manifest.files}
    files[manifest.GOLDEN] = golden.dump(arrays)
    write_bundle(tmp_path / "wrong.jetsight", bundle.manifest, files)
    before = EngineStore().records()
    command = ["build", str(tmp_path / "wrong.jetsight"), "--graph", "encode", "--force"]
    code, _, err = here(command, capfd)
    assert code == 10
    assert "does not agree with PyTorch" in err
    assert EngineStore().records() == before
