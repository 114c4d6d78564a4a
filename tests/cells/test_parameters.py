import copy
import inspect
import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal, weight_norm

from seqnets.cells import (
    Cell,
    Clockwork,
    CoupledLSTMCell,
    DeepTransition,
    GatedCell,
    GRUCell,
    IRNNCell,
    JANETCell,
    LRUCell,
    LSTMCell,
    LTCCell,
    MemoryCell,
    PhasedLSTMCell,
    RecurrentHighwayCell,
    RGLRUCell,
    RNNCell,
    SpikingCell,
    SRUCell,
    initialize,
)
from seqnets.engine import unroll
from seqnets.errors import ConfigError, DeviceError, DtypeError, ShapeError
from seqnets.layers import Bidirectional, DeepRNN, Recurrent
from seqnets.testing import check_layer
from tests.slow import mostly_slow

from .final import FINAL_CELLS, GENERIC, ONE_OF_EACH_KIND, sized, width

FORGETFUL = [cell for cell in FINAL_CELLS if hasattr(sized(cell, 3, 4), "forget_bias")]


def forget_bias(cell):
    bias = cell.split(cell.bias_ih)
    return -bias.i if isinstance(cell, CoupledLSTMCell) else bias.f


@pytest.mark.parametrize("declared", ["gates", "states", "per_unit", "recurrent", "keeping"])
def test_a_string_is_not_a_tuple_of_names(declared):
    with pytest.raises(ConfigError, match=rf"{declared} is 'gate'[\s\S]*\('gate',\)"):
        type("ForgetfulCell", (GatedCell,), {declared: ("gate")})


def test_a_cell_has_to_declare_its_gates():
    class GatelessCell(GatedCell):
        def update(self, wx, uh, state):
            return state

    with pytest.raises(ConfigError, match="GatelessCell: declares no gates"):
        GatelessCell(3, 4)


@pytest.mark.parametrize(
    ("multiplied", "said"),
    [(("f", "n"), "'g' is not a gate here, expected one of f, n"), ((), "none")],
)
def test_a_gate_that_is_not_there_is_answered_by_those_that_are(multiplied, said):
    class LackingCell(GatedCell):
        gates = ("f", "n", "g")
        recurrent = multiplied

        def update(self, wx, uh, state):
            return (torch.tanh(wx.f + uh.g),)

    with pytest.raises(AttributeError, match=f"Gates: .*{said}"):
        unroll(LackingCell(3, 4), torch.zeros(2, 5, 3))


@pytest.mark.parametrize("gates", [("q",), ("z", "r"), ("r", "q")])
def test_a_product_of_gates_that_are_not_there_in_this_order_is_refused(gates):
    with pytest.raises(ConfigError, match=r"recur got gates .*, expected adjacent ones of \('r'"):
        GRUCell(3, 4).recur(torch.zeros(1, 4), *gates)


def test_what_spiking_cells_share_is_no_cell():
    with pytest.raises(ConfigError, match="SpikingCell: declares no gates"):
        SpikingCell(3, 4)


def test_a_cell_whose_base_was_not_built_is_told_to_build_it():
    class HastyCell(GatedCell):
        gates = ("f",)

        def __init__(self, input_size, hidden_size):
            self.input_size, self.hidden_size = input_size, hidden_size

    with pytest.raises(ConfigError, match=r"HastyCell: .*\n.*super\(\).__init__\(input_size"):
        HastyCell(3, 4)


def test_a_plain_cell_without_sizes_is_told_to_set_them():
    class SizelessCell(Cell):
        def project(self, x):
            return x

        def step(self, wx, state):
            return state

    with pytest.raises(ConfigError, match=r"SizelessCell: has no input_size[\s\S]*self.input_size"):
        SizelessCell()


def test_a_class_that_replaces_forward_is_refused_since_no_layer_calls_it():
    with pytest.raises(ConfigError, match="HalvedCell: defines forward, expected its equation in"):
        type("HalvedCell", (LSTMCell,), {"forward": lambda self, x, state=None: x})


