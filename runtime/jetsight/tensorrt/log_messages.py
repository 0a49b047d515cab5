"""Translation of TensorRT's log into one line with the next step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jetsight.errors import EngineError
from jetsight.tensorrt.bindings import CollectingLogger, TensorRtModule

# TensorRT misspells "insufficient" in some releases.
_MEMORY = re.compile(
    r"out.?of.?memory|insuff?icient memory|memory is insufficient|could not be allocated"
    r"|bad_alloc|cuda ?error[: ]*2\b",
    re.IGNORECASE,
)
_CUDA = re.compile(
    r"(?:cuda ?error|initialization failure with error|error code)[: ]*(\d+)", re.IGNORECASE
)
_NO_KERNEL = re.compile(r"could not find any implementation for node ([^\n]{1,200})", re.IGNORECASE)
# cudaError_t
_DRIVER = {
    35: "the NVIDIA driver is missing or too old for it",
    100: "no GPU is visible",
    803: "the NVIDIA driver in use is another one than its user-space library",
    804: "the driver's compatibility package does not serve this GPU",
}


def build_failure(
    library: TensorRtModule,
    logger: CollectingLogger,
    log: Path | None,
    raised: BaseException | None,
) -> EngineError:
    """Explain why a build returned nothing, with TensorRT's first error and the next option to try.

    Args:
        library: the TensorRT.
        logger: its messages.
        log: file of its messages; None without one.
        raised: exception of its bindings; None without one.
    """
    first = shortened(logger.errors or ([str(raised)] if raised else []))
    fix = _fix([*logger.lines, str(raised)], logger.errors)
    where = f"; its log is in {log}" if log else "; pass a log file to see all messages"
    return EngineError(f"{library} cannot compile the graph: {first}{fix}{where}")


def parse_failure(library: TensorRtModule, errors: Sequence[str], log: Path | None) -> EngineError:
    """Explain why the ONNX parser refused a graph; `errors` are lines with the node of each."""
    where = f"; its log is in {log}" if log else ""
    return EngineError(
        f"{library} cannot parse the graph: {shortened(errors)}; build another --family of the "
        f"bundle, or compile it for an older target, whose operators are decomposed: jetsight "
        f"compile --target orin-jp6{where}"
    )


def cuda_failure(text: str) -> str | None:
    """Explain a CUDA error number in `text`; None without a known one."""
    for match in _CUDA.finditer(text):
        number = int(match[1])
        if number in _DRIVER:
            return (
                f"{_DRIVER[number]} (CUDA error {number}): update the driver, or install the "
                "TensorRT that goes with it; see: jetsight doctor"
            )
    return None


def out_of_memory(lines: Sequence[str]) -> bool:
    """Return whether one of the lines reports that memory ran out."""
    return any(_MEMORY.search(line) for line in lines)


def shortened(messages: Sequence[str]) -> str:
    """Format the first of several messages on one line."""
    # The first error is the cause, later ones follow from it.
    return " ".join(messages[0].split())[:300] if messages else "it gave no reason"


def _fix(lines: Sequence[str], errors: Sequence[str]) -> str:
    cuda = cuda_failure("\n".join(errors))
    if cuda is not None:
        return f"; {cuda}"
    if out_of_memory(lines):
        return (
            "; memory ran out while kernels were timed: close other programs that use the GPU, or "
            "lower the limit with --workspace-mb 256"
        )
    node = next((m[1] for m in map(_NO_KERNEL.search, errors) if m), None)
    if node is not None:
        return (
            f"; no kernel fits node {shortened([node])}: raise --workspace-mb, or compile the "
            "bundle for an older target, whose operators are decomposed"
        )
    return ""
