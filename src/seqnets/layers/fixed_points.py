"""Where a cell's state stays as it is, and what happens around there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.cells.checks import check_is_cell
from seqnets.checks import check_count, check_number
from seqnets.errors import ConfigError, DtypeError, ShapeError, counted
from seqnets.typing import State

_AT_REST = 1e-6
"""How far a step may move a fixed point, as a share of the spread of the starts."""

_POLISHING = 30
"""Maximum number of Newton steps from where gradient descent ends."""

_NUDGE = 1e-6
"""By how much a number of the state is moved to see what the step makes of it, relative to 1."""

_ALIKE = 1e-4
"""How far two derivatives may differ and count as one, relative to 1."""

_SETTLING = 64
"""Steps after which what a cell keeps of the last inputs is the same as before."""


class FixedPoints(NamedTuple):
    r"""Points at which a cell's state moves least if the input stays the same, slowest first.

    K is their number, S the numbers in all parts of the state that a step reads. All are float64
    or complex128, on the CPU.

    Attributes:
        states: The points: those parts side by side, (K, S).
        speeds: :math:`q = \frac12 |F(s) - s|^2` for the step F, (K,).
        fixed: Whether a point is a fixed point, up to rounding; else the state is slow there, but
            moves, (K,) boolean.
        jacobians: :math:`\partial F / \partial s` at each point, (K, S, S): of the step as it is,
            also where gradients are others (spikes with surrogates, what is detached).
        eigenvalues: Those of the Jacobians, of largest magnitude first, (K, S). A direction with
            one of magnitude below 1 is forgotten, above 1 it grows; after
            :math:`1 / |\ln |\lambda||` steps by a factor of e.
    """

    states: Tensor
    speeds: Tensor
    fixed: Tensor
    jacobians: Tensor
    eigenvalues: Tensor

    def __repr__(self) -> str:
        """How many points there are, and how fast the state moves there: not their numbers."""
        count, size = self.states.shape
        told = f"{counted(count, 'point')} of {counted(size, 'number')}"
        if count:
            slowest, fastest = float(self.speeds[0]), float(self.speeds[-1])
            told += f", {int(self.fixed.sum())} fixed, speeds {slowest:.2g} to {fastest:.2g}"
        return f"FixedPoints({told})"


@torch.inference_mode(False)
def fixed_points(
    cell: Cell,
    x: Tensor,
    starts: State,
    *,
    steps: int = 500,
    slowest: float = 0.01,
    apart: float = 0.05,
    most: int = 32,
) -> FixedPoints:
    r"""Search for the fixed points of a cell at a constant input, and linearise it around them.

    From each start, q, half the squared length of what a step changes, is minimised by Adam, which
    finds unstable points as well as stable ones; and the cell is run on, which leads to stable ones
    far away. Where these have come to different points, Newton's method with Levenberg and
    Marquardt's damping goes on down q. All is computed in float64 on the CPU; the cell's parameters
    and gradients stay as they are.

    Minima of q that are not zero are points where the state is slow. They are kept if q is small
    enough: a memory is often a line of such points, with a few fixed points on it.

    Args:
        cell: The recurrence, in evaluation mode if it has options that draw noise.
        x: The input, (I,).
        starts: States to search from, each part (N, H): such as those that :func:`watch` finds.
        steps: Steps of Adam, and of the cell.
        slowest: The largest q that is kept, as a share of the starts' median.
        apart: Points count as one if they are nearer to each other than this share of the starts'
            spread, the root of their mean squared distance from their mean.
        most: Maximum number of points; those of smallest q are kept.

    Returns:
        The points. The first part of the state is left out if no step reads it
        (``Cell.output_only``).

    Raises:
        ConfigError: The cell counts time in its state, so that no state stays as it is; its step is
            random, or not finite from any start; or an argument is out of range.
        DtypeError: ``x`` is not floating-point.
        ShapeError: ``x`` is not (I,), or the starts are not a state.

    Example:
        >>> cell, x = cells.GRUCell(8, 16), torch.randn(4, 100, 8)
        >>> starts = (layers.watch(cell, x).states["h"].flatten(0, 1),)  # (400, 16)
        >>> found = layers.fixed_points(cell, x.mean((0, 1)), starts)
        >>> found.eigenvalues[0].abs()  # of the slowest point, (16,)

    References:
        Sussillo & Barak, 2013, "Opening the Black Box: Low-Dimensional Dynamics in High-Dimensional
        Recurrent Neural Networks", Neural Computation 25(3).
    """
    check_is_cell("fixed_points", cell)
    check_count("fixed_points", least=0, steps=steps)
    check_count("fixed_points", most=most)
    check_number("fixed_points", least=0, slowest=slowest, apart=apart)
    _check_input(cell, x)
    step = _step_of(cell, x)
    s = _usable(cell, step, x, starts)
    _check_repeats(cell, step, x, s[:1])
    _check_no_clock(cell, step, s[:1])

    spread = float((s - s.mean(0)).square().sum(1).mean().sqrt()) or 1.0
    q_of_starts = _speeds(step, s)
    kept = max(slowest * float(q_of_starts.median()), (_AT_REST * spread) ** 2 / 2)
    candidates = torch.cat([_run_on(step, s, steps), _descended(step, s, steps, spread)])
    s = _apart(step, candidates, apart * spread, most)
    s = _apart(step, _polished(step, s, (1e-10 * spread) ** 2), apart * spread, most)
    speeds = _speeds(step, s)
    s, speeds = s[speeds <= kept], speeds[speeds <= kept]
    jacobians = _as_it_steps(step, s, _jacobians(step, s))
    eigenvalues = torch.linalg.eigvals(jacobians)
    order = eigenvalues.abs().argsort(dim=-1, descending=True, stable=True)
    fixed = (2 * speeds).sqrt() <= _AT_REST * spread
    return FixedPoints(s, speeds, fixed, jacobians, eigenvalues.gather(-1, order))


Step = Callable[[Tensor], Tensor]
"""From states that a step reads, side by side, (N, S), to those after it."""


@torch.no_grad()
def _step_of(cell: Cell, x: Tensor) -> Step:
    """The cell's step at a constant input, in float64 on the CPU."""

    def moved(tensor: Tensor) -> Tensor:
        kind = torch.float64 if tensor.is_floating_point() else tensor.dtype
        return tensor.detach().to("cpu", kind, copy=True)

    cell.compute_weights(x[None, None])
    bound = cell.bind({name: moved(tensor) for name, tensor in cell.tensors().items()})
    wx = bound.project(moved(x)[None])
    first = int(cell.output_only)
    sizes = cell.state_sizes[first:]

    def step(s: Tensor) -> Tensor:
        unread = tuple(s.new_zeros(len(s), size) for size in cell.state_sizes[:first])
        after = bound.step(wx.expand(len(s), *wx.shape[1:]), (*unread, *s.split(sizes, -1)))
        return torch.cat(after[first:], -1)

    return step


