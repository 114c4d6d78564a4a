"""What the forward pass saves for the backward pass: as little as that needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from seqnets.engine.graph import Node, walk
from seqnets.engine.program import Stage
from seqnets.engine.step import Step

_SERIAL = attrgetter("serial")


def nodes_to_save(stages: Sequence[Stage], crossing: set[Node]) -> list[Node]:
    """The smallest set of nodes to save from which the backward pass can recompute the rest.

    A minimum cut between what the forward pass had and what the backward pass needs; of several,
    the one with the least recomputation. State, parameters and crossing nodes are available anyway.
    """
    needed = _needed(stages) - crossing
    early = [node for node in walk(sorted(needed, key=_SERIAL), crossing) if node.width]
    network = FlowNetwork()
    for node in early:
        network.add((node, "after"), (node, "before"), node.width)
        for arg in node.args:
            if arg.width:
                network.add((node, "before"), (arg, "after"))
        if node in needed:
            network.add("needed", (node, "after"))
        if node.source in ("wx", "product", "reduction"):
            network.add((node, "before"), "had")
    near = network.near_side("needed", "had")
    cut = [n for n in early if (n, "after") in near and (n, "before") not in near]
    return sorted(cut, key=_SERIAL)


def _needed(stages: Sequence[Stage]) -> set[Node]:
    """The nodes of the forward pass that a backward pass reads."""
    stored = {node for stage in stages for node in stage.stored}
    late: set[Node] = set()  # what depends on an incoming gradient
    for node in walk([*stored]):
        if node.source == "grad" or late.intersection(node.args):
            late.add(node)
    read = stored.union(*(node.args for node in late))
    return {node for node in read if node.width} - late


def states_to_save(step: Step, stages: Sequence[Stage]) -> list[int]:
    """The state parts whose values before each step to save; see ``Program.befores``."""
    needed = [node for stage in stages for node in stage.stored]
    needed += [product.value for product in step.products]
    for k, reduction in reversed(list(enumerate(step.reductions))):
        if any(node.source == "reduction" and node.what.key == k for node in walk(needed)):
            needed.append(reduction.value)
    return sorted({node.what.key for node in walk(needed) if node.source == "state"})


class FlowNetwork:
    """A flow network, and its minimum cut by augmenting paths (Ford & Fulkerson, 1956).

    Importing a graph library would take longer than scheduling.
    """

    def __init__(self) -> None:
        self._room: dict[Any, dict[Any, float]] = {}

    def add(self, tail: Any, head: Any, capacity: float = float("inf")) -> None:
        """Add an edge."""
        self._room.setdefault(tail, {})[head] = capacity
        self._room.setdefault(head, {}).setdefault(tail, 0)

    def near_side(self, source: Any, sink: Any) -> set[Any]:
        """The source's side of the minimum cut that is nearest to the source."""
        while sink in (came := self._reached(source, sink)):
            path, head = [], sink
            while (tail := came[head]) is not None:
                path.append((tail, head))
                head = tail
            flow = min(self._room[tail][head] for tail, head in path)
            for tail, head in path:
                self._room[tail][head] -= flow
                self._room[head][tail] += flow
        return set(came)

    def _reached(self, source: Any, sink: Any) -> dict[Any, Any]:
        """What edges with room reach from the source, each with its predecessor, up to the sink."""
        came: dict[Any, Any] = {source: None}
        queue = deque([source])
        while queue and sink not in came:
            tail = queue.popleft()
            for head, room in self._room.get(tail, {}).items():
                if room and head not in came:
                    came[head] = tail
                    queue.append(head)
        return came
