"""Initializers that replace a cell's own way of drawing its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.cells.base import Cell
from seqnets.cells.computed import can_be_set
from seqnets.cells.gated import GatedCell
from seqnets.cells.matrix_memory import MatrixMemoryCell
from seqnets.cells.redrawing import register_initializer
from seqnets.checks import check_count, is_number, name_of
from seqnets.errors import ConfigError

RULES: dict[str, Callable[[Tensor], Any]] = {
    "zeros": nn.init.zeros_,
    "ones": nn.init.ones_,
    "identity": nn.init.eye_,
    "orthogonal": nn.init.orthogonal_,
    "xavier": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming": nn.init.kaiming_uniform_,
    "kaiming_normal": nn.init.kaiming_normal_,
    "normal": partial(nn.init.normal_, std=0.01),
}
"""Rules by name, each for the rows of one gate. "normal" has a standard deviation of 0.01."""

Rule = str | float | Callable[[Tensor], Any]


def initialize(cell: Cell, **rules: Rule | Mapping[str, Rule]) -> Cell:
    """Initialise some of a cell's parameters by rules, gate by gate.

    The rules are kept and applied again whenever the parameters are drawn anew.

    Args:
        cell: The recurrence.
        rules: For each parameter's name, a name in ``RULES``, a number to fill it with, or a
            function that fills a tensor in place; or a mapping from gates to these, which leaves
            the other gates unchanged. "bias" stands for the sum of both biases: the rule applies
            to ``bias_ih``, and ``bias_hh`` becomes zero. In a cell that keeps matrices it applies
            to ``bias_qk`` and ``bias_heads`` as well, which have gates of their own.

    Returns:
        The cell itself.

    Raises:
        ConfigError: A parameter, gate or rule is unknown, or a rule does not fit the shape.

    Example:
        >>> cell = initialize(LSTMCell(8, 16), weight_hh="orthogonal", bias={"f": 1.0})
    """
    inner = cell.innermost
    _apply_rules(inner, rules)
    register_initializer(inner, partial(_apply_rules, rules=rules))
    return cell


def chrono(cell: Cell, max_steps: int) -> Cell:
    r"""Initialise the gates' biases so that units remember for 1 to ``max_steps`` steps.

    The bias of the gate that keeps the memory starts at :math:`\log u`, with :math:`u` uniform in
    [1, max_steps - 1] for each unit, that of the gate that writes at :math:`-\log u`.

    Args:
        cell: The recurrence: a :class:`GatedCell` with biases that declares ``keeping``.
        max_steps: The longest expected dependency in steps, T_max, at least 2.

    Returns:
        The cell itself.

    Raises:
        ConfigError: The cell does not declare ``keeping`` or has no biases, or ``max_steps`` is
            below 2.

    References:
        Tallec & Ollivier, 2018, "Can recurrent neural networks warp time?", arXiv:1804.11188.
    """
    inner = cell.innermost
    if not isinstance(inner, GatedCell) or not inner.keeping or inner.bias_ih is None:
        raise ConfigError(
            f"chrono: {name_of(inner)} has no biased gates that keep a memory, expected "
            f"some.\n"
            "  A cell declares them in `keeping`, and needs bias=True. LayerNorm removes biases: "
            "apply chrono before it."
        )
    check_count("chrono", least=2, max_steps=max_steps)
    initializer = partial(_spread, max_steps=max_steps)
    initializer(inner)
    register_initializer(inner, initializer)
    return cell


@torch.no_grad()
def _spread(cell: GatedCell, max_steps: int) -> None:
    blocks = cell.split(cell.learned("bias_ih"))._asdict()
    times = torch.empty_like(blocks[cell.keeping[0].removeprefix("-")])
    times.uniform_(1, max_steps - 1).log_()
    for gate in cell.keeping:
        blocks[gate.removeprefix("-")].copy_(-times if gate.startswith("-") else times)


@torch.no_grad()
def _apply_rules(cell: Cell, rules: Mapping[str, Any]) -> None:
    for name, rule in rules.items():
        if name == "bias":
            other = {} if getattr(cell, "bias_hh", None) is None else {"bias_hh": "zeros"}
            _apply_rules(cell, {**other, **_of_biases(cell, rule)})
        else:
            _apply_rule(cell, name, rule)


def _of_biases(cell: Cell, rule: Any) -> dict[str, Any]:
    """A rule for the bias of each gate, by the parameters that hold them."""
    sides = {side: gates for side, gates in _gates(cell).items() if side != "hh"}
    if not isinstance(rule, Mapping):
        held = [name for side in sides if getattr(cell, name := f"bias_{side}", None) is not None]
        return dict.fromkeys(held or ["bias_ih"], rule)
    rules: dict[str, Any] = {}
    for gate, its in rule.items():
        side = next((side for side, gates in sides.items() if gate in gates), "ih")
        rules.setdefault(f"bias_{side}", {})[gate] = its
    return rules


def _gates(cell: Cell) -> dict[str, tuple[str, ...]]:
    """The gates whose rows a cell's weights and biases hold, by the end of their names."""
    if not isinstance(cell, GatedCell):
        return {}
    gates = {"ih": cell.inputs, "hh": cell.recurrent}
    if isinstance(cell, MatrixMemoryCell):
        gates |= {"qk": ("q", "k"), "heads": cell.head_gates}
    return gates


