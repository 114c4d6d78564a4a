"""Weights in one block of memory, as cuDNN reads them in float16, with a stand-in for cuDNN."""

import copy
from importlib import import_module

import pytest
import torch
import torch.nn.utils.prune
from safetensors.torch import load_file, save_file

from seqnets import LSTM, MGU, Bidirectional, Recurrent, cells, unroll

I, H = 3, 4
GAP = 2  # numbers between a weight and the next, as alignment could want them
MODES = {"RNN_RELU": 0, "RNN_TANH": 1, "LSTM": 2, "GRU": 3}


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """What cuDNN was asked to lay out: (input_size, mode, hidden_size, proj_size, layers) each."""
    asked = []

    def flatten(weights, stride, *sizes_and_options):
        *sizes, layers, _, both = sizes_and_options
        assert stride * layers * (1 + both) == len(weights)
        asked.append((*sizes, layers))
        whole = torch.zeros(sum(w.numel() + GAP for w in weights), dtype=weights[0].dtype)
        start = 0
        for weight in weights:
            part = whole[start : start + weight.numel()].view_as(weight)
            weight.set_(part.copy_(weight))
            start += weight.numel() + GAP
        return whole

    monkeypatch.setattr(torch, "_cudnn_rnn_flatten_weight", flatten)
    monkeypatch.setattr(torch, "_use_cudnn_rnn_flatten_weight", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "is_acceptable", lambda tensor: True)
    cudnn = import_module("torch.backends.cudnn.rnn")  # torch 2.10 has an option of this name
    monkeypatch.setattr(cudnn, "get_cudnn_mode", MODES.__getitem__)
    return asked


def memories(module):
    return {p.untyped_storage().data_ptr() for p in module.parameters()}


def half(layer):
    return layer.to(torch.float16)


@pytest.mark.parametrize(
    ("cell", "asked"),
    [
        (cells.LSTMCell(I, H), (I, 2, H, 0, 1)),
        (cells.LSTMCell(I, H, proj_size=2), (I, 2, H, 2, 1)),
        (cells.LSTMCell(I, H, bias=False), (I, 2, H, 0, 1)),
        (cells.GRUCell(I, H), (I, 3, H, 0, 1)),
        (cells.RNNCell(I, H), (I, 1, H, 0, 1)),
        (cells.RNNCell(I, H, nonlinearity="relu"), (I, 0, H, 0, 1)),
    ],
)
def test_a_layer_moves_its_weights_into_one_block_and_changes_nothing_else(cell, asked, calls):
    cell, x = cell.half(), torch.randn(2, 5, I).half()
    before, numbers = dict(cell.named_parameters()), copy.deepcopy(cell.state_dict())
    expected, _ = unroll(copy.deepcopy(cell), x, backend="reference")

    layer = Recurrent(cell)

    assert calls == [asked]
    assert len(memories(layer)) == 1
    assert all(p is before[name] for name, p in cell.named_parameters())
    assert all(map(torch.equal, cell.state_dict().values(), numbers.values()))
    torch.testing.assert_close(unroll(cell, x, backend="reference")[0], expected)


def test_moving_a_layer_flattens_its_weights_again(calls):
    layer = half(Recurrent(cells.GRUCell(I, H)))
    assert len(calls) == 1

    half(layer)
    assert len(calls) == 1

    half(layer.float())
    assert len(calls) == 2
    assert len(memories(layer)) == 1


def test_weights_of_one_cudnn_call_lie_in_one_block(calls):
    both = half(Bidirectional(cells.LSTMCell(I, H)))
    stack = half(LSTM(I, H, num_layers=2, bidirectional=True))
    with_dropout = half(LSTM(I, H, num_layers=2, dropout=0.5))  # whose layers run one by one

    assert [len(memories(module)) for module in (both, stack, with_dropout)] == [2, 1, 2]
    assert calls == [
        *2 * [(I, 2, H, 0, 1)],
        (I, 2, H, 0, 2),
        *[(I, 2, H, 0, 1), (H, 2, H, 0, 1)],
    ]


def test_training_updates_the_weights_in_the_block(calls):
    layer = half(Recurrent(cells.LSTMCell(I, H), backend="reference"))
    apart = Recurrent(copy.deepcopy(layer.cell).float(), backend="reference")
    x = torch.randn(2, 5, I)

    for each, given in ((layer, x.half()), (apart, x)):
        optimizer = torch.optim.SGD(each.parameters(), 1.0)
        for _ in range(3):
            each(given)[0].square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    assert len(memories(layer)) == 1
    for ours, theirs in zip(layer.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=1e-2)


def test_weights_that_share_memory_are_not_moved(calls):
    tied = cells.LSTMCell(I, H).half()
    tied.bias_hh.data = torch.zeros(8 * H).half()[: 4 * H]  # of a larger tensor of the user's
    place = tied.bias_hh.data_ptr()

    Recurrent(tied)

    assert tied.bias_hh.data_ptr() == place
    assert calls == []


def test_weights_that_cudnn_does_not_run_are_not_moved(calls):
    parametrised = cells.LSTMCell(I, H)
    torch.nn.utils.parametrizations.weight_norm(parametrised, "weight_hh")

    pruned = cells.LSTMCell(I, H).half()
    torch.nn.utils.prune.random_unstructured(pruned, "weight_hh", 0.5)
    Recurrent(pruned)

    for cell in (cells.PeepholeLSTMCell(I, H), cells.MGUCell(I, H), parametrised):
        half(Recurrent(cell))
    half(MGU(I, H))
    LSTM(I, H).double().to(torch.bfloat16)

    assert calls == []


def test_weights_in_one_block_are_saved_and_loaded(tmp_path):
    layer, other = (half(Recurrent(cells.LSTMCell(I, H))) for _ in range(2))

    save_file(layer.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))

    assert len(memories(other)) == 1
    assert all(map(torch.equal, layer.state_dict().values(), other.state_dict().values()))
