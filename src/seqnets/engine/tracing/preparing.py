"""Recording of what a step computes from its parameters alone, apart from the step.

``preparation.py`` says what becomes of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map_only

from seqnets.engine.graph import Columns, Graph, Node, Untraceable, number_of
from seqnets.engine.preparation import PREPARED, Call, Operand, Preparation, listed
from seqnets.engine.step import Weight
from seqnets.engine.tracing.meanings import Meaning, memory_of
from seqnets.engine.tracing.pointwise import FILLS
from seqnets.engine.tracing.recorder import POINTWISE, Recorder
from seqnets.engine.tracing.views import VIEWS


class Preparing(Recorder):
    """Records a step, and separately what depends on its parameters alone.

    Views and pointwise arithmetic on vectors stay in the step, where they cost nothing.

    Args:
        graph, rows, dtypes: As for ``Recorder``.
        scalar: Whether a parameter of one number is shared by all units.
    """

    keeps_aliases = True

    def __init__(self, graph: Graph, rows: int, dtypes: set[torch.dtype], *, scalar: bool) -> None:
        super().__init__(graph, rows, dtypes)
        self._rows, self._scalar = rows, scalar
        self._keys: dict[int, str | int] = {}  # by id, of what depends on parameters alone
        self._calls: list[Call] = []
        self._numbers = itertools.count()
        self._made: dict[str, tuple[Tensor, str | int]] = {}  # what the step reads

    def give_parameter(self, tensor: Tensor, name: str) -> None:
        """Register a parameter."""
        self._name_parameter(tensor, name)
        self._keys[id(tensor)] = name

    def _name_parameter(self, tensor: Tensor, name: str) -> None:
        """Set the meaning of a parameter, or of a tensor that the step reads as one."""
        self._parameters[name] = tensor
        if tensor.dim() == 2:
            self.give(tensor, Weight(name, 0, *tensor.shape))
        elif tensor.dim() == 0 or (self._scalar and tensor.numel() == 1):
            self.give_columns(tensor, Columns("parameter", name), 0)
        elif tensor.dim() == 1:
            self.give_columns(tensor, Columns("parameter", name))
        else:
            self.give(tensor, f"the parameter {name} of {tensor.dim()} dimensions")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the prepared tensors, by their names in the step."""
        return {name: tuple(tensor.shape) for name, (tensor, _) in self._made.items()}

    def preparation(self, names: Container[str]) -> Preparation:
        """The preparation of a step that reads these names, without dead calls."""
        made = {name: key for name, (_, key) in self._made.items() if name in names}
        needed = {*made.values()}
        for call in reversed(self._calls):
            if not needed.isdisjoint(call.results):
                needed |= {*call.results, *call.reads}
        calls = (call for call in self._calls if needed.issuperset(call.results or call.reads))
        return Preparation(tuple(calls), tuple(made.items()))

    def _result_of(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        given = [part for part in tree_iter((args, kwargs)) if isinstance(part, Tensor)]
        if name == "lift_fresh":
            return self._literal(args[0])
        if not _is_pure(func, given) or not all(map(self._is_hoisted, given)):
            return super()._result_of(func, name, args, kwargs)
        reason, result = None, None
        if name in VIEWS | FILLS or (name in POINTWISE and all(map(self._is_row, given))):
            try:
                result = super()._result_of(func, name, args, kwargs)
            except Untraceable as untraceable:
                reason = untraceable
        if result is None:
            with self:
                composed = func.decompose(*args, **kwargs)
            if composed is not NotImplemented:  # recorded operation by operation
                return composed
            result = func(*args, **kwargs)
            for tensor in listed(result):
                self.set_meaning(tensor, None)
        sizes = {size for tensor in listed(result) for size in tensor.shape}
        if all(size % self._rows for size in sizes - {0}):
            self._write(func, args, kwargs, listed(result))
        elif reason is not None:
            raise reason
        return result

    def _literal(self, tensor: Tensor) -> Tensor:
        """A tensor that the step writes out in numbers."""
        one = tensor.dim() == 0 and tensor.is_floating_point()
        self.set_meaning(tensor, self.graph.const(tensor.item()) if one else None)
        kind = {"dtype": tensor.dtype, "device": tensor.device}
        self._write(torch.tensor, (tensor.tolist(),), kind, [tensor])
        return tensor

    def _is_hoisted(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on parameters alone."""
        return id(tensor) in self._keys

    def _is_row(self, tensor: Tensor) -> bool:
        """Whether a tensor already has a node in the step."""
        return not isinstance(self._meaning.get(id(tensor)), (Weight, str, NoneType))

    def _write(self, func: Any, args: Any, kwargs: Any, results: Sequence[Tensor]) -> None:
        """Add a call to the preparation."""
        args, kwargs = tree_map_only(Tensor, lambda t: Operand(self._keys[id(t)]), (args, kwargs))
        places = tuple(itertools.islice(self._numbers, len(results)))
        self._calls.append(Call(func, args, kwargs, places))
        self._keys.update(zip(map(id, results), places, strict=True))

    def node(self, value: Any) -> Node:
        """The node of a tensor or number; a column of a matrix is prepared as a row."""
        meaning = self.meaning_of(value)
        column = isinstance(meaning, Weight) and (meaning.turned or meaning.rows > 1)
        if column and self._is_hoisted(value) and (value.dim() < 2 or value.shape[0] == 1):
            self._prepared(value)
        return super().node(value)

    def meaning_of(self, tensor: Any) -> Meaning:
        """A tensor's meaning; one that depends on parameters alone is prepared if it has none."""
        meaning = super().meaning_of(tensor)
        if isinstance(meaning, (Node, Weight)) or not self._is_hoisted(tensor) or tensor.dim() > 2:
            return meaning
        return self._prepared(tensor)

    def matrix(self, tensor: Tensor) -> Meaning:
        """The meaning of a product's right operand, prepared if it is made of parameters alone."""
        meaning = super().matrix(tensor)
        rows = isinstance(meaning, Node) and self._is_hoisted(tensor) and tensor.dim() == 2
        return self._prepared(tensor) if rows else meaning

    def _prepared(self, tensor: Tensor) -> Meaning:
        """Let the step read a tensor that depends on parameters alone as one more parameter."""
        if tensor.is_complex():
            raise Untraceable(f"arithmetic in {tensor.dtype}")
        name = next(n for i in itertools.count() if (n := f"{PREPARED}{i}") not in self._parameters)
        self._made[name] = tensor, self._keys[id(tensor)]
        known = memory_of(tensor) in self._given
        self._name_parameter(tensor, name)
        if not known:  # it may still change in place
            self._given.remove(memory_of(tensor))
        return super().meaning_of(tensor)

    def times_piece(self, node: Node, weight: Weight) -> Node:
        """As in ``Recorder``; a number for all rows multiplies the sums of the weight's rows."""
        number = number_of(node)
        if number.width:
            return super().times_piece(node, weight)
        with self:
            sums = weight.of(self._parameters[weight.name]).sum(1)
        return self.graph.apply("mul", number, self.node(sums))

    def detached(self, node: Node) -> Node:
        """A node whose gradient is zero: here the step itself calls ``detach``."""
        return self.graph.apply("detach", node)

    def whole_quotient(self, rounding: str, a: Node, b: Node) -> Node:
        """As torch rounds it, from the remainder: the quotient itself may be rounded up."""
        by_quotient = super().whole_quotient(rounding, a, b)
        if rounding != "floor":
            return by_quotient
        apply, const = self.graph.apply, self.graph.const
        near = apply("div", apply("sub", a, apply("remainder", a, b)), b)
        whole = apply("floor", near)
        is_next = apply("gt", apply("sub", near, whole), const(0.5))
        whole = apply("where", is_next, apply("add", whole, const(1)), whole)
        return apply("where", apply("eq", b, const(0)), by_quotient, whole)

    def change(self, name: str, tensor: Tensor) -> None:
        """Invalidate the aliases of a tensor that is about to change in place, keys included."""
        super().change(name, tensor)
        for other in self.sharing(tensor):
            self._keys.pop(id(other), None)

    def with_part(self, whole: Tensor, part: Tensor, new: Tensor) -> Tensor | None:
        """As in ``Recorder``; of parameters alone, by a scatter into the whole storage."""
        if not self._is_hoisted(whole) or not self._is_hoisted(new):
            return super().with_part(whole, part, new)
        size = whole.untyped_storage().nbytes() // whole.element_size()
        if not whole.is_contiguous() or whole.numel() != size:
            return None
        with self:
            places = torch.arange(size).as_strided(part.shape, part.stride(), part.storage_offset())
            changed = whole.reshape(-1).scatter(0, places.reshape(-1), new.reshape(-1))
            return changed.view(whole.shape)

    def take(self, tensor: Tensor, other: Tensor) -> None:
        """Give a tensor the meaning, and the key, of another."""
        super().take(tensor, other)
        if self._is_hoisted(other):
            self._keys[id(tensor)] = self._keys[id(other)]


def _is_pure(func: Any, given: Sequence[Tensor]) -> bool:
    """Whether an operation is deterministic and functional, with static output shapes."""
    name, tags = func._schema.name.removeprefix("aten::"), func.tags
    if func._schema.is_mutable or torch.Tag.nondeterministic_seeded in tags or "empty" in name:
        return False
    if torch.Tag.dynamic_output_shape in tags:  # indices are fine, masks are not
        return name == "index" and not any(tensor.dtype == torch.bool for tensor in given[1:])
    returned = (str(result.type) for result in func._schema.returns)
    return all(kind in ("Tensor", "List[Tensor]") for kind in returned)
