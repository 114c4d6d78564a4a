"""The text form of a step, which exported models contain, and by which equal steps are found."""

from __future__ import annotations

import json
from typing import Any

from seqnets.engine.graph import Columns, Graph, Node, walk
from seqnets.engine.step import Product, Reduction, Step, Weight


def step_to_text(step: Step) -> str:
    """A step as JSON, which ``step_from_text`` reads in any process."""
    place = {node: i for i, node in enumerate(walk(step.roots))}
    return json.dumps(
        {
            "nodes": [[n.op, [place[a] for a in n.args], _plain(n.what), n.width] for n in place],
            "products": [[place[p.value], *vars(p.weight).values()] for p in step.products],
            "reductions": [[place[r.value], r.op, r.width] for r in step.reductions],
            "state": [place[node] for node in step.state],
            "state_sizes": step.state_sizes,
            "wx_size": step.wx_size,
            "parameters": step.parameters,
            "constants": sorted(step.constants),
        },
        separators=(",", ":"),
    )


def step_from_text(text: str) -> Step:
    """The step that ``step_to_text`` wrote."""
    data = json.loads(text)
    graph = Graph()
    nodes: list[Node] = []
    for op, args, what, width in data["nodes"]:
        if op == "leaf":
            nodes.append(graph.leaf(Columns(*what), width))
        elif op == "const":
            nodes.append(graph.const(float(what)))
        else:
            nodes.append(graph.apply(op, *(nodes[arg] for arg in args)))
    return Step(
        graph,
        tuple(Product(nodes[value], Weight(*weight)) for value, *weight in data["products"]),
        tuple(Reduction(nodes[value], *rest) for value, *rest in data["reductions"]),
        tuple(nodes[i] for i in data["state"]),
        tuple(data["state_sizes"]),
        data["wx_size"],
        {name: tuple(shape) for name, shape in data["parameters"].items()},
        frozenset(data.get("constants", ())),  # absent from models of earlier versions
    )


def _plain(what: Any) -> Any:
    """A leaf's columns or a constant for JSON, which cannot represent infinity."""
    return [what.source, what.key, what.offset] if isinstance(what, Columns) else repr(what)
