"""CUDA graphs through ctypes, against a driver made of Python functions."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from jetsight.errors import EngineError
from jetsight.tensorrt.cuda.graphs import _SIGNATURES, GraphDriver

STREAM = 0xFFFF_8000_1234  # a handle that does not fit 32 bits
TEMPLATE, GRAPH, CONTEXT = 0x7F00_0000_0010, 0x7F00_0000_0020, 0x7F00_0000_0030


class Libcuda:
    """Answers like libcuda with what the script says; other calls return 0.

    Args:
        codes: what a call returns.
        empty: calls that leave their result empty.
    """

    def __init__(self, codes: dict[str, int] | None = None, empty: set[str] = frozenset()) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.codes, self.empty = codes or {}, empty
        outs = {
            "cuStreamEndCapture": (1, TEMPLATE),
            "cuGraphInstantiateWithFlags": (0, GRAPH),
            "cuCtxGetCurrent": (0, CONTEXT),
        }
        for name, arguments in _SIGNATURES.items():
            setattr(self, name, self._function(name, arguments, *outs.get(name, (None, 0))))

    def _function(self, name: str, arguments: Any, out: int | None, value: int) -> Any:
        def call(*given: Any) -> int:
            shown = tuple(getattr(item, "value", item) for item in given)
            self.calls.append((name, *(x for i, x in enumerate(shown) if i != out)))
            if out is not None and name not in self.empty and not self.codes.get(name):
                given[out][0] = value
            return self.codes.get(name, 0)

        # A real C function: arguments are converted by the declared types, as libcuda's are.
        kind = ctypes.CFUNCTYPE(ctypes.c_int, *arguments)
        return kind(call)


@pytest.fixture
def libcuda() -> Libcuda:
    return Libcuda()


def test_capture_is_thread_local_and_leaves_no_template(libcuda: Libcuda) -> None:
    driver = GraphDriver(libcuda)
    driver.begin_capture(STREAM)
    assert driver.end_capture(STREAM) == GRAPH
    driver.launch(GRAPH, STREAM)
    driver.destroy(GRAPH)
    assert libcuda.calls == [
        ("cuStreamBeginCapture_v2", STREAM, 1),
        ("cuStreamEndCapture", STREAM),
        ("cuGraphInstantiateWithFlags", TEMPLATE, 0),
        ("cuGraphDestroy", TEMPLATE),
        ("cuGraphLaunch", GRAPH, STREAM),
        ("cuGraphExecDestroy", GRAPH),
    ]


def test_every_refusal_names_the_call_and_the_code() -> None:
    for name, use in (
        ("cuStreamBeginCapture_v2", lambda driver: driver.begin_capture(STREAM)),
        ("cuStreamEndCapture", lambda driver: driver.end_capture(STREAM)),
        ("cuGraphInstantiateWithFlags", lambda driver: driver.end_capture(STREAM)),
        ("cuGraphLaunch", lambda driver: driver.launch(GRAPH, STREAM)),
        ("cuStreamQuery", lambda driver: driver.is_done(STREAM)),
    ):
        libcuda = Libcuda({name: 901})
        with pytest.raises(EngineError, match=rf"refused {name}: an unknown error \(901\)"):
            use(GraphDriver(libcuda))


def test_a_graph_that_cannot_be_instantiated_leaves_no_template() -> None:
    libcuda = Libcuda({"cuGraphInstantiateWithFlags": 2})
    with pytest.raises(EngineError):
        GraphDriver(libcuda).end_capture(STREAM)
    assert ("cuGraphDestroy", TEMPLATE) in libcuda.calls


@pytest.mark.parametrize("name", ["cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_success_without_a_graph_is_none(name: str) -> None:
    with pytest.raises(EngineError, match=f"{name} returned no graph"):
        GraphDriver(Libcuda(empty={name})).end_capture(STREAM)


def test_a_busy_stream_is_no_error() -> None:
    assert GraphDriver(Libcuda()).is_done(STREAM)
    assert not GraphDriver(Libcuda({"cuStreamQuery": 600})).is_done(STREAM)


def test_a_released_context_is_taken_off_the_stack_only_if_it_is_on_top(libcuda: Libcuda) -> None:
    driver = GraphDriver(libcuda)
    driver.forget_context(CONTEXT + 8)
    assert [name for name, *_ in libcuda.calls] == ["cuCtxGetCurrent"]
    driver.forget_context(CONTEXT)
    assert [name for name, *_ in libcuda.calls][1:] == ["cuCtxGetCurrent", "cuCtxPopCurrent_v2"]


@pytest.mark.parametrize("library", [object(), None])
def test_no_driver_or_an_old_one_is_one_line(library: object | None) -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        library = object()
    with pytest.raises(EngineError, match=r"libcuda\.so\.1 cannot be used .*see jetsight doctor"):
        GraphDriver(library)
