import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from seqnets.datasets.scores.tags import check_metric, find_entities, score_tags
from seqnets.errors import ConfigError
from seqnets.training.metrics import EntityScore, LabelScore
from seqnets.typing import IGNORE

LABELS = ["B-place", "B-person", "I-place", "I-person", "O"]


def numbers(text):
    return np.array([IGNORE if label == "?" else LABELS.index(label) for label in text.split()])


@pytest.mark.parametrize(
    ("labels", "entities"),
    [
        ("O O", []),
        ("O B-place I-place O", [("place", 1, 3)]),
        ("B-place B-place", [("place", 0, 1), ("place", 1, 2)]),
        ("B-place I-place B-place I-place", [("place", 0, 2), ("place", 2, 4)]),
        ("O I-place I-place", [("place", 1, 3)]),
        ("I-place O I-place", [("place", 0, 1), ("place", 2, 3)]),
        ("B-person I-place I-place", [("person", 0, 1), ("place", 1, 3)]),
        ("B-person I-person I-place B-place", [("person", 0, 2), ("place", 2, 3), ("place", 3, 4)]),
        ("B-place O I-place", [("place", 0, 1), ("place", 2, 3)]),
    ],
)
def test_entities_are_those_of_conlls_evaluation(labels, entities):
    assert find_entities(labels.split()) == entities


@pytest.mark.parametrize(
    ("said", "right", "hits", "found", "there"),
    [
        ("B-place I-place O", "B-place I-place O", 1, 1, 1),
        ("B-place O O", "B-place I-place O", 0, 1, 1),  # all of its steps must be right
        ("B-person I-person O", "B-place I-place O", 0, 1, 1),  # and its kind
        ("I-place I-place O", "B-place I-place O", 1, 1, 1),  # whatever it began with
        ("B-place B-place O", "B-place I-place O", 0, 2, 1),
        ("B-place O B-person", "B-place ? ?", 1, 1, 1),  # what is not scored is in no entity
        ("O O O", "O B-person O", 0, 0, 1),
    ],
)
def test_entities_are_found_whole_or_not_at_all(said, right, hits, found, there):
    said, right = (torch.from_numpy(numbers(text))[None] for text in (said, right))

    precision, recall, f1 = (
        float(EntityScore(LABELS, figure)(said, right)) for figure in ("precision", "recall", "f1")
    )

    assert precision == pytest.approx(hits / found if found else 0)
    assert recall == pytest.approx(hits / there)
    assert f1 == pytest.approx(2 * hits / (found + there))


def test_entities_end_with_their_sequence_and_are_counted_over_all_batches():
    metric = EntityScore(LABELS)
    together = torch.from_numpy(np.stack([numbers("O B-place"), numbers("I-place O")]))
    missed = torch.from_numpy(np.stack([numbers("O B-place"), numbers("O O")]))

    metric.update(together, together)
    metric.update(missed, together)

    assert float(metric.compute()) == pytest.approx(2 * 3 / (3 + 4))


def test_baselines_are_scored_as_the_metrics_score_models():
    random = np.random.default_rng(0)
    said, right = random.integers(len(LABELS), size=(2, 60))
    right[random.random(60) < 0.2] = IGNORE
    lengths = np.array([20, 25, 15])
    rows = [torch.from_numpy(each) for each in (said, right)]
    padded = [
        torch.nn.utils.rnn.pad_sequence(each.split(lengths.tolist()), True, fill)
        for each, fill in zip(rows, (0, IGNORE), strict=True)
    ]

    for metric, judge in {
        "accuracy": MulticlassAccuracy(5, average="micro", ignore_index=IGNORE),
        "f1": MulticlassF1Score(5, average="macro", ignore_index=IGNORE),
        "f1_I-place": LabelScore(2),
        "entity_f1": EntityScore(LABELS),
    }.items():
        ours = score_tags(metric, said, right, lengths, LABELS)
        assert ours == pytest.approx(float(judge(*padded)), abs=1e-6), metric
        assert 0 < ours < 1


@pytest.mark.parametrize("metric", ["loss", "f1_", "entity"])
def test_other_metrics_are_refused(metric):
    with pytest.raises(ConfigError, match=f"metric is '{metric}', expected accuracy, f1"):
        check_metric("Tagging", metric)
