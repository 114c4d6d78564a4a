"""Packed rows of very different lengths run at most twice their steps, with torch's results."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import seqnets
from seqnets.errors import ShapeError
from seqnets.layers import ragged

I, H = 3, 4
LENGTHS = [[1, 40, 3, 1, 2], [9], [7, 7, 7], [30, 1, 1, 1, 1, 1, 1, 1], [5, 4, 3, 2, 1]]
KINDS = {
    "RNN": {},
    "GRU": {},
    "LSTM": {},
    "LSTM projected": {"proj_size": 2},
}


def pair(kind, **options):
    name, options = kind.split()[0], {**KINDS[kind], **options}
    theirs = getattr(nn, name)(I, H, **options).double()
    ours = getattr(seqnets, name)(I, H, **options).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def rows(lengths):
    torch.manual_seed(0)
    return [torch.randn(length, I, dtype=torch.float64) for length in lengths]


def states(module, count):
    places = module.num_layers * (1 + module.bidirectional)
    sizes = [module.proj_size or H, H] if isinstance(module, nn.LSTM) else [H]
    parts = [torch.randn(places, count, size, dtype=torch.float64) for size in sizes]
    return tuple(parts) if len(parts) > 1 else parts[0]


def everything(module, lengths, hx):
    data = [row.clone().requires_grad_() for row in rows(lengths)]
    parts = () if hx is None else hx if isinstance(hx, tuple) else (hx,)
    parts = tuple(part.clone().requires_grad_() for part in parts)
    given = None if hx is None else parts if isinstance(hx, tuple) else parts[0]
    torch.manual_seed(1)  # of dropout
    y, final = module(pack_sequence(data, enforce_sorted=False), given)
    finals = final if isinstance(final, tuple) else (final,)
    results = [y.data, *finals]
    loss = sum((r * torch.arange(r.numel()).view_as(r).sin()).sum() for r in results)
    wanted = [*data, *parts, *module.parameters()]
    return [*results, y.batch_sizes, y.unsorted_indices, *torch.autograd.grad(loss, wanted)]


@pytest.fixture
def in_pieces(monkeypatch):
    """Whatever there is of padding is much; gives what cells were run over."""
    seen, run = [], ragged._unroll

    def watched(unroll, cell, data, sizes, *args):
        seen.append(int(sizes[0]) * len(sizes))
        return run(unroll, cell, data, sizes, *args)

    monkeypatch.setattr(ragged, "_MIN_PADDING", 0)
    monkeypatch.setattr(ragged, "_unroll", watched)
    return seen


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_running_in_pieces_gives_torchs_results(kind, lengths, given, in_pieces):
    theirs, ours = pair(kind, num_layers=2, bidirectional=True, dropout=0.5)
    hx = states(theirs, len(lengths)) if given else None

    found, expected = (everything(module, lengths, hx) for module in (ours, theirs))

    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert bool(in_pieces) == (len({*lengths}) > 1)
    assert sum(in_pieces) <= 4 * 2 * sum(lengths)  # of four cells


def test_many_short_rows_beside_a_long_one_are_not_padded_to_it(in_pieces):
    theirs, ours = pair("GRU")
    lengths = [500] + [1] * 300

    torch.testing.assert_close(everything(ours, lengths, None), everything(theirs, lengths, None))
    assert in_pieces == [301, 499]


def test_a_users_cell_runs_in_pieces_too(in_pieces):
    class MGU(seqnets.TorchLike, cell=seqnets.cells.MGUCell):
        pass

    layer = MGU(I, H, bidirectional=True).double()
    packed, final = layer(pack_sequence(rows([20, 1, 1]), enforce_sorted=False))
    alone = [layer(row) for row in rows([20, 1, 1])]

    y, lengths = nn.utils.rnn.pad_packed_sequence(packed)
    for number, (expected, last) in enumerate(alone):
        torch.testing.assert_close(y[: lengths[number], number], expected)
        torch.testing.assert_close(final[:, number], last)
    assert len(in_pieces) == 4


@pytest.mark.parametrize("lengths", [[3, 2], [5000, 4999]])
def test_little_padding_stays(lengths):
    assert not ragged.is_ragged(pack_sequence(rows(lengths)).batch_sizes)


@pytest.mark.parametrize("count", [2, 4])
def test_a_state_of_other_rows_than_unsorted_packed_ones_is_refused(count):
    packed = pack_sequence(rows([1, 3, 2]), enforce_sorted=False)
    module = seqnets.GRU(packed.data.shape[1], 4, dtype=packed.data.dtype)

    with pytest.raises(ShapeError, match=rf"size \(1, 3, 4\), got \[1, {count}, 4\]"):
        module(packed, packed.data.new_zeros(1, count, 4))


def test_a_state_of_another_batch_is_refused(in_pieces):
    layer = seqnets.GRU(I, H).double()
    packed = pack_sequence(rows([30, 1, 1, 1]))
    with pytest.raises(ShapeError, match=r"of size \(1, 4, 4\)"):
        layer(packed, torch.zeros(1, 3, H).double())


def test_under_autocast_a_packed_network_gives_the_dtypes_of_one_whose_rows_are_alike(in_pieces):
    layer = seqnets.RNN(I, H, bidirectional=True, num_layers=2)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = (
            layer(pack_sequence([row.float() for row in rows(lengths)]))
            for lengths in ([30, 1, 1, 1], [3, 3])
        )

    assert in_pieces
    assert [t.dtype for t in (found[0].data, found[1])] == [
        t.dtype for t in (expected[0].data, expected[1])
    ]


def test_under_autocast_a_packed_lstm_gives_the_inputs_dtype(in_pieces):
    layer = seqnets.LSTM(I, H)
    packed = pack_sequence([row.float() for row in rows([30, 1, 1, 1])])
    with torch.autocast("cpu", torch.bfloat16):
        y, (h, c) = layer(packed)

    assert isinstance(y, PackedSequence)
    assert y.data.dtype == h.dtype == c.dtype == torch.float32
    torch.testing.assert_close(y.data, layer(packed)[0].data, rtol=0.1, atol=0.05)
