"""Every cell has torch.nn's face."""

import pickle

import pytest
import torch
from torch import nn

import seqnets
from seqnets import TorchLike, TorchLikeCell
from seqnets.errors import ConfigError
from tests.cells.final import FINAL_CELLS, PROJECTING, sized, width


def face_of(cell, base):
    name = cell.__name__ if base is TorchLikeCell else cell.__name__.removesuffix("Cell")
    face = getattr(seqnets, name)
    assert issubclass(face, base)
    assert face.cell_class is cell
    return face


def has_a_face(cell):
    """Whether torch.nn's names say all that the cell has."""
    one = sized(cell, 3, 4)
    return isinstance(one, seqnets.GatedCell) and not one.parametrised


FACED = [cell for cell in FINAL_CELLS if has_a_face(cell)]
TORCH_LIKE = [cell for cell in FACED if face_of(cell, TorchLike).starts_as_torch]


def copy_into(layer, face):
    """Give a deep net's cells the weights that a face holds under torch.nn's names."""
    for depth, both in enumerate(layer.layers):
        for suffix, part in (("", both.forward_layer), ("_reverse", both.backward_layer)):
            for name, parameter in part.cell.named_parameters():
                parameter.data.copy_(getattr(face, f"{name}_l{depth}{suffix}"))


@pytest.mark.parametrize("cell", [c for c in FACED if not c.square])
def test_a_deep_bidirectional_face_is_the_deep_net_of_the_same_weights(cell):
    face = face_of(cell, TorchLike)(3, 4, 2, batch_first=True, bidirectional=True)
    net = seqnets.DeepRNN(cell, 3, 4, 2, bidirectional=True)
    copy_into(net, face)
    x = torch.randn(2, 5, 3)

    y, final = face(x)
    expected, states = net(x)
    final = final if isinstance(final, tuple) else (final,)

    torch.testing.assert_close(y, expected)
    flat = [direction for layer in states for direction in layer]
    for number, part in enumerate(final):
        torch.testing.assert_close(part, torch.stack([state[number] for state in flat]))


@pytest.mark.parametrize("cell", FACED)
def test_the_step_face_walks_where_the_face_runs(cell):
    I = width(cell, 3, 4)
    steps = face_of(cell, TorchLikeCell)(I, 4)
    face = face_of(cell, TorchLike)(I, 4)
    face.load_state_dict({f"{name}_l0": p for name, p in steps.state_dict().items()})
    x = torch.randn(5, 2, I)

    state, outputs = None, []
    for step in x:
        state = steps(step, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)

    torch.testing.assert_close(torch.stack(outputs), face(x)[0])


