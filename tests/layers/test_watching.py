"""``watch``: the inside of a cell at every step."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import seqnets
from seqnets import unroll
from seqnets.cells import (
    Activations,
    AllStates,
    GRUCell,
    JANETCell,
    LayerNorm,
    LSTMCell,
    MGUCell,
    MLSTMCell,
    PeepholeLSTMCell,
    RNNCell,
    Zoneout,
    optioned,
)
from seqnets.errors import ConfigError
from seqnets.layers import (
    Bidirectional,
    DeepRNN,
    Hierarchical,
    Recurrent,
    names_of_calls,
    watch,
    watch_layers,
)
from tests.cells.final import FINAL_CELLS, sized

B, T, I, H = 3, 5, 2, 4
LENGTHS = torch.tensor([5, 0, 3])


@pytest.fixture
def x():
    return torch.randn(B, T, I, dtype=torch.float64)


@pytest.mark.parametrize("cell_cls", FINAL_CELLS)
def test_states_are_those_of_the_steps_one_by_one(cell_cls):
    cell = sized(cell_cls, 2, 4)
    x = torch.randn(B, 3, cell.input_size)

    states, _ = watch(cell, x)

    after, expected = None, []
    for x_t in x.unbind(1):
        _, after = Recurrent(cell).step(x_t, after)
        expected.append(after)
    assert tuple(states) == cell.states
    for part, steps in zip(states.values(), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(part, torch.stack(steps, 1))


def test_gates_come_in_the_order_of_the_equation(x):
    cell = LSTMCell(I, H, dtype=torch.float64)

    states, calls = watch(cell, x)

    i, f, o = calls["gate"]
    (g,) = calls["candidate"]
    (shown,) = calls["squash"]
    h, c = states["h"], states["c"]
    torch.testing.assert_close(c[:, 1:], f[:, 1:] * c[:, :-1] + i[:, 1:] * g[:, 1:])
    torch.testing.assert_close(h, o * shown)
    torch.testing.assert_close(shown, torch.tanh(c))


def test_a_cell_that_outputs_all_its_states_is_watched(x):
    cell = LSTMCell(I, H, dtype=torch.float64)

    states, calls = watch(AllStates(cell), x)

    expected = watch(cell, x)
    torch.testing.assert_close(states.pop("all"), torch.cat(list(expected.states.values()), -1))
    torch.testing.assert_close((states, calls), tuple(expected))


def test_functions_that_an_equation_does_not_use_are_left_out(x):
    assert list(watch(RNNCell(I, H, dtype=torch.float64), x).calls) == ["candidate"]


@pytest.mark.parametrize("reverse", [False, True])
def test_rows_end_and_begin_again_as_in_a_layer(reverse, x):
    cell, resets = GRUCell(I, H, dtype=torch.float64), torch.rand(B, T) < 0.5
    given = (torch.randn(B, H, dtype=torch.float64),)

    states, calls = watch(cell, x, given, LENGTHS, resets, reverse=reverse)

    y, _ = unroll(cell, x, given, LENGTHS, resets, reverse=reverse)
    torch.testing.assert_close(states["h"], y)
    assert all((part[1] == 0).all() and (part[2, 3:] == 0).all() for part in calls["gate"])


def test_options_are_seen_as_they_act(x):
    options = [partial(Activations, gate="hardsigmoid"), partial(Zoneout, p=0.5)]
    cell = optioned(I, H, cell=GRUCell, options=options, dtype=torch.float64).eval()

    states, calls = watch(cell, x * 100)

    torch.testing.assert_close(states["h"], unroll(cell, x * 100)[0])
    assert any((gate == 1).any() for gate in calls["gate"])


def test_what_is_seen_can_be_differentiated(x):
    cell = LSTMCell(I, H, dtype=torch.float64)

    loss = watch(cell, x).states["c"].square().sum()

    assert torch.autograd.grad(loss, cell.weight_hh)[0].abs().sum() > 0


def test_no_steps_have_states_of_no_steps(x):
    states, calls = watch(LSTMCell(I, H, dtype=torch.float64), x[:, :0])

    assert states["c"].shape == (B, 0, H)
    assert calls == {}


def test_gates_by_heads_are_laid_flat(x):
    cell = MLSTMCell(I, H, num_heads=2, dtype=torch.float64)

    states, calls = watch(cell, x, lengths=LENGTHS)

    (o,) = calls["gate"]
    assert o.shape == (B, T, H)
    assert (o[1] == 0).all()
    torch.testing.assert_close(o[0], torch.sigmoid(cell.parts(cell.project(x)[0]).o).flatten(1))
    assert states["C"].shape == (B, T, H * H // 2)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (LSTMCell, {"gate": "ifo", "candidate": "g", "squash": [None]}),
        (PeepholeLSTMCell, {"gate": "ifo", "candidate": "g", "squash": [None]}),
        (GRUCell, {"gate": "rz", "candidate": "n"}),
        (MGUCell, {"gate": "f", "candidate": "n"}),
        (JANETCell, {"gate": ["f", "2"], "candidate": "g"}),
        (partial(optioned, cell=GRUCell, options=[LayerNorm]), {"gate": "rz", "candidate": "n"}),
        (partial(MLSTMCell, num_heads=2), {"gate": [None]}),
    ],
)
def test_calls_have_the_names_of_the_gates_that_they_are(make, names):
    named = names_of_calls(make(I, H).eval())

    assert named == {
        role: [role if name is None else f"{role} {name}" for name in of]
        for role, of in names.items()
    }


@pytest.mark.parametrize("options", [[], [Zoneout]])
def test_naming_calls_leaves_generators_of_random_numbers_as_they_are(options, monkeypatch):
    seeds = []
    monkeypatch.setattr("torch.cuda.manual_seed_all", seeds.append)
    cell = optioned(I, H, cell=LSTMCell, options=options)
    before = torch.get_rng_state()

    names_of_calls(cell)

    assert torch.equal(torch.get_rng_state(), before)
    assert seeds == []


def test_the_layers_of_a_model_are_watched_as_they_run(x):
    net = DeepRNN(LSTMCell, I, H, num_layers=2, bidirectional=True).double()
    expected = net(x, lengths=LENGTHS)
    outputs = []

    seen = watch_layers(net, lambda: outputs.append(net(x, lengths=LENGTHS)))

    torch.testing.assert_close(outputs, [expected])
    names = [f"layers.{n}.{way}_layer" for n in (0, 1) for way in ("forward", "backward")]
    assert list(seen) == names
    below = torch.cat([seen[name].states["h"] for name in names[:2]], -1)
    for name in names[2:]:
        layer = seen[name]
        torch.testing.assert_close(layer.x, below)
        assert layer.valid.sum(1).tolist() == LENGTHS.tolist()
        again = watch(layer.layer.cell, below, None, LENGTHS, reverse=layer.layer.reverse)
        torch.testing.assert_close((layer.states, layer.calls), tuple(again))
    torch.testing.assert_close(net(x, lengths=LENGTHS), expected)
    assert not any("forward" in part.__dict__ for part in net.modules())


@pytest.mark.parametrize("packed", [False, True])
def test_the_layers_of_a_module_like_torchs_are_watched_by_the_names_of_their_weights(packed, x):
    net = nn.ModuleDict({"lstm": seqnets.LSTM(I, H, 2, batch_first=True, bidirectional=True)})
    net.double()
    lengths = torch.tensor([5, 3, 1]) if packed else None
    given = pack_padded_sequence(x, lengths, batch_first=True) if packed else x
    for _ in range(2):  # the second is a call like the one before
        expected = net["lstm"](given)
    outputs = []

    seen = watch_layers(net, lambda: outputs.append(net["lstm"](given)))

    torch.testing.assert_close(outputs, [expected])
    names = [f"lstm.l{n}{way}" for n in (0, 1) for way in ("", "_reverse")]
    assert list(seen) == names
    below = torch.cat([seen[name].states["h"] for name in names[:2]], -1)
    for name in names[2:]:
        layer = seen[name]
        torch.testing.assert_close(layer.x, below)
        again = watch(layer.layer.cell, below, None, lengths, reverse=layer.layer.reverse)
        torch.testing.assert_close((layer.states, layer.calls), tuple(again))
    seen.clear()
    torch.testing.assert_close(net["lstm"](given), expected)
    assert not seen


def test_what_runs_a_layer_already_runs_it_again_afterwards(x):
    net = DeepRNN(GRUCell, I, H, num_layers=2).double()
    lower = net.layers[0]
    lower.forward = mine = lambda *arguments: Recurrent.forward(lower, *arguments)
    inner = {}

    def call():
        inner.update(watch_layers(lower, lambda: lower(x)))
        return net(x)

    seen = watch_layers(net, call)

    assert list(seen) == ["layers.0", "layers.1"]
    torch.testing.assert_close(inner[""].states, seen["layers.0"].states)
    assert lower.forward is mine
    assert "forward" not in net.layers[1].__dict__


def test_layers_that_run_at_another_pace_have_their_own_steps(x):
    net = Hierarchical(*(Recurrent(GRUCell(size, H)) for size in (I, H)), stride=2).double()

    seen = watch_layers(net, lambda: net(x, lengths=LENGTHS))

    assert seen["lower"].valid.sum(1).tolist() == [5, 0, 3]
    assert seen["upper"].valid.sum(1).tolist() == [3, 0, 2]


def test_of_several_calls_the_first_one_is_seen(x):
    net = Bidirectional(GRUCell(I, H)).double()

    seen = watch_layers(net, lambda: (net(x), net(-x)))

    torch.testing.assert_close(seen["forward_layer"].x, x)


def test_a_model_without_recurrent_layers_has_nothing_to_watch(x):
    layer = Recurrent(GRUCell(I, H, dtype=torch.float64))

    with pytest.raises(ConfigError, match="watch_layers: the call ran no recurrent layer"):
        watch_layers(layer, lambda: layer.step(x[:, 0]))


def test_what_is_watched_is_a_model_while_it_runs(x):
    layer = Recurrent(GRUCell(I, H, dtype=torch.float64))

    with pytest.raises(ConfigError, match="watch_layers: call is Tensor, expected a function"):
        watch_layers(layer, x)
    with pytest.raises(ConfigError, match="names_of_calls: cell is Recurrent, expected a cell"):
        names_of_calls(layer)


def test_what_was_watched_is_printed_by_its_shapes(x):
    layer = Recurrent(MGUCell(I, H)).double()
    kept = (
        f"states={{'h': {(B, T, H)}}}, calls={{'gate': [{(B, T, H)}], 'candidate': [{(B, T, H)}]}}"
    )

    assert repr(watch(layer.cell, x)) == f"Watched({kept})"
    assert repr(watch_layers(layer, lambda: layer(x))[""]) == (
        f"WatchedLayer(MGUCell, x={(B, T, I)}, {kept})"
    )
