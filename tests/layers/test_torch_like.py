"""Every cell has a module with torch.nn's interface."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import seqnets
from seqnets import TorchLike, TorchLikeCell
from seqnets.errors import ConfigError, SeqnetsError
from seqnets.layers import torch_modules
from tests.cells.final import FINAL_CELLS, PROJECTING, sized, width

pytestmark = pytest.mark.usefixtures("plain_loop")


def module_of(cell, base):
    name = cell.__name__ if base is TorchLikeCell else cell.__name__.removesuffix("Cell")
    module = getattr(seqnets, name)
    assert issubclass(module, base)
    assert module.cell_class is cell
    return module


def has_module(cell):
    """Whether torch.nn's names say all that the cell has."""
    one = sized(cell, 3, 4)
    return isinstance(one, seqnets.GatedCell) and not one.parametrised


def keeps_inputs(cell):
    """Whether a state is as wide as the input, so that those of several layers are not alike."""
    return sized(cell, 3, 4).state_sizes != sized(cell, 4, 4).state_sizes


WITH_MODULE = [cell for cell in FINAL_CELLS if has_module(cell)]
TORCH_LIKE = [cell for cell in WITH_MODULE if module_of(cell, TorchLike).starts_as_torch]


def copy_into(layer, module):
    """Give a deep net's cells the weights that a module holds under torch.nn's names."""
    for depth, both in enumerate(layer.layers):
        for suffix, part in (("", both.forward_layer), ("_reverse", both.backward_layer)):
            for name, parameter in part.cell.named_parameters():
                parameter.data.copy_(getattr(module, f"{name}_l{depth}{suffix}"))


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("cell", [c for c in WITH_MODULE if not c.square and not keeps_inputs(c)])
def test_a_deep_bidirectional_module_equals_a_deep_network(cell):
    module = module_of(cell, TorchLike)(3, 4, 2, batch_first=True, bidirectional=True)
    net = seqnets.DeepRNN(cell, 3, 4, 2, bidirectional=True)
    copy_into(net, module)
    x = torch.randn(2, 5, 3)

    y, final = module(x)
    expected, states = net(x)
    final = final if isinstance(final, tuple) else (final,)

    torch.testing.assert_close(y, expected)
    flat = [direction for layer in states for direction in layer]
    for number, part in enumerate(final):
        torch.testing.assert_close(part, torch.stack([state[number] for state in flat]))


@pytest.mark.parametrize("cell", [c for c in WITH_MODULE if keeps_inputs(c)])
def test_layers_whose_states_are_as_wide_as_their_inputs_are_refused(cell):
    module = module_of(cell, TorchLike)

    assert module(3, 4, bidirectional=True)(torch.randn(5, 2, 3))[1][1].shape == (2, 2, 3)
    with pytest.raises(ConfigError, match=r"sizes \(4, 3, 3\) and \(4, 4, 4\)"):
        module(3, 4, 2)


@pytest.mark.parametrize("cell", WITH_MODULE)
def test_the_step_module_follows_the_sequence_module(cell):
    I = width(cell, 3, 4)
    steps = module_of(cell, TorchLikeCell)(I, 4)
    module = module_of(cell, TorchLike)(I, 4)
    module.load_state_dict({f"{name}_l0": p for name, p in steps.state_dict().items()})
    x = torch.randn(5, 2, I)

    state, outputs = None, []
    for step in x:
        state = steps(step, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)

    torch.testing.assert_close(torch.stack(outputs), module(x)[0])


@pytest.mark.parametrize("cell", TORCH_LIKE)
def test_a_module_is_initialised_like_torchs(cell):
    module = module_of(cell, TorchLike)(3, 64)
    weights = torch.cat([p.detach().flatten() for p in module.parameters()])

    assert weights.abs().max() <= 64**-0.5
    assert weights.std() == pytest.approx(64**-0.5 / 3**0.5, rel=0.05)


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("cell", PROJECTING)
def test_every_projecting_cell_has_proj_size_in_its_module(cell):
    y, (h, c) = module_of(cell, TorchLike)(3, 4, proj_size=2)(torch.randn(5, 2, 3))

    assert (y.shape[-1], h.shape[-1], c.shape[-1]) == (2, 2, 4)


