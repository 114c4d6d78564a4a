import pytest
import torch

from seqnets.cells import GRUCell
from seqnets.errors import ConfigError, ShapeError
from seqnets.models import Transcriber


def model_of(**options):
    torch.manual_seed(0)
    return Transcriber(GRUCell, 5, **{"hidden_size": 6, "bidirectional": True, **options})


FRONTS = {
    "no convolutions": {},
    "one": {"filters": [4]},
    "two with strides": {"filters": [4, 8], "kernel_size": [5, 3], "stride": [2, 2]},
}


@pytest.mark.parametrize(("front", "stride"), [*zip(FRONTS, (1, 1, 4), strict=True)])
def test_a_frame_is_a_step_after_the_convolutions(front, stride):
    model, lengths = model_of(input_size=3, **FRONTS[front]), torch.tensor([11, 4, 1])

    logits, _ = model(torch.randn(3, 11, 3), lengths=lengths)

    assert logits.shape == (3, -(-11 // stride), 5)
    assert model.lengths_after(lengths).tolist() == [-(-n // stride) for n in (11, 4, 1)]


@pytest.mark.parametrize("front", FRONTS)
def test_a_row_in_a_batch_is_what_it_is_alone_whatever_its_padding(front):
    model, lengths = model_of(input_size=3, **FRONTS[front]).double(), torch.tensor([11, 6, 1])
    x = torch.randn(3, 11, 3, dtype=torch.float64)
    for row, length in enumerate(lengths):
        x[row, length:] = torch.nan

    together, _ = model(x, lengths=lengths)

    for row, length in enumerate(lengths):
        alone, _ = model(x[row : row + 1, :length])
        torch.testing.assert_close(together[row, : alone.shape[1]], alone[0])


def test_convolutions_see_both_sides_of_a_step():
    model = model_of(input_size=1, filters=[2], bidirectional=False)
    x = torch.zeros(1, 9, 1)
    changed = x.clone()
    changed[0, 5] = 1

    differs = (model(x)[0] != model(changed)[0]).any(-1)[0]

    assert differs.nonzero()[0].item() == 4


def test_tokens_are_transcribed_too():
    logits, _ = model_of(vocab_size=7)(torch.randint(7, (2, 4)))

    assert logits.shape == (2, 4, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 7, "filters": [4]}, r"filters is \[4\], expected none: .* tokens"),
        ({"input_size": 3, "stride": 2}, "stride is 2 without filters, expected 1"),
        ({"input_size": 3, "filters": [4], "stride": 0}, r"stride is \[0\], expected one positive"),
        ({}, "input_size is None and vocab_size None, expected one of the two"),
    ],
)
def test_convolutions_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        model_of(**options)


def test_other_features_than_the_convolutions_take_are_refused():
    with pytest.raises(ShapeError, match="I = 3"):
        model_of(input_size=3, filters=[4])(torch.zeros(1, 5, 2))
