"""The laws of recurrence: properties of every recurrent layer, whatever its equation.

A law is a function of a layer, called as ``layer(x, state, lengths, resets)``, and example data. It
raises an error if the layer breaks it. Outputs and states may be any nesting of tensors whose first
dimension is the batch.
"""

from __future__ import annotations

import copy
import pickle
import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.func import functional_call, grad, jvp, stack_module_state, vjp, vmap
from torch.utils._pytree import tree_leaves, tree_map

from seqnets.cells import Cell
from seqnets.checks import name_of
from seqnets.errors import ConfigError

TOLERANCE = 1e-10  # far above rounding errors in float64 for a few steps and small sizes


class Example(NamedTuple):
    """A small batch with all arguments of a call, in float64.

    Attributes:
        x: Inputs, (B, T, I).
        state: State before the first step, in the layer's structure.
        lengths: Valid steps of each row, (B,); one is 0, one is T.
        resets: Steps before which a row's state is reset, (B, T) boolean.
    """

    x: Tensor
    state: Any
    lengths: Tensor
    resets: Tensor


Law = Callable[[nn.Module, Example], None]


def example(layer: nn.Module, input_size: int, start: Any = None) -> Example:
    """Create a random example for a layer.

    Args:
        layer: The layer.
        input_size: Features of the input, I.
        start: A state with 4 rows for its structure; if omitted, the layer is called to get one.
            States are normal numbers or, if the layer makes NaN of these, those that it ends in.
    """
    device = next(chain(layer.parameters(), layer.buffers())).device
    x = torch.randn(4, 6, input_size, dtype=torch.float64, device=device)
    state = tree_map(torch.randn_like, layer(x)[1] if start is None else start)
    if makes_nan(layer, x, state):  # of states that are to be positive, say
        state = tree_map(Tensor.detach, layer(x)[1])
    resets = torch.zeros(4, 6, dtype=torch.bool, device=device)
    resets[1, 2] = resets[1, 5] = resets[2, 0] = resets[3, 2] = True
    return Example(x, state, torch.tensor([4, 6, 0, 3], device=device), resets)


@torch.no_grad()
def makes_nan(layer: Callable[..., Any], x: Tensor, state: Any) -> bool:
    """Whether a layer makes NaN of a state; False if it raises, which a law is to report."""
    try:
        return any(part.isnan().any() for part in tree_leaves(layer(x, state)))
    except Exception:
        return False


def obey(laws: Sequence[Law], layer: nn.Module, data: Example, name: str) -> None:
    """Raise an AssertionError if the layer breaks a law, with the law and the numbers."""
    for law in laws:
        try:
            law(layer, data)
        except Exception as error:
            told = f"{name} breaks the law {law.__name__!r}: {law.__doc__}\n  {error}"
            if not isinstance(error, AssertionError):  # say, torch lacks an operation's derivative
                told += f"\n  Where it need not hold, skip=({law.__name__!r},)."
            raise AssertionError(told) from error


def without(laws: Sequence[Law], skip: Collection[str]) -> list[Law]:
    """The laws that are not skipped.

    Raises:
        ConfigError: A name in ``skip`` is unknown.
    """
    if unknown := set(skip) - {law.__name__ for law in laws}:
        names = ", ".join(law.__name__ for law in laws)
        raise ConfigError(f"skip names {sorted(unknown)}, expected some of {names}.")
    return [law for law in laws if law.__name__ not in skip]


def agree(got: Any, expected: Any, what: str, allowed: float = TOLERANCE) -> None:
    """Raise an AssertionError if numbers differ by more than ``allowed``."""
    torch.testing.assert_close(
        got, expected, rtol=0, atol=allowed, msg=lambda text: f"{what}: {text}"
    )


def purity(layer: nn.Module, data: Example) -> None:
    """A call changes neither arguments nor parameters, and a second one gives the same."""
    before = copy.deepcopy((data, layer.state_dict()))

    with torch.no_grad():
        for arguments in (data, data[:2]):
            first, again = layer(*arguments), layer(*arguments)
            agree((data, layer.state_dict()), before, "arguments and parameters")
            agree(again, first, "a second call")