GIVEN = {
    "a tensor": (lambda n: n, r"returns Tensor, expected a tuple of 1: \(h,\)"),
    "a list": (lambda n: [n], "returns list, expected a tuple"),
    "nothing": (lambda n: None, "returns NoneType, expected a tuple"),
    "two parts": (lambda n: (n, n), "returns a tuple of 2, expected a tuple of 1"),
    "a number": (lambda n: (0.0,), "returns float for state 'h', expected a tensor"),
    "half the units": (lambda n: (n[:, :2],), r"with shape \(2, 2\), expected \(B, H\) = \(2, 4\)"),
    "one row": (lambda n: (n.mean(0),), r"with shape \(4,\), expected \(B, H\) = \(2, 4\)"),
}


@pytest.mark.parametrize("case", GIVEN)
def test_a_step_that_does_not_return_the_state_raises_an_error(case):
    give, said = GIVEN[case]

    class CarelessCell(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return give(torch.tanh(wx.n + uh.n))

    with pytest.raises((ShapeError, DtypeError), match=f"CarelessCell: its step.*{said}"):
        CarelessCell(3, 4)(torch.randn(2, 3))


@pytest.mark.parametrize("cell_cls", FORGETFUL)
def test_forget_bias_starts_at_one_in_every_layer_and_direction(cell_cls):
    net = DeepRNN(cell_cls, 3, 4, num_layers=3, bidirectional=True)
    cells = [module for module in net.modules() if isinstance(module, cell_cls)]

    assert len(cells) == 6
    assert all(torch.equal(forget_bias(cell), torch.ones(4)) for cell in cells)


@pytest.mark.parametrize("cell_cls", FORGETFUL)
def test_bidirectional_draws_its_second_cell_with_the_forget_bias_of_the_first(cell_cls):
    layer = Bidirectional(cell_cls(3, 4, forget_bias=2.5))

    assert torch.equal(forget_bias(layer.backward_layer.cell), torch.full((4,), 2.5))
    assert not torch.equal(layer.backward_layer.cell.weight_hh, layer.forward_layer.cell.weight_hh)


@pytest.mark.parametrize("cell_cls", FORGETFUL)
def test_forget_bias_leaves_all_other_biases_at_zero(cell_cls):
    cell = cell_cls(3, 4)

    assert (cell.bias_ih != 0).sum() == 4
    assert not cell.bias_hh.any()


@pytest.mark.parametrize("cell_cls", [c for c in GENERIC if c.recurrent])
def test_recurrent_weights_start_orthogonal_in_every_gate(cell_cls):
    cell = sized(cell_cls, 3, 8, dtype=torch.float64)
    blocks = cell.weight_hh.chunk(len(cell.recurrent))

    for gate, rows in zip(cell.recurrent, blocks, strict=True):
        block = rows.flatten(1)
        torch.testing.assert_close(block @ block.T, torch.eye(8).double(), msg=f"gate {gate}")


@pytest.mark.parametrize("cell_cls", GENERIC)
def test_input_weights_start_within_the_bound_of_xavier_for_one_gate(cell_cls):
    weight = sized(cell_cls, 40, 50).weight_ih
    places = weight[0, 0].numel()  # of a kernel; else 1

    bound = (6 / ((width(cell_cls, 40, 50) + 50) * places)) ** 0.5

    assert 0.95 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize("cell_cls", GENERIC)
def test_all_but_weights_and_forget_bias_starts_at_zero(cell_cls):
    cell = sized(cell_cls, 3, 4, **({"forget_bias": 0.0} if cell_cls in FORGETFUL else {}))

    nonzero = [name for name, parameter in cell.named_parameters() if parameter.any()]

    assert set(nonzero) <= {"weight_ih", "weight_hh"}


class Copied(nn.Module):
    """Computes a tensor that equals the learned one."""

    def forward(self, learned):
        return learned.clone()


@pytest.mark.parametrize("cell_cls", FINAL_CELLS)
def test_a_parametrised_cell_draws_the_same_numbers_as_a_plain_one(cell_cls):
    cell = sized(cell_cls, 3, 4)
    names = [name for name, _ in cell.named_parameters(recurse=False)]

    torch.manual_seed(5)
    cell.reset_parameters()
    plain = [getattr(cell, name).clone() for name in names]
    for name in names:
        parametrize.register_parametrization(cell, name, Copied())
    torch.manual_seed(5)
    cell.reset_parameters()

    for name, drawn in zip(names, plain, strict=True):
        assert torch.equal(getattr(cell, name), drawn), name


@pytest.mark.parametrize("use", [Bidirectional, partial(initialize, weight_hh="zeros")])
def test_a_weight_that_several_tensors_make_is_not_drawn_and_says_so(use):
    with pytest.raises(ConfigError, match="LSTMCell: weight_hh is computed from several tensors"):
        use(weight_norm(LSTMCell(3, 4), "weight_hh"))


@pytest.mark.parametrize("cell_cls", FINAL_CELLS)
def test_equal_seeds_draw_equal_parameters(cell_cls):
    torch.manual_seed(1)
    first = sized(cell_cls, 3, 4)
    torch.manual_seed(1)
    second = sized(cell_cls, 3, 4)

    assert all(map(torch.equal, first.parameters(), second.parameters()))


@pytest.mark.parametrize("cell_cls", [c for c in FINAL_CELLS if width(c, 3, 4) == 3])
@pytest.mark.parametrize("sizes", [(0, 4), (3, 0), (3, -1)])
def test_sizes_below_one_are_refused(cell_cls, sizes):
    with pytest.raises(ConfigError, match=rf"{cell_cls.__name__}: \w+_size is .* at least 1"):
        cell_cls(*sizes)


@pytest.mark.parametrize("size", [4.0, "4", True, None])
def test_sizes_that_are_not_integers_are_refused(size):
    with pytest.raises(DtypeError, match=r"hidden_size is .* expected a positive integer"):
        GRUCell(3, size)


@pytest.mark.parametrize("flag", ["no", 0, None])
@pytest.mark.parametrize(
    ("make", "name"),
    [(GRUCell, "bias"), (LTCCell, "timed"), (PhasedLSTMCell, "timed")],
)
def test_flags_that_are_neither_true_nor_false_are_refused(make, name, flag):
    with pytest.raises(DtypeError, match=rf"{make.__name__}: {name} is {flag!r}, expected True or"):
        make(3, 4, **{name: flag})


@pytest.mark.parametrize("proj_size", [-1, 4, 5])
@pytest.mark.parametrize("cell_cls", [c for c in FINAL_CELLS if issubclass(c, MemoryCell)])
def test_projections_that_do_not_narrow_are_refused(cell_cls, proj_size):
    with pytest.raises(ConfigError, match=f"{cell_cls.__name__}: proj_size is {proj_size}"):
        cell_cls(3, 4, proj_size=proj_size)


@pytest.mark.parametrize(("proj_size", "error"), [(-1, ConfigError), (2.5, DtypeError)])
def test_what_a_projections_size_may_be_is_said_whatever_is_wrong(proj_size, error):
    with pytest.raises(error, match=r"0 \(no projection\) or a whole number above 0 and below"):
        LSTMCell(3, 4, proj_size=proj_size)


@pytest.mark.parametrize("given", ["1", None, True, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("cell_cls", "option"),
    [
        (LSTMCell, "forget_bias"),
        (SRUCell, "highway_bias"),
        (RecurrentHighwayCell, "transform_bias"),
        (IRNNCell, "scale"),
        (JANETCell, "beta"),
        (LRUCell, "r_min"),
        (LRUCell, "r_max"),
        (RGLRUCell, "a_min"),
        (RGLRUCell, "a_max"),
    ],
)
def test_what_is_to_be_a_number_and_is_none_is_refused(cell_cls, option, given):
    said = f"{cell_cls.__name__}: {option} is {given!r}, expected a finite number."
    with pytest.raises(ConfigError, match=re.escape(said)):
        cell_cls(3, 4, **{option: given})


def test_unknown_nonlinearities_are_refused():
    with pytest.raises(
        ConfigError, match="RNNCell: nonlinearity is 'selu', expected one of tanh, relu"
    ):
        RNNCell(3, 4, nonlinearity="selu")


@pytest.mark.parametrize("cell_cls", FINAL_CELLS)
def test_bind_returns_the_equation_with_other_parameters(cell_cls):
    cell, other = sized(cell_cls, 3, 4), sized(cell_cls, 3, 4)
    x = torch.randn(2, cell.input_size)

    bound = cell.bind(other.tensors())

    torch.testing.assert_close(bound(x), other(x))
    assert not all(map(torch.equal, bound(x)[1], cell(x)[1]))


def test_bind_leaves_the_cell_as_it_was():
    cell = LSTMCell(3, 4)
    weight = cell.weight_hh

    cell.bind({name: torch.zeros_like(p) for name, p in cell.named_parameters()})

    assert cell.weight_hh is weight


def test_a_bias_that_was_taken_away_is_named():
    layer = Recurrent(GRUCell(3, 4))
    layer.cell.bias_hh = None

    with pytest.raises(ConfigError, match=r"GRUCell: bias_hh is None.*\n.*bias=False"):
        layer(torch.randn(2, 5, 3))


class SkippingCell(GatedCell):
    """A cell with a module among its parameters: a gate of one number per row."""

    gates = ("n",)

    def add_parameters(self, parameter):
        self.skip = nn.Sequential(nn.Linear(self.hidden_size, 1), nn.Sigmoid())

    def update(self, wx, uh, state):
        (h,) = state
        return (h + self.skip(h) * (torch.tanh(wx.n + uh.n) - h),)


def test_a_module_may_be_made_where_a_cells_parameters_are():
    cell = SkippingCell(3, 4)
    weight = cell.skip[0].weight

    check_layer(Recurrent(SkippingCell(3, 4)))
    assert weight.any()
    unroll(cell, torch.randn(2, 5, 3))[0].sum().backward()
    assert weight.grad.any()


def test_a_module_inside_a_cell_draws_its_values_anew_with_it():
    cell = SkippingCell(3, 4)
    before = cell.skip[0].weight.detach().clone()
    cell.reset_parameters()

    assert cell.skip[0].weight.ne(before).all()
    assert cell.skip[0].weight.any()


class Shut(nn.Module):
    """A gate of one number per row, which counts how often it was drawn and starts shut."""

    def __init__(self, width):
        super().__init__()
        self.of_state = nn.Linear(width, 1)
        self.draws = 0

    def reset_parameters(self):
        self.draws += 1
        self.of_state.reset_parameters()
        nn.init.constant_(self.of_state.bias, -2.0)

    def forward(self, h):
        return torch.sigmoid(self.of_state(h))


@pytest.mark.parametrize("around", [lambda gate: gate, nn.Sequential])
def test_a_module_inside_a_cell_says_how_its_own_modules_start(around):
    class ShutCell(SkippingCell):
        def add_parameters(self, parameter):
            self.skip = around(Shut(self.hidden_size))

    cell = ShutCell(3, 4)
    (shut,) = (inside for inside in cell.modules() if isinstance(inside, Shut))

    assert shut.of_state.bias == -2
    assert shut.draws == 1


@pytest.mark.parametrize("cell_cls", GENERIC)
def test_a_parameter_of_the_wrong_shape_is_refused(cell_cls):
    for name in sized(cell_cls, 3, 4).parameter_shapes:
        cell = sized(cell_cls, 3, 4)
        setattr(cell, name, nn.Parameter(torch.zeros(7, 7)))

        with pytest.raises(ShapeError, match=rf"{name} has shape \(7, 7\), expected"):
            unroll(cell, torch.zeros(2, 5, cell.input_size))


@pytest.mark.parametrize(
    ("kind", "error"), [({"dtype": torch.float64}, DtypeError), ({"device": "meta"}, DeviceError)]
)
def test_a_parameter_of_another_dtype_or_device_is_refused(kind, error):
    cell = GRUCell(3, 4)
    cell.bias_ih = nn.Parameter(torch.zeros(12, **kind))

    with pytest.raises(error, match="GRUCell: bias_ih is"):
        unroll(cell, torch.zeros(2, 5, 3))


@pytest.mark.parametrize("parametrization", [weight_norm, orthogonal])
@pytest.mark.parametrize(
    "cell_cls", mostly_slow([c for c in GENERIC if c.recurrent], ONE_OF_EACH_KIND)
)
def test_parametrized_recurrent_weights_learn_through_a_layer(cell_cls, parametrization):
    layer = Recurrent(sized(cell_cls, 3, 4))
    parametrization(layer.cell, "weight_hh")

    layer(torch.randn(2, 5, layer.input_size))[0].square().sum().backward()

    for name, parameter in layer.cell.parametrizations.named_parameters():
        assert parameter.grad.any(), name


class Moving(Cell):
    """One with modules, a parameter of its own, and a buffer of integers."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.enter = nn.Linear(input_size, hidden_size)
        self.mix = nn.Parameter(torch.randn(hidden_size, hidden_size))
        self.register_buffer("places", torch.arange(hidden_size).flip(0))

    def project(self, x):
        return self.enter(x)

    def step(self, wx, state):
        return (torch.tanh(wx + state[0][:, self.places] @ self.mix),)


def test_a_parametrized_cell_may_have_a_buffer_of_integers():
    cell, x = Moving(3, 4), torch.randn(2, 5, 3)
    expected, _ = Recurrent(cell)(x)
    weight_norm(cell, "mix")

    torch.testing.assert_close(Recurrent(cell)(x)[0], expected)


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def test_a_layer_with_a_parametrization_obeys_the_laws_of_recurrence():
    layer = Recurrent(LSTMCell(3, 4))
    parametrize.register_parametrization(layer.cell, "weight_hh", Halved())

    check_layer(layer)


def test_a_parametrization_changes_the_outputs():
    layer = Recurrent(GRUCell(3, 4))
    x = torch.randn(2, 5, 3)
    halved = copy.deepcopy(layer)
    halved.cell.weight_hh.data /= 2

    parametrize.register_parametrization(layer.cell, "weight_hh", Halved())

    torch.testing.assert_close(layer(x), halved(x))


@pytest.mark.parametrize("cell_cls", FINAL_CELLS)
def test_cells_are_created_with_the_given_device_and_dtype(cell_cls):
    made = sized(cell_cls, 3, 4, device="meta", dtype=torch.bfloat16)

    assert {(p.device.type, p.dtype) for p in made.parameters()} == {("meta", torch.bfloat16)}


def clockwork(input_size, hidden_size, device=None):
    return Clockwork(GRUCell(input_size, hidden_size, device=device))


def deep_transition(input_size, hidden_size, device=None):
    return DeepTransition(GRUCell(input_size, hidden_size, device=device))


@pytest.mark.parametrize("make", [*FINAL_CELLS, clockwork, deep_transition])
def test_a_cell_that_was_made_without_memory_is_whole_once_its_parameters_are_drawn(make):
    fresh, made = (sized(make, 3, 4, device=device) for device in ("cpu", "meta"))
    made.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*made.parameters(), *made.buffers()):
            tensor.fill_(float("nan"))

    for module in reversed(list(made.modules())):
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    assert all(parameter.isfinite().all() for parameter in made.parameters())
    torch.testing.assert_close(dict(made.named_buffers()), dict(fresh.named_buffers()))


def test_a_class_of_cells_shows_what_its_cells_are_made_with():
    named = list(inspect.signature(LSTMCell).parameters)

    assert named[:2] == ["input_size", "hidden_size"]


def test_a_class_of_cells_whose_constructor_names_no_self_shows_all_arguments():
    class AnyCell(GRUCell):
        def __init__(*args, **kwargs):
            GRUCell.__init__(*args, **kwargs)

    assert str(inspect.signature(AnyCell)) == "(*args, **kwargs)"


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"gates": ["f", "n"]}, r"gates is \['f', 'n'\], expected a tuple of names"),
        ({"gates": ()}, "gates is empty"),
        ({"gates": ("f", "in")}, "gates has 'in', expected names of attributes"),
        ({"gates": ("f", "_n")}, "gates has '_n', expected names of attributes"),
        ({"gates": ("f", 1)}, "gates has 1, expected names of attributes"),
        ({"gates": ("f", "f")}, "gates has 'f' twice"),
        ({"states": ()}, "states is empty"),
        ({"states": ("h", "h")}, "states has 'h' twice"),
        (
            {"gates": ("f", "n"), "recurrent": ("n", "z")},
            "recurrent has 'z', expected names from its",
        ),
        (
            {"gates": ("f", "n"), "keeping": ("-z",)},
            "keeping has '-z', expected names from its gates",
        ),
        ({"per_unit": ("p.q",)}, "per_unit has 'p.q', expected names of attributes"),
        ({"per_unit": ("gate",)}, "per_unit has 'gate', which every cell has already"),
        ({"per_unit": ("bias_hh",)}, "per_unit has 'bias_hh', which every cell has already"),
    ],
)
def test_a_class_that_declares_no_proper_names_is_refused_as_it_is_written(declared, told):
    with pytest.raises(ConfigError, match=f"MyCell: {told}"):
        type("MyCell", (GatedCell,), declared)