def test_a_users_cell_gets_a_module_in_one_line():
    class MinimalCell(seqnets.GatedCell):
        gates = ("f", "n")

        def update(self, wx, uh, state):
            (h,) = state
            f = torch.sigmoid(wx.f + uh.f)
            return (h + f * (torch.tanh(wx.n + f * uh.n) - h),)

    class Minimal(TorchLike, cell=MinimalCell):
        pass

    module = Minimal(3, 4, num_layers=2, bidirectional=True)
    packed = nn.utils.rnn.pack_sequence([torch.randn(5, 3), torch.randn(2, 3)])

    assert "weight_ih_l1_reverse" in module.state_dict()
    assert module(packed)[0].data.shape == (7, 8)


class PlainCell(seqnets.Cell):
    """No gates: its parameters have names of their own."""

    def project(self, x):
        return x

    def step(self, wx, state):
        return (wx + state[0],)


@pytest.mark.parametrize("base", [TorchLike, TorchLikeCell])
def test_a_module_without_a_cell_class_is_refused_with_advice(base):
    class Mine(base):
        pass

    for module in (Mine, base):
        with pytest.raises(ConfigError, match=rf"\({base.__name__}, cell=MyCell\)"):
            module(3, 4)


@pytest.mark.parametrize("cell", [PlainCell, nn.LSTM, "lstm"])
@pytest.mark.parametrize("base", [TorchLike, TorchLikeCell])
def test_only_gated_cells_get_a_module(cell, base):
    with pytest.raises(ConfigError, match=r"Mine: cell is .*, expected a class derived from Gated"):
        type("Mine", (base,), {}, cell=cell)


def test_a_module_of_a_cell_unlike_torchs_is_initialised_by_the_cell():
    module = seqnets.IRNN(3, 4, num_layers=2)

    assert type(module) is seqnets.IRNN
    assert torch.equal(module.weight_hh_l1, torch.eye(4))
    assert type(pickle.loads(pickle.dumps(module))) is seqnets.IRNN


def test_a_module_pickled_before_it_remembered_its_checks_takes_a_step():
    module, x = seqnets.LSTMCell(3, 4), torch.randn(2, 3)
    expected = module(x)
    vars(module).pop("_checked_kinds")

    assert all(map(torch.equal, pickle.loads(pickle.dumps(module))(x), expected))


class ScaledCell(seqnets.GatedCell):
    """A buffer, and a parameter that is made after the others."""

    gates = ("n",)

    def __init__(self, input_size, hidden_size, **options):
        super().__init__(input_size, hidden_size, **options)
        self.rate = nn.Parameter(torch.ones(hidden_size))
        self.register_buffer("scale", torch.linspace(1, 2, hidden_size))
        self.register_buffer("unused", None)

    def update(self, wx, uh, state):
        return (torch.tanh(wx.n + uh.n * self.rate) * self.scale,)


class Scaled(TorchLike, cell=ScaledCell):
    pass


class OneScaled(TorchLikeCell, cell=ScaledCell):
    pass


def test_a_module_has_the_buffers_of_its_cell():
    module, one, x = Scaled(3, 4), OneScaled(3, 4), torch.randn(5, 2, 3)
    one.load_state_dict({name.removesuffix("_l0"): t for name, t in module.state_dict().items()})
    cell = ScaledCell(3, 4)
    cell.load_state_dict(one.state_dict())

    torch.testing.assert_close(
        module(x)[0].transpose(0, 1), seqnets.unroll(cell, x.transpose(0, 1))[0]
    )
    torch.testing.assert_close(one(x[0]), cell(x[0])[0])
    assert module.double().scale_l0.dtype == torch.float64


def test_a_module_refuses_a_cell_with_computed_weights():
    with pytest.raises(ConfigError, match=r"submodules or computed weights: parametrizations"):
        seqnets.AntisymmetricRNN(3, 4)


def test_a_module_refuses_a_cell_with_submodules():
    class DeepCell(seqnets.GatedCell):
        gates = ("n",)

        def add_parameters(self, parameter):
            self.above = nn.Linear(self.hidden_size, self.hidden_size)

        def update(self, wx, uh, state):
            return (torch.tanh(wx.n + self.above(uh.n)),)

    class Deep(TorchLike, cell=DeepCell):
        pass

    with pytest.raises(ConfigError, match="submodules or computed weights: above"):
        Deep(3, 4)


