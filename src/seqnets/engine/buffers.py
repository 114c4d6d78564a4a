"""The buffers of printed loops, by their names in the source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

from torch import Tensor

from seqnets.engine.loops import Affine, Grads, Inputs, Kept, Order, Results
from seqnets.engine.program import Buffer, Program
from seqnets.engine.step import Weight
from seqnets.engine.workspaces import room


def numbered(name: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Tensors keyed ``name_0``, ``name_1`` and so on."""
    return dict(zip(_numbered(name, len(tensors)), tensors, strict=True))


@cache
def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{i}" for i in range(count)]


def addresses_of(buffers: Mapping[str, Tensor]) -> dict[str, int]:
    """The address of each buffer, by name."""
    return dict(zip(buffers, map(Tensor.data_ptr, buffers.values()), strict=True))


def _in_memory(tensor: Tensor) -> Tensor:
    """What a caller gave, as loops read it: contiguous, with no number stored as its opposite."""
    return tensor.contiguous().resolve_neg()


def parameter_buffer(name: str) -> str:
    """The name of the buffer of a parameter, which may be a nested cell's: "cell.weight_hh".

    No two parameters share one: a name with an "of" of its own, or that is none in C, is in digits.
    """
    if _READABLE.fullmatch(name) and "of" not in re.split("[._]", name):
        return f"p_{name}".replace(".", "_of_")
    return f"p_0{name.encode().hex()}"


_READABLE = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)


def parameter_buffers(program: Program, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters, and each product's block of its weight, by buffer name; all contiguous."""
    return {
        buffer: (parameters[name] if block is None else block.of(parameters[name])).contiguous()
        for buffer, name, block in _parameter_buffers(program)
    }


@lru_cache(maxsize=1024)
def _parameter_buffers(program: Program) -> list[tuple[str, str, Weight | None]]:
    """Each buffer's name, its parameter, and the block of that; None if it is the whole."""
    step = program.step
    found: list[tuple[str, str, Weight | None]] = [
        (parameter_buffer(name), name, None) for name in step.parameters
    ]
    for k, weight in enumerate(product.weight for product in step.products):
        whole = not weight.turned and weight.covers(step.parameters[weight.name])
        found.append((f"weight_{k}", weight.name, None if whole else weight))
    return found


def _kept_buffers(kept: Kept) -> dict[str, Tensor]:
    """What is kept, by buffer name."""
    return dict(zip(_kept_names(kept.program), kept.tensors, strict=True))


@lru_cache(maxsize=1024)
def _kept_names(program: Program) -> list[str]:
    befores = (f"before_{p}" for p in program.befores)
    return [*befores, *(f"value_{k}" for k in program.kept_values), "saved"]


def forward_buffers(
    program: Program, inputs: Inputs, order: Order, save: bool
) -> tuple[Results, dict[str, Tensor]]:
    """The results of ``Loops.forward``, uninitialised, and its buffers by name."""
    wx, initial, start, parameters, projection = inputs
    sizes = program.step.state_sizes
    y = order.layout.empty(wx, sizes[0])
    final = tuple([wx.new_empty(order.layout.B, size) for size in sizes])
    kept = room_for_kept(program, wx) if save else None
    buffers = {"y": y} | _input_buffers(_in_memory(wx), projection)
    buffers |= parameter_buffers(program, parameters)
    buffers |= numbered("initial", [*map(_in_memory, initial)])
    buffers |= numbered("start", [*map(_in_memory, start)])
    buffers |= numbered("final", final)
    if kept is not None:
        buffers |= _kept_buffers(kept)
    return (y, final, kept), buffers


def _input_buffers(wx: Tensor, projection: Affine | None) -> dict[str, Tensor]:
    """The projected input, or the input and its projection, by buffer name."""
    if projection is None:
        return {"wx": wx}
    given = zip(("x", "weight_wx", "bias_wx"), (wx, *projection), strict=True)
    return {name: part.contiguous() for name, part in given if part is not None}


def backward_buffers(
    kept: Kept, grad_y: Tensor | None, parameters: dict[str, Tensor], all_products: bool = False
) -> tuple[Tensor, dict[int, Tensor], dict[str, Tensor]]:
    """``Gradients.wx`` and ``products``, uninitialised, and the buffers of a backward pass by name.

    Those of gradients of the state differ between loops, and are not among them.

    Args:
        kept: What the forward pass kept.
        grad_y: The gradient of the outputs.
        parameters: The program's parameters.
        all_products: Whether ``products`` has also those that only the loops read.
    """
    dwx, products = _room_for_gradients(kept.program, kept.saved, all_products)
    buffers = {"grad_wx": dwx} | _kept_buffers(kept)
    buffers |= parameter_buffers(kept.program, parameters)
    buffers |= {f"grad_z_{k}": grad for k, grad in products.items()}
    if grad_y is not None:
        buffers["grad_y"] = _in_memory(grad_y)
    return dwx, products, buffers


def final_gradients(grad_final: Grads) -> dict[str, Tensor]:
    """The gradients of the state after the last step, by buffer name; those of zero are absent."""
    parts = enumerate(grad_final)
    return {f"grad_final_{p}": _in_memory(grad) for p, grad in parts if grad is not None}


def room_for_kept(program: Program, wx: Tensor) -> Kept:
    """Uninitialised buffers for what the forward pass keeps."""
    rows = wx.shape[0]
    return Kept(program, [room(wx, rows, size) for size in program.kept_sizes])


def _room_for_gradients(
    program: Program, like: Tensor, all_products: bool
) -> tuple[Tensor, dict[int, Tensor]]:
    """Gradient buffers of the projected input and each product; zeroed where there are gaps."""

    def gradient(columns: int, gaps: bool) -> Tensor:
        made = room(like, like.shape[0], columns)
        return made.zero_() if gaps else made

    of_wx, of_products = _gradient_columns(program, all_products)
    return gradient(*of_wx), {k: gradient(*each) for k, each in of_products.items()}


@lru_cache(maxsize=1024)
def _gradient_columns(
    program: Program, all_products: bool
) -> tuple[tuple[int, bool], dict[int, tuple[int, bool]]]:
    """The number of columns of these gradients, and whether no stage stores some of them."""
    gaps, products = program.gaps, program.differentiated if all_products else program.learned
    return (program.step.wx_size, Buffer("dwx") in gaps), {
        k: (program.step.products[k].weight.rows, Buffer("dz", k) in gaps)
        for k in products - program.shared
    }
