"""What the tracer knows of tensors: the meaning of each, and which of them share memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seqnets.engine.graph import Columns, Graph, Node, Untraceable
from seqnets.engine.step import Weight
from seqnets.engine.tracing.units import Units

Meaning = Node | Weight | str | None
"""Of most tensors a node, of a block of a matrix a ``Weight``; a text says why nothing may compute
with a tensor, and None is one of which nothing is known."""

UNWRITTEN = "memory that nothing was written to"
"""The meaning of what ``torch.empty`` returns."""

ACROSS_ROWS = (
    "aten.native_batch_norm across rows, as in training; instead: a layer norm, which normalises "
    "each row by itself"
)
"""The refusal of batch norm, which counts its batches before it looks at one."""

_ITS_OWN = "its input or state in place, which others read; instead: a new tensor"


class Operation(NamedTuple):
    """An operation that has run on stand-ins.

    Attributes:
        name: Its name in aten, without the underscore of an in-place form.
        args, kwargs: Its arguments.
        result: The tensor that it returned, or a list of them.
        meaning: The meaning of its first argument.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    meaning: Meaning


class Watcher(TorchDispatchMode):
    """A dispatch mode that does not import torch's compiler."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes a second, to skip this mode


class Meanings(Watcher):
    """The meanings of tensors.

    Args:
        graph: The graph in which nodes are built.
        rows: Rows of the batch; no other size is a multiple of it.
    """

    def __init__(self, graph: Graph, rows: int) -> None:
        super().__init__()
        self.graph = graph
        self.units = Units(graph, rows)
        self._parameters: dict[str, Tensor] = {}
        self._meaning: dict[int, Meaning | partial[Node]] = {}
        self._alive: dict[int, Tensor] = {}  # ids are unique only among live objects
        self._given: set[int] = set()  # storages that exist before the step

    # Setting the meaning of a tensor.

    def give(self, tensor: Tensor, meaning: Meaning | partial[Node]) -> None:
        """Set the meaning of a tensor that exists before the step runs."""
        self.set_meaning(tensor, meaning)
        self._given.add(memory_of(tensor))

    def set_meaning(self, tensor: Tensor, meaning: Meaning | partial[Node]) -> None:
        """Set the meaning of a tensor."""
        self._alive[id(tensor)] = tensor
        self._meaning[id(tensor)] = meaning

    def give_columns(self, tensor: Tensor, columns: Columns, width: int | None = None) -> None:
        """Register a leaf; ``width`` defaults to the size of the last dimension."""
        width = tensor.shape[-1] if width is None else width
        self.give(tensor, partial(self._leaf, columns, width, tensor.dtype == torch.bool))

    def _leaf(self, columns: Columns, width: int, truth: bool) -> Node:
        leaf = self.graph.leaf(columns, width)  # loops store booleans as 1 or 0
        return self.graph.apply("ne", leaf, self.graph.const(0)) if truth else leaf

    # Reading it.

    def meaning_of(self, tensor: Any) -> Meaning:
        """A tensor's meaning, None if unknown. Leaves are built lazily, in the order of use."""
        meaning = self._meaning.get(id(tensor)) if isinstance(tensor, Tensor) else None
        if isinstance(meaning, partial):
            meaning = self._meaning[id(tensor)] = meaning()
        return meaning

    def matrix(self, tensor: Tensor) -> Meaning:
        """The meaning of a product's right operand."""
        return self.meaning_of(tensor)

    def node(self, value: Any) -> Node:
        """The node of a tensor or Python number."""
        if isinstance(value, (bool, int, float)):
            return self.graph.const(value)
        meaning = self.meaning_of(value)
        if isinstance(meaning, Node):
            return meaning
        if isinstance(meaning, Weight) and meaning.rows == 1 and not meaning.turned:
            first = meaning.offset * self._parameters[meaning.name].shape[1] + meaning.first
            columns = Columns("parameter", meaning.name, first)
            return self._leaf(columns, meaning.columns, value.dtype == torch.bool)
        raise Untraceable(f"arithmetic with {described(value, meaning)}")

    def number(self, value: Any) -> Node:
        """The node of a value, with booleans converted to 1 or 0."""
        node = self.node(value)
        if not isinstance(value, Tensor) or value.dtype != torch.bool:
            return node
        return self.graph.apply("where", node, *map(self.graph.const, (1, 0)))

    def truth(self, value: Any) -> Node:
        """The node of a value's truth, as 1 or 0."""
        number = self.number(value)
        if not isinstance(value, Tensor) or value.dtype == torch.bool:
            return number
        is_true = self.graph.apply("ne", number, self.graph.const(0))
        return self.graph.apply("where", is_true, *map(self.graph.const, (1, 0)))

    def as_in(self, tensor: Tensor, number: Node) -> Node:
        """A numeric node converted to a tensor's kind: ``!= 0`` where that is boolean."""
        truth = tensor.dtype == torch.bool
        return self.graph.apply("ne", number, self.graph.const(0)) if truth else number

    def is_constant(self, value: Any) -> bool:
        """Whether a value is a Python number or a constant tensor."""
        meaning = self.meaning_of(value)
        is_const = isinstance(meaning, Node) and meaning.op == "const"
        return is_const or not isinstance(value, Tensor)

    # Writes to a tensor that others may be views of.

    def sharing(self, tensor: Tensor) -> list[Tensor]:
        """All known tensors that share a tensor's storage."""
        memory = memory_of(tensor)
        return [other for other in self._alive.values() if memory_of(other) == memory]

    def take(self, tensor: Tensor, other: Tensor) -> None:
        """Give a tensor the meaning of another."""
        self.set_meaning(tensor, self._meaning.get(id(other)))

    def change(self, name: str, tensor: Tensor) -> None:
        """Invalidate the aliases of a tensor that is about to change in place."""
        memory = memory_of(tensor)
        if memory in self._given:
            own = [known for known, other in self._parameters.items() if memory_of(other) == memory]
            if own and own[0].split(".")[-1] == "num_batches_tracked":
                raise Untraceable(ACROSS_ROWS)
            which = f"{own[0]} in place; instead: a part of the state" if own else _ITS_OWN
            raise Untraceable(f"aten.{name} changes {which}")
        for other in self.sharing(tensor):
            if other is not tensor and _overlap(tensor, other):
                self._meaning[id(other)] = f"what aten.{name} changes in place under another name"

    def with_part(self, whole: Tensor, part: Tensor, new: Tensor) -> Tensor | None:
        """A tensor with the part that an aliasing view covers replaced; None if not supported."""
        meaning = self._meaning.get(id(whole))
        if meaning == UNWRITTEN:
            meaning = self.graph.const(math.nan)
        if not isinstance(meaning, (Node, partial)) or whole.dtype == torch.bool:
            return None
        if any(tensor.shape[:1] != (self.units.rows,) for tensor in (whole, part)):
            return None
        size, width = whole[0].numel(), part[0].numel()
        first = int(part.storage_offset() - whole.storage_offset())
        reach = sum(
            (n - 1) * stride for n, stride in zip(part.shape[1:], part.stride()[1:], strict=True)
        )
        inside = whole.is_contiguous() and part.stride(0) == size
        if not inside or not 0 <= first < size - reach:
            return None

        def joined() -> Node:
            old = self.graph.spread(meaning() if isinstance(meaning, partial) else meaning, size)
            numbers = self.graph.spread(self.number(new), width)
            if not part[0].is_contiguous():
                each = torch.arange(size).as_strided(part.shape[1:], part.stride()[1:], first)
                return self.placed(old, numbers, each.flatten().tolist())
            places = (0, first), (first + width, size - width - first)
            before, after = ([self.graph.part(old, *place)] if place[1] else [] for place in places)
            return self.graph.cat(*before, numbers, *after)

        changed = torch.zeros(whole.shape, dtype=whole.dtype)
        self.set_meaning(changed, partial(joined))  # lazy: it may never be read
        return changed

    def placed(self, whole: Node, numbers: Node, places: Sequence[int]) -> Node:
        """Units of which those at some places are replaced by numbers."""
        raise Untraceable("numbers written to units that do not follow each other")


def memory_of(tensor: Tensor) -> int:
    """A key of a tensor's storage, equal for aliases."""
    return tensor.untyped_storage()._cdata


def described(value: Any, meaning: Meaning) -> str:
    """What a value is, in words for a refusal."""
    if isinstance(meaning, str):
        return meaning
    if isinstance(meaning, Weight):
        return f"the matrix {meaning.name}"
    if isinstance(meaning, Node):
        return "something computed"
    if isinstance(value, Tensor) and value.dim() > 2:
        return f"a tensor of {value.dim()} dimensions"
    if isinstance(value, Tensor):
        return f"a tensor from elsewhere, {tuple(value.shape)}"
    return type(value).__name__


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one storage may overlap."""
    if a.dim() != 2 or a.stride() != b.stride() or a.stride(1) != 1:
        return True
    first, second = (t.storage_offset() % t.stride(0) for t in (a, b))
    return bool(first < second + b.shape[1] and second < first + a.shape[1])
