"""Tracing of rows and units that are folded into one dimension, units first.

``nn.MultiheadAttention`` multiplies queries as one matrix, (queries * B, features), in which the
numbers of a row of the batch are not next to each other. Operations on such a tensor are recorded
on the one that it is a view of.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from seqnets.engine.graph import Untraceable
from seqnets.engine.tracing.moving import Moving
from seqnets.engine.tracing.recorder import POINTWISE

_FOLDING = {"view", "_unsafe_view", "reshape"}
_NUMBER_BY_NUMBER = POINTWISE - {"cat", "stack"} | {"clone", "contiguous", "alias", "detach"}
_FOLDED = "units and rows of the batch in one dimension; instead: the batch first"
"""The meaning of such a tensor, for the operations that are not recorded."""


class Folding(Moving):
    """A recorder that also lets units come before rows in a dimension of both."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unfolded: dict[int, Tensor] = {}  # by id: the same numbers as (B, units, …)

    def _result_of(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        if name in _FOLDING:
            whole, shape = args[0], func(*args).shape
            if (unfolded := self._unfolded.get(id(whole))) is not None:
                with self:
                    return unfolded.movedim(0, 1).reshape(shape)
            if self._is_folding(whole, shape):
                with self:
                    return self._folded(whole.reshape(-1, self._rows, *shape[1:]).movedim(1, 0))
        if any(id(arg) in self._unfolded for arg in args) and not kwargs:
            with self:
                if (result := self._of_folded(func, name, *args)) is not None:
                    return result
        return super()._result_of(func, name, args, kwargs)

    def change(self, name: str, tensor: Tensor) -> None:
        """Refuse a folded tensor too: those that it is a view of would not change with it."""
        if id(tensor) in self._unfolded:
            raise Untraceable(f"aten.{name} in place of {_FOLDED}")
        super().change(name, tensor)

    def _is_folding(self, whole: Tensor, shape: Any) -> bool:
        """Whether a view lets the first dimension hold rows after units that it held before."""
        if not self._in_rows(whole):
            return False
        before = self.units.before_rows(whole.shape)
        return before > 1 and len(shape) > 1 and shape[0] == before * self._rows

    def _folded(self, unfolded: Tensor) -> Tensor:
        """The folded form, (units * B, …), of a tensor (B, units, …)."""
        folded = unfolded.new_empty(unfolded.shape[0] * unfolded.shape[1], *unfolded.shape[2:])
        self.set_meaning(folded, _FOLDED)
        self._unfolded[id(folded)] = unfolded
        return folded

    def _of_folded(self, func: Any, name: str, *args: Any) -> Tensor | None:
        """The result of an operation on a folded tensor; None if it is not supported."""
        if name in ("mm", "addmm"):
            *bias, left, right = args
            if self._in_rows(right, *bias):
                return None
            product = self._unfolded[id(left)] @ right
            return self._folded(product + bias[0] if bias else product)
        others = [arg for arg in args if isinstance(arg, Tensor) and id(arg) not in self._unfolded]
        if name not in _NUMBER_BY_NUMBER or any(other.dim() > 1 for other in others):
            return None
        return self._folded(func(*(self._unfolded.get(id(arg), arg) for arg in args)))
