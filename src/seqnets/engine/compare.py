"""Whether a traced step is the cell's own: both are run on the same numbers, and backwards.

What was read while tracing and is no number of a row (a branch, a count of rows, whether gradients
are on) is seen here, and so is what autograd is told besides operations: ``detach``, ``no_grad``,
functions with a backward pass of their own. And whether what was put together from simpler
operations overflows, or has another derivative at a kink.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.engine.evaluate import replay
from seqnets.engine.graph import Step, Untraceable

_ROWS = 7  # not as many as were traced
_LARGE = 100
_WHERE = {1: "", _LARGE: ", where numbers are large", 0: ", where numbers are 0"}


def compare(step: Step, cell: Cell, *, project: bool) -> None:
    """Run a cell's step beside what was traced of it, on common numbers, on large ones and on 0.

    Args:
        step: What was traced.
        cell: Of which.
        project: Whether the projection of the input belongs to the step.

    Raises:
        Untraceable: They differ.
    """
    trial = _Trial(step, cell, project)
    for scale in _WHERE:
        trial.run(scale)


class _Trial:
    """A cell with other parameters, drawn once."""

    def __init__(self, step: Step, cell: Cell, project: bool) -> None:
        self._step, self._cell, self._project = step, cell, project
        self._dtype = torch.float64 if cell._like.dtype == torch.float64 else torch.float32
        self._draw = torch.Generator().manual_seed(0)
        buffers = dict(cell.origin.named_buffers())
        self._kept: dict[str, Tensor] = {}  # numbers that mean something: periods, counts, masks
        self._drawn: dict[str, Tensor] = {}
        for name, tensor in cell.tensors().items():
            if name in buffers or not tensor.is_floating_point():
                some = torch.ones(tensor.shape, dtype=tensor.dtype)
                now = tensor.detach().cpu() if _is_real(tensor) else some
                self._kept[name] = now.to(self._dtype) if now.is_floating_point() else now
            else:
                wide = tensor.dim() > 1
                drawn = self._numbers(*tensor.shape)
                self._drawn[name] = drawn.div_(tensor.shape[-1] ** 0.5) if wide else drawn

    def _numbers(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._draw, dtype=self._dtype)

    def run(self, scale: int) -> None:
        """Compare on inputs and a state of some size; on 0, biases are 0 too, as they begin."""
        step, cell = self._step, self._cell
        tensors = dict(self._kept)
        for name, drawn in self._drawn.items():
            now = torch.zeros_like(drawn) if not scale and drawn.dim() < 2 else drawn.detach()
            learns = scale == 1 or drawn.dim() < 2  # matrices once, which takes longest
            tensors[name] = now.requires_grad_(learns and name in step.parameters)
        bound = cell.bind(tensors)
        fixed = cell.bind({name: tensor.detach() for name, tensor in tensors.items()})
        used = {name: tensors[name] for name in step.parameters}
        width = cell.input_size if self._project else step.wx_size
        wx, x = (self._numbers(_ROWS, size).mul_(scale) for size in (width, cell.input_size))
        state = tuple(self._numbers(_ROWS, size).mul_(scale) for size in cell.state_sizes)
        for given in (wx, *state):
            given.requires_grad_()

        with told_why(), torch.enable_grad():
            if fixed.project(x).requires_grad:
                raise Untraceable(
                    "it projects by a tensor that learns and is none of its parameters"
                )
            own = bound.step(bound.project(wx) if self._project else wx, state)
            traced = replay(step, wx, state, used)
            wanted = [tensor for tensor in (wx, *state, *used.values()) if tensor.requires_grad]
            ends = [self._numbers(*part.shape) for part in traced]
            slopes = [_slopes(parts, ends, wanted) for parts in (own, traced)]
        are_alike = _are_both_finite if scale == _LARGE else _are_near
        if not all(map(are_alike, own, traced)):
            raise Untraceable(
                f"it gives something else than its operations on numbers{_WHERE[scale]}, so it "
                f"reads what is none: a branch, a count of rows, whether gradients are on"
            )
        if self._project or not all(part.isfinite().all() for part in own):
            return
        if not all(map(are_alike, *slopes)):
            raise Untraceable(
                f"its gradient is not that of its operations{_WHERE[scale]}: detach, no_grad, or "
                f"a function with a backward pass of its own"
            )


def _is_real(tensor: Tensor) -> bool:
    """Whether a tensor has numbers: while a model is exported its buffers have none."""
    python = torch._C.DispatchKey.Python
    return not tensor.is_meta and not torch._C._dispatch_keys(tensor).has(python)


@contextmanager
def told_why() -> Iterator[None]:
    """What an equation may raise on numbers without meaning, as the reason it is untraceable."""
    try:
        yield
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise Untraceable(str(error).splitlines()[0] if str(error) else repr(error)) from error


def _slopes(
    outputs: Sequence[Tensor], ends: Sequence[Tensor], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients of outputs for inputs; zeros where there is none."""
    total = sum((y * end).sum() for y, end in zip(outputs, ends, strict=True))
    if not isinstance(total, Tensor) or not total.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    found = torch.autograd.grad(total, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def _are_both_finite(a: Tensor, b: Tensor) -> bool:
    """Whether the same ones are numbers; of large ones, rounding may leave anything."""
    return bool((a.isfinite() == b.isfinite()).all())


def _are_near(a: Tensor, b: Tensor) -> bool:
    """Whether numbers differ by rounding alone."""
    if bool(((a - b).abs() <= 1e-4).all()):  # the quick way for all that are small
        return True
    near = torch.isclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True) | (a.isinf() & b.isinf())
    return bool(near.all())
