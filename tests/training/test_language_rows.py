"""Predictions of a language model for each token: scores, rows, pictures."""

import json
import math
import re
from functools import partial

import pytest
import torch
from torch import nn

from seqnets.cells import GRUCell
from seqnets.datasets import TextFiles, read_vocabulary
from seqnets.datasets.text.pieces import spell
from seqnets.errors import ConfigError, DataError
from seqnets.models import AdaptiveSoftmax, FusedSoftmax, LanguageModel
from seqnets.training import LanguageModelling, SequenceModule
from seqnets.training.generate import generate
from seqnets.training.predict import predict
from seqnets.typing import IGNORE, Batch
from tests.training.runs import trainer

TEXT = "the größe of words is what it is, that is the size of 漢字\n" * 40
OUTPUTS = [nn.Linear, partial(FusedSoftmax, chunk=5), partial(AdaptiveSoftmax, cutoffs=[9, 15])]
SIZES = {"characters": None, "words": None, "bpe": 300}


@pytest.fixture
def trained(tmp_path):
    """Make the dataset and the module of a unit; nothing has been learned."""
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")

    def make(unit, output=nn.Linear):
        data = TextFiles(
            str(tmp_path / "a.txt"),
            cache=str(tmp_path / "cache"),
            unit=unit,
            max_vocabulary=SIZES[unit],
            batch_size=3,
            chunk_length=7,
            test_fraction=0.2,
        )
        data.setup()
        torch.manual_seed(0)
        model = LanguageModel(GRUCell, data.sizes["vocab_size"], output=output, hidden_size=16)
        sgd = partial(torch.optim.SGD, lr=0.1)
        return data, SequenceModule(model, LanguageModelling(unit), data.describe(), sgd)

    return make


def written(data, module):
    rows = predict(module.model, module.objective, data.loader("test"), data.describe())
    return [json.loads(json.dumps(row)) for row in rows]


@pytest.mark.parametrize(
    ("unit", "output"),
    [(u, o) for u in SIZES for o in OUTPUTS if not (u == "words" and o is OUTPUTS[2])],
)
def test_rows_score_as_the_part_does(trained, tmp_path, unit, output):
    data, module = trained(unit, output)
    running = trainer(tmp_path)
    running.test(module, data, verbose=False)
    figures = {k.removeprefix("test/"): float(v) for k, v in running.callback_metrics.items()}

    scores = module.objective.scores(written(data, module), data.describe())

    assert scores.keys() == figures.keys()
    assert module.objective.metric in scores
    assert scores == pytest.approx(figures, rel=1e-5)


def test_every_token_after_the_first_has_one_row(trained):
    data, module = trained("characters")
    rows = written(data, module)

    sorted_rows = sorted(rows, key=lambda row: row["text"])
    text = "".join(row["target"] for row in sorted_rows)
    assert text == data.vocabulary.decode(data.tokens.part("test"))[1:]


def test_pieces_stand_in_rows_as_they_stand_in_the_text(trained):
    data, module = trained("bpe")
    rows = sorted(written(data, module), key=lambda row: row["text"])
    names = [spell(token) for token in data.vocabulary.tokens]

    text = "".join(row["target"] for row in rows)
    whole = re.sub(
        r"(\\x[0-9a-f]{2})+", lambda b: bytes.fromhex(b[0].replace("\\x", "")).decode(), text
    )
    assert " of" in {row["target"] for row in rows}
    assert {row["prediction"] for row in rows} <= set(names)
    assert len(set(names)) == len(names)
    assert data.vocabulary.decode(data.tokens.part("test")).endswith(whole)
    assert "漢字\n" in whole


def test_a_row_has_the_likeliest_token_and_the_nats_of_the_actual_one(trained):
    data, module = trained("words")
    batch = next(iter(data.loader("test")))
    first = written(data, module)[0]

    module.eval()
    said = module.model(batch.x)[0][0, 0].log_softmax(-1).detach()
    tokens = data.vocabulary.tokens
    assert first["prediction"] == tokens[int(said.argmax())]
    assert first["nats"] == pytest.approx(-float(said[tokens.index(first["target"])]), abs=1e-5)


