"""Sizes of models, what they need on a device, and how fast this machine trains them.

Times on devices are estimates from the number of operations and the module's dense FP16 rate; only
`jetsight build` on the device measures. Shapes: K history, H horizon, B action block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from jetsight.clock import Clock
from jetsight.errors import unknown
from jetsight.machine.jetson_modules import MODULES
from jetsight_train.data.windows import Recording
from jetsight_train.model.config import ConvConfig, ModelConfig, PredictorConfig
from jetsight_train.recipe import Recipe
from jetsight_train.training.trainer import Trainer

USED_SHARE = 0.05  # of a module's peak that layers as small as these reach; large ones reach 0.6
CPU_TFLOPS = 0.03  # two cores with AVX2
PERIOD_SHARE = 0.3  # of a camera period that encoding and forecasting may take
PLAN_CANDIDATES, PLAN_ITERATIONS = 256, 5
WEIGHT_BYTES = 2  # FP16
MEMORY_SHARE = 0.1  # of a module's memory that the weights may take


@dataclass(frozen=True)
class ModelSize:
    """One size of model: side of its input in px, encoder, predictor and latent."""

    name: str
    side: int
    latent: int
    conv: ConvConfig
    predictor: PredictorConfig

    def model(self, history: int, horizon: int) -> ModelConfig:
        """Make the section `[model]`."""
        return ModelConfig(self.latent, history, horizon, self.predictor, conv=self.conv)


def _conv(widths: tuple[int, ...], strides: tuple[int, ...], hidden: int) -> ConvConfig:
    kernels = (5, *(3 for _ in widths[1:]))
    # As many points as channels of the last map, as in the shipped model.
    return ConvConfig(widths, kernels, strides, hidden=hidden, points=widths[-1])


def _predictor(depth: int, heads: int, mlp: int, action_hidden: int) -> PredictorConfig:
    return PredictorConfig(
        depth, heads, 32, mlp, action_hidden=action_hidden, projector=0, dropout=0.0
    )


# From large to small. `nano` is the shipped model's.
SIZES = (
    ModelSize(
        "large",
        side=96,
        latent=192,
        conv=_conv((48, 96, 128, 128), (2, 2, 1, 1), 512),
        predictor=_predictor(6, 8, 1024, 256),
    ),
    ModelSize(
        "small",
        side=64,
        latent=96,
        conv=_conv((32, 64, 64), (2, 1, 1), 384),
        predictor=_predictor(4, 6, 768, 192),
    ),
    ModelSize(
        "nano",
        side=48,
        latent=64,
        conv=_conv((32, 48, 48), (2, 1, 1), 256),
        predictor=_predictor(4, 4, 512, 128),
    ),
    ModelSize(
        "micro",
        side=32,
        latent=32,
        conv=_conv((16, 32, 32), (2, 1, 1), 128),
        predictor=_predictor(2, 2, 256, 64),
    ),
)


@dataclass(frozen=True)
class TargetDevice:
    """A device that a model is sized for: its name, rate in 10^12 operations per s, and memory."""

    name: str
    tflops: float
    memory_gb: float

    def milliseconds(self, flop: float) -> float:
        """Estimate the time of so many operations."""
        share = 1.0 if self.name == "cpu" else USED_SHARE  # the figure for CPUs is a measured one
        return flop / (self.tflops * share) / 1e9


def devices() -> Mapping[str, TargetDevice]:
    """List the devices of `--fit` by name: `cpu`, and Jetson modules such as `orin-nano-8gb`."""
    found = {"cpu": TargetDevice("cpu", CPU_TFLOPS, 4)}
    for module in MODULES:
        name = module.name.lower().replace(" ", "-")
        found[name] = TargetDevice(name, module.fp16_tflops, module.memory_gb)
    return found


def find_device(name: str) -> TargetDevice:
    """Find a device; a name without memory, such as `orin-nano`, means the smallest of that name.

    Raises:
        UsageError: there is none; the nearest is named.
    """
    known = devices()
    for each, device in known.items():
        if each == name or each.startswith(f"{name}-"):
            return device
    raise unknown("device", name, known)


@dataclass(frozen=True)
class Cost:
    """Operations of one encoding, forecast step and plan, and the number of weights."""

    encode: float
    step: float
    horizon: int
    weights: float

    @property
    def plan(self) -> float:
        """Operations of one plan."""
        return PLAN_CANDIDATES * PLAN_ITERATIONS * self.horizon * self.step

    def fits(self, device: TargetDevice, hz: float, block: int) -> bool:
        """Check that a device keeps the camera's rate, and plans within one action block."""
        live_ms = device.milliseconds(self.encode + self.horizon * self.step)
        plan_ms = device.milliseconds(self.plan)
        memory = self.weights * WEIGHT_BYTES <= MEMORY_SHARE * device.memory_gb * 2**30
        in_time = live_ms <= PERIOD_SHARE * 1e3 / hz and plan_ms <= block * 1e3 / hz
        return memory and in_time


