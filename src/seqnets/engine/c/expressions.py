"""Expressions of vectors in printed C."""

from __future__ import annotations

from seqnets.engine.graph import Node

ZERO = "(vec){0}"
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def loaded(place: str) -> str:
    """A masked vector load."""
    return f"v_load_n({place}, n)"


def stored(place: str, value: str) -> str:
    """A masked vector store."""
    return f"v_store_n({place}, {value}, n);"


def constant(value: float) -> str:
    """A vector of one number."""
    special = {float("inf"): "INFINITY", float("-inf"): "-INFINITY"}
    return f"v_set({'NAN' if value != value else special.get(value, f'(real){value!r}')})"


def expression(node: Node, names: dict[Node, str]) -> str:
    """An operation on operands of these names."""
    args = [names[arg] for arg in node.args]
    if node.op in _INFIX:
        return f"{args[0]} {_INFIX[node.op]} {args[1]}"
    if node.op == "detach":
        return args[0]
    return f"-{args[0]}" if node.op == "neg" else f"v_{node.op}({', '.join(args)})"
