"""What steps compute of their parameters alone, for all steps at once before them.

A mask over a weight, what makes it antisymmetric, the product of two factors: to loops the result
is one parameter more, and its gradient goes back to the others by torch's own derivatives.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map_only

from seqnets.engine.graph import Graph, Node, Untraceable, Weight
from seqnets.engine.recorder import FILLS, POINTWISE, VIEWS, Recorder, memory_of


@dataclass(frozen=True)
class _Place:
    """What stands for a tensor in a call: a parameter's name, or a place among all results."""

    key: str | int


@dataclass(frozen=True)
class _Call:
    """An operation, and the places of its results."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[int, ...]

    @property
    def reads(self) -> set[str | int]:
        """The keys of its tensors."""
        return {part.key for part in tree_iter((self.args, self.kwargs)) if type(part) is _Place}


_Found = dict[Any, Tensor]
"""Tensors by the keys of places."""


@dataclass(frozen=True)
class _OwnGradient:
    """The backward pass of a function of parameters alone that has one of its own.

    Attributes:
        calls: What it computes.
        grad: The key of the gradient that comes in.
        reads: The keys of all else that it reads.
        gradients: Those of the gradients for what the function was given; None for none.
    """

    calls: tuple[_Call, ...]
    grad: int
    reads: tuple[str | int, ...]
    gradients: tuple[str | int | None, ...]

    def __call__(self, value: Tensor, *tensors: Tensor) -> Tensor:
        """What the function gave, as made of what it was given by the function itself.

        Args:
            value: What it gave.
            tensors: What it was given, and then what its backward pass reads.
        """
        made: Tensor = _WithGradient.apply(self, value, *tensors)
        return made


class _WithGradient(torch.autograd.Function):
    """See ``_OwnGradient``."""

    @staticmethod
    def forward(ctx: Any, own: _OwnGradient, value: Tensor, *tensors: Tensor) -> Tensor:
        ctx.own = own
        ctx.save_for_backward(*tensors[len(own.gradients) :])
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        own = ctx.own
        found = dict(zip(own.reads, ctx.saved_tensors, strict=True)) | {own.grad: grad}
        found = _run(own.calls, found, grad.device)
        gradients = (None if key is None else found[key] for key in own.gradients)
        return None, None, *gradients, *(None for _ in own.reads)


def _run(calls: Iterable[_Call], found: _Found, device: torch.device) -> _Found:
    """Run calls, and add their results to what they read."""
    for call in calls:
        args, kwargs = tree_map_only(_Place, lambda p: found[p.key], (call.args, call.kwargs))
        if kwargs.get("device") is not None:  # of stand-ins
            kwargs["device"] = device
        found.update(zip(call.results, listed(call.func(*args, **kwargs)), strict=True))
    return found


@dataclass(frozen=True)
class Preparation:
    """What is computed of parameters before a loop.

    Attributes:
        calls: In the order in which they run.
        made: Which results the loop reads, by the names that they have there.
    """

    calls: tuple[_Call, ...] = ()
    made: tuple[tuple[str, str | int], ...] = ()
    _kept: dict[torch.device, _Found] = field(default_factory=dict, repr=False, compare=False)

    @property
    def reads(self) -> set[str]:
        """The names of the parameters that it is computed from."""
        return {key for key in self._read_with(self.calls) if isinstance(key, str)}

    @property
    def constants(self) -> set[str]:
        """The names of what is made of no parameter, as ones and zeros are."""
        made = {key for call in self._parted[0] for key in call.results}
        return {name for name, key in self.made if key in made}

    def _read_with(self, calls: Iterable[_Call]) -> set[str | int]:
        """The keys that the loop reads, and those that some calls do."""
        return {*dict(self.made).values()}.union(*(call.reads for call in calls))

    def of(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """All that a loop reads by name: a cell's tensors, and what is made of them."""
        if not self.made:
            return tensors
        device = next(iter(tensors.values())).device
        _, depending = self._parted
        found = _run(depending, {**tensors, **self._constants_on(device)}, device)
        return tensors | {name: found[key] for name, key in self.made}

    @cached_property
    def _parted(self) -> tuple[list[_Call], list[_Call]]:
        """The calls that read no parameter, as those that make ones and zeros; and all others."""
        known: set[str | int] = set()
        constant, depending = [], []
        for call in self.calls:
            if call.results and call.reads <= known:
                known.update(call.results)
                constant.append(call)
            else:
                depending.append(call)
        return constant, depending

    def _constants_on(self, device: torch.device) -> _Found:
        """What reads no parameter: kept for the next time, unless somebody watches the calls."""
        constant, depending = self._parted
        captured = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack()
        if captured or watched:
            return _run(constant, {}, device)
        if device not in self._kept:
            with torch.inference_mode(False), torch.no_grad():
                found = _run(constant, {}, device)
            read = found.keys() & self._read_with(depending)
            self._kept[device] = {key: found[key] for key in read}
        return self._kept[device]