def cost_of(model: ModelConfig, input_hw: tuple[int, int], action_size: int) -> Cost:
    """Count the operations of a model from its sizes; a multiplication and addition are two."""
    conv, predictor, latent = model.conv, model.predictor, model.latent_size
    assert conv is not None  # all sizes of this module are convolutional
    encode = weights = 0.0
    channels, (rows, columns) = 3, input_hw
    for width, kernel, stride in zip(conv.widths, conv.kernels, conv.strides, strict=True):
        rows, columns = -(-rows // stride), -(-columns // stride)
        weights += channels * width * kernel**2
        encode += 2.0 * channels * width * kernel**2 * rows * columns
        channels = width
    flat = 3 * conv.points
    head = flat * conv.hidden + conv.hidden * latent
    encode += 2.0 * (channels * conv.points * rows * columns * 3 + head)
    inner = predictor.heads * predictor.head_size
    block = latent * (4 * inner + 2 * predictor.mlp + 6 * latent)
    first = action_size * 10 + 10 * predictor.action_hidden + predictor.action_hidden * latent
    inside = predictor.depth * block + first + latent**2
    step = 2.0 * model.history * inside
    return Cost(encode, step, model.horizon, weights + head + inside)


def input_size(side: int, camera_hw: tuple[int, int]) -> tuple[int, int]:
    """Scale a camera frame so that its short side is `side`, and the long one a multiple of 8."""
    short = min(camera_hw)
    rows, columns = (
        side if each == short else 8 * max(1, round(each / short * side / 8)) for each in camera_hw
    )
    return rows, columns


def seconds_per_step(recipe: Recipe, clock: Clock, at_most_s: float) -> float:
    """Measure a training step of `recipe` on this machine, on frames of noise.

    Args:
        recipe: to train.
        clock: to measure with.
        at_most_s: a first step slower than this is not repeated.
    """
    trainer = Trainer(recipe, _noise(recipe), Path("unused"), clock)
    if recipe.optimiser.frozen_encoder:
        trainer.latents = torch.randn(len(trainer.recording.actions), recipe.model.latent_size)
    times = []
    for _ in range(3):
        began_ns = clock.now_ns()
        trainer.train_step()
        times.append((clock.now_ns() - began_ns) / 1e9)
        if times[0] > at_most_s:
            break
    return min(times)  # the first one allocates


def _noise(recipe: Recipe) -> Recording:
    """Make one episode of noise that is just long enough for some windows."""
    rng, action = np.random.default_rng(0), recipe.action
    ticks = (recipe.window - 1) * recipe.timing.action_block + 8
    low, high = np.asarray(action.low), np.asarray(action.high)
    return Recording(
        frames_u8=rng.integers(0, 256, (ticks, *recipe.frame.spec.shape), np.uint8),
        actions=rng.uniform(low, high, (ticks, len(low))).astype(np.float32),
        states=np.zeros((ticks, 0), np.float32),
        starts=np.array([0, ticks]),
        fps=recipe.timing.camera_hz,
        action_names=action.names,
        state_names=(),
        digest="0" * 64,
        name="noise",
        cameras=recipe.frame.cameras,
    )
