"""Every cell has torch.nn's face."""

import pytest
import torch
from torch import nn

import seqnets
from seqnets import TorchLike, TorchLikeCell, cells
from tests.cells.final import FINAL_CELLS


def face_of(cell, base):
    public = [getattr(seqnets, name) for name in seqnets.__all__]
    faces = [face for face in public if getattr(face, "cell_class", None) is cell]
    faces = [face for face in faces if issubclass(face, base)]
    assert faces, f"{cell.__name__} has no face in seqnets: add it to layers/torch_like.py"
    return faces[0]


def copy_into(layer, face):
    """Give a deep net's cells the weights that a face holds under torch.nn's names."""
    for depth, both in enumerate(layer.layers):
        for suffix, part in (("", both.forward_layer), ("_reverse", both.backward_layer)):
            for name, parameter in part.cell.named_parameters():
                parameter.data.copy_(getattr(face, f"{name}_l{depth}{suffix}"))


@pytest.mark.parametrize("cell", FINAL_CELLS)
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


@pytest.mark.parametrize("cell", FINAL_CELLS)
def test_the_step_face_walks_where_the_face_runs(cell):
    steps = face_of(cell, TorchLikeCell)(3, 4)
    face = face_of(cell, TorchLike)(3, 4)
    face.load_state_dict({f"{name}_l0": p for name, p in steps.state_dict().items()})
    x = torch.randn(5, 2, 3)

    state, outputs = None, []
    for step in x:
        state = steps(step, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)

    torch.testing.assert_close(torch.stack(outputs), face(x)[0])


@pytest.mark.parametrize("cell", FINAL_CELLS)
def test_a_face_starts_as_torch_starts_its_own(cell):
    face = face_of(cell, TorchLike)(3, 64)
    weights = torch.cat([p.detach().flatten() for p in face.parameters()])

    assert weights.abs().max() <= 64**-0.5
    assert weights.std() == pytest.approx(64**-0.5 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("cell", [c for c in FINAL_CELLS if issubclass(c, cells.MemoryCell)])
def test_every_cell_with_a_memory_can_project_its_output(cell):
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
