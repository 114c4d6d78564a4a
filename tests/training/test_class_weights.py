"""Losses of classes that are rarer, or matter more, than others."""

import pytest
import torch
import torch.nn.functional as F

from seqnets.errors import ConfigError
from seqnets.training import Classification
from seqnets.typing import IGNORE, Batch

KNOWN = {"sizes": {"num_classes": 3}, "labels": ["a", "b", 3], "class_counts": [6, 2, 1]}
LOGITS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, IGNORE, 2, 0])


def loss_of(class_weights):
    objective = Classification(class_weights=class_weights)
    objective.prepare(KNOWN)
    outcome = objective(lambda x, state, lengths: (LOGITS, None), Batch(LOGITS, TARGETS))
    return outcome.loss


def test_balanced_weights_give_each_class_the_same_share_of_the_training_loss():
    objective = Classification(class_weights="balanced")
    objective.prepare(KNOWN)
    shares = objective._weights * torch.tensor(KNOWN["class_counts"])

    torch.testing.assert_close(shares, torch.full((3,), 3.0))


def test_a_weight_multiplies_the_losses_of_its_class():
    each = F.cross_entropy(LOGITS, TARGETS, reduction="none", ignore_index=IGNORE)

    torch.testing.assert_close(
        loss_of({"b": 5, "3": 0.5}), each @ torch.tensor([1, 5, 0, 0.5, 1]) / 4
    )
    assert loss_of({}) == loss_of(None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_fit_logits_of_any_precision(dtype):
    objective = Classification(class_weights={"b": 5})
    objective.prepare(KNOWN)
    logits = LOGITS.to(dtype)
    outcome = objective(lambda x, state, lengths: (logits, None), Batch(logits, TARGETS))

    assert outcome.loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(outcome.loss) == pytest.approx(float(loss_of({"b": 5})), rel=0.01)


def test_a_class_without_training_sequences_has_no_weight_among_the_balanced():
    objective = Classification(class_weights="balanced")
    objective.prepare({**KNOWN, "class_counts": [6, 2, 0]})

    torch.testing.assert_close(objective._weights, torch.tensor([8 / 12, 8 / 4, 0]))


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"c": 1.0}, "has 'c', expected labels of the dataset: 'a', 'b', '3'"),
        ({"a": -1.0}, "weight of class 'a' is -1.0, expected a number of at least 0"),
        ({"a": float("inf")}, "weight of class 'a' is inf"),
        ("balance", "is 'balance', expected 'balanced' or weights by label"),
    ],
)
def test_weights_that_fit_no_class_are_refused(weights, told):
    with pytest.raises(ConfigError, match=told):
        Classification(class_weights=weights).prepare(KNOWN)


def test_data_that_count_no_classes_cannot_balance_them():
    with pytest.raises(ConfigError, match="the dataset does not count its classes"):
        Classification(class_weights="balanced").prepare({**KNOWN, "class_counts": None})