def rows(layer: nn.Module, data: Example) -> None:
    """A row alone gives the same as in a batch."""
    whole = layer(*data)

    for b in range(len(data.x)):
        agree(layer(*_row(data, b)), _row(whole, b), f"row {b} alone")


def causality(layer: nn.Module, data: Example) -> None:
    """An output does not depend on later inputs, even NaN."""
    expected = layer(data.x, data.state)[0][:, :3]

    for added in (1.0, float("nan")):
        future = data.x.clone()
        future[:, 3:] += added
        agree(layer(future, data.state)[0][:, :3], expected, f"steps 0 to 2, {added} added to 3")


def lengths(layer: nn.Module, data: Example) -> None:
    """A padded row gives the same as without padding: zeros follow, the state is the last valid."""
    whole = layer(data.x, data.state, data.lengths)

    for b, n in enumerate(data.lengths.tolist()):
        x, state, *_ = _row(data, b)
        y, final = _row(whole, b)
        agree((_until(y, n), final), layer(x[:, :n], state), f"row {b} of length {n}")
        agree(_since(y, n), tree_map(torch.zeros_like, _since(y, n)), f"padding of row {b}")


def padding(layer: nn.Module, data: Example) -> None:
    """The values of padding, even NaN, change no output, state or gradient."""
    outside = torch.arange(data.x.shape[1], device=data.x.device) >= data.lengths[:, None]

    def everything(fill: float) -> Any:
        x = data.x.masked_fill(outside[..., None], fill).requires_grad_()
        state = tree_map(lambda part: part.clone().requires_grad_(), data.state)
        outcome = layer(x, state, data.lengths, data.resets)
        return outcome, _derivatives(layer, outcome, x, *tree_leaves(state))

    agree(everything(float("nan")), everything(0.0), "with NaN for padding")


def resets(layer: nn.Module, data: Example) -> None:
    """A reset begins a new sequence: a row gives the same as its parts alone."""
    y, _ = layer(data.x, None, data.lengths, data.resets)

    for b, n in enumerate(data.lengths.tolist()):
        begins = sorted({0, *data.resets[b, :n].nonzero().flatten().tolist()})
        for first, last in zip(begins, [*begins[1:], n], strict=True):
            alone, _ = layer(data.x[b : b + 1, first:last])
            part = _until(_since(_row(y, b), first), last - first)
            agree(part, alone, f"row {b}, steps {first} to {last - 1}")


def chunks(layer: nn.Module, data: Example) -> None:
    """Chunks of sequences with carried state give the same as whole sequences."""
    whole = layer(*data)
    T = data.x.shape[1]

    for size in (1, 4):
        state, outputs = data.state, []
        for first in range(0, T, size):
            last = min(first + size, T)
            lengths = (data.lengths - first).clamp(0, last - first)
            part = slice(first, last)
            y, state = layer(data.x[:, part], state, lengths, data.resets[:, part])
            outputs.append(y)
        agree((torch.cat(outputs, 1), state), whole, f"chunks of {size}")


def steps(layer: Any, data: Example) -> None:
    """Calls of ``step``, one after the other, give the same as whole sequences."""
    state, outputs = data.state, []

    for x in data.x.unbind(1):
        y, state = layer.step(x, state)
        outputs.append(y)

    agree((torch.stack(outputs, 1), state), layer(data.x, data.state), "step by step")


def emptiness(layer: nn.Module, data: Example) -> None:
    """A batch without rows gives empty outputs, with gradients; without steps, the same state."""
    none = tree_map(lambda tensor: tensor[:0], data)
    x = none.x.clone().requires_grad_()
    y, state = layer(*none._replace(x=x))
    agree((y, state), tree_map(lambda tensor: tensor[:0], layer(*data)), "no rows")
    _derivatives(layer, y, x)

    agree(layer(data.x[:, :0], data.state)[1], data.state, "the state after no steps")


