import pytest
import torch

from seqnets.cells import GRUCell
from seqnets.errors import ConfigError
from seqnets.layers import ConvFront2d, Fronted, Recurrent
from seqnets.testing import check_layer


class DeafToLengths(Recurrent):
    def forward(self, x, state=None, lengths=None, resets=None):
        return super().forward(x, state, None, resets)


class OutputsPastTheEnd(Recurrent):
    def forward(self, x, state=None, lengths=None, resets=None):
        _, final = super().forward(x, state, lengths, resets)
        return super().forward(x, state, None, resets)[0], final


class StateOfTheLastStep(Recurrent):
    def forward(self, x, state=None, lengths=None, resets=None):
        y, _ = super().forward(x, state, lengths, resets)
        return y, super().forward(x, state, None, resets)[1]


class DeafToResets(Recurrent):
    def forward(self, x, state=None, lengths=None, resets=None):
        return super().forward(x, state, lengths)


class MasksWithProducts(Recurrent):
    """Zero times NaN is NaN."""

    def forward(self, x, state=None, lengths=None, resets=None):
        y, final = super().forward(x, state, lengths, resets)
        ends = torch.tensor(x.shape[1]) if lengths is None else lengths[:, None]
        valid = torch.arange(x.shape[1]) < ends
        return y + x.mean(-1, keepdim=True) * valid[..., None], final


class HasAnotherStep(Recurrent):
    def step(self, x, state=None):
        return super().step(2 * x, state)


@pytest.mark.parametrize(
    ("layer_cls", "law"),
    [
        (DeafToLengths, "lengths"),
        (OutputsPastTheEnd, "lengths"),
        (StateOfTheLastStep, "lengths"),
        (DeafToResets, "resets"),
        (MasksWithProducts, "padding"),
        (HasAnotherStep, "steps"),
    ],
)
def test_a_wrong_layer_is_caught_by_the_law_that_it_breaks(layer_cls, law):
    with pytest.raises(AssertionError, match=f"^{layer_cls.__name__} breaks the law '{law}'"):
        check_layer(layer_cls(GRUCell(3, 4)))


@pytest.mark.parametrize(
    ("given", "came"),
    [
        (GRUCell(3, 4), "GRUCell"),
        (Recurrent, "the class Recurrent"),
        (lambda: Recurrent(GRUCell(3, 4)), "function"),
    ],
)
def test_what_is_no_layer_yet_is_refused(given, came):
    with pytest.raises(
        ConfigError, match=f"check_layer: layer is {came}.*made already[\\s\\S]*Recurrent"
    ):
        check_layer(given)


@pytest.mark.parametrize(
    "layer",
    [torch.nn.Sequential(), Fronted(ConvFront2d(3, 4), Recurrent(GRUCell(4, 5)))],
    ids=["no layer", "frames"],
)
def test_what_has_no_input_size_is_refused(layer):
    with pytest.raises(
        ConfigError, match=f"check_layer: layer is {type(layer).__name__}, expected .* input_size"
    ):
        check_layer(layer)