@pytest.mark.parametrize("output", OUTPUTS)
def test_in_evaluation_a_batch_costs_what_it_does_in_training(trained, output):
    _, module = trained("characters", output)
    batch = Batch(torch.randint(9, (2, 6)), torch.randint(9, (2, 6)), torch.tensor([6, 4]))
    batch.y[1, 4:] = IGNORE
    module.model.encoder.dropout = nn.Identity()

    learning = module.objective(module.model.train(), batch)
    scored = module.objective(module.model.eval(), batch)

    torch.testing.assert_close(scored.loss, learning.loss)
    assert scored.scored == learning.scored == 10


def test_bits_of_pieces_are_counted_for_each_character(trained):
    data, module = trained("bpe")
    rows = written(data, module)
    text = data.vocabulary.decode(data.tokens.part("test"))
    first = data.vocabulary.decode(data.tokens.part("test")[:1])

    bits = sum(row["nats"] for row in rows) / math.log(2)
    found = module.objective.scores(rows, data.describe())["bits_per_character"]

    assert found == pytest.approx(bits / (len(text) - len(first)), rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target": "漢字漢"}, "Row 2: got target '漢字漢', expected one of the"),
        ({"target": ["a"]}, "Row 2: got target"),
        ({"nats": -1}, "Row 2: got nats -1, expected a number of at least 0"),
        ({"nats": "much"}, "Row 2: got nats 'much'"),
        ({"nats": None}, "Row 2: 'nats' is null"),
    ],
)
def test_an_unreadable_row_is_reported(trained, wrong, message):
    data, module = trained("characters")
    rows = [{"prediction": "e", "target": "e", "nats": 1.0}] * 2
    rows[1] = rows[1] | wrong

    with pytest.raises(DataError, match=message):
        module.objective.scores(rows, data.describe())


@pytest.mark.parametrize("unit", SIZES)
def test_the_text_is_drawn_and_its_first_token_costs_nothing(trained, unit):
    data, module = trained(unit)
    module.eval()
    *_, last = data.loader("val")
    with torch.no_grad():
        outcome = module.objective(module.model, last)

    figure = module.objective.pictures(outcome, last, data.describe())["surprise"]

    paper = figure.axes[0].images[0].get_array()
    assert paper.mask[0, 0]
    assert not paper.mask.all()


def test_an_objective_in_another_unit_than_the_datasets_is_refused(trained):
    data, _ = trained("words")

    with pytest.raises(ConfigError, match="tokens are words, expected the same"):
        LanguageModelling("bpe").metrics(data.describe())
    with pytest.raises(ConfigError, match="unit is 'characters' and the dataset's tokens are word"):
        LanguageModelling("characters").metrics(data.describe())
    with pytest.raises(ConfigError, match="unit is 'letters'"):
        LanguageModelling("letters")


class Says(nn.Module):
    """A model that writes given tokens, one after the other."""

    def __init__(self, tokens, size):
        super().__init__()
        self.tokens, self.size = tokens, size
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x, state=None):
        state = -1 if state is None else state
        logits = torch.zeros(1, x.shape[1], self.size)
        logits[0, -1, self.tokens[state + 1]] = 1.0
        return logits, state + 1


@pytest.mark.parametrize("prompt", ["", "so", "\n"])
def test_pieces_are_written_as_whole_characters(trained, prompt):
    data, _ = trained("bpe")
    vocabulary = read_vocabulary(data.describe())
    text = " größer 🙂 語, the words\n of it"
    ids = vocabulary.encode(text).tolist()

    pieces = list(generate(Says(ids, len(vocabulary)), vocabulary, prompt, len(ids), 0))

    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)


@pytest.mark.parametrize("stop", ["🙂", "ßer 🙂 ", "s\n o"])
def test_a_stop_text_is_found_whatever_pieces_it_is_written_in(trained, stop):
    data, _ = trained("bpe")
    vocabulary = read_vocabulary(data.describe())
    text = " größer 🙂 語, the words\n of it"
    ids = vocabulary.encode(text).tolist()

    pieces = generate(Says(ids, len(vocabulary)), vocabulary, "so", len(ids), 0, stop=stop)

    assert "".join(pieces) == text[: text.index(stop) + len(stop)]


def test_a_character_that_is_not_finished_is_shown_as_such(trained):
    data, _ = trained("bpe")
    vocabulary = read_vocabulary(data.describe())
    ids = vocabulary.encode("🙂").tolist()

    assert list(generate(Says(ids, len(vocabulary)), vocabulary, "so", 1, 0)) == ["\ufffd"]