def names(layer: nn.Module, data: Example) -> None:
    """A module with parameters has one name, as ``torch.func`` would not replace a second one's."""
    first: dict[nn.Module, str] = {}
    for name, module in layer.named_modules(remove_duplicate=False):
        if module in first and module._parameters:
            raise AssertionError(
                f"{first[module]} and {name} are one {name_of(module)}, expected one name "
                f"or two modules.\n"
                f"  A second module may share the parameters of the first: "
                f"copy.deepcopy(module, {{id(p): p for p in module.parameters()}})."
            )
        first[module] = name


def gradients(layer: nn.Module, data: Example) -> None:
    """First and second derivatives agree with finite differences."""
    function, tensors = _as_function(layer, _first_steps(data, 3))

    gradcheck(function, tensors, fast_mode=True)
    outcome = [y.detach() for y in function(*tensors)]
    pieces = [*tensors, *(torch.randn_like(y) for y in outcome)]

    def product(together: Tensor) -> Tensor:
        parts = together.split([piece.numel() for piece in pieces])
        parts = [part.view_as(piece) for part, piece in zip(parts, pieces, strict=True)]
        total = _inner(function(*parts[: len(tensors)]), parts[len(tensors) :])
        return torch.autograd.grad(total, together, create_graph=True)[0]

    # In one tensor: each pair of pieces would be a function to differentiate. A fast check allows
    # atol times the sum of its random vectors, which grows with their size: hence little.
    together = torch.cat([piece.detach().flatten() for piece in pieces]).requires_grad_()
    gradcheck(product, together, fast_mode=True, rtol=1e-6, atol=1e-8)


def usefulness(layer: nn.Module, data: Example) -> None:
    """The input, all parts of the state and all parameters affect the results."""
    x = data.x.clone().requires_grad_()
    state = tree_map(lambda part: part.clone().requires_grad_(), data.state)

    outcome = layer(x, state), layer(x)
    found = _derivatives(layer, outcome, x, *tree_leaves(state))

    parts = [f"part {i} of the state" for i in range(len(tree_leaves(state)))]
    unread = {parts[i] for i in _first_parts(state)} if _has_output_only(layer) else set()
    names = ["the input", *parts, *dict(layer.named_parameters())]
    for name, derivative in zip(names, found, strict=True):
        if not derivative.any() and name not in unread:
            told = f"{name}: shape {tuple(derivative.shape)}, no effect at all."
            if len(parts) > 1 and name == parts[0]:
                told += "\n  If it is only an output, declare output_only = True in the class."
            elif name in parts:
                told += "\n  If steps only compare it, as a count, skip=('usefulness',)."
            raise AssertionError(told)


def _has_output_only(layer: nn.Module) -> bool:
    """Whether a cell never reads the first part of its state, which is only its output."""
    return any(isinstance(cell, Cell) and cell.output_only for cell in layer.modules())


def _first_parts(state: Any) -> list[int]:
    """The indices, among all parts of the state, of each cell's first part."""
    if isinstance(state[0], Tensor):
        return [0]
    places, before = [], 0
    for part in state:
        places += [before + place for place in _first_parts(part)]
        before += len(tree_leaves(part))
    return places


def forward_mode(layer: nn.Module, data: Example) -> None:
    """Forward-mode and reverse-mode differentiation agree: <u, J v> = <u J, v>."""
    function, tensors = _as_function(layer, data)
    v = tuple(torch.randn_like(tensor) for tensor in tensors)

    with warnings.catch_warnings():  # torch's first call uses torch.jit, which warns
        warnings.filterwarnings("ignore", "`torch.jit.")
        outputs, Jv, *_ = jvp(function, tensors, v)
    u = tuple(torch.randn_like(y) for y in outputs)
    uJ = vjp(function, *tensors)[1](u)

    agree(_inner(u, Jv), _inner(uJ, v), "the product with the Jacobian")


