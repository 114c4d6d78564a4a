"""What a type checker says of calls: nothing, or an error where one is expected.

mypy reads this file with the package, and warns where an expected error does not come.
"""

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


def wrong_calls(x: Tensor) -> None:
    seqnets.MGU(3)  # type: ignore[call-arg]
    seqnets.MGU("3", 4)  # type: ignore[arg-type]
    seqnets.MGU(3, 4)([1.0])  # type: ignore[type-var]
    seqnets.MGU(3, 4)(x, (x,))  # type: ignore[arg-type]
    seqnets.MGUCell(3, 4)(x, (x,))  # type: ignore[arg-type]
    seqnets.RNN(3, 4, batch_first="yes")  # type: ignore[arg-type]
    seqnets.Recurrent(cells.GRUCell)  # type: ignore[arg-type]
    seqnets.NoSuch(3, 4)  # type: ignore[attr-defined]
