"""A bundle that an earlier version wrote: it opens, proves itself, streams and plans as it did.

`tests/fixtures/tiny-0.1.0.jetsight.tar` was written by the code at 6ae1050: a random model, two CPU
families, one planner. It is never written anew, because what it proves is that files stay readable.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import ROOT

from jetsight import Bundle, Session
from jetsight.bundle import manifest
from jetsight.errors import BundleError
from jetsight.stream.frames import Frame

BUNDLE = ROOT / "tests" / "fixtures" / "tiny-0.1.0.jetsight.tar"
SHA256 = "3b4ff06564921ead0b2872b534bf7dd2737847f1da12a9cc2ac9d47fa1dace80"


def test_the_fixture_is_the_one_that_was_written_then() -> None:
    assert hashlib.sha256(BUNDLE.read_bytes()).hexdigest() == SHA256


def test_its_manifest_is_read_and_written_back_byte_for_byte() -> None:
    bundle = Bundle.open(BUNDLE)
    assert bundle.manifest.version == "1.2"
    again = manifest.parse(manifest.dump(bundle.manifest))
    assert again == bundle.manifest
    assert manifest.dump(again) == manifest.dump(bundle.manifest)
    assert [planner.graph for planner in again.planners] == ["imagine_cem_16x2"]
    assert again.action.names == ("dy", "dx")


@pytest.mark.parametrize("family", ["cpu-fp32", "cpu-int8-int8-fp32"])
def test_it_streams_and_plans(family: str) -> None:
    rng = np.random.default_rng(0)
    with Session.open(BUNDLE, "onnxruntime", family) as session:
        assert min(session.parity.values()) > 0.99
        block, latent = session.spec.action_block, session.spec.latent_size
        needed = session.spec.span_ticks + 1
        for tick in range(needed):
            image = rng.integers(0, 255, (24, 24, 3), np.uint8)
            forecast = session.step(_frame(tick, image, session.clock.now_ns()))
        assert forecast is not None
        assert forecast.z_future is not None
        plan = session.imagine(np.zeros(latent, np.float32), seed=1)
        assert (plan.valid, plan.actions.shape) == (True, (2 * block, 2))


def test_one_changed_byte_is_refused(tmp_path: Path) -> None:
    """The negative control: what opens it does look."""
    target = tmp_path / BUNDLE.name
    shutil.copy(BUNDLE, target)
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    with pytest.raises(BundleError):
        Bundle.open(target)


def _frame(tick: int, image: np.ndarray, now_ns: int) -> Frame:
    return Frame(image, tick, tick, now_ns, action_since=np.zeros((1, 2), np.float32))
