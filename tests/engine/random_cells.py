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
    "{a}.clamp(-0.4, 0.6)",
    "F.elu({a})",
    "F.leaky_relu({a}, 0.2)",
    "F.mish({a})",
    "F.logsigmoid({a})",
    "F.softshrink({a}, 0.2)",
    "F.threshold({a}, 0.1, -0.2)",
    "torch.erf({a})",
    "torch.expm1(-{a}.abs())",
    "torch.log1p({a}.square())",
    "torch.rsqrt({a}.square() + 0.4)",
    "{a}.sign() * {a}.square()",
    "torch.nan_to_num({a})",
    "2 ** -{a}.abs()",
    "({a} > 0.1).to({a}.dtype) * {a}",
    "self.rate * {a}",
    "({a} if self.training else {a}.tanh())",
    "self.candidate({a})",
    "self.gate({a})",
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
    "torch.where(({a} > {b}) ^ ({b} > 0), {a}, {b})",
    "{a}.masked_fill({b} < -0.2, 0.3)",
    "torch.hypot({a}, {b} + 2)",
    "torch.logaddexp({a}, {b})",
    "torch.xlogy({a}, {b}.abs() + 0.2)",
    "torch.addcmul({a}, {a}, {b}, value=0.3)",
    "torch.addcdiv({a}, {a}, {b}.abs() + 1, value=0.3)",
    "torch.fmax({a}, {b})",
    "torch.clamp({a}, max={b})",
    "({a}.abs() + 0.3) ** {b}.clamp(-1, 1)",
    "put({a}, {b})",
    "torch.stack([{a}, {b}]).mean(0)",
    "{a} + {b} * self.training",
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
    "{a} - torch.logsumexp({a}, -1, keepdim=True)",
    "{a} / (1 + {a}.norm(dim=-1, keepdim=True))",
    "{a} * {a}.var(-1, keepdim=True, correction=0)",
    "{a}.cumsum(-1) / {a}.shape[1]",
    "{a} + {a}.gather(1, {a}.argmax(-1, keepdim=True))",
    "{a} * F.one_hot({a}.argmin(-1), {a}.shape[1])",
    "{a} + {a}.max(-1, keepdim=True)[0]",
    "{a} * ({a} >= {a}.topk(1)[0])",
    "F.pad({a}, (1, 1)).unfold(1, 2, 1).mean(-1)[:, 1:]",
    "torch.einsum('bi,bj->bij', {a}, {a}.tanh()).mean(1)",
    "({a}[:, :, None] * {a}[:, None]).amax(-1)",
    "torch.bmm({a}[:, None] * {a}[:, :, None], {a}[:, :, None])[..., 0].tanh()",
    "{a}[:, [*range(1, {a}.shape[1]), 0]]",
    "torch.repeat_interleave({a}, 2, -1)[:, 1::2]",
    "{a} * {a}.sum(-1, keepdim=True).gt(0.1)",
    "torch.where({a}[:, -1:] > 0, {a}, -{a})",
    "{a} @ torch.eye({a}.shape[1]).to({a}).roll(1, 0)",
    "{a} - {a}.detach().amin(-1, keepdim=True)",
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
    "torch.addcmul({a}, {p}, {a}.tanh())",
    "F.layer_norm({a}, {a}.shape[1:], {p}.expand({a}.shape[1]))",
    "F.prelu({a}, {p})",
    "{a} * F.softmax({p}, 0)",
    "torch.lerp({a}, {p}.tanh(), {a}.sigmoid())",
)
"""Functions of a value and of a parameter: one number a unit, or one for all."""

OF_A_BUFFER = (
    "torch.where(self.{b} > 0, {a}, 0.5 * {a})",
    "{a} * self.{b}",
    "{a} + 0.3 * self.{b}.to({a}.dtype)",
    "{a}.masked_fill(self.{b}.bool() & ({a} < -0.2), 0.2)",  # not all: norms of equals are noise
)
"""Functions of a value and of a buffer: one number a unit, or one for all."""

BUFFERS = (
    "torch.randn{shape}",
    "torch.rand{shape} < 0.5",
    "torch.randint(-1, 3, {shape})",
)
"""What is in a buffer: numbers, truths or integers."""

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
    ("torch.addmm({q}, {a}, {p})", lambda n, m: [(n, m), (m,)]),
    ("F.linear({a}, F.softplus({p}))", lambda n, m: [(m, n)]),
    ("F.linear({a}, {p}.tril())", lambda n, m: [(m, n)]),
    ("F.linear({a}, {p} * ({p} > 0), {q}.tanh())", lambda n, m: [(m, n), (m,)]),
    ("F.linear({a}, {p}.detach())", lambda n, m: [(m, n)]),
    ("F.linear(torch.cat([{a}, {a}.tanh()], -1), {p})", lambda n, m: [(m, 2 * n)]),
    ("F.linear({a}, {p}).view(-1, 3, {m}).softmax(1)[:, 0]", lambda n, m: [(3 * m, n)]),
    ("F.linear({a}, {p}).view(-1, {m}, 2).amin(-1)", lambda n, m: [(2 * m, n)]),
    ("F.linear({a}, {p}).unflatten(1, ({m}, 3)).sum(-1)", lambda n, m: [(3 * m, n)]),
    (
        "torch.bmm(F.linear({a}, {p}).view(-1, {m}, {n}), {a}[..., None])[..., 0]",
        lambda n, m: [(m * n, n)],
    ),
    (
        "torch.einsum('bhi,hio->bho', torch.stack([{a}, {a}.sin()], 1), {p}).flatten(1)[:, :{m}]",
        lambda n, m: [(2, n, m)],
    ),
    (
        "torch.bmm(torch.stack([{a}, -{a}]), {p}).amax(0)",
        lambda n, m: [(2, n, m)],
    ),
    ("F.conv1d({a}[:, None], {p}, padding=1).mean(-1)", lambda n, m: [(m, 1, 3)]),
    ("F.embedding({a}.argmax(-1), {p})", lambda n, m: [(n, m)]),
    ("F.bilinear({a}, {a}, {p})", lambda n, m: [(m, n, n)]),
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
    "cells.Mogrifier({cell}, rounds=2)",
    "cells.Zoneout({cell}, p=0.3)",
    "cells.InputDropout({cell}, p=0.3)",
    "cells.InputDropout({cell}, p=0.3, per_step=False)",
    "cells.ClipState({cell}, limit=0.7)",
    "cells.Dilated({cell}, 2)",
    "cells.LearnedState({cell})",
    "cells.AllStates({cell})",
)
"""What may be around a cell that is not linear in its state, in an order in which they combine."""

