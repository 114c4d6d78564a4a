"""A cell for which ONNX has no operator: a ``Scan``, whose body is the cell's step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from seqnets.cells import Cell
from seqnets.checks import name_of
from seqnets.conversion.libraries import Array
from seqnets.conversion.onnx_step import Builder, StepPrinter
from seqnets.engine.ahead import Ahead, computed_ahead
from seqnets.engine.graph import Untraceable, walk
from seqnets.engine.pieces import pieces_of
from seqnets.engine.plans import streaming_program_of
from seqnets.engine.step import Step
from seqnets.engine.tracing.projecting import watch_projection
from seqnets.errors import ConfigError


class Steps(NamedTuple):
    """A cell that runs step by step.

    Attributes:
        step: What each step computes of its state, the step before it, and ``ahead``.
        ahead: What is computed of the inputs of all steps at once; None if the step reads them.
        tensors: What both read as parameters, by name.
        states: The names of the state's parts.
        start: The state before the first step, each (1, H).
        pieces: Into how many parts of the step each of the state's is cut; empty if none is.
        input_size: Features of the input.
    """

    step: Step
    ahead: Ahead | None
    tensors: dict[str, Array]
    states: tuple[str, ...]
    start: tuple[Array, ...]
    pieces: tuple[int, ...]
    input_size: int


@torch.no_grad()
def steps_of(cell: Cell) -> Steps:
    """Trace a cell's step with the projection of its input.

    Raises:
        ConfigError: It cannot be traced, or projects several steps together.
    """
    cell = cell.to("cpu", torch.float32)
    try:
        program, preparation = streaming_program_of(cell)
        draws, alone = watch_projection(cell)
    except Untraceable as reason:
        raise ConfigError(
            f"ONNX: {name_of(cell)} has no operator there, and its step cannot be written as a "
            f"graph: {reason}.\n"
            f"  torch.onnx.export(model, ..., dynamic_shapes=...) may take the model as a whole, "
            f"and `seqnets export` that of a run."
        ) from None
    if draws or not alone:
        raise ConfigError(
            f"ONNX: {name_of(cell)} has no operator there, and projects the inputs of several "
            f"steps together, expected those of each step alone.\n"
            f"  torch.onnx.export(model, ..., dynamic_shapes=...) takes the model as a whole."
        )
    ahead = computed_ahead(program.step)
    tensors = preparation.of(cell.tensors())
    return Steps(
        program.step if ahead is None else ahead.rest,
        ahead,
        {name: tensors[name].float().numpy() for name in program.step.parameters},
        cell.states,
        tuple(part.float().numpy() for part in cell.checked_start(1)),
        pieces_of(cell.state_sizes, program.step.state_sizes),
        cell.input_size,
    )


def add_scan(
    builder: Builder, steps: Steps, x: str, valid: str, initial: Sequence[str], reverse: bool
) -> tuple[str, list[str]]:
    """Add the nodes of a layer in one direction.

    Args:
        builder: The model's builder.
        steps: The layer's cell.
        x: The name of its inputs, (T, B, I).
        valid: The name of the mask of valid steps, (T, B, 1); empty if all are.
        initial: The names of the parts of the state before the first step, each (B, H).
        reverse: Whether time runs backwards.

    Returns:
        The names of the outputs, (T, B, H), and of the parts of the last state, (B, H).
    """
    given = {"x": (x, steps.input_size)}
    if steps.ahead is not None:
        printer = StepPrinter(builder, steps.ahead.step, steps.tensors, given)
        made = builder.together([printer.full(node, node.width) for node in steps.ahead.nodes])
        given["wx"] = made, steps.step.wx_size
    leaves = (node for node in walk(steps.step.roots) if node.op == "leaf")
    read = {leaf.what.source for leaf in leaves}
    given = {source: part for source, part in given.items() if source in read} or given
    counts = steps.pieces or (1,) * len(initial)
    before = [
        piece for name, n in zip(initial, counts, strict=True) for piece in _cut(builder, name, n)
    ]
    finals, y = [builder.name("final") for _ in before], builder.name("outputs")
    inputs = [*(name for name, _ in given.values()), *([valid] if valid else [])]
    along = len(inputs)
    widths = {source: width for source, (_, width) in given.items()}
    builder.add_node(
        "Scan",
        [*before, *inputs],
        [*finals, y],
        body=_body(builder.inner(), steps, widths, counts[0], bool(valid)),
        num_scan_inputs=along,
        scan_input_directions=[int(reverse)] * along,
        scan_output_directions=[int(reverse)],
    )
    parts = iter(finals)
    return y, [builder.together([next(parts) for _ in range(n)]) for n in counts]


def _cut(builder: Builder, name: str, count: int) -> list[str]:
    """A part of the state in pieces of one width."""
    if count == 1:
        return [name]
    pieces = [builder.name("piece") for _ in range(count)]
    builder.add_node("Split", [name], pieces, axis=-1)
    return pieces


def _body(to: Builder, steps: Steps, widths: Mapping[str, int], pieces: int, masked: bool) -> Any:
    """The graph of one step.

    Args:
        to: Its builder.
        steps: The cell.
        widths: The columns of its inputs, by source.
        pieces: Into how many pieces the first part of the state, the output, is cut.
        masked: Whether the step may be padding.
    """
    step, helper, kinds = steps.step, to.onnx.helper, to.onnx.TensorProto
    sizes = step.state_sizes
    before, valid = [to.name("before") for _ in sizes], to.name("valid")
    now = {source: (to.name("now"), width) for source, width in widths.items()}
    printer = StepPrinter(to, step, steps.tensors, now, before)
    after = [printer.full(*part) for part in zip(step.state, sizes, strict=True)]
    y = to.together(after[:pieces])
    if masked:
        y = to.add("Where", valid, y, to.constant(np.float32(0)))
        after = [to.add("Where", valid, *pair) for pair in zip(after, before, strict=True)]
    else:  # an output may be no input, and none another
        y, *after = (to.add("Identity", name) for name in (y, *after))

    def value(name: str, width: int, kind: int = kinds.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, ["B", width])

    given = [value(*part) for part in zip(before, sizes, strict=True)]
    given += [value(*part) for part in now.values()]
    given += [value(valid, 1, kinds.BOOL)] * masked
    found = [value(*part) for part in zip(after, sizes, strict=True)]
    found.append(value(y, sum(sizes[:pieces])))
    return helper.make_graph(to.nodes, to.name("step"), given, found)
