"""Which GPU computes in which number format: refused before a build, because TensorRT may not.

On Orin, TensorRT accepts FP8 and FP4 graphs and makes engines that fail when they run; on others it
has delivered float32 instead. From NVIDIA's hardware support tables.
"""

from __future__ import annotations

from jetsight.errors import EngineError
from jetsight.tensorrt.fingerprint import HostFacts

LEAST_SM = {"bf16": (8, 0), "fp8": (8, 9), "nvfp4": (10, 0)}
_SINCE = {"bf16": "Ampere", "fp8": "Ada and Hopper", "nvfp4": "Blackwell and Thor"}


def require(precision: str, host: HostFacts, what: str) -> None:
    """Refuse a graph whose number format this GPU has no units for.

    A machine without a GPU refuses nothing: the engine is for another one.

    Raises:
        EngineError: the GPU is older than the format.
    """
    least = LEAST_SM.get(precision)
    if least is None or host.sm is None:
        return
    if tuple(map(int, host.sm.split("."))) < least:
        raise EngineError(
            f"{what} is in {precision}, and {host.gpu} (SM {host.sm}) has no units for it; they "
            f"came with {_SINCE[precision]} (SM {least[0]}.{least[1]}): build a family in fp16 or "
            "int8, or compile the bundle for this machine"
        )
