"""What steps make of their parameters alone, and of units by their places."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from seqnets import Recurrent, explain, unroll
from seqnets.cells import RNNCell
from seqnets.engine import fused, plans
from seqnets.engine.plans import plan_of
from seqnets.engine.preparation import Preparation
from seqnets.engine.serialised import step_to_text
from tests.engine.user_cells import BareCell, HeadsCell, OrderedCell, PreparedCell

B, T, I, H = 3, 6, 4, 8


class MadeCell(BareCell):
    """A recurrent product by whatever a function makes of the cell's parameters."""

    made = None

    def make(self, I, H):
        self.w, self.u, self.v = self.weight(H, I), self.weight(H, H), self.weight(H)
        self.few, self.heads = self.weight(2, 2), self.weight(2, H // 2, H // 2)
        self.register_buffer("mask", torch.rand(H, H) < 0.5)
        self.register_buffer("places", torch.randperm(H))

    def step(self, x, state):
        return (torch.tanh(F.linear(x, self.w) + self.made(state[0])),)


def made_by(function):
    return type("Made", (MadeCell,), {"made": function})


def rotation(m):
    turning = m - m.T
    eye = torch.eye(len(m), dtype=m.dtype, device=m.device)
    return torch.linalg.solve(eye + turning, eye - turning)


def circulant(v):
    places = torch.arange(len(v), device=v.device)
    return v[(places[:, None] - places) % len(v)]


def without_diagonal(self):
    u = self.u.clone()
    before = 2 * u
    u.fill_diagonal_(0)
    return u + before / H


def put_together(self):
    u = torch.zeros_like(self.u)
    u[:2, :2], u[2:, 2:] = self.u[:2, :2], 2 * self.u[2:, 2:]
    u[0], u[:, 1] = self.v, 0.3
    u[u > 1] = 1
    return u


MATRICES = {
    "masked": lambda c: c.u * c.mask,
    "masked by a choice": lambda c: torch.where(c.mask, c.u, 0.0),
    "scaled": lambda c: 0.5 * c.u,
    "antisymmetric": lambda c: c.u - c.u.T,
    "upper": lambda c: c.u.triu(),
    "without a diagonal": lambda c: c.u - torch.diag(torch.diag(c.u)),
    "positive": lambda c: F.softplus(c.u) / H,
    "rows of length one": lambda c: c.u / c.u.norm(dim=1, keepdim=True),
    "a softmax": lambda c: c.u.softmax(-1),
    "of two factors": lambda c: c.u[:, :2] @ c.u[:2],
    "of rank one": lambda c: torch.outer(c.v, c.u[0]),
    "two vectors, each as a dimension": lambda c: c.v[:, None] * c.u[0],
    "vectors as rows": lambda c: torch.stack([c.v] * H),
    "blocks": lambda c: torch.block_diag(*c.heads),
    "matrices beside each other": lambda c: torch.cat([torch.cat([*c.heads], 1)] * 2),
    "a Kronecker product": lambda c: torch.kron(c.few, c.heads[0]),
    "circulant": lambda c: circulant(c.v),
    "with rows in other places": lambda c: c.u[c.places],
    "a rotation": lambda c: rotation(c.u),
    "an inverse": lambda c: torch.linalg.inv(c.u) / 50,
    "an exponential": lambda c: torch.matrix_exp(c.u - c.u.T),
    "without a diagonal, in place": without_diagonal,
    "put together in place": put_together,
    "sums with a factor": lambda c: torch.outer(torch.sub(c.v, c.v.sin(), alpha=2), c.v),
    "whole quotients": lambda c: torch.outer(torch.div(c.v, 0.3, rounding_mode="floor"), c.v),
    "signs, with a gradient as if they were none": lambda c: c.u + (c.u.sign() - c.u).detach() / H,
}


def gradients(cell, backend, **options):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, T, I, generator=generator, dtype=cell._like.dtype, requires_grad=True)
    y, _ = unroll(cell, x, backend=backend, **options)
    inputs = [x, *(p for p in cell.parameters() if p.requires_grad)]
    found = torch.autograd.grad(y.sin().sum(), inputs, allow_unused=True)
    return [
        y,
        *(torch.zeros_like(p) if g is None else g for p, g in zip(inputs, found, strict=True)),
    ]


