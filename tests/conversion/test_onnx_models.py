"""Whole models in ONNX by torch's exporter: any cell, any number of rows and steps."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from seqnets import Bidirectional, DeepRNN, Recurrent, cells
from seqnets.cells import GatedCell
from tests.conversion.conftest import drawn
from tests.slow import mostly_slow

REASON = "needs onnxscript and ONNX Runtime: pip install 'seqnets[convert]'"
onnx = pytest.importorskip("onnx", reason=REASON)
runtime = pytest.importorskip("onnxruntime", reason=REASON)
pytest.importorskip("onnxscript", reason=REASON)


class SortedCell(GatedCell):
    """A user's cell that cannot be traced: its units change places by their values."""

    gates = ("h",)

    def update(self, wx, uh, state):
        return (torch.tanh(wx.h + uh.h).sort(-1).values,)


class ConstantsCell(GatedCell):
    """A user's cell whose constants stand first: they are there before what they are used with."""

    gates = ("h",)

    def update(self, wx, uh, state):
        (h,) = state
        kept = 0.9 * h + 0.3
        h = 0.3 + 0.9 * torch.tanh(wx.h + uh.h) + 0.9 / (1.5 - torch.cos(kept))
        h = torch.maximum(torch.where(0.3 < h, 0.9, h), 0.3 - kept)
        return (torch.where(0.3 < kept, h, 0.9).clamp(-2, 2),)


class Reader(nn.Module):
    """An embedding, a layer that is given all it may be, and what follows one."""

    def __init__(self, layer, parts):
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(11, 3), nn.Dropout(0.3)
        self.layer, self.head, self.parts = layer, nn.LazyLinear(2), parts

    def forward(self, tokens, lengths, resets, h, c):
        x = self.dropout(self.embedding(tokens))
        state = (h, c)[: self.parts]
        both = isinstance(self.layer, Bidirectional)
        y, final = self.layer(x, (state, state) if both else state or None, lengths=lengths)
        return self.head(y), final, self.layer(x, lengths=lengths, resets=resets)


def both(make):
    return Bidirectional(make(3, 4), make(3, 4))


def residual():
    return DeepRNN(cells.OriginalGRUCell, 3, 4, 2, connection="residual", dropout=0.2)


LAYERS = {  # the layer, the number of its state's parts that it is given, its operators in ONNX
    "LSTM": (lambda: Recurrent(cells.LSTMCell(3, 4)), 2, {"LSTM": 1, "Scan": 1}),
    "GRU": (lambda: both(cells.GRUCell), 1, {"GRU": 2, "Scan": 2}),
    "RNN": (
        lambda: Recurrent(cells.RNNCell(3, 4, nonlinearity="relu"), reverse=True),
        1,
        {"RNN": 1},
    ),
    "projected": (lambda: Recurrent(cells.LSTMCell(3, 5, proj_size=4)), 0, {"Scan": 2}),
    "MGU": (lambda: both(cells.MGUCell), 1, {"Scan": 4}),
    "deep": (residual, 0, {"Scan": 4}),
    "matrices": (lambda: Recurrent(cells.DeltaNetCell(3, 4), reverse=True), 0, {"Scan": 2}),
    "learned": (lambda: Recurrent(cells.LearnedState(cells.MGUCell(3, 4))), 0, {"Scan": 2}),
    "constants": (lambda: Recurrent(ConstantsCell(3, 4)), 1, {"Scan": 2}),
    **{
        name: (lambda make=make: Recurrent(make(3, 4)), 0, {"Scan": 2})
        for name, make in {
            "ALIF": cells.ALIFCell,
            "coRNN": cells.CoRNNCell,
            "LEM": lambda *sizes: cells.LEMCell(*sizes, dt=0.5),
            "LTC": cells.LTCCell,
            "RRU": cells.RRUCell,
            "zoneout": lambda *sizes: cells.Zoneout(cells.LSTMCell(*sizes)),
            "zoneout of LEM": lambda *sizes: cells.Zoneout(cells.LEMCell(*sizes)),
        }.items()
    },
    "untraceable": (lambda: Recurrent(SortedCell(3, 4)), 1, {"Scan": 2}),
}


def given(B, T):
    """Tokens, lengths of which one is zero, resets, and two parts of a state."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(T + 1, (B,), generator=generator)
    lengths[0] = 0
    resets = torch.rand(B, T, generator=generator) < 0.3
    parts = torch.randn(2, B, 4, generator=generator).unbind()
    return (torch.randint(11, (B, T), generator=generator), lengths, resets, *parts)


@pytest.mark.filterwarnings("ignore:# The axis name")  # two inputs have one in common
@pytest.mark.parametrize("kind", mostly_slow(LAYERS, quick=("LSTM", "constants")))
@torch.no_grad()
def test_a_model_runs_in_onnx_for_any_number_of_rows_and_steps(kind, tmp_path):
    make, parts, operators = LAYERS[kind]
    model, path = Reader(make(), parts), tmp_path / "model.onnx"
    model(*given(2, 2))
    drawn(model)
    rows, steps = {0: "B"}, {0: "B", 1: "T"}
    shapes = steps, rows, steps, rows, rows

    torch.onnx.export(model, given(3, 5), path, dynamic_shapes=shapes, verbose=False)

    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    for B, T in ((3, 5), (1, 1), (4, 9)):
        tensors = dict(zip(("tokens", "lengths", "resets", "h", "c"), given(B, T), strict=True))
        ours = torch.utils._pytree.tree_leaves(model(**tensors))
        theirs = session.run(None, {name: tensors[name].numpy() for name in names})
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(other, one, atol=1e-5, rtol=1e-5)
    nodes = onnx.load(path).graph.node
    found = Counter(node.op_type for node in nodes)
    assert {name: found[name] for name in operators} == operators
    assert {node.domain for node in nodes} == {""}
