"""The loops as a custom operator, ``seqnets::unroll``, with its gradient.

Compilers see one opaque operator where eager code calls the loops directly. The traced step is one
of its arguments, serialised as text, so that an exported model is self-contained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from seqnets.engine import eager, reference
from seqnets.engine.c.compiler import NoCompiler
from seqnets.engine.c.loops import C_LOOPS
from seqnets.engine.evaluate import replay
from seqnets.engine.gradients import parameter_gradients
from seqnets.engine.layout import Layout
from seqnets.engine.loops import Inputs, Kept, Loops, check_saved, make_order
from seqnets.engine.plans import program_from_text
from seqnets.engine.program import Program
from seqnets.engine.request import Request
from seqnets.engine.step import Step
from seqnets.engine.triton import access
from seqnets.errors import DtypeError, ShapeError
from seqnets.typing import State


@torch.library.custom_op("seqnets::unroll", mutates_args=())
def unroll(
    wx: Tensor,
    given: list[Tensor],
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    save: bool,
    text: str,
) -> list[Tensor]:
    """Run a traced step over projected inputs, (B, T, W).

    ``given`` holds the state before the first step, the state after a reset if there are resets,
    and the parameters: in one list, since AOTInductor drops an empty list.

    Returns:
        Outputs (B, T, H), the state after each row's last step, and with ``save`` what the backward
        pass needs.
    """
    program = program_from_text(text)
    if wx.shape[2:] != (columns := program.step.wx_size,):  # a loop would read other memory
        raise ShapeError(
            f"unroll: projected inputs have shape {tuple(wx.shape)}, expected {columns} columns, "
            f"as many as for other inputs."
        )
    others = {tensor.dtype for tensor in given} - {wx.dtype}
    if wx.is_cpu and others:  # likewise; kernels in Triton convert, as under autocast
        raise DtypeError(
            f"unroll: projected inputs are {wx.dtype}, but state or parameters "
            f"{' and '.join(map(str, others))}, expected one dtype.\n"
            f"  An exported model has that of its layer: convert the layer, and export it again."
        )
    initial, start, parameters = _split_given(program.step, given, resets)
    order = make_order(Layout(*wx.shape[:2]), lengths, resets, reverse)
    rows = wx.contiguous().flatten(0, 1)
    inputs = Inputs(rows, initial, start, _used(program.step, parameters))
    y, final, kept = _loops(program, wx).forward(program, inputs, order, save)
    return [y, *final, *([] if kept is None else kept.tensors)]


@unroll.register_fake
def _(wx, given, lengths, resets, reverse, save, text):
    program = program_from_text(text)
    B, T, _ = wx.shape
    sizes = program.step.state_sizes
    y = wx.new_empty(B, T, sizes[0])
    final = [wx.new_empty(B, size) for size in sizes]
    kept = program.kept_sizes if save else []
    return [y, *final, *(wx.new_empty(B * T, size) for size in kept)]


@torch.library.custom_op("seqnets::unroll_backward", mutates_args=())
def unroll_backward(
    kept: list[Tensor],
    grad_y: Tensor,
    grad_final: list[Tensor],
    parameters: list[Tensor],
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    text: str,
) -> list[Tensor]:
    """Gradients of the projected input, each initial state, each reset state, each parameter.

    Those that are constants have none.
    """
    program = program_from_text(text)
    used = _used(program.step, parameters)
    check_saved("unroll", grad_y.dtype, (*kept, *parameters) if grad_y.is_cpu else kept)
    everything = Kept(program, [tensor.contiguous() for tensor in kept])
    order = make_order(Layout(*grad_y.shape[:2]), lengths, resets, reverse)
    grads = order.layout.rows(grad_y), *grad_final
    found = _loops(program, grad_y).backward(everything, grads, used, order)
    learned = used.keys() - program.step.constants
    weights = parameter_gradients(program, found, everything, used, learned)
    for name in learned - weights.keys():  # what only a maximum or an index depends on
        weights[name] = torch.zeros_like(used[name], memory_format=torch.contiguous_format)
    return [
        order.layout.whole(found.wx),
        *found.initial,
        *found.start,
        *unaliased(weights[name] for name in used if name in learned),
    ]


def unaliased(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Tensors laid out as an operator's fake results, by which compilers plan: others are cloned.

    Those are contiguous, begin where their storage does, and share it with no other.
    """
    taken = set()
    for tensor in map(Tensor.contiguous, tensors):
        memory = tensor.untyped_storage().data_ptr()
        yield tensor.clone() if memory in taken or tensor.storage_offset() else tensor
        taken.add(memory)