def _check_input(cell: Cell, x: Tensor) -> None:
    """Raise unless an input is one step of finite numbers."""
    if not isinstance(x, Tensor) or x.shape != (cell.input_size,):
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ShapeError(
            f"fixed_points: x is {got}, expected (I,) = ({cell.input_size},): one input that stays "
            "the same."
        )
    if not x.is_floating_point():
        raise DtypeError(f"fixed_points: x is {x.dtype}, expected a floating-point tensor.")
    if not x.isfinite().all():
        raise ConfigError("fixed_points: x is not finite, expected numbers.")


def _usable(cell: Cell, step: Step, x: Tensor, starts: State) -> Tensor:
    """The starts that are finite, and a step later still; raise if none is."""
    like = starts[0].new_zeros(len(starts[0]), cell.input_size) if len(starts) else x[None]
    parts = cell.check_state(starts, like)[int(cell.output_only) :]
    s = torch.cat([part.detach().to("cpu", torch.float64, copy=True) for part in parts], -1)
    s = s[s.isfinite().all(1)]
    if not s.numel():
        raise ShapeError("fixed_points: got no starts, expected at least one that is finite.")
    s = s[step(s).isfinite().all(1)]
    if not s.numel():
        raise ConfigError(
            f"fixed_points: the step of {cell._name} leads from all starts to numbers that are not "
            "finite, expected finite ones.\n  Its parameters may be NaN: training has diverged."
        )
    return s


@torch.no_grad()
def _check_repeats(cell: Cell, step: Step, x: Tensor, s: Tensor) -> None:
    if not torch.equal(step(s), _step_of(cell, x)(s)):
        raise ConfigError(
            f"fixed_points: the step of {cell._name} is random, expected the same result each "
            "time.\n  Options that draw noise in training do not in evaluation: call cell.eval()."
        )