class Preparing(Recorder):
    """Writes down a step, and apart from it what it computes of its parameters alone.

    All but views and the arithmetic of rows, which the step may as well do by itself.

    Args:
        graph, rows, dtypes: As a recorder's.
        scalar: Whether one number is one for all units, and not one a unit.
    """

    def __init__(self, graph: Graph, rows: int, dtypes: set[torch.dtype], *, scalar: bool) -> None:
        super().__init__(graph, rows, dtypes)
        self._rows, self._scalar = rows, scalar
        self._keys: dict[int, str | int] = {}  # of the tensors made of parameters alone
        self._calls: list[_Call] = []
        self._numbers = itertools.count()
        self._made: dict[str, tuple[Tensor, str | int]] = {}  # those that the step reads

    def give_parameter(self, tensor: Tensor, name: str) -> None:
        """Say that a tensor is a parameter."""
        self.name_parameter(tensor, name, scalar=self._scalar)
        self._keys[id(tensor)] = name

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of what was made for the step, by the name that it has there."""
        return {name: tuple(tensor.shape) for name, (tensor, _) in self._made.items()}

    def preparation(self, names: Container[str]) -> Preparation:
        """What has to run before a step that reads these names."""
        made = {name: key for name, (_, key) in self._made.items() if name in names}
        needed = {*made.values()}
        for call in reversed(self._calls):
            if not needed.isdisjoint(call.results):
                needed |= {*call.results, *call.reads}
        calls = (call for call in self._calls if needed.issuperset(call.results or call.reads))
        return Preparation(tuple(calls), tuple(made.items()))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, func._schema.name.removeprefix("aten::")
        given = [part for part in tree_iter((args, kwargs)) if isinstance(part, Tensor)]
        if name == "lift_fresh":  # of a list of numbers in the step, which are what they are
            one = args[0].dim() == 0 and args[0].is_floating_point()
            self.name(args[0], self.graph.const(args[0].item()) if one else None)
            numbers = {"dtype": args[0].dtype, "device": args[0].device}
            self._write(torch.tensor, (args[0].tolist(),), numbers, [args[0]])
            return args[0]
        if not _is_pure(func, given) or not all(map(self._is_made, given)):
            return super().__torch_dispatch__(func, types, args, kwargs)
        reason, result = None, None
        if name in VIEWS | FILLS or (name in POINTWISE and all(map(self._is_row, given))):
            try:
                result = super().__torch_dispatch__(func, types, args, kwargs)
            except Untraceable as untraceable:
                reason = untraceable
        if result is None:
            with self:
                composed = func.decompose(*args, **kwargs)
            if composed is not NotImplemented:  # and written down, operation by operation
                return composed
            result = func(*args, **kwargs)
            for tensor in listed(result):
                self.name(tensor, None)
        sizes = {size for tensor in listed(result) for size in tensor.shape}
        if all(size % self._rows for size in sizes - {0}):
            self._write(func, args, kwargs, listed(result))
        elif reason is not None:
            raise reason
        return result

    def _is_made(self, tensor: Tensor) -> bool:
        """Whether a tensor is made of parameters alone."""
        return id(tensor) in self._keys

    def _is_row(self, tensor: Tensor) -> bool:
        """Whether what is made of parameters alone is known to the step already, as units."""
        return not isinstance(self._meaning.get(id(tensor)), (Weight, str, NoneType))

    def _write(self, func: Any, args: Any, kwargs: Any, results: Sequence[Tensor]) -> None:
        args, kwargs = tree_map_only(Tensor, lambda t: _Place(self._keys[id(t)]), (args, kwargs))
        places = tuple(itertools.islice(self._numbers, len(results)))
        self._calls.append(_Call(func, args, kwargs, places))
        self._keys.update(zip(map(id, results), places, strict=True))

    def node(self, value: Any) -> Node:
        """What a tensor or a number is, as a node; a column of a matrix is as good as a row."""
        meaning = self._meaning_of(value)
        column = isinstance(meaning, Weight) and (meaning.turned or meaning.rows > 1)
        if column and self._is_made(value) and (value.dim() < 2 or value.shape[0] == 1):
            self._prepared(value)
        return super().node(value)

    def _meaning_of(self, tensor: Any) -> Any:
        meaning = super()._meaning_of(tensor)
        if isinstance(meaning, (Node, Weight)) or not self._is_made(tensor) or tensor.dim() > 2:
            return meaning
        return self._prepared(tensor)

    def _matrix(self, tensor: Tensor) -> Any:
        meaning = super()._matrix(tensor)
        rows = isinstance(meaning, Node) and self._is_made(tensor) and tensor.dim() == 2
        return self._prepared(tensor) if rows else meaning

    def _prepared(self, tensor: Tensor) -> Any:
        """What is made of parameters alone, as one more for the step to read."""
        if tensor.is_complex():
            raise Untraceable(f"arithmetic in {tensor.dtype}")
        name = next(n for i in itertools.count() if (n := f"prepared_{i}") not in self._shapes)
        self._made[name] = tensor, self._keys[id(tensor)]
        known = memory_of(tensor) in self._given
        self.name_parameter(tensor, name, scalar=self._scalar)
        if not known:  # it may still be changed in place, and is another one then
            self._given.remove(memory_of(tensor))
        return super()._meaning_of(tensor)

    def _detached(self, node: Node) -> Node:
        return self.graph.apply("detach", node)  # a step's own

    def _whole_quotient(self, rounding: str, a: Node, b: Node) -> Node:
        """As torch has it, which looks at what is left: a quotient may be rounded up."""
        by_quotient = super()._whole_quotient(rounding, a, b)
        if rounding != "floor":
            return by_quotient
        apply, const = self.graph.apply, self.graph.const
        near = apply("div", apply("sub", a, apply("remainder", a, b)), b)
        whole = apply("floor", near)
        is_next = apply("gt", apply("sub", near, whole), const(0.5))
        whole = apply("where", is_next, apply("add", whole, const(1)), whole)
        return apply("where", apply("eq", b, const(0)), by_quotient, whole)

    def _change(self, name: str, tensor: Tensor) -> None:
        super()._change(name, tensor)
        for other in self._sharing(tensor):
            self._keys.pop(id(other), None)

    def _with_part(self, whole: Tensor, part: Tensor, new: Tensor) -> Tensor | None:
        """A tensor, a part of which in memory is another one now; None where that is not known."""
        if not self._is_made(whole) or not self._is_made(new):
            return super()._with_part(whole, part, new)
        size = whole.untyped_storage().nbytes() // whole.element_size()
        if not whole.is_contiguous() or whole.numel() != size:
            return None
        with self:
            places = torch.arange(size).as_strided(part.shape, part.stride(), part.storage_offset())
            changed = whole.reshape(-1).scatter(0, places.reshape(-1), new.reshape(-1))
            return changed.view(whole.shape)

    def _take(self, tensor: Tensor, other: Tensor) -> None:
        """Let a tensor be what another one is."""
        super()._take(tensor, other)
        if self._is_made(other):
            self._keys[id(tensor)] = self._keys[id(other)]

    def _give_gradient(
        self, made: Tensor, given: Sequence[Tensor], backward: Callable[[Tensor], Any]
    ) -> None:
        """Say that what was made of parameters has a backward pass of its own.

        Args:
            made: What it is the gradient of.
            given: What that was made of.
            backward: From the gradient that comes in to those of all that was given.
        """
        grad, before = torch.zeros(made.shape, dtype=made.dtype), self._calls
        self._keys[id(grad)] = place = next(self._numbers)
        self.name(grad, None)
        self._calls = []
        try:
            keys = tuple(None if g is None else self._key_of(g) for g in backward(grad))
        finally:
            calls, self._calls = tuple(self._calls), before
        _check_linear(calls, place, keys)
        inside = {place}.union(*(call.results for call in calls))
        reads = {key: None for call in calls for key in call.reads - inside}
        own = _OwnGradient(calls, place, tuple(reads), keys)
        tensors = (_Place(self._key_of(tensor)) for tensor in (made, *given))
        self._write(own, (*tensors, *map(_Place, reads)), {}, [made])
        self.name(made, None)

    def _key_of(self, tensor: Tensor) -> str | int:
        if not self._is_made(tensor):
            raise Untraceable("it is made of more than parameters")
        return self._keys[id(tensor)]


_LINEAR = {
    **dict.fromkeys(VIEWS - {"_to_copy"} | {"neg", "sum", "mean", "detach"}, (0,)),
    **dict.fromkeys(("tensor", "scalar_tensor"), (0,)),
    **dict.fromkeys(("add", "sub"), (0, 1)),
    **dict.fromkeys(("index_put", "masked_fill"), (0, 2)),
    "where": (1, 2),
}
"""Operations that are linear in some of their arguments together, and in which."""
_BILINEAR = {"mul", "div", "mm", "bmm", "mv", "dot"}


def _check_linear(calls: Sequence[_Call], grad: int, results: Sequence[Any]) -> None:
    """Raise unless a backward pass is linear in a gradient, so that once will do for all steps."""
    linear, zeros = {grad}, set[str | int]()
    for call in calls:
        name = getattr(call.func, "__name__", "another function").split(".")[0]
        parts = [*tree_iter(call.args)]
        keys = [part.key if type(part) is _Place else None for part in parts]
        moved = {place for place, key in enumerate(keys) if key in linear}
        fixed = {place for place, part in enumerate(parts) if part == 0 or keys[place] in zeros}
        together = {*_LINEAR.get(name, ())}
        if "zeros" in name or (not moved and together == {0} <= fixed):
            zeros.update(call.results)
        elif moved:
            fine = bool(together) and moved <= together <= moved | fixed
            if name in _BILINEAR:
                fine = moved == {0} or (moved == {1} and name != "div")
            if not fine:
                raise Untraceable(f"aten.{name} is not linear in the gradient")
            linear.update(call.results)
    if not linear | zeros >= {*results} - {None}:
        raise Untraceable("it does not depend on the gradient")


def _is_pure(func: Any, given: Sequence[Tensor]) -> bool:
    """Whether an operation makes the same of the same, in tensors whose shapes are known."""
    name, tags = func._schema.name.removeprefix("aten::"), func.tags
    if func._schema.is_mutable or torch.Tag.nondeterministic_seeded in tags or "empty" in name:
        return False
    if torch.Tag.dynamic_output_shape in tags:  # a place is none, where it is true or false
        return name == "index" and not any(tensor.dtype == torch.bool for tensor in given[1:])
    returned = (str(result.type) for result in func._schema.returns)
    return all(kind in ("Tensor", "List[Tensor]") for kind in returned)


def listed(results: Any) -> list[Tensor]:
    """What an operation returns: one tensor, several, or none where it checks something."""
    return [results] if isinstance(results, Tensor) else list(results or ())