OF_GATES = (
    "cells.DeepTransition({cell})",
    "cells.weight_drop({cell}, p=0.3)",
    "cells.LayerNorm({cell})",
    OPTIONS[0],
    "cells.VariationalDropout({cell}, p=0.3)",
    "cells.Clockwork({cell}, (1, 2))",
    *OPTIONS[1:],
)
"""The same around a gated cell."""

IMPORTS = """\
import torch
import torch.nn.functional as F
from torch import nn

from seqnets import cells


def put(a, b):
    c = a.clone()
    c[:, :1] = b[:, :1]
    c[c > 1] = 0.5
    return c


"""

PLAIN = """\
class RandomCell(cells.Cell):
    states = {states}
    state_sizes = {sizes}

    def __init__(self):
        super().__init__()
        self.input_size, self.hidden_size, self.rate = {input_size}, {hidden_size}, 0.7
        {tensors}

    def project(self, x):
        return {projection}

    def step(self, wx, state):
        {lines}
        return {after},


cell = {cell}
"""

GATED = """\
class RandomCell(cells.GatedCell):
    states = {states}
    state_sizes = {sizes}
    gates = {gates}

    def __init__(self):
        super().__init__({input_size}, {hidden_size})
        self.rate = 0.7
        {tensors}

    def update(self, wx, uh, state):
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
        buffers: The expression of each buffer.
    """

    def __init__(self, chance, linear):
        self.chance, self.linear = chance, linear
        self.gated = not linear and chance.random() < 0.3
        self.lines, self.parameters, self.buffers = [], {}, {}
        self.input_size, self.hidden_size = chance.choice([1, 3, 4]), chance.choice([1, 2, 5, 17])
        self.sizes = [self.hidden_size, *chance.choices([self.hidden_size, 1, 3], k=2)]
        self.states = dict(zip("abc", self.sizes[: chance.choice([1, 1, 2, 3])], strict=False))
        count = chance.choice([1, 2, 3])
        inputs, recurrent = ([f"{what}{gate}" for gate in range(count)] for what in "xu")
        self.lines.append(f"{', '.join(self.states)}, = state")
        if self.gated:
            self.lines.append(f"{', '.join(inputs)}, = wx")
            self.lines.append(f"{', '.join(recurrent)}, = uh")
        else:
            weight = self.parameter(self.hidden_size * count, self.input_size)
            bias = self.parameter(self.hidden_size * count)
            self.projection = f"F.linear(x, {weight}, {bias})"
            self.lines.append(f"{', '.join(inputs)}, = wx.chunk({count}, -1)")
        gates = dict.fromkeys(inputs + recurrent * self.gated, self.hidden_size)
        self.units = gates if linear else self.states | gates
        depth = chance.choice([1, 2, 3])
        self.after = [self.state_after(name, depth) for name in self.states]

    def source(self):
        """The equation as a module."""
        cell = "RandomCell()"
        if not self.linear and self.chance.random() < 0.5:
            options = OF_GATES if self.gated else OPTIONS
            for place in sorted(self.chance.sample(range(len(options)), k=2)):
                cell = options[place].format(cell=cell)
        tensors = [
            f"self.{name} = nn.Parameter(torch.randn{shape} / {shape[-1]} ** 0.5)"
            for name, shape in self.parameters.items()
        ]
        tensors += [f'self.register_buffer("{name}", {b})' for name, b in self.buffers.items()]
        between = "\n" + 8 * " "
        return IMPORTS + (GATED if self.gated else PLAIN).format(
            states=tuple(self.states),
            sizes=tuple(self.states.values()),
            gates=tuple(f"g{name[1:]}" for name in self.units if name[0] == "u"),
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            tensors=between.join(tensors),
            projection="" if self.gated else self.projection,
            lines=between.join(self.lines),
            after=", ".join(self.after),
            cell=cell,
        )

    def state_after(self, state, depth):
        """The expression of a state after the step."""
        units = self.states[state]
        v = self.value(units, depth)
        if self.linear:  # a scan reads states whole, not what is written in pieces
            v = self.line(f"F.linear({v}, {self.parameter(units, units)})", units)
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
        others = self.of_a_buffer, self.of_a_product
        draw = self.of_a_product if depth == 0 else self.chance.choice([*draws, *others])
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

    def of_a_buffer(self, units, depth):
        a, b = self.value(units, depth), f"b{len(self.buffers)}"
        shape = (self.chance.choice([units, 1]),)
        self.buffers[b] = self.chance.choice(BUFFERS).format(shape=shape)
        return self.chance.choice(OF_A_BUFFER).format(a=a, b=b)

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
