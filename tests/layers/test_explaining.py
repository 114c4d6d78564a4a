"""What runs a layer, and why nothing else, is what ran when it is called."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import seqnets
from seqnets import (
    Bidirectional,
    DeepOutput,
    DeepRNN,
    Hierarchical,
    Recurrent,
    Reversed,
    Truncated,
    Video,
    cells,
    explain,
)
from seqnets.engine import Explanation, runs
from seqnets.errors import BackendError, ConfigError
from seqnets.layers import RTRL
from seqnets.models import LanguageModel

B, T, I, H = 4, 100, 3, 8
LENGTHS = torch.tensor([100, 7, 0, 31])


def ran(call):
    """How many layers each backend ran in a call."""
    before = Counter(runs)
    call()
    return Counter(runs) - before


def packed(*lengths):
    return pack_sequence([torch.randn(n, I) for n in lengths])


LAYERS = {
    "a cell in both directions": (partial(Bidirectional, cells.LSTMCell(I, H)), []),
    "cells of several kinds": (
        partial(DeepRNN, [cells.GRUCell, cells.LSTMCell, cells.RNNCell, cells.MinGRUCell], I, H),
        [LENGTHS],
    ),
    "both, with connections": (
        partial(
            DeepRNN, cells.GRUCell, I, H, 2, bidirectional=True, connection="dense", norm="rms"
        ),
        [],
    ),
    "named backends": (partial(DeepRNN, cells.LSTMCell, I, H, 2, backend="eager"), []),
    "a layer around another": (
        lambda: DeepOutput(Reversed(Recurrent(cells.MLSTMCell(I, H))), [2]),
        [LENGTHS],
    ),
    "two paces": (
        lambda: Hierarchical(
            Recurrent(cells.RNNCell(I, H)), Recurrent(cells.RNNCell(H, H)), stride=20
        ),
        [LENGTHS],
    ),
    "a stack of torch's": (partial(seqnets.LSTM, I, 64, 2), []),
    "a small stack of torch's": (partial(seqnets.LSTM, I, H, 2, bidirectional=True), []),
    "a stack that torch has not": (partial(seqnets.MGU, I, H, 2, bidirectional=True), []),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_what_is_explained_is_what_runs(name, training):
    make, lengths = LAYERS[name]
    layer, x = make(), torch.randn(B, T, I)
    given = (x, None, *lengths) if lengths else (x,)

    with torch.set_grad_enabled(training):
        told = explain(layer, *given)

        assert Counter(each.chosen for each in told.values()) == ran(lambda: layer(*given))


@pytest.mark.parametrize("steps", [5, 12, 20])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_few_steps_of_a_module_like_torchs_are_explained_as_they_run(steps, training, layers):
    layer, x = seqnets.RNN(I, H, layers), torch.randn(steps, 1, I)

    with torch.set_grad_enabled(training):
        for _ in range(2):  # the second is a call like the one before
            told = explain(layer, x)

            assert Counter(each.chosen for each in told.values()) == ran(lambda: layer(x))


@pytest.mark.parametrize("lengths", [(9, 9, 9), (9, 5, 2), (2000, 3, 2, 1)])
@pytest.mark.parametrize("dropout", [0, 0.5])
def test_packed_rows_are_explained_in_the_pieces_that_run(lengths, dropout):
    layer, x = seqnets.GRU(I, H, 2, dropout=dropout, bidirectional=True), packed(*lengths)

    told = explain(layer, x)

    assert {name.partition(" (call")[0] for name in told} == {
        f"l{n}{way}" for n in (0, 1) for way in ("", "_reverse")
    }
    assert {each.chosen for each in told.values()} == set(ran(lambda: layer(x)))


def test_of_several_calls_those_by_another_backend_are_named():
    layer, x = Truncated(Recurrent(cells.GRUCell(I, H)), 33), torch.randn(B, T, I)

    told = explain(layer, x)

    assert list(told) == ["layer", "layer (call 4)"]  # the last window has one step
    assert ran(lambda: layer(x)) == {told["layer"].chosen: 3, told["layer (call 4)"].chosen: 1}


def test_what_copies_of_a_layer_run_is_left_out():
    layer, x = RTRL(Recurrent(cells.LSTMCell(I, H))), torch.randn(B, 1, I)

    told = explain(layer, x)  # it tries a copy of its layer first

    assert {name: each.chosen for name, each in told.items()} == {
        name: each.chosen for name, each in explain(layer, x).items()
    }
    assert told["layer"].chosen == explain(layer.layer, x).chosen


def test_a_stack_in_one_call_says_so():
    small, large = seqnets.LSTM(I, H, 2), seqnets.LSTM(I, 128, 2)
    x = torch.randn(20, 2, I)

    for each in explain(small, x).values():
        assert str(each).startswith("native: chosen (all layers in one call of torch's kernels)")
        assert "native" not in (*each.slower, *each.refusals)
        assert "c: could run it" in str(each)
    assert not any(each.how for each in explain(large, x, None).values())


def test_what_autocast_changes_is_explained():
    layer, x = seqnets.GRU(I, H, 2), torch.randn(2, 4, I)

    with torch.autocast("cpu", torch.bfloat16):
        told = explain(layer, x)

        assert Counter(each.chosen for each in told.values()) == ran(lambda: layer(x))


def test_a_recurrent_layer_has_one_explanation_as_its_cell_has():
    cell, x = cells.PeepholeLSTMCell(I, H), torch.randn(B, T, I)

    assert explain(Recurrent(cell), x) == explain(cell, x)
    named = explain(Recurrent(cell, backend="eager"), x)
    assert isinstance(named, Explanation)
    assert str(named).startswith("eager: chosen (backend='eager')")
    with pytest.raises(BackendError, match="backend 'native' refuses"):
        explain(Recurrent(cell, backend="native"), x)


def test_what_a_subclass_gives_its_base_is_what_is_explained():
    class Doubled(Recurrent):
        def forward(self, x, *args):
            return super().forward(x.double(), *args)

    layer, x = Doubled(cells.GRUCell(I, H).double()), torch.randn(B, T, I)

    assert {explain(layer, x).chosen} == set(ran(lambda: layer(x)))


def test_whole_models_are_explained_by_the_names_of_their_layers():
    model = LanguageModel(cells.LSTMCell, 10, hidden_size=H, num_layers=2)
    video = Video.deep(cells.ConvGRUCell, 1, [2, 1], (4, 4))

    told = explain(model, torch.randint(10, (B, T)))

    assert [name.rpartition("layers.")[2] for name in told] == ["0", "1"]
    frames = explain(video, torch.randn(2, 3, 1, 4, 4))
    assert "convolution" in frames["layer.layers.0"].refusals["c"]


def test_equal_explanations_are_printed_together():
    told = str(
        explain(DeepRNN([cells.MGUCell, cells.MGUCell, cells.RNNCell], I, H), torch.ones(B, T, I))
    )

    assert told.startswith("layers.0, layers.1:\n  c: chosen\n  eager: could run it")
    assert "\nlayers.2:\n  " in told


def test_a_notebook_shows_an_explanation_as_it_is_printed():
    for layer in (Recurrent(cells.MGUCell(I, H)), DeepRNN(cells.MGUCell, I, H, 2)):
        told = explain(layer, torch.ones(B, T, I))

        assert repr(told) == str(told)
        assert "c: chosen\n" in repr(told)


def test_to_explain_a_layer_changes_nothing_of_it():
    layer = DeepRNN([cells.LSTMCell, cells.GRUCell], I, H, dropout=0.5)
    model = nn.Sequential(nn.BatchNorm1d(T), layer, nn.Identity())
    torch_like, x = seqnets.GRU(I, H), torch.randn(B, T, I)
    random, buffers = torch.get_rng_state(), [b.clone() for b in model.buffers()]
    torch_like(x)  # and is remembered
    own = [dict(vars(part)) for part in (*model.modules(), torch_like)]

    explain(model, x)
    explain(torch_like, x)

    assert torch.equal(torch.get_rng_state(), random)
    assert all(map(torch.equal, model.buffers(), buffers))
    assert [vars(part) for part in (*model.modules(), torch_like)] == own


class Remembering(nn.Module):
    """Keeps its state in a buffer of its own, from call to call."""

    def __init__(self):
        super().__init__()
        self.layer = Recurrent(cells.GRUCell(I, H))
        self.register_buffer("h", torch.zeros(B, H))
        self.register_buffer("y", None)

    def forward(self, x, layer=0):
        self.y, (h,) = self.layer(x, (self.h,))
        self.h = h.detach()
        return self.y


def test_to_explain_a_layer_leaves_it_the_buffers_that_it_had():
    model = Remembering()
    own = dict(model._buffers)

    explain(model, torch.randn(B, T, I), layer=1)

    assert model._buffers == own
    assert model.h.count_nonzero() == 0


def test_buffers_that_cannot_be_written_or_have_no_values_yet_are_no_obstacle():
    layer, x = Recurrent(cells.GRUCell(I, H)), torch.randn(B, T, I)
    layer.register_buffer("expanded", torch.zeros(1).expand(3))
    layer.register_buffer("sparse", torch.eye(3).to_sparse())
    layer.register_buffer("absent", torch.zeros(3, device="meta"))
    lazy = nn.Sequential(nn.LazyBatchNorm1d(), layer)

    assert explain(lazy, x) == {"1": explain(layer, x)}
    assert lazy[0].num_batches_tracked == 0


def test_a_layer_that_runs_another_in_its_place_is_explained_by_that():
    class Replaced(Recurrent):
        def __init__(self, cell, inner):
            super().__init__(cell)
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    cell, x = cells.GRUCell(I, H), torch.randn(B, T, I)

    assert explain(Replaced(cell, Recurrent(cell)), x) == {"inner": explain(cell, x)}


def test_a_cell_may_be_given_by_name_as_to_unroll():
    cell, x = cells.GRUCell(I, H), torch.randn(B, T, I)

    assert explain(cell=cell, x=x) == explain(cell, x)


def test_what_runs_no_layer_over_a_sequence_is_refused():
    with pytest.raises(ConfigError, match="explain: the call ran no recurrent layer of GRUCell"):
        explain(seqnets.GRUCell(I, H), torch.randn(B, I))
    with pytest.raises(
        ConfigError, match="explain: layer is the class GRUCell, expected a cell or"
    ):
        explain(cells.GRUCell, torch.randn(B, T, I))
