"""Cells whose equations are drawn at random, as python source that one can read, paste and run.

An equation is drawn from its end: a state after the step is made of some values, each of these of
others, and so on, down to the states before the step and the input. Each value is a line. All of it
can be traced, so that backends have no reason to refuse; only ``scan`` needs an equation that is
linear in the state.
"""

import random

OF_ONE = (
    "torch.tanh({a})",
    "torch.sigmoid({a})",
    "torch.relu({a})",
    "F.silu({a})",
    "F.gelu({a})",
    "F.softplus({a})",
    "F.hardtanh({a}, -0.5, 0.8)",
    "torch.sin({a})",
    "torch.exp(-{a}.abs())",
    "torch.log({a}.abs() + 0.3)",
    "torch.sqrt({a}.square() + 0.1)",
    "({a}.abs() + 0.2) ** 1.5",
    "{a}.clamp(min=-0.3)",
    "{a}.detach()",
    "self.rate * {a}",
    "1 - {a}",
)
"""Functions of each unit alone, of numbers that stay finite."""

OF_TWO = (
    "{a} + {b}",
    "{a} - {b}",
    "{a} * {b}",
    "{a} / ({b}.abs() + 0.6)",
    "torch.maximum({a}, {b})",
    "torch.minimum({a}, {b})",
    "torch.where({a} > 0, {b}, 0.5 * {a})",
    "torch.where(({a} > 0) & ~({b} > 0.2), {b}, {a})",
    "torch.lerp({a}, {b}, torch.sigmoid({a}))",
    "torch.atan2({a}, {b}.abs() + 0.3)",
    "{a} * ({b} > 0)",
)
"""Functions of two values of the same width."""

OF_ALL_UNITS = (
    "F.softmax({a}, -1)",
    "F.log_softmax({a}, -1)",
    "F.layer_norm({a}, ({a}.shape[1],))",
    "F.normalize({a}, dim=-1)",
    "{a} - {a}.mean(-1, keepdim=True)",
    "{a} * {a}.amax(-1, keepdim=True)",
    "{a} * {a}.sum(-1, keepdim=True).tanh()",
    "{a} / (1 + {a}.abs().sum(-1)[:, None])",
    "{a}.flip(-1)",
    "{a}.roll(1, -1)",
    "{a}[:, :1] * {a}",
    "torch.stack([{a}, {a}.tanh()], 1).amax(1)",
    "torch.cat([{a}, {a}.sin()], -1)[:, 1 : {a}.shape[1] + 1]",
)
"""Functions in which units see each other."""

OF_A_VECTOR = (
    "{a} * {p}",
    "{a} + {p}",
    "{a} / (1 + {p} ** 2)",
    "torch.sigmoid({p}) * {a}",
    "torch.maximum({a}, {p})",
    "torch.where({p} > 0, {a}, -{a})",
    "{a} * {p}.flip(0)",
    "{a} - {p}.mean()",
)
"""Functions of a value and of a parameter: one number a unit, or one for all."""

PRODUCTS = (
    ("F.linear({a}, {p})", lambda n, m: [(m, n)]),
    ("F.linear({a}, {p}, {q})", lambda n, m: [(m, n), (m,)]),
    ("F.linear({a}, {p} @ {q})", lambda n, m: [(m, 2), (2, n)]),
    ("F.linear({a}, {p}[1:])", lambda n, m: [(m + 1, n)]),
    ("F.linear({a}, {p})[:, 1:]", lambda n, m: [(m + 1, n)]),
    ("F.linear({a}, {p}).view(-1, 2, {m}).amax(1)", lambda n, m: [(2 * m, n)]),
    ("{a} @ {p}", lambda n, m: [(n, m)]),
    ("{a} @ ({p} - {p}.T)[:{n}, -{m}:]", lambda n, m: [(n + m, n + m)]),
    ("torch.tanh({a} @ {p}).chunk(2, -1)[1]", lambda n, m: [(n, 2 * m)]),
    ("(torch.cat([{a}, -{a}], -1) @ torch.block_diag(*{p}))[:, {m}:]", lambda n, m: [(2, n, m)]),
    ("torch.einsum('bi,kij->bkj', {a}, {p}).sum(1)", lambda n, m: [(2, n, m)]),
)
"""Products from n to m units, and the shapes of the parameters that they are by."""

AFTER = (
    "torch.tanh({v})",
    "torch.tanh({v}) + 0.1 * {s}",
    "{s} + torch.sigmoid({v}) * (torch.tanh({v}) - {s})",
    "torch.sigmoid({v}) * {s} + torch.cos({v})",
)
"""A state after the step: bounded, so that no sequence makes it overflow."""

LINEAR_AFTER = (
    "torch.sigmoid({v}) * {s} + {v}",
    "{s} - torch.sigmoid({v}) * ({s} - {v})",
)
"""The same where {v} is of the input alone."""

OPTIONS = (
    "cells.Zoneout({cell}, p=0.3)",
    "cells.InputDropout({cell}, p=0.3)",
    "cells.ClipState({cell}, limit=0.7)",
    "cells.LearnedState({cell})",
)
"""What may be around a cell that is not linear in its state."""