SPOILT = {
    "no size": lambda: seqnets.LSTM(0, 4),
    "an option of the cell": lambda: seqnets.RNN(3, 4, nonlinearity="sine"),
    "a dtype": lambda: seqnets.GRU(3, 4)(torch.zeros(5, 2, 3, dtype=torch.float64)),
    "a packed dtype": lambda: seqnets.GRU(3, 4)(pack_sequence([torch.zeros(5, 3).double()])),
    "a state": lambda: seqnets.RNN(3, 4)(torch.zeros(5, 2, 3), torch.zeros(1, 2, 4).long()),
    "a device": lambda: seqnets.LSTM(3, 4, device="meta")(torch.zeros(5, 2, 3)),
}


@pytest.mark.parametrize("call", SPOILT.values(), ids=SPOILT)
def test_errors_begin_with_the_name_that_was_written(call):
    with pytest.raises(SeqnetsError, match=r"^(RNN|GRU|LSTM): \w+"):
        call()


@pytest.mark.parametrize("module", ["PhasedLSTM", "PhasedLSTMCell"])
def test_a_module_in_evaluation_has_a_cell_in_evaluation(module):
    options = {"leak": 0.5, "periods": (2.0, 9.0)}
    made = getattr(seqnets, module)(3, 4, **options)
    cell = seqnets.cells.PhasedLSTMCell(3, 4, **options)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            getattr(cell, name.removesuffix("_l0")).copy_(parameter)
    x = torch.randn(2, 7, 3)

    for training in (True, False):
        made.train(training), cell.train(training)
        if module == "PhasedLSTM":
            said = made(x.transpose(0, 1))[0].transpose(0, 1)
        else:
            state, said = None, []
            for step in x.unbind(1):
                state = made(step, state)
                said.append(state[0])
            said = torch.stack(said, 1)
        torch.testing.assert_close(said, seqnets.unroll(cell, x)[0])


def test_a_module_that_gets_memory_late_has_its_cells_buffers_once_it_is_reset():
    module = seqnets.LMU(3, 4, device="meta").to_empty(device="cpu")
    module.reset_parameters()

    torch.testing.assert_close(module.A_l0, seqnets.cells.LMUCell(3, 4).A)


def test_a_module_of_double_precision_has_all_digits_of_its_cell():
    module = seqnets.LMU(3, 4, dtype=torch.float64)

    assert torch.equal(module.A_l0, seqnets.cells.LMUCell(3, 4, dtype=torch.float64).A)
    assert (module.weight_hu_l0 != module.weight_hu_l0.float()).any()


def test_every_module_is_listed():
    listed = dir(seqnets)
    modules = [name.removesuffix("Cell") for name in (cell.__name__ for cell in WITH_MODULE)]

    assert {*modules, *(f"{name}Cell" for name in modules)} <= {*listed}
    assert not [name for name in listed if not hasattr(seqnets, name)]


def test_type_checkers_read_of_every_module_that_is_made_on_demand():
    modules = [module_of(cell, base) for cell in WITH_MODULE for base in (TorchLike, TorchLikeCell)]
    types = [{1: "Tensor", 2: "Pair"}.get(len(m.cell_class.states), "State") for m in modules]
    expected = {
        f"class {module.__name__}({module.__base__.__name__}[{hidden}]): ..."
        for module, hidden in zip(modules, types, strict=True)
        if not module.starts_as_torch
    }

    stub = Path(torch_modules.__file__).with_name("torch_made.pyi").read_text()

    assert {line for line in stub.splitlines() if line.startswith("class")} == expected


@pytest.mark.parametrize("module", [seqnets.LSTM, seqnets.MGU, Scaled])
def test_a_modules_docstring_lists_its_arguments(module):
    assert "batch_first: Whether tensors are (B, T, I)" in module.__doc__
    assert "Raises:" in module.__doc__


def test_a_cell_without_a_docstring_has_a_module_too(monkeypatch):  # python -OO drops them
    monkeypatch.setattr(seqnets.cells.MGUCell, "__doc__", None)
    monkeypatch.setattr(torch_modules, "MGU", None)  # made anew below, and as it was afterwards

    assert torch_modules.__getattr__("MGU").__doc__.startswith("MGU\n\nCalled as torch.nn.")


def test_a_modules_docstring_lists_its_cells_arguments():
    assert "options: What the cell takes beyond these: forget, forget_bias, num_heads." in (
        seqnets.SLSTM.__doc__
    )


def test_there_are_no_other_modules():
    for name in ("Foo", "Gated", "Zoneout", "_Cell"):
        with pytest.raises(AttributeError, match=name):
            getattr(seqnets, name)