def _apply_rule(cell: Cell, name: str, rule: Any) -> None:
    """Fill one parameter: all of it, or the rows of the gates that a rule names."""
    parameter = _filled(cell, name)
    heads = len(parameter[0]) if parameter.shape != getattr(cell, name).shape else None
    blocks, what = _blocks(cell, name, parameter), f"{name} of {name_of(cell)}"
    rules = rule if isinstance(rule, Mapping) else dict.fromkeys(blocks, rule)
    for gate in rules:
        if gate not in blocks:
            raise ConfigError(
                f"initialize: {what} has no gate {gate!r}, expected one of {', '.join(blocks)}."
            )
    for gate, block in blocks.items():
        if gate in rules:
            where = f"{what}, gate {gate}" if rules is rule else what
            for part in block.split(heads or len(block)):  # a head's part is square
                _fill(where, part, rules[gate])


def _filled(cell: Cell, name: str) -> Tensor:
    """The tensor that a rule for a parameter fills; raise unless there is one."""
    parameter = getattr(cell, name, None)
    if not isinstance(parameter, Tensor):
        raise ConfigError(
            f"initialize: {name_of(cell)} has no parameter {name!r}, expected one of "
            f"{', '.join(cell.tensors())}."
        )
    if not can_be_set(cell, name):
        raise ConfigError(
            f"initialize: {name} of {name_of(cell)} is computed from other parameters, "
            f"expected one that is learned directly."
        )
    return cell.learned(name)


def _blocks(cell: Cell, name: str, parameter: Tensor) -> dict[str, Tensor]:
    """The rows of each gate by name; of a parameter without gates, all rows under its own name."""
    kind, _, side = name.partition("_")
    gates = _gates(cell).get(side) if kind in ("weight", "bias") else None
    if not gates:
        return {name: parameter}
    parts = parameter.chunk(len(gates))
    if side == "qk" and isinstance(cell, MatrixMemoryCell):  # several writes have keys of their own
        parts = parameter.tensor_split([cell.key_heads * cell.key_size])
    return dict(zip(gates, parts, strict=True))


def _fill(what: str, block: Tensor, rule: Any) -> None:
    if is_number(rule):
        block.fill_(rule)
        return
    if isinstance(rule, str) and rule not in RULES:
        raise ConfigError(
            f"initialize: {what} got the rule {rule!r}, expected a number or one of "
            f"{', '.join(RULES)}."
        )
    try:
        (RULES[rule] if isinstance(rule, str) else rule)(block)
    except ValueError as error:
        raise ConfigError(
            f"initialize: the rule {rule!r} does not fit {what}, shape {tuple(block.shape)}: "
            f"{error}."
        ) from error