SOURCE = """\
import torch
import torch.nn.functional as F
from torch import nn

from seqnets import cells


class RandomCell(cells.Cell):
    states = {states}
    state_sizes = {sizes}

    def __init__(self):
        super().__init__()
        self.input_size, self.hidden_size, self.rate = {input_size}, {hidden_size}, 0.7
        {parameters}

    def project(self, x):
        return {projection}

    def step(self, wx, state):
        {lines}
        return {after},


cell = {cell}
"""


def source(seed, *, linear=False):
    """The source of a module with a class ``RandomCell``, and a ``cell``.

    Args:
        seed: The same seed draws the same equation.
        linear: Whether the equation is linear in its state.
    """
    return Equation(random.Random(seed), linear).source()


class Equation:
    """An equation, drawn line by line.

    Attributes:
        units: The width of each value that has a name.
        lines: The lines of the step, which name them.
        parameters: The shape of each parameter.
    """

    def __init__(self, chance, linear):
        self.chance, self.linear = chance, linear
        self.lines, self.parameters = [], {}
        self.input_size, self.hidden_size = chance.choice([1, 3, 4]), chance.choice([1, 2, 5, 17])
        self.sizes = [self.hidden_size, *chance.choices([self.hidden_size, 1, 3], k=2)]
        self.states = dict(zip("abc", self.sizes[: chance.choice([1, 1, 2, 3])], strict=False))
        gates = {f"x{gate}": self.hidden_size for gate in range(chance.choice([1, 2, 3]))}
        self.units = gates if linear else self.states | gates

        rows = self.hidden_size * len(gates)
        weight, bias = self.parameter(rows, self.input_size), self.parameter(rows)
        self.projection = f"F.linear(x, {weight}, {bias})"
        self.lines.append(f"{', '.join(self.states)}, = state")
        self.lines.append(f"{', '.join(gates)}, = wx.chunk({len(gates)}, -1)")
        depth = chance.choice([1, 2, 3])
        self.after = [self.state_after(name, depth) for name in self.states]

    def source(self):
        """The equation as a module."""
        cell = "RandomCell()"
        if not self.linear and self.chance.random() < 0.4:
            cell = self.chance.choice(OPTIONS).format(cell=cell)
        parameters = [
            f"self.{name} = nn.Parameter(torch.randn{shape} / {shape[-1]} ** 0.5)"
            for name, shape in self.parameters.items()
        ]
        between = "\n" + 8 * " "
        return SOURCE.format(
            states=tuple(self.states),
            sizes=tuple(self.states.values()),
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            parameters=between.join(parameters),
            projection=self.projection,
            lines=between.join(self.lines),
            after=", ".join(self.after),
            cell=cell,
        )

    def state_after(self, state, depth):
        """The expression of a state after the step."""
        units = self.states[state]
        v = self.value(units, depth)
        if self.linear:  # a scan reads states whole, not what is written in pieces
            v = self.line(self.product(v, units, units), units)
        if state == "a":  # the output, which depends on the input at least like this
            v = self.line(f"{v} + x0", self.hidden_size)
        return self.chance.choice(LINEAR_AFTER if self.linear else AFTER).format(s=state, v=v)

    def value(self, units, depth):
        """The name of a value: of one that is there already, or of a new line's.

        Args:
            units: How many it has.
            depth: How many lines there may be from an input or a state to it.
        """
        there = [name for name, width in self.units.items() if width == units]
        if there and (depth == 0 or self.chance.random() < 0.3):
            return self.chance.choice(there)
        draws = self.of_one, self.of_two, self.of_all_units, self.of_a_vector, self.of_pieces
        draw = self.of_a_product if depth == 0 else self.chance.choice([*draws, self.of_a_product])
        return self.line(draw(units, max(0, depth - 1)), units)

    def line(self, expression, units):
        """The name of a new line's value."""
        name = f"v{len(self.lines) - 1}"
        self.lines.append(f"{name} = {expression}")
        self.units[name] = units
        return name

    def of_one(self, units, depth):
        return self.chance.choice(OF_ONE).format(a=self.value(units, depth))

    def of_two(self, units, depth):
        a, b = self.value(units, depth), self.value(units, depth)
        return self.chance.choice(OF_TWO).format(a=a, b=b)

    def of_all_units(self, units, depth):
        return self.chance.choice(OF_ALL_UNITS).format(a=self.value(units, depth))

    def of_a_vector(self, units, depth):
        a, p = self.value(units, depth), self.parameter(self.chance.choice([units, 1]))
        return self.chance.choice(OF_A_VECTOR).format(a=a, p=p)

    def of_pieces(self, units, depth):
        """A part of a wider value, or two narrower ones side by side."""
        if units > 1 and self.chance.random() < 0.5:
            first = self.chance.randrange(1, units)
            return f"torch.cat([{self.value(first, depth)}, {self.value(units - first, depth)}], 1)"
        first = self.chance.randrange(3)
        whole = self.value(units + first + self.chance.randrange(2), depth)
        return f"{whole}[:, {first} : {first + units}]"

    def of_a_product(self, units, depth):
        width = self.chance.choice(self.sizes if depth else list(self.units.values()))
        return self.product(self.value(width, depth), width, units)

    def product(self, a, n, m):
        """A product of a, n units wide, that is m units wide."""
        template, shapes = self.chance.choice(PRODUCTS)
        by = dict(zip("pq", (self.parameter(*shape) for shape in shapes(n, m)), strict=False))
        return template.format(a=a, n=n, m=m, **by)

    def parameter(self, *shape):
        """How the step reads a new parameter."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = shape
        return f"self.{name}"
