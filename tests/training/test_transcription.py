"""The objective of transcription: loss, scores, rows, pictures and what cannot be learned."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from seqnets.alignment import frames_needed
from seqnets.cells import GRUCell
from seqnets.datasets import SequenceData, Sequences, Splits
from seqnets.datasets.augmentation import Stretch
from seqnets.errors import ConfigError, DataError, ShapeError
from seqnets.models import (
    ConditionalRandomField,
    SequenceTagger,
    Transcriber,
    ctc_loss,
    prefix_beam_search,
)
from seqnets.training import SequenceModule, Transcription
from seqnets.training.metrics import MeanLoss
from seqnets.training.predict import predict
from seqnets.typing import IGNORE, Batch

LABELS = ["", "a", "b", " "]
KNOWN = {"sizes": {"num_classes": 4}, "labels": LABELS, "joiner": ""}


class Says(nn.Module):
    """A model that is sure of one class a frame."""

    def __init__(self, classes, sure=20.0):
        super().__init__()
        self.logits = sure * nn.functional.one_hot(torch.tensor(classes), len(LABELS)).float()

    def forward(self, x, state=None, lengths=None):
        return self.logits, state


def batch_of(y, frames=5, lengths=None):
    lengths = None if lengths is None else torch.tensor(lengths)
    return Batch(torch.zeros(len(y), frames, 1), torch.tensor(y).long(), lengths)


SAID = [[1, 0, 1, 1, 2], [1, 3, 3, 2, 0], [0, 0, 1, 2, 2]]  # "aab", "a b" and, of 2 frames, ""
RIGHT = [[1, 1, 2, IGNORE], [1, 3, 2, 2], [IGNORE] * 4]  # "aab", "a bb", ""
BATCH = batch_of(RIGHT, lengths=[5, 5, 2])


def scored(objective, model, batch):
    outcome = objective(model.eval(), batch)
    figures = objective.metrics(KNOWN)
    for metric in figures.values():
        metric.update(outcome.predictions, outcome.targets)
    return {name: float(metric.compute()) for name, metric in figures.items()}


def test_figures_are_edits_per_label_and_word_and_the_share_of_correct_sequences():
    assert scored(Transcription(), Says(SAID), BATCH) == {
        "cer": pytest.approx(1 / 7),
        "wer": pytest.approx(1 / 3),  # "b" for "bb"
        "exact_match": pytest.approx(2 / 3),
    }


def test_without_spaces_between_words_there_is_no_rate_of_words():
    assert list(Transcription().metrics({**KNOWN, "labels": LABELS[:3]})) == ["cer", "exact_match"]
    assert list(Transcription().metrics({**KNOWN, "joiner": "|"})) == ["cer", "exact_match"]


def test_the_loss_is_in_nats_per_label_however_sequences_are_batched():
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 4)
    model = Says(SAID)
    model.logits = logits
    together = Transcription()(model.eval(), BATCH)
    mean = MeanLoss()

    for rows in ([0, 1], [2]):  # nothing but a target without labels
        model.logits = logits[rows]
        outcome = Transcription()(model, BATCH.map(lambda each, rows=rows: each[rows]))
        mean.update(outcome.loss, outcome.scored)

    expected = ctc_loss(logits, BATCH.y, BATCH.lengths) / 8  # 3, 4 and one of no labels
    assert int(together.scored) == 8
    torch.testing.assert_close(together.loss, expected)
    torch.testing.assert_close(mean.compute(), expected)


def test_a_beam_finds_labels_that_the_likeliest_class_of_each_frame_misses():
    model = Says([[0, 0]])
    model.logits = torch.tensor([[[0.6, 0.4, 0, 0], [0.6, 0.4, 0, 0]]]).log()
    batch = batch_of([[1]], frames=2)

    assert scored(Transcription(), model, batch)["cer"] == 1
    assert scored(Transcription(beam_size=4), model, batch)["cer"] == 0


def test_rows_are_texts_and_score_as_the_model_did():
    objective = Transcription()
    outcome = objective(Says(SAID).eval(), BATCH)

    rows = json.loads(json.dumps(objective.rows(outcome, BATCH, KNOWN)))

    assert rows == [
        {"prediction": "aab", "target": "aab"},
        {"prediction": "a b", "target": "a bb"},
        {"prediction": "", "target": ""},
    ]
    assert objective.scores(rows, KNOWN) == pytest.approx(scored(objective, Says(SAID), BATCH))


def test_rows_have_the_n_best_labellings_with_their_log_probabilities():
    logits = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    model, batch = Says([[0] * 5] * 2).eval(), batch_of([[1], [2]], frames=5)
    model.logits = logits
    alone, several = (Transcription(beam_size=6, n_best=n) for n in (1, 3))

    outcome = several(model, batch)
    rows = several.rows(outcome, batch, KNOWN)

    labels, scores = prefix_beam_search(logits, None, 6, 3)
    for number, row in enumerate(rows):
        found = row.pop("candidates")
        assert [each["score"] for each in found] == scores[number].tolist()
        assert [each["prediction"] for each in found] == [
            "".join(LABELS[n] for n in ids if n != IGNORE) for ids in labels[number].tolist()
        ]
        assert found[0]["prediction"] == row["prediction"]
    assert rows == alone.rows(alone(model, batch), batch, KNOWN)
    assert scored(several, model, batch) == scored(alone, model, batch)


def test_more_candidates_than_the_beam_holds_are_refused():
    with pytest.raises(ConfigError, match="Transcription: n_best is 2, expected at most 1, which"):
        Transcription(n_best=2)


def test_labels_are_named_once_for_all_rows_of_a_batch():
    named = []

    class Names(list):
        def __iter__(self):
            named.append(self)
            return super().__iter__()

    objective = Transcription()
    outcome = objective(Says(SAID).eval(), BATCH)

    assert len(objective.rows(outcome, BATCH, {**KNOWN, "labels": Names(LABELS)})) == 3
    assert len(named) == 1


def test_labels_of_several_letters_are_joined_and_taken_apart_again():
    known = {**KNOWN, "labels": ["", "one", "two", "three"], "joiner": " "}
    objective = Transcription(unit="words")
    objective.prepare(known)

    rows = objective.rows(objective(Says(SAID).eval(), BATCH), BATCH, known)

    assert [row["target"] for row in rows] == ["one one two", "one three two two", ""]
    assert objective.scores(rows, known) == pytest.approx({"wer": 1 / 7, "exact_match": 2 / 3})
    assert list(objective.metrics(known)) == ["wer", "exact_match"]
    assert objective.metric == "wer"


def test_a_target_with_labels_that_the_model_lacks_is_scored_as_it_stands():
    rows = [{"prediction": "ab", "target": "aß"}]

    assert Transcription().scores(rows, KNOWN)["cer"] == 0.5


def test_white_space_between_words_is_one_space_in_what_is_scored():
    known = {**KNOWN, "joiner": " "}
    rows = [{"prediction": " a  b\n", "target": "a b"}, {"prediction": "b", "target": "\tb"}]

    assert Transcription(unit="words").scores(rows, known) == {"wer": 0, "exact_match": 1}


@pytest.mark.parametrize("row", [{"prediction": "a", "target": None}, {"prediction": "a"}])
def test_a_row_without_a_text_is_reported(row):
    with pytest.raises(DataError, match="Row 2: target is None, expected a text"):
        Transcription().scores([{"prediction": "a", "target": ""}, row], KNOWN)


def test_unknown_targets_cost_and_count_nothing():
    batch = batch_of([[], [], []])
    objective = Transcription()
    outcome = objective(Says(SAID).eval(), batch)

    assert (float(outcome.loss), int(outcome.scored)) == (0, 0)
    assert [row["target"] for row in objective.rows(outcome, batch, KNOWN)] == [None] * 3
    assert all(map(math.isnan, scored(objective, Says(SAID), batch).values()))


def test_what_is_too_long_to_be_spelled_costs_infinitely_in_evaluation_and_is_refused_in_training():
    batch = batch_of([[1, 1, 1, 1], [1, IGNORE, IGNORE, IGNORE], [IGNORE] * 4])

    assert float(Transcription()(Says(SAID).eval(), batch).loss) == math.inf
    with pytest.raises(DataError, match="row 0 has 5 frames, expected at least 7"):
        Transcription()(Says(SAID).train(), batch)


@pytest.mark.parametrize(
    ("logits", "y"),
    [
        (torch.zeros(2, 5), torch.ones(2, 1, dtype=torch.int64)),
        (torch.zeros(2, 5, 4), torch.ones(2, dtype=torch.int64)),
        (torch.zeros(2, 5, 4), torch.ones(2, 5)),
    ],
)
def test_predictions_and_targets_of_other_tasks_are_refused(logits, y):
    model = Says(SAID)
    model.logits = logits

    with pytest.raises(DataError, match=r"expected labels \(B, U\) and logits \(B, frames, C\)"):
        Transcription()(model, Batch(torch.zeros(2, 5, 1), y))


@pytest.mark.parametrize("lengths", [None, [9, 9, 3]])
@pytest.mark.parametrize("training", [True, False])
def test_a_model_that_does_not_say_how_it_shortens_time_is_refused(lengths, training):
    model = Says(SAID).train(training)
    batch = batch_of(RIGHT, 9, lengths)

    with pytest.raises(ShapeError, match=r"gives 5 frames of 9 steps, expected 9\.\n.*lengths_aft"):
        Transcription()(model, batch)
    model.lengths_after = lambda lengths: lengths // 3
    with pytest.raises(ShapeError, match=r"gives 5 frames of 9 steps, expected 3\.\n"):
        Transcription()(model, batch)


@pytest.mark.parametrize(
    ("labels", "joiner", "message"),
    [
        (["", "a", "ch"], "", "label 2 is 'ch', expected a single character"),
        (["", "a", ""], "", "label 2 is '', expected a single character"),
        (["", "a", "b c"], " ", "label 2 is 'b c', expected a text without ' '"),
        (["", "", "b"], " ", "label 1 is '', expected a text without ' '"),
        (None, "", "label 10 is '10', expected a single character"),
    ],
)
def test_labels_that_a_text_would_not_show_are_refused(labels, joiner, message):
    known = {"sizes": {"num_classes": 11}, "labels": labels, "joiner": joiner}

    with pytest.raises(ConfigError, match=message):
        Transcription(unit="words" if joiner else "characters").prepare(known)


@pytest.mark.parametrize(
    ("unit", "joiner", "expected"),
    [("characters", " ", "words"), ("words", "", "characters"), ("words", "|", "characters")],
)
def test_figures_are_not_named_after_another_unit(unit, joiner, expected):
    with pytest.raises(ConfigError, match=f"unit is '{unit}', expected '{expected}', since '"):
        Transcription(unit=unit).prepare({**KNOWN, "joiner": joiner})


def test_a_random_field_over_steps_which_have_no_labels_is_refused():
    model = SequenceTagger(GRUCell, 4, input_size=3, output=ConditionalRandomField)

    with pytest.raises(ConfigError, match="SequenceTagger has a ConditionalRandomField as output"):
        Transcription().check(model, Strokes())


def test_pictures_show_where_labels_fire_at_the_steps_of_the_input():
    pytest.importorskip("matplotlib")
    model, objective = Says(SAID), Transcription()
    model.lengths_after = lambda lengths: (lengths + 1) // 2  # two steps a frame
    batch = Batch(torch.zeros(3, 9, 2), torch.tensor(RIGHT), torch.tensor([9, 9, 3]))

    pictures = objective.pictures(objective(model.eval(), batch), batch, KNOWN)

    assert sorted(pictures) == ["labels/0", "labels/1", "labels/2", "written"]
    axis, below = pictures["labels/0"].axes
    names = {(text.xy[0], text.get_text()) for text in axis.texts if len(text.get_text()) == 1}
    assert names == {(0.5, "a"), (5.5, "a"), (8, "b")}
    assert all(0.9 < text.xy[1] <= 1 for text in axis.texts if len(text.get_text()) == 1)
    assert len(below.lines) == 2
    assert pictures["labels/2"].axes[1].get_xlim() == (-0.5, 2.5)
    assert pictures["written"].splitlines()[2:] == ["| aab | aab |", "| a b | a bb |", "|  |  |"]


def test_the_logits_of_all_frames_are_kept_for_pictures_and_not_copied():
    model = Says(SAID)

    details = Transcription()(model.eval(), BATCH).details

    assert details.logits.data_ptr() == model.logits.data_ptr()
    assert details.of_steps.tolist() == [0, 1, 2, 3, 4]


class Strokes(SequenceData):
    """Labels drawn as one or two steps of a feature each, with a pause of as many before them."""

    def __init__(self, longest=2, named=False):
        super().__init__(batch_size=16)
        self.longest, self.named = longest, named

    @property
    def sizes(self):
        return {"input_size": 3, "num_classes": 4}

    def describe(self):
        return {**super().describe(), "labels": LABELS, "joiner": ""}

    def read_splits(self):
        random = torch.Generator().manual_seed(0)
        return Splits({part: self.draw(random, 96) for part in ("train", "val", "test")})

    def draw(self, random, count):
        sequences, targets = [], torch.full((count, 4), IGNORE)
        for row in range(count):
            size = int(torch.randint(1, 5, (), generator=random))
            targets[row, :size] = labels = torch.randint(1, 4, (size,), generator=random)
            steps = torch.stack([torch.zeros_like(labels), labels], 1).flatten()
            times = torch.randint(1, self.longest + 1, steps.shape, generator=random)
            steps = steps.repeat_interleave(times)
            sequences.append(nn.functional.one_hot(steps, 4)[:, 1:].float())
        lengths = torch.tensor([len(each) for each in sequences])
        ids = [f"line {row}" for row in range(1, count + 1)] if self.named else None
        return Sequences(torch.cat(sequences), lengths, targets, ids=ids)


def module_of(data, **options):
    torch.manual_seed(0)
    model = Transcriber(GRUCell, **data.sizes, hidden_size=16, bidirectional=True, **options)
    optimizer = partial(torch.optim.Adam, lr=2e-2)
    return SequenceModule(model, Transcription(), data.describe(), optimizer)


def trainer_of(folder, **options):
    return Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip


def test_labels_without_places_are_learned_with_their_places(tmp_path):
    data = Strokes()
    module, trainer = module_of(data), trainer_of(tmp_path, max_epochs=8)

    trainer.fit(module, data)

    (figures,) = trainer.test(module, data, verbose=False)
    assert figures["test/cer"] < 0.05
    rows = list(
        predict(module.model, module.objective, data.loader("test").in_order(), module.card["data"])
    )
    assert module.objective.scores(rows, KNOWN)["cer"] == pytest.approx(figures["test/cer"])


@pytest.mark.parametrize("named", [False, True])
def test_targets_that_are_too_long_for_the_frames_are_found_before_training(tmp_path, named):
    data = Strokes(longest=1, named=named)
    module = module_of(data, filters=[8], stride=3)

    with pytest.raises(DataError) as refused:
        trainer_of(tmp_path, max_epochs=1).fit(module, data)

    train = data.part("train")
    needed, frames = frames_needed(train.y), (train.lengths + 2) // 3
    first = int((needed > frames).nonzero()[0, 0])
    labels, steps = int((train.y[first] != IGNORE).sum()), int(train.lengths[first])
    name = f" (line {first + 1})" if named else ""
    assert str(refused.value).startswith(
        f"Transcription: sequence {first}{name} of the train part has {labels} labels and "
        f"{frames[first]} frames of {steps} steps, expected at least {needed[first]} frames: "
    )
    assert f"there are {int((needed > frames).sum())} among 96." in str(refused.value)
    assert module.trainer.global_step == 0


class SlowStrokes(Strokes):
    """Strokes at half the speed."""

    def draw(self, random, count):
        found = super().draw(random, count)
        return replace(found, x=found.x.repeat_interleave(2, 0), lengths=2 * found.lengths)


def test_sequences_that_may_be_shortened_too_much_for_the_frames_are_found_before_training():
    data, shortened = SlowStrokes(), SlowStrokes()
    shortened.augment = (Stretch(0.4, 1.0),)
    strided, whole = module_of(data, filters=[8], stride=2).model, module_of(data).model

    Transcription().check(strided, data)
    Transcription().check(whole, shortened)
    with pytest.raises(DataError) as refused:
        Transcription().check(strided, shortened)

    assert "steps, which dataset.augment may leave of it, expected at least" in str(refused.value)
    assert "or shorten sequences less by dataset.augment: there are" in str(refused.value)
