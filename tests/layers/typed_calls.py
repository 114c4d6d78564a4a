"""What a type checker says of calls: nothing, or an error where one is expected.

mypy reads this file with the package, and warns where an expected error does not come.
"""

from functools import partial

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from typing_extensions import assert_type

import seqnets
from seqnets import cells

Pair = tuple[Tensor, Tensor]


class Net(seqnets.TorchLike[Tensor], cell=cells.MGUCell):
    rnn: seqnets.MGU


def calls(x: Tensor, packed: PackedSequence) -> None:
    assert_type(seqnets.GRU(3, 4, 2, True, batch_first=True)(x), Pair)
    assert_type(seqnets.MGU(3, 4)(x), Pair)
    assert_type(Net(3, 4)(packed, x), tuple[PackedSequence, Tensor])
    assert_type(seqnets.LSTM(3, 4)(x, (x, x)), tuple[Tensor, Pair])
    assert_type(seqnets.SLSTM(3, 4)(x), tuple[Tensor, tuple[Tensor, ...]])
    assert_type(seqnets.MGUCell(3, 4)(x), Tensor)
    assert_type(seqnets.PeepholeLSTMCell(3, 4)(x, (x, x)), Pair)


def calls_with_either(x: Tensor | PackedSequence, state: tuple[Tensor, ...]) -> None:
    assert_type(seqnets.GRU(3, 4)(x), tuple[Tensor | PackedSequence, Tensor])
    assert_type(seqnets.LSTM(3, 4)(x, state)[1], Pair)
    assert_type(seqnets.LSTMCell(3, 4)(state[0], state), Pair)
    assert_type(seqnets.LSTMCell(3, 4)(state[0], state if state else None), Pair)


def calls_of_layers(x: Tensor, lengths: Tensor) -> None:
    layer = seqnets.Recurrent(cells.GRUCell(3, 4))
    assert_type(layer(x, lengths=lengths), tuple[Tensor, tuple[Tensor, ...]])
    assert_type(seqnets.DeepRNN(cells.GRUCell, 3, 4)(x, None, lengths)[0], Tensor)
    assert_type(seqnets.DeepOutput(seqnets.Truncated(layer, 5), [2])(x)[0], Tensor)
    layer(x, mask=lengths)  # type: ignore[call-arg]
    assert_type(seqnets.explain(layer, x, lengths=lengths).chosen, str)
    assert_type(seqnets.explain(seqnets.GRU(3, 4), x)["l0"].chosen, str)


def parts(module: seqnets.training.SequenceModule, hx: seqnets.typing.State) -> None:
    assert_type(hx, tuple[Tensor, ...])
    seqnets.testing.check_cell(partial(cells.GRUCell, hidden_size=4))
    seqnets.conversion.to_onnx(seqnets.models.Encoder(cells.GRUCell, input_size=3))


def wrong_calls(x: Tensor) -> None:
    seqnets.MGU(3)  # type: ignore[call-arg]
    seqnets.MGU("3", 4)  # type: ignore[arg-type]
    seqnets.MGU(3, 4)([1.0])  # type: ignore[type-var]
    seqnets.MGU(3, 4)(x, (x,))  # type: ignore[arg-type]
    seqnets.MGUCell(3, 4)(x, (x,))  # type: ignore[arg-type]
    seqnets.RNN(3, 4, batch_first="yes")  # type: ignore[arg-type]
    seqnets.Recurrent(cells.GRUCell)  # type: ignore[arg-type]
    seqnets.NoSuch(3, 4)  # type: ignore[attr-defined]
