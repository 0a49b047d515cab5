"""Jetson modules: their hardware figures, and the targets they are compiled for.

GPU figures are dense and without the DLA; marketing counts sparse ones, twice as large. Where a
module has a "Super" power mode its figures are those of that mode. From NVIDIA's module data sheets
and hardware pages; measured rates are lower (63 to 68 % of the FP16 figure on AGX Orin).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Module:
    """One Jetson module.

    Attributes:
        name: NVIDIA's product name.
        sm: CUDA compute capability.
        cores: CUDA cores and tensor cores.
        int8_tops: dense INT8 rate of the GPU in 10^12 operations per second.
        fp16_tflops: dense FP16 rate of the GPU in 10^12 operations per second.
        memory_gb: memory shared by CPU and GPU.
        bandwidth_gb_s: bandwidth of that memory.
        power_w: power modes in watts.
        targets: compile targets whose graphs it runs.
    """

    name: str
    sm: str
    cores: tuple[int, int]
    int8_tops: float
    fp16_tflops: float
    memory_gb: int
    bandwidth_gb_s: float
    power_w: str
    targets: tuple[str, ...]

    def weights_floor_ms(self, weight_bytes: int) -> float:
        """Return the least time to read the weights once, the lower bound at batch 1.

        Example:
            >>> MODULES[0].weights_floor_ms(600_000_000)
            11.76...
        """
        return weight_bytes / self.bandwidth_gb_s / 1e6


_ORIN, _THOR = ("orin-jp6", "orin-jp7"), ("thor-jp70", "thor-jp7")
# Columns in the order of the attributes of `Module`; keyword arguments would hide the table.
_ROWS = (
    ("Orin Nano 4GB", "8.7", (512, 16), 17, 8.5, 4, 51, "7, 10, 25", _ORIN),
    ("Orin Nano 8GB", "8.7", (1024, 32), 33, 17, 8, 102, "7, 15, 25", _ORIN),
    ("Orin NX 8GB", "8.7", (1024, 32), 38, 19, 8, 102, "10, 15, 20, 40", _ORIN),
    ("Orin NX 16GB", "8.7", (1024, 32), 38, 19, 16, 102, "10, 15, 25, 40", _ORIN),
    ("AGX Orin 32GB", "8.7", (1792, 56), 54, 27, 32, 204.8, "15, 30, 40", _ORIN),
    ("AGX Orin 64GB", "8.7", (2048, 64), 85, 42.5, 64, 204.8, "15, 30, 50, 60", _ORIN),
    ("Thor T4000", "11.0", (1536, 64), 300, 150, 64, 273, "40 to 70", _THOR),
    ("Thor T5000", "11.0", (2560, 96), 517, 258.5, 128, 273, "40 to 130", _THOR),
)
MODULES = tuple(Module(*row) for row in _ROWS)