@pytest.mark.parametrize("kind", MATRICES)
def test_a_matrix_made_of_parameters_is_as_good_as_one(kind):
    make = MATRICES[kind]
    cell = made_by(lambda self, h: F.linear(h, make(self)))(I, H).double()

    step = plan_of(cell).program.step

    assert [p.weight.rows for p in step.products] == [H]
    assert "u" not in step.parameters
    for options in ({}, {"memory": "lean"}, {"reverse": True}):
        expected = gradients(cell, "reference", **options)
        torch.testing.assert_close(gradients(cell, "eager", **options), expected)


NUMBERS = {
    "shares of a mixture": lambda c, h: (h * c.few.flatten().softmax(0)[0]).sin(),
    "a sum of a vector": lambda c, h: h * c.v / c.v.abs().sum(),
    "a reflection": lambda c, h: h - 2 * c.v * (h @ c.v)[:, None] / (c.v @ c.v),
    "zeros like a parameter": lambda c, h: (
        h
        + c.u.new_zeros(len(h), 1)
        + c.u.new_ones(H)
        + (c.v * c.v).expand(len(h), -1).split(H, -1)[0]
    ),
    "numbers at places": lambda c, h: h * c.v[c.places],
    "every other number": lambda c, h: h * c.v[::2].repeat(2),
    "a whole number's half": lambda c, h: h * (c.places // 2),
    "a column of a matrix": lambda c, h: h * c.u[:, 0] + torch.where(c.mask[:, 1], h, c.u.T[0, 2]),
    "numbers put together": lambda c, h: h * torch.stack([c.few[0, 0], c.few.sum()] * (H // 2)),
    "a vector times a matrix": lambda c, h: h + c.v @ c.u + F.linear(c.v.sin(), c.u.tanh()),
    "a product of numbers in another shape": lambda c, h: h * (2 * c.v).unsqueeze_(0),
    "a list in the step": lambda c, h: h * torch.tensor([0.5, 2.0] * 4, dtype=h.dtype),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_made_of_parameters_are_as_good_as_one_a_unit(kind):
    cell = made_by(NUMBERS[kind])(I, H).double()

    torch.testing.assert_close(gradients(cell, "eager"), gradients(cell, "reference"))


MOVES = {
    "sums so far": lambda c, h: h.cumsum(-1),
    "turned round": lambda c, h: h.flip(1),
    "the next unit": lambda c, h: h.roll(1, -1),
    "every other": lambda c, h: torch.cat([h[:, ::2], h[:, 1::2]], -1),
    "at places": lambda c, h: h[:, c.places] + h.index_select(1, c.places).sin(),
    "heads for units": lambda c, h: h.view(-1, 2, H // 2).transpose(1, 2).reshape(h.shape),
    "one unit for all": lambda c, h: h * h[:, :1],
    "halves": lambda c, h: torch.cat([h[:, : H // 2] * h[:, H // 2 :], h[:, : H // 2]], -1),
    "a product of some units": lambda c, h: h[:, : H // 2] @ c.u[: H // 2],
    "at places that a list says": lambda c, h: h[:, [1, 0, 2, 3, 7, 6, 5, 4]],
    "gathered": lambda c, h: h.gather(1, c.places.expand(len(h), -1)),
    "the unit before, or none": lambda c, h: F.pad(h, (1, 0))[:, :-1],
    "windows": lambda c, h: h.unfold(1, 2, 2).sum(-1).repeat(1, 2),
    "whether others are true": lambda c, h: h * torch.cat([h > 0, h < 0.1], -1).flip(-1)[:, :H],
    "what is true beside numbers": lambda c, h: (
        torch.cat([h > 0, h], -1) @ torch.cat([c.u, c.v * c.u])
    ),
    "a convolution of units": lambda c, h: F.conv1d(h[:, None], c.v[None, None, :3], c.v[:1], 1, 1)[
        :, 0
    ],
    "a convolution of channels": lambda c, h: (
        F.conv1d(h.view(-1, H // 2, 2), c.heads.transpose(0, 2)).sum(-1).repeat(1, 2)
    ),
    "around a circle": lambda c, h: F.conv1d(
        F.pad(h[:, None], (1, 1), mode="circular"), c.v[None, None, :3]
    )[:, 0],
    "a bilinear form": lambda c, h: (
        h * F.bilinear(h[:, : H // 2], h[:, H // 2 :].sin(), c.heads[:1])
    ),
    "the line of a matrix": lambda c, h: (
        h + F.embedding(h.argmax(-1), c.u) + c.v[h.argmax(-1)][:, None]
    ),
    "pairs that turn": lambda c, h: torch.stack([-h[:, 1::2], h[:, ::2]], -1).flatten(1) * c.v,
}


@pytest.mark.parametrize("kind", MOVES)
def test_units_in_other_places_are_a_product_by_ones_and_zeros(kind):
    cell = made_by(MOVES[kind])(I, H).double()

    torch.testing.assert_close(gradients(cell, "eager"), gradients(cell, "reference"))


class SummedCell(BareCell):
    """A product by a matrix that is made of parameters and of ones, which are in their dtype."""

    def make(self, input_size, hidden_size):
        self.u = self.weight(2, hidden_size, hidden_size)

    def step(self, x, state):
        (h,) = state
        return (torch.tanh(x[:, :1] + torch.einsum("bi,kij->bkj", h, self.u).sum(1)),)


def test_matrices_made_of_parameters_may_be_half_precise():
    plan = plan_of(SummedCell(I, H).bfloat16())

    assert plan.preparation.made


@pytest.mark.parametrize("cell_cls", [PreparedCell, HeadsCell, OrderedCell])
def test_the_compiler_sees_what_is_made_of_parameters(cell_cls):
    cell = cell_cls(I, H)
    x = torch.randn(B, T, I)

    layer = torch.compile(Recurrent(cell), backend="aot_eager", fullgraph=True)

    inputs = list(cell.parameters())
    for _ in range(2):
        y = layer(x)[0]
        expected = unroll(cell, x, backend="reference")[0]
        torch.testing.assert_close(y, expected)
        found = [torch.autograd.grad(each.square().sum(), inputs) for each in (y, expected)]
        torch.testing.assert_close(*found)
        with torch.no_grad():
            inputs[0].mul_(0.5)


class ChoosingCell(RNNCell):
    """The largest unit, of those before the step and a parameter, is set to 1."""

    def add_parameters(self, parameter):
        self.shift = parameter(self.hidden_size)

    def update(self, wx, uh, state):
        largest = F.one_hot((state[0] + self.shift).argmax(-1), self.hidden_size)
        return (torch.where(largest > 0, 1.0, torch.tanh(wx.h + uh.h)),)


def test_a_parameter_that_only_an_index_depends_on_may_be_in_a_compiled_layer(request):
    request.addfinalizer(torch._dynamo.reset)
    layer = Recurrent(ChoosingCell(I, H))

    y, _ = torch.compile(layer, backend="aot_eager", fullgraph=True)(torch.randn(B, T, I))
    y.sum().backward()

    gradient = layer.cell.shift.grad
    assert gradient is None or not gradient.any()  # torch 2.11 leaves it out


@pytest.mark.parametrize("cell_cls", [PreparedCell, HeadsCell, OrderedCell])
def test_an_exported_model_brings_it_along(cell_cls):
    layer, x = Recurrent(cell_cls(I, H)).eval(), torch.randn(B, T, I)

    exported = torch.export.export(layer, (x,)).module()

    torch.testing.assert_close(exported(x), layer(x))


def test_an_exported_model_derives_twice_by_a_parameter_and_what_is_made_of_it():
    class Twice(MadeCell):
        def project(self, x):
            return F.linear(x, self.w)

        def step(self, x, state):
            return (torch.tanh(x + state[0] @ (self.u - self.u.T) + state[0] @ self.u),)

    cell, x = Twice(I, H).double(), torch.randn(B, T, I, dtype=torch.float64)
    layer = Recurrent(cell)
    found = []

    exported = torch.export.export(layer, (x,)).module()
    for model in (exported, layer):
        given = [model.get_parameter("cell.u"), model.get_parameter("cell.w")]
        once = torch.autograd.grad(model(x)[0].sin().sum(), given, create_graph=True)
        twice = torch.autograd.grad(sum(grad.square().sum() for grad in once), given)
        found.append([*once, *twice])

    torch.testing.assert_close(*found)


@pytest.mark.parametrize("cell_cls", [PreparedCell, HeadsCell, OrderedCell])
def test_second_derivatives_are_those_of_the_plain_loop(cell_cls):
    cell = cell_cls(I, H).double()
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    found = []

    for backend in ("eager", "reference"):
        y, _ = unroll(cell, x, backend=backend)
        (grad,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), list(cell.parameters())))

    torch.testing.assert_close(found[0], found[1])


def test_what_is_made_of_parameters_is_made_of_those_of_now():
    cell, x = PreparedCell(I, H), torch.randn(B, T, I)
    before, _ = unroll(cell, x)

    with torch.no_grad():
        cell.mask.logical_not_()
    other = copy.deepcopy(cell)
    with torch.no_grad():
        cell.up.add_(1)

    for changed in (other, cell):
        y, _ = unroll(changed, x)
        assert not torch.allclose(y, before)
        torch.testing.assert_close(y, unroll(changed, x, backend="reference")[0])


def test_what_depends_on_nothing_is_made_once_and_can_be_trained_with():
    cell, x = HeadsCell(I, H), torch.randn(B, T, I)
    with torch.inference_mode():
        y, _ = unroll(cell, x, backend="eager")
    tensors = cell.tensors()
    preparation = plan_of(cell).preparation

    first, again = preparation.of(tensors), preparation.of(tensors)

    same = {name for name in first if first[name] is again[name]} - {*tensors}
    assert len(same) == 1  # the identity, which puts heads together
    torch.testing.assert_close(gradients(cell, "eager"), gradients(cell, "reference"))
    torch.testing.assert_close(y, unroll(cell, x, backend="reference")[0])


def test_what_depends_on_nothing_is_there_for_every_stream_of_a_gpu(monkeypatch):
    preparation, gpu, waits = Preparation(), torch.device("cuda", 0), []
    stream = SimpleNamespace(synchronize=lambda: waits.append(gpu))
    monkeypatch.setattr(torch.cuda, "current_stream", {gpu: stream}.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)

    for _ in range(2):
        preparation._constants_on(gpu)

    assert waits == [gpu]


def test_it_is_made_where_the_parameters_are():
    cell = PreparedCell(I, H)
    preparation = plan_of(cell).preparation

    found = preparation.of({name: tensor.to("meta") for name, tensor in cell.tensors().items()})

    assert {tensor.device.type for tensor in found.values()} == {"meta"}


def test_no_gradient_is_computed_that_nobody_asks_for(monkeypatch):
    cell = OrderedCell(I, H)
    asked = []

    def parameter_gradients(program, *given):
        made = before(program, *given)
        asked.append([p.weight.name for p in program.step.products if p.weight.name in made])
        return made

    before = fused.parameter_gradients
    monkeypatch.setattr(fused, "parameter_gradients", parameter_gradients)

    gradients(cell, "eager")
    cell.u.requires_grad_(False)
    gradients(cell, "eager")

    assert asked == [["u"], []]


def heads(h):
    return h.view(-1, 2, H // 2)


def attended(c, h):
    """The cell's rows, as often as a head finds them like the state."""
    shares = torch.softmax(heads(h) @ c.heads.transpose(1, 2)[0], -1)
    return (shares @ c.heads[1]).flatten(1)


DIMENSIONS = {
    "a matrix a head": lambda c, h: (heads(h)[:, :, None] @ c.heads).flatten(1),
    "by einsum": lambda c, h: torch.einsum("bhi,hij->bhj", heads(h), c.heads).flatten(1),
    "by bmm": lambda c, h: torch.bmm(heads(h).transpose(0, 1), c.heads).transpose(0, 1).flatten(1),
    "a number a head": lambda c, h: (heads(h) * heads(h).mean(-1, True)).flatten(1),
    "a vector for all heads": lambda c, h: (heads(h) * heads(h)[:, :1] + c.v[: H // 2]).flatten(1),
    "a matrix, unit by unit": lambda c, h: (heads(h) * c.u[:2, : H // 2]).flatten(1),
    "the matrix first": lambda c, h: (c.u @ h.unsqueeze(-1)).squeeze(-1),
    "a layer over heads": lambda c, h: F.linear(heads(h), c.heads[0], c.v[: H // 2]).flatten(1),
    "attention to parameters": attended,
    "an outer product": lambda c, h: torch.einsum("bi,bj,j->bi", h, h, c.v),
    "a product of rows' own matrices": lambda c, h: (
        (heads(h).transpose(1, 2) @ heads(h)) @ heads(h).transpose(1, 2)
    ).flatten(1),
    "each unit several times": lambda c, h: h[:, : H // 2].repeat(1, 2) + h[:, :1].expand_as(h),
    "sums of groups": lambda c, h: h[:, :2] @ c.u[:2] + heads(h).sum((1, 2))[:, None],
    "powers": lambda c, h: h**4 + h.abs() ** 2.5 + h.sigmoid() ** c.v,
    "a matrix of one column for each head": lambda c, h: (
        (h.view(-1, H, 1) * c.u[:, :1]).flatten(1)
        + torch.einsum("bhi,hij->bhj", h[:, :1, None], c.v[:1, None, None]).flatten(1)
    ),
    "how many are true": lambda c, h: h * (heads(h) > 0).sum(1).repeat(1, 2),
    "a layer norm of each head": lambda c, h: F.layer_norm(heads(h), (H // 2,)).flatten(1),
    "a logarithm of sums": lambda c, h: torch.logaddexp(h, h @ c.u) + h.cosh() - h.sinh(),
    "whole numbers": lambda c, h: (4 * h).round() + (h.round() + 0.5).round() + (5 * h).trunc() + h,
    "norms": lambda c, h: (
        h
        / (1 + h.norm(1, -1, True) + h.norm(3, -1, True) + h.norm(float("inf"), -1, True))
        * (1 + h.norm(0.5, -1, True)).log()
    ),
    "a constant on the left": lambda c, h: (
        torch.max(torch.zeros_like(h), h) * (torch.zeros_like(h) < h @ c.u)
    ),
}


STOPPED = {
    "a threshold": lambda c, h: (h > 0.1).to(h.dtype) + (h - h.detach()) / (1 + h.detach().abs()),
    "rounding": lambda c, h: h + (torch.floor(8 * h) / 8 - h).detach(),
    "a memory": lambda c, h: h.detach() @ c.u,
    "a norm": lambda c, h: h / (1 + h.detach().square().sum(-1, keepdim=True)),
}


@pytest.mark.parametrize("kind", STOPPED)
def test_a_gradient_ends_where_it_is_detached(kind):
    cell = made_by(STOPPED[kind])(I, H).double()

    torch.testing.assert_close(gradients(cell, "eager"), gradients(cell, "reference"))


@pytest.mark.parametrize("kind", DIMENSIONS)
def test_a_step_may_think_in_more_dimensions_than_a_row_has(kind):
    cell = made_by(DIMENSIONS[kind])(I, H).double()

    torch.testing.assert_close(gradients(cell, "eager"), gradients(cell, "reference"))


PAIRS = {
    "a softmax of two": lambda c, h: torch.stack([h, h @ c.u], -1).softmax(-1)[..., 1],
    "each pair's softmax": lambda c, h: h.view(len(h), -1, 2).softmax(-1).flatten(1),
    "the larger of two": lambda c, h: h.view(len(h), -1, 2).amax(-1).repeat(1, 2),
    "each of two": lambda c, h: torch.cat(h.view(len(h), -1, 2).unbind(-1), -1),
    "the first of two": lambda c, h: h.view(len(h), -1, 2)[..., 0].repeat(1, 2),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_units_that_lie_in_many_pieces_are_put_together_by_a_product(kind):
    cell = made_by(PAIRS[kind])(I, 40).double()

    step = plan_of(cell).step

    assert len(step.products) + len(step.reductions) < 12
    torch.testing.assert_close(gradients(cell, "eager"), gradients(cell, "reference"))


@pytest.mark.parametrize("size", [100, 101])
def test_sizes_that_a_step_makes_are_not_taken_for_rows(size):
    cell = made_by(lambda c, h: h @ F.pad(c.u, (1, 0))[:, :-1])(I, size)

    assert plan_of(cell).preparation.made


def test_a_power_of_what_is_below_zero_is_one_where_the_exponent_is_whole():
    class Powers(MadeCell):
        def make(self, I, H):
            super().make(I, H)
            self.whole = torch.nn.Parameter(torch.arange(-3.0, H - 3), requires_grad=False)

        def made(self, h):
            return (h.sin() - 0.1) ** self.whole + 0.1 * h**17

    cell = Powers(I, H).double()

    torch.testing.assert_close(gradients(cell, "eager"), gradients(cell, "reference"))


def test_a_state_without_units_is_said_to_be_none():
    class Empty(MadeCell):
        states = ("h", "n")
        state_sizes = (H, 0)

        def step(self, x, state):
            return torch.tanh(F.linear(x, self.w) + state[0]), state[1]

    cell, x = Empty(I, H), torch.randn(B, T, I)

    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])


def test_a_state_may_be_put_together_of_parts():
    class Parted(MadeCell):
        def step(self, x, state):
            (h,) = state
            first = torch.tanh(F.linear(x, self.w[: H // 2]) + h @ self.u[:, : H // 2])
            return (torch.cat([first, 0.5 * h[:, H // 2 :] + first], -1),)

    cell = Parted(I, H).double()

    torch.testing.assert_close(gradients(cell, "eager"), gradients(cell, "reference"))


def seen_by_another_name(self, h):
    u = self.u.clone()
    rows = u[1:]
    u[0] = 0
    return F.linear(h[:, 1:], rows.T)


REFUSED = {
    "random numbers": (lambda c, h: h @ F.dropout(c.u), "random numbers"),
    "as many as are true": (lambda c, h: h * c.v[c.mask[0]].sum(), "aten.index"),
    "a number read": (lambda c, h: h * c.v.sum().item(), "aten._local_scalar_dense"),
    "a matrix changed in place": (seen_by_another_name, "in place under another name"),
    "units that are true": (lambda c, h: h[:, c.mask[0]].sum(-1, True), "as many as are true"),
    "none of the units": (lambda c, h: h + h[:, :1, None][:, 1:].sum(1), "a part of no units"),
    "a product of none": (lambda c, h: (h @ c.u[:, :0]) @ c.u[:0], "a part of no units"),
    "rows of another order": (lambda c, h: h.flip(0), "flip"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_made_before_the_loop_is_named(kind):
    function, reason = REFUSED[kind]
    cell = made_by(function)(I, H)

    told = explain(cell, torch.randn(B, T, I))

    assert told.chosen == "reference"
    assert reason in told.refusals["c"]


class StagesCell(BareCell):
    """A number that stages of several widths read."""

    def make(self, I, H):
        self.w, self.down, self.up = self.weight(H, I), self.weight(3, H), self.weight(H, 3)
        self.rate = torch.nn.Parameter(torch.tensor(0.7))

    def step(self, x, state):
        few = torch.tanh(F.linear(state[0], self.down) * self.rate)
        many = torch.tanh(F.linear(few, self.up) * self.rate)
        few = torch.tanh(F.linear(many, self.down) * self.rate)
        return (torch.tanh(F.linear(x, self.w) + F.linear(few, self.up)),)


def test_the_gradient_of_a_number_is_summed_in_each_width_that_reads_it():
    cell = StagesCell(I, H).double()

    assert [width for _, width in plan_of(cell).program.units] == [3, H]
    torch.testing.assert_close(gradients(cell, "c"), gradients(cell, "reference"))


def test_a_step_that_was_written_down_is_read_where_it_was_never_traced(monkeypatch):
    cell = made_by(NUMBERS["a reflection"])(I, H)
    text = step_to_text(plan_of(cell).step)
    monkeypatch.setattr(plans, "_programs", {})

    assert plans.program_from_text(text).step.state_sizes == (H,)


def test_a_step_that_multiplies_its_input_is_exported_before_it_ever_ran():
    cell = made_by(lambda c, h: h @ (c.u - c.u.T) + h * c.v.sin())(5, 6)
    layer, x = Recurrent(cell).eval(), torch.randn(B, T, 5)

    exported = torch.export.export(layer, (x,)).module()

    torch.testing.assert_close(exported(x), layer(x))