@unroll_backward.register_fake
def _(kept, grad_y, grad_final, parameters, lengths, resets, reverse, text):
    program = program_from_text(text)
    B, T, _ = grad_y.shape
    state = [grad_y.new_empty(B, size) for size in program.step.state_sizes]
    return [
        grad_y.new_empty(B, T, program.step.wx_size),
        *state,
        *([] if resets is None else [torch.empty_like(part) for part in state]),
        *(
            torch.empty_like(p, memory_format=torch.contiguous_format)
            for name, p in _used(program.step, parameters).items()
            if name not in program.step.constants
        ),
    ]


def _save(ctx, inputs, output) -> None:
    wx, given, lengths, resets, *ctx.options = inputs
    kept = output[1 + len(program_from_text(ctx.options[-1]).step.state_sizes) :]
    ctx.count = len(given)
    ctx.save_for_backward(wx, lengths, resets, *given, *kept)


def _differentiate(ctx, grads):
    reverse, saved, text = ctx.options
    wx, lengths, resets, *rest = ctx.saved_tensors
    given, kept = rest[: ctx.count], rest[ctx.count :]
    step = program_from_text(text).step
    B, T, _ = wx.shape
    shapes = [(B, T, step.state_sizes[0]), *((B, size) for size in step.state_sizes)]
    outputs = [
        wx.new_zeros(shape) if grad is None else grad.contiguous()
        for grad, shape in zip(grads, shapes, strict=False)
    ]
    if torch.is_grad_enabled() or not saved:  # create_graph=True, or traced under no_grad

        def run(given):
            return _plain(step, given[0], given[1:], lengths, resets, reverse)

        needed = [tensor.requires_grad for tensor in (wx, *given)]
        found = reference.gradients_of(run, (wx, *given), outputs, needed)
    else:
        *_, parameters = _split_given(step, given, resets)
        found = torch.ops.seqnets.unroll_backward(
            kept, outputs[0], outputs[1:], parameters, lengths, resets, reverse, text
        )
        first = 1 + len(given) - len(parameters)
        learned = iter(found[first:])
        found[first:] = [None if n in step.constants else next(learned) for n in step.parameters]
    return found[0], found[1:], None, None, *(None for _ in ctx.options)


unroll.register_autograd(_differentiate, setup_context=_save)


def _plain(step, wx, given, lengths, resets, reverse):
    """The plain loop over a traced step: outputs and final state."""
    initial, start, parameters = _split_given(step, given, resets)
    cell = _Replayed(step, _used(step, parameters), start)
    request = Request(cell, wx, initial, lengths, resets, reverse)  # type: ignore[arg-type]
    return reference.run(request)


class _Replayed:
    """Stands in for a cell in the plain loop, where only the traced step is available."""

    _modules: ClassVar[dict[str, Any]] = {}

    def __init__(self, step: Step, parameters: dict[str, Tensor], start: State) -> None:
        self.traced, self.parameters, self.start = step, parameters, start
        self.output_size = step.state_sizes[0]

    def project(self, wx: Tensor) -> Tensor:
        return wx

    def check_projected(self, wx: Tensor, x: Tensor) -> Tensor:
        return wx

    def checked_start(self, batch_size: int) -> State:
        return self.start

    def step(self, wx: Tensor, state: State) -> State:
        return replay(self.traced, wx, state, self.parameters)

    def check_after(self, after: State, before: State) -> State:
        return after


def _split_given(
    step: Step, given: list[Tensor], resets: Tensor | None
) -> tuple[State, State, list[Tensor]]:
    """Split ``given`` into the initial state, the state after a reset, and the parameters."""
    count = len(step.state_sizes)
    first = count if resets is None else 2 * count
    return tuple(given[:count]), tuple(given[count:first]), given[first:]


def _used(step: Step, parameters: list[Tensor]) -> dict[str, Tensor]:
    return dict(zip(step.parameters, parameters, strict=True))


def _loops(program: Program, like: Tensor) -> Loops:
    """The fastest loops available on this machine for a program."""
    if like.is_cuda and not (
        access.refusal(like.device, like.dtype) or access.refusal_of_size(like)
    ):
        pays = access.over_time_pays(program, like)
        return access.loops_over_time() if pays else access.printed_loops()
    if like.is_cpu and like.dtype in (torch.float32, torch.float64):
        try:
            C_LOOPS.library(program, like.dtype)
            return C_LOOPS
        except NoCompiler:
            pass
    return eager.LOOPS
