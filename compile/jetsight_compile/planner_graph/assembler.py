"""Assembly of one graph from exported parts, which are connected by name."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

from jetsight_compile.export.onnx_export import splice
from jetsight_compile.planner_graph.signature import ImaginePorts


class GraphAssembler:
    """A graph under construction, with the inputs and outputs of `ports`."""

    def __init__(self, ports: ImaginePorts) -> None:
        self._graph = onnx.GraphProto(name=ports.spec.graph)
        inputs, outputs = ports.signature(ports.spec.graph)
        for into, values in ((self._graph.input, inputs), (self._graph.output, outputs)):
            into.extend(helper.make_tensor_value_info(n, *port) for n, port in values.items())
        self._sizes = ports.tensors.inputs

    def rows(self, name: str) -> list[str]:
        """Split an input into its rows `[1, size]`; return their names."""
        count = self._sizes.get(name, (0,))[0]
        # One row needs no Split, and without rows there is no input to split.
        if count < 2:
            return [name] * count
        rows = [f"{name}_{row}" for row in range(count)]
        self._graph.node.append(
            helper.make_node("Split", [name], rows, name=f"{name}/Split", num_outputs=count)
        )
        return rows

    def add(
        self, part: onnx.ModelProto, inputs: Sequence[str], prefix: str = "", owner: str = ""
    ) -> list[str]:
        """Add a part, its weights once per `owner`.

        Args:
            part: a graph; not modified.
            inputs: name of the value for each of its inputs.
            prefix: of the names of its nodes and values.
            owner: prefix of its weights.

        Returns:
            Name of the value of each of its outputs.
        """
        bound = {v.name: s for v, s in zip(part.graph.input, inputs, strict=True)}
        found = splice(self._graph, part.graph, prefix, bound, owner)
        return [found[value.name] for value in part.graph.output]

    def finished(
        self, last: onnx.ModelProto, inputs: Sequence[str], prefix: str
    ) -> onnx.ModelProto:
        """Add the part whose outputs are the graph's, and drop nodes that lead to none of them."""
        ends = self.add(last, inputs, prefix, prefix)
        names = dict(zip(ends, (value.name for value in self._graph.output), strict=True))
        used, kept = set(ends), []
        # From the end: a node is kept if one that is kept already reads it.
        for node in reversed(self._graph.node):
            if used.intersection(node.output):
                used.update(node.input)
                kept.append(node)
                for values in (node.input, node.output):
                    # Readers too, because an inner node may read what is also an output.
                    values[:] = [names.get(value, value) for value in values]
        del self._graph.node[:]
        self._graph.node.extend(reversed(kept))
        model = onnx.ModelProto()
        # For the opset imports and the IR version; the graph is replaced.
        model.CopyFrom(last)
        model.graph.CopyFrom(self._graph)
        return model