def ensembles(layer: nn.Module, data: Example) -> None:
    """Several models under ``torch.func.vmap`` give the same as each alone."""
    models = [layer, copy.deepcopy(layer)]
    perturb(models[1])

    stacked, _ = stack_module_state(models)
    if not stacked:  # models without parameters are all the same
        return
    together = vmap(lambda p: functional_call(layer, p, tuple(data)))(stacked)

    for i, model in enumerate(models):
        agree(tree_map(lambda t, i=i: t[i], together), model(*data), f"model {i} of 2")


def per_sample_gradients(layer: nn.Module, data: Example) -> None:
    """``vmap`` of ``grad`` gives the gradients of each row."""
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    if not parameters:  # there are no gradients
        return

    def loss(parameters: Any, row: Example) -> Tensor:
        alone = tree_map(lambda tensor: tensor.unsqueeze(0), row)
        return _scalar(functional_call(layer, parameters, tuple(alone)))

    together = vmap(grad(loss), in_dims=(None, 0))(parameters, data)

    for b in range(len(data.x)):
        derivatives = _derivatives(layer, layer(*_row(data, b)))
        agree(tree_leaves(_row(together, b)), [d[None] for d in derivatives], f"row {b}")


def copies(layer: nn.Module, data: Example) -> None:
    """A deep copy and a pickled copy give the same as the original."""
    expected = layer(*data)

    agree(copy.deepcopy(layer)(*data), expected, "the deep copy")
    if all(_is_importable(type(module)) for module in layer.modules()):
        agree(pickle.loads(pickle.dumps(layer))(*data), expected, "the pickled copy")


LAWS: tuple[Law, ...] = (
    purity,
    rows,
    causality,
    lengths,
    padding,
    resets,
    chunks,
    steps,
    emptiness,
    names,
    gradients,
    usefulness,
    forward_mode,
    ensembles,
    per_sample_gradients,
    copies,
)
"""The laws of every layer that runs forwards in time."""


@torch.no_grad()
def perturb(module: nn.Module, scale: float = 0.3) -> None:
    """Add noise to all parameters, as zeros could hide errors."""
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=scale)


def _is_importable(kind: type) -> bool:
    """Whether pickle can find a class: not if a function or ``parametrize`` created it."""
    return getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind


def _row(tree: Any, b: int) -> Any:
    return tree_map(lambda tensor: tensor[b : b + 1], tree)


def _until(tree: Any, t: int) -> Any:
    return tree_map(lambda tensor: tensor[:, :t], tree)


def _since(tree: Any, t: int) -> Any:
    return tree_map(lambda tensor: tensor[:, t:], tree)


def _first_steps(data: Example, n: int) -> Example:
    return Example(data.x[:, :n], data.state, data.lengths.clamp(max=n), data.resets[:, :n])


def _inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(p * q).sum() for p, q in zip(a, b, strict=True)]).sum()


def _scalar(tree: Any) -> Tensor:
    """A sum with a different weight for each element of a row, so that nothing cancels."""

    def weighed(leaf: Tensor) -> Tensor:
        row = leaf.shape[1:]
        return (leaf * torch.linspace(1, 2, row.numel()).to(leaf).view(row)).sum()

    return torch.stack([weighed(leaf) for leaf in tree_leaves(tree)]).sum()


def _derivatives(layer: nn.Module, outcome: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
    wanted = (*inputs, *layer.parameters())
    return torch.autograd.grad(_scalar(outcome), wanted, materialize_grads=True)


def _as_function(layer: nn.Module, data: Example) -> tuple[Any, tuple[Tensor, ...]]:
    """The layer as a function of its floating-point tensors, and these tensors."""
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    leaves = tree_leaves(data.state)

    def function(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        rest = iter(tensors)
        state = tree_map(lambda _: next(rest), data.state)
        replaced = dict(zip(parameters, rest, strict=True))
        arguments = (x, state, data.lengths, data.resets)
        return tuple(tree_leaves(functional_call(layer, replaced, arguments)))

    tensors = (data.x, *leaves, *parameters.values())
    return function, tuple(tensor.clone().requires_grad_() for tensor in tensors)