@torch.no_grad()
def _check_no_clock(cell: Cell, step: Step, s: Tensor) -> None:
    """Raise if a part of the state that is no memory goes on changing at a constant input."""
    for _ in range(_SETTLING):
        s = step(s)
    sizes = cell.state_sizes[int(cell.output_only) :]
    names = cell.states[int(cell.output_only) :]
    changes = zip(names, s.split(sizes, -1), step(s).split(sizes, -1), strict=True)
    counting = [name for name, a, b in changes if name in cell.clocks and not torch.equal(a, b)]
    if counting:
        raise ConfigError(
            f"fixed_points: {cell._name} counts time in its state {', '.join(counting)}, expected "
            "a cell without a clock.\n"
            "  No state of it stays as it is, since its step is another one at each time."
        )


@torch.no_grad()
def _speeds(step: Step, s: Tensor) -> Tensor:
    """Half the squared length of what a step changes, of each state, (N,)."""
    return (step(s) - s).square().sum(1) / 2


@torch.no_grad()
def _run_on(step: Step, s: Tensor, steps: int) -> Tensor:
    """States to which the cell itself leads, which is to stable points; those that are finite."""
    for _ in range(steps):
        s = step(s)
    return s[s.isfinite().all(1)]


def _descended(step: Step, s: Tensor, steps: int, spread: float) -> Tensor:
    """States from which Adam has led down q, each by itself."""
    with torch.enable_grad():
        s = s.clone().requires_grad_()
        rate = 0.03 * spread / math.sqrt(s.shape[1])
        optimizer = torch.optim.Adam([s], rate)
        for number in range(steps):
            q = (step(s) - s).square().sum() / 2
            (s.grad,) = torch.autograd.grad(q, s)
            optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * number / steps)) / 2
            optimizer.step()
    return s.detach()


def _polished(step: Step, s: Tensor, enough: float) -> Tensor:
    """States from which damped Newton steps have led down q, each by itself until it is small."""
    s, q = s.clone(), _speeds(step, s)
    damping = s.new_full((len(s),), 1e-3)
    eye = torch.eye(s.shape[1], dtype=s.dtype)
    rows = torch.arange(len(s))
    for _ in range(_POLISHING):
        before = s[rows]
        change = _jacobians(step, before) - eye
        curvature = change.mT @ change
        with torch.no_grad():
            slope = change.mT @ (step(before) - before)[..., None]
        scale = curvature.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12) * damping[rows]
        new = before - torch.linalg.solve(curvature + scale[:, None, None] * eye, slope)[..., 0]
        q_new = _speeds(step, new)
        better, settles = q_new < q[rows], q_new > 0.99 * q[rows]
        s[rows] = torch.where(better[:, None], new, before)
        q[rows] = torch.where(better, q_new, q[rows])
        damping[rows] *= torch.where(better, 0.1, 10.0)
        rows = rows[torch.where(better, ~settles, damping[rows] < 1) & (q[rows] > enough)]
        if not len(rows):
            break
    return s


def _apart(step: Step, s: Tensor, distance: float, most: int) -> Tensor:
    """Those of smallest q, no two of them within a distance, at most so many."""
    found: list[Tensor] = []
    for candidate in s[_speeds(step, s).argsort(stable=True)]:
        if not found or float((torch.stack(found) - candidate).norm(dim=1).min()) > distance:
            found.append(candidate)
        if len(found) == most:
            break
    return torch.stack(found)


def _jacobians(step: Step, s: Tensor) -> Tensor:
    """The derivatives of a step with respect to the state before it, (N, S, S).

    One gradient of all rows for each number of the state: this asks no more of a cell than that
    gradients flow through it and that rows do not mix.
    """
    with torch.enable_grad():
        s = s.clone().requires_grad_()
        after = (step(s) + 0 * s).sum(0)  # of a step that reads no state, too
        rows = [torch.autograd.grad(one, s, retain_graph=True)[0] for one in after]
    return torch.stack(rows, 1)


@torch.no_grad()
def _as_it_steps(step: Step, s: Tensor, jacobians: Tensor) -> Tensor:
    """Jacobians (N, S, S), with differences in the place of gradients that are not the step's.

    Gradients may be a surrogate's, or be detached. A derivative is replaced where the step changes
    alike on both sides, by another amount: at a kink, as that of a ReLU, gradients are one side's.
    """
    found, after = jacobians.clone(), step(s)
    for column, size in enumerate(_NUDGE * s.abs().clamp(min=1).T[..., None]):
        nudge = torch.zeros_like(s)
        nudge[:, column] = size[:, 0]
        above, below = (step(s + nudge) - after) / size, (after - step(s - nudge)) / size
        mean, gradient = (above + below) / 2, jacobians[..., column]
        alike = _ALIKE * (1 + mean.abs())
        differs = ((above - below).abs() <= alike) & ((mean - gradient).abs() > alike)
        found[..., column] = torch.where(differs, mean, gradient)
    return found