@pytest.mark.parametrize("cell", TORCH_LIKE)
def test_a_face_starts_as_torch_starts_its_own(cell):
    face = face_of(cell, TorchLike)(3, 64)
    weights = torch.cat([p.detach().flatten() for p in face.parameters()])

    assert weights.abs().max() <= 64**-0.5
    assert weights.std() == pytest.approx(64**-0.5 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("cell", PROJECTING)
def test_every_cell_that_projects_does_so_behind_its_face(cell):
    y, (h, c) = face_of(cell, TorchLike)(3, 4, proj_size=2)(torch.randn(5, 2, 3))

    assert (y.shape[-1], h.shape[-1], c.shape[-1]) == (2, 2, 4)


def test_a_users_cell_gets_a_face_in_one_line():
    class MinimalCell(seqnets.GatedCell):
        gates = ("f", "n")

        def update(self, wx, uh, state):
            (h,) = state
            f = torch.sigmoid(wx.f + uh.f)
            return (h + f * (torch.tanh(wx.n + f * uh.n) - h),)

    class Minimal(TorchLike, cell=MinimalCell):
        pass

    face = Minimal(3, 4, num_layers=2, bidirectional=True)
    packed = nn.utils.rnn.pack_sequence([torch.randn(5, 3), torch.randn(2, 3)])

    assert "weight_ih_l1_reverse" in face.state_dict()
    assert face(packed)[0].data.shape == (7, 8)


class PlainCell(seqnets.Cell):
    """No gates: its parameters have names of their own."""

    def project(self, x):
        return x

    def step(self, wx, state):
        return (wx + state[0],)


@pytest.mark.parametrize("base", [TorchLike, TorchLikeCell])
def test_a_face_without_a_cell_is_refused_with_how_to_name_one(base):
    class Mine(base):
        pass

    for face in (Mine, base):
        with pytest.raises(ConfigError, match=rf"\({base.__name__}, cell=MyCell\)"):
            face(3, 4)


@pytest.mark.parametrize("cell", [PlainCell, nn.LSTM, "lstm"])
@pytest.mark.parametrize("base", [TorchLike, TorchLikeCell])
def test_what_is_no_gated_cell_gets_no_face(cell, base):
    with pytest.raises(ConfigError, match=r"Mine: cell is .*, expected a class derived from Gated"):
        type("Mine", (base,), {}, cell=cell)


def test_a_cell_that_torch_has_nothing_like_has_a_face_that_starts_as_the_cell_says():
    face = seqnets.IRNN(3, 4, num_layers=2)

    assert type(face) is seqnets.IRNN
    assert torch.equal(face.weight_hh_l1, torch.eye(4))
    assert type(pickle.loads(pickle.dumps(face))) is seqnets.IRNN


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


def test_a_face_has_the_buffers_of_its_cell():
    face, one, x = Scaled(3, 4), OneScaled(3, 4), torch.randn(5, 2, 3)
    one.load_state_dict({name.removesuffix("_l0"): t for name, t in face.state_dict().items()})
    cell = ScaledCell(3, 4)
    cell.load_state_dict(one.state_dict())

    torch.testing.assert_close(
        face(x)[0].transpose(0, 1), seqnets.unroll(cell, x.transpose(0, 1))[0]
    )
    torch.testing.assert_close(one(x[0]), cell(x[0])[0])
    assert face.double().scale_l0.dtype == torch.float64


def test_a_face_refuses_a_cell_whose_weights_are_computed():
    with pytest.raises(ConfigError, match=r"submodules or computed weights: parametrizations"):
        seqnets.AntisymmetricRNN(3, 4)


def test_a_face_refuses_a_cell_with_modules_inside():
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


@pytest.mark.parametrize("face", ["PhasedLSTM", "PhasedLSTMCell"])
def test_a_face_in_evaluation_has_a_cell_in_evaluation(face):
    options = {"leak": 0.5, "periods": (2.0, 9.0)}
    made = getattr(seqnets, face)(3, 4, **options)
    cell = seqnets.cells.PhasedLSTMCell(3, 4, **options)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            getattr(cell, name.removesuffix("_l0")).copy_(parameter)
    x = torch.randn(2, 7, 3)

    for training in (True, False):
        made.train(training), cell.train(training)
        if face == "PhasedLSTM":
            said = made(x.transpose(0, 1))[0].transpose(0, 1)
        else:
            state, said = None, []
            for step in x.unbind(1):
                state = made(step, state)
                said.append(state[0])
            said = torch.stack(said, 1)
        torch.testing.assert_close(said, seqnets.unroll(cell, x)[0])


def test_every_face_is_listed():
    listed = dir(seqnets)
    faces = [name.removesuffix("Cell") for name in (cell.__name__ for cell in FACED)]

    assert {*faces, *(f"{name}Cell" for name in faces)} <= {*listed}
    assert not [name for name in listed if not hasattr(seqnets, name)]


@pytest.mark.parametrize("face", [seqnets.LSTM, seqnets.MGU, Scaled])
def test_a_face_says_what_it_takes(face):
    assert "batch_first: Whether tensors are (B, T, I)" in face.__doc__
    assert "Raises:" in face.__doc__


def test_a_face_says_what_its_cell_takes():
    assert "options: What the cell takes beyond these: forget, forget_bias, num_heads." in (
        seqnets.SLSTM.__doc__
    )


def test_there_are_no_other_faces():
    for name in ("Foo", "Gated", "Zoneout", "_Cell"):
        with pytest.raises(AttributeError, match=name):
            getattr(seqnets, name)
