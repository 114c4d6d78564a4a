"""Dynamic evaluation: a language model learns from each chunk once it is scored."""

import math

import pytest
import torch
from torch import nn

from seqnets.cells import LearnedState, LSTMCell
from seqnets.datasets import TextFiles
from seqnets.errors import ConfigError
from seqnets.models import LanguageModel
from seqnets.training.dynamic_evaluation import dynamically
from seqnets.typing import Batch

from .runs import language_module, parity_data, parity_module, text_data, trainer


def repetitive(folder):
    """Text in which an earlier chunk tells much of a later one."""
    path = folder / "repeated.txt"
    path.write_text("to be or not to be, that is the question. " * 300, encoding="utf-8")
    return TextFiles(str(path), cache=str(folder / "cache"), batch_size=1, chunk_length=8)


def prepared(data):
    data.prepare_data()
    data.setup()
    torch.manual_seed(0)
    return language_module(data, scheduler=None)


def score(module, data, folder, **options):
    running = trainer(folder, inference_mode=False, **options)
    (figures,) = running.test(module, data, verbose=False)
    return figures["test/loss"]


def weights_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_a_repetitive_text_gets_better_and_the_weights_come_back(tmp_path):
    data = repetitive(tmp_path)
    module = prepared(data)
    before = weights_of(module)
    plain = score(module, data, tmp_path)

    with dynamically(module, lr=1.0):
        learning = score(module, data, tmp_path)

    assert learning < plain - 0.3
    after = weights_of(module)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert score(module, data, tmp_path) == plain


def test_parallel_rows_are_refused_as_they_are_later_text(tmp_path):
    data = text_data(tmp_path)
    module = prepared(data)

    with (
        pytest.raises(ConfigError, match=r"rows, expected 1[\s\S]*dataset.batch_size=1"),
        dynamically(module, lr=0.1),
    ):
        score(module, data, tmp_path)


def test_with_rate_0_it_is_plain_evaluation(tmp_path):
    data = repetitive(tmp_path)
    module = prepared(data)
    plain = score(module, data, tmp_path)

    with dynamically(module, lr=0.0, decay=0.1):
        learning = score(module, data, tmp_path)

    assert learning == pytest.approx(plain, rel=1e-6)


def test_a_chunk_is_scored_before_it_is_learned_from(tmp_path):
    data = repetitive(tmp_path)
    module = prepared(data)
    first = score(module, data, tmp_path, limit_test_batches=1)
    two = score(module, data, tmp_path, limit_test_batches=2)

    with dynamically(module, lr=1.0):
        learning = score(module, data, tmp_path, limit_test_batches=1)
    with dynamically(module, lr=1.0):
        learning_two = score(module, data, tmp_path, limit_test_batches=2)

    assert learning == pytest.approx(first, rel=1e-6)
    assert abs(learning_two - two) > 1e-3


class Bigram(nn.Module):
    """Two tokens, of which the second has a logit of its own: sigmoid(w)."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.3))

    def forward(self, tokens, state=None, lengths=None):
        logit = self.w.expand(tokens.shape)
        return torch.stack([torch.zeros_like(logit), logit], -1), state


def test_its_steps_follow_the_paper(tmp_path):
    data = text_data(tmp_path)
    module = prepared(data)
    model = Bigram().eval()
    right = [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    w, expected = 0.3, []
    for targets in right:
        p = 1 / (1 + math.exp(-w))
        expected.append(sum(-math.log(p if y else 1 - p) for y in targets) / 3)
        gradient = sum(p - y for y in targets) / 3
        w = w + 0.2 * (0.3 - w) - 0.5 * gradient

    with dynamically(module, lr=0.5, decay=0.2), torch.no_grad():
        found = []
        for targets in right:
            y = torch.tensor([targets])
            found.append(float(module.objective(model, Batch(torch.zeros_like(y), y)).loss))
        reached = model.w.item()

    assert found == pytest.approx(expected, abs=1e-6)
    assert reached == pytest.approx(w, abs=1e-6)
    assert model.w.item() == pytest.approx(0.3)


def test_a_chunk_that_goes_on_from_a_state_teaches_no_initial_one(tmp_path):
    data = repetitive(tmp_path)
    module = prepared(data)
    module.model = LanguageModel(
        lambda **sizes: LearnedState(LSTMCell(**sizes)), data.sizes["vocab_size"], hidden_size=8
    )
    plain = score(module, data, tmp_path)

    with dynamically(module, lr=1.0):
        assert score(module, data, tmp_path) < plain


def test_only_language_models_support_it():
    data = parity_data()
    data.setup()
    with (
        pytest.raises(ConfigError, match="dynamic: got Classification, expected Language"),
        dynamically(parity_module(data), lr=0.1),
    ):
        pass


@pytest.mark.parametrize(
    ("lr", "decay", "told"),
    [
        (-1.0, 0.0, "lr is -1.0, expected a number of at least 0"),
        (math.nan, 0.0, "lr is nan, expected a number of at least 0"),
        ("fast", 0.0, "lr is 'fast', expected a number of at least 0"),
        (0.1, 1.5, "decay is 1.5, expected a number from 0 to 1"),
        (0.1, None, "decay is None, expected a number from 0 to 1"),
    ],
)
def test_what_is_no_number_in_its_range_is_refused(lr, decay, told, tmp_path):
    module = prepared(text_data(tmp_path))
    with (
        pytest.raises(ConfigError, match=f"dynamic: {told}"),
        dynamically(module, lr=lr, decay=decay),
    ):
        pass
