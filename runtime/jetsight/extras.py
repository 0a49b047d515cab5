"""Which extra of this distribution brings which import, so that a missing one can be named."""

from __future__ import annotations

from jetsight.errors import MissingDependency

# import name -> extra; the smallest extra that brings it. A test compares this with pyproject.toml.
EXTRA_OF = {
    "av": "camera",
    "gym_pusht": "sim",
    "gymnasium": "sim",
    "jinja2": "compile",
    "matplotlib": "train",
    "onnx": "compile",
    "onnxruntime": "cpu",
    "onnxscript": "compile",
    "openvino": "cpu",
    "pyarrow": "camera",
    "pycuda": "jetson",
    "safetensors": "train",
    "scipy": "sim",
    "tensorrt_rtx": "rtx",
    "tomli": "train",
    "torch": "train",
    "torch_tensorrt": "torch-tensorrt",
    "tqdm": "train",
}


def missing(error: ImportError, purpose: str) -> MissingDependency | None:
    """The `MissingDependency` behind a failed import; None if the module is not an optional one.

    Args:
        error: what the import raised.
        purpose: what it was needed for, as a noun phrase.
    """
    module = (error.name or "").partition(".")[0]
    extra = EXTRA_OF.get(module)
    return None if extra is None else MissingDependency(module, extra, purpose)
