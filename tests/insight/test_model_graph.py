"""Which layers of a model feed which."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from seqnets.cells import LSTMCell
from seqnets.insight.model_graph import layers_of
from seqnets.models import LanguageModel


class Branches(nn.Module):
    """Two layers of one input, the first called twice, whose outputs a third gets; one is idle."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.idle = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.join = nn.Linear(6, 2)

    def forward(self, x):
        left = self.left(self.left(x).relu()) * 2
        return self.join(torch.cat([left, self.right(x)], -1))


def test_a_layer_is_fed_by_those_whose_outputs_reach_it_through_other_operations():
    model = Branches()
    layers = layers_of(model, lambda: model(torch.ones(5, 3)))

    assert {name: layer.sources for name, layer in layers.items()} == {
        "left": [],
        "right": [],
        "join": ["right", "left"],
    }
    assert [(layers["join"].kind, layers["join"].parameters)] == [("Linear", 14)]
    assert layers["join"].shapes == [(5, 2)]


def test_modules_without_parameters_and_those_that_call_others_are_passed_through():
    model = LanguageModel(LSTMCell, 9, hidden_size=4, num_layers=2, dropout=0.5)
    with torch.no_grad():
        layers = layers_of(model, lambda: model(torch.zeros(2, 3, dtype=torch.long)))

    names = ["encoder.embedding", *(f"encoder.recurrent.layers.{n}" for n in (0, 1)), "output"]
    assert list(layers) == names
    assert [layer.sources for layer in layers.values()] == [[], *([name] for name in names[:-1])]
    assert layers[names[1]].shapes == [(2, 3, 4), (2, 4), (2, 4)]


def test_layers_whose_weights_are_computed_are_shown_as_others_are():
    model = Branches()
    weight_norm(model.left)
    layers = layers_of(model, lambda: model(torch.ones(5, 3)))

    assert list(layers) == ["left", "right", "join"]
    assert layers["left"].kind == "Linear"
    assert layers["join"].sources == ["right", "left"]


def test_what_frozen_layers_feed_is_shown_and_they_stay_frozen():
    model = Branches()
    model.left.requires_grad_(False)
    layers = layers_of(model, lambda: model(torch.ones(5, 3)))
    with pytest.raises(RuntimeError):
        layers_of(model, lambda: model(torch.ones(5, 4)))

    assert layers["join"].sources == ["right", "left"]
    thawed = {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert thawed == {"right", "idle", "join"}


def test_a_model_keeps_no_hook_though_its_call_fails():
    model = Branches()

    with pytest.raises(RuntimeError):
        layers_of(model, lambda: model(torch.ones(5, 4)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
