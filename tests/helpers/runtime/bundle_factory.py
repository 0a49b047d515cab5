"""A tiny valid bundle for tests: 8 x 12 px camera, D=4, K=3, H=2, B=2, two action dimensions.

Its graphs are opaque bytes; tests that run one pass their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jetsight.bundle import golden
from jetsight.bundle.bundle import Bundle, write_bundle
from jetsight.bundle.manifest import (
    DataDigest,
    Family,
    Gate,
    LatentStats,
    Manifest,
    Provenance,
    SurpriseQuantiles,
)
from jetsight.bundle.model_spec import ActionSpec, FrameSpec, ModelSpec, TimingSpec

FAMILIES = ("cpu-fp32", "cpu-int8")


def make_manifest(**changes: Any) -> Manifest:
    """A valid manifest without files; keyword arguments replace top-level fields."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "model": ModelSpec("conv", 1234, latent_size=4, history=3, horizon=2, action_size=4),
        "frame": FrameSpec(
            height_px=8,
            width_px=12,
            channel_order="rgb",
            crop=(0, 2, 8, 8),
            resize=(6, 6),
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
        ),
        "timing": TimingSpec(camera_hz=10.0, action_block=2),
        "action": ActionSpec(
            names=("x", "y"),
            units=("px", "px"),
            low=(0.0, 0.0),
            high=(512.0, 512.0),
            rate_limit_per_s=None,
            neutral=(256.0, 256.0),
            mean=(250.0, 260.0),
            std=(100.0, 90.0),
        ),
        "latent": LatentStats(
            (0.0, 0.1, -0.2, 0.0), (1.0, 0.9, 1.1, 1.0), 0.5, SurpriseQuantiles(1.0, 2.0, 3.0, 4.0)
        ),
        "families": tuple(
            Family(name, 20, {"encode": name[4:], "forecast": name[4:]}, ("cpu",), 10)
            for name in FAMILIES
        ),
        "gates": (
            Gate(
                family="cpu-int8",
                name="latent_cosine",
                value=0.999,
                limit=0.99,
                direction="min",
                passed=True,
                control_value=0.1,
                control_failed=True,
                detail="at layer 3",
            ),
        ),
        "provenance": Provenance(
            created_utc="2026-01-31T12:00:00Z",
            tool={"jetsight": "0.1.0", "torch": "2.13.0"},
            checkpoint_sha256="ab" * 32,
            calibration=DataDigest("cd" * 32, 100, (0, 1), "calib_data/pusht"),
            held_out=None,
            license="Apache-2.0",
        ),
    }
    return Manifest(**{**fields, **changes})


def pusht_action() -> ActionSpec:
    """The actions of `make_manifest` under the names that PushT gives them."""
    return replace(make_manifest().action, names=("target_x", "target_y"))


def make_golden(manifest: Manifest, samples: int = 2) -> dict[str, np.ndarray[Any, Any]]:
    """Seeded arrays of the right dtypes and shapes."""
    draw = np.random.default_rng(0)
    arrays = {}
    for name, (dtype, tail) in golden.layout(manifest).items():
        shape = (samples, *tail)
        arrays[name] = (
            draw.integers(0, 256, shape, dtype=np.uint8)
            if dtype == np.uint8
            else draw.standard_normal(shape, dtype=np.float32)
        )
    return arrays


def make_files(manifest: Manifest) -> dict[str, bytes]:
    """Content of every file but the manifest."""
    files = {
        f"graphs/{family.name}/{graph}.onnx": f"{family.name} {graph} ".encode() * 40
        for family in manifest.families
        for graph in ("encode", "forecast")
    }
    return {**files, "golden.npz": golden.dump(make_golden(manifest))}


def make_bundle(
    target: Path, *, tar: bool = False, graphs: Mapping[str, bytes] | None = None, **changes: Any
) -> Bundle:
    """Write the tiny bundle to `target`; `graphs` replaces graph files by bundle path."""
    manifest = make_manifest(**changes)
    return write_bundle(target, manifest, {**make_files(manifest), **(graphs or {})}, tar=tar)
