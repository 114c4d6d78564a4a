"""The objective of transduction: training, scores, predictions and pictures."""

import json

import pytest
import sacrebleu
import torch

from seqnets.cells import GRUCell
from seqnets.datasets import PairFiles, Sort
from seqnets.datasets.text.codecs import read_codec
from seqnets.errors import ConfigError, DataError
from seqnets.models import LuongAttention, SequenceToSequence
from seqnets.training import Transduction
from seqnets.typing import END, IGNORE, Batch

READ = ["a small house there", "a big house there", "the small book", "a green book !"] * 10
WRITTEN = ["da ist ein kleines haus", "da ist ein großes haus", "das kleine buch da",
           "oh ein grünes buch !"] * 10  # fmt: skip
SIDES = "source", "target"
RARE = "a rare horse", "da ist ein rares pferd"


@pytest.fixture(scope="module", params=["words", "bpe"])
def data(request, tmp_path_factory):
    """Pairs whose validation part has words that the training part lacks."""
    folder = tmp_path_factory.mktemp("pairs")
    parts = {"a": READ, "b": WRITTEN, "c": [*READ[:4], RARE[0]], "d": [*WRITTEN[:4], RARE[1]]}
    for name, lines in parts.items():
        (folder / name).write_text("\n".join(lines), "utf-8")
    a, b, c, d = (str(folder / name) for name in parts)
    found = PairFiles(
        source_path=a, target_path=b, validation_source_path=c, validation_target_path=d,
        unit=request.param, max_vocabulary=290, tokenize="none", batch_size=3,
    )  # fmt: skip
    found.setup()
    return found


@pytest.fixture(scope="module")
def model(data):
    return learned(data, steps=40)


def model_of(data, **options):
    torch.manual_seed(0)
    sizes = data.sizes
    return SequenceToSequence(
        GRUCell, sizes["target_vocab_size"], vocab_size=sizes["vocab_size"],
        **{"attention": LuongAttention, "hidden_size": 12, "bidirectional": True, **options},
    )  # fmt: skip


def learned(data, steps):
    """A model that has begun to write."""
    model, objective = model_of(data), Transduction()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps // len(data.loader("train")) + 1):
        for batch in data.loader("train"):
            optimizer.zero_grad()
            objective(model, batch).loss.backward()
            optimizer.step()
    return model.eval()


def asked(objective, model, batch):
    with torch.no_grad():
        return objective(model, batch)


def texts_of(data, model, objective):
    """What is written for the validation part, and what is right, as the files have it."""
    rows = [
        row
        for batch in data.loader("val")
        for row in objective.rows(asked(objective, model, batch), batch, data.describe())
    ]
    return [row["prediction"] for row in rows], data.texts["val"][1], rows


def test_bleu_is_that_of_sacrebleu_for_the_files_own_texts(data, model):
    objective = Transduction("bleu")
    metrics = objective.metrics(data.describe())

    for batch in data.loader("val"):
        outcome = asked(objective, model, batch)
        for metric in metrics.values():
            metric.update(outcome.predictions, outcome.targets)

    written, right, _ = texts_of(data, model, objective)
    expected = sacrebleu.corpus_bleu(written, [right], tokenize="none", force=True).score
    matches = sum(w == r for w, r in zip(written, right, strict=True)) / len(right)
    assert 1 < expected < 100
    assert float(metrics["bleu"].compute()) == pytest.approx(expected, abs=1e-4)
    assert float(metrics["exact_match"].compute()) == pytest.approx(matches)


def test_an_unknown_word_matches_nothing_not_even_an_unknown_word():
    codec_known = {"target": {"unit": "words", "tokens": ["<eos>", "<unk>", "a"]}}
    metrics = Transduction("bleu").metrics(codec_known)
    ids = torch.tensor([[1, 2, 1, 2, END]])

    for metric in metrics.values():
        metric.update(ids, ids)

    assert float(metrics["exact_match"].compute()) == 0
    assert float(metrics["bleu"].compute()) < 50


def test_the_rows_of_a_file_are_scored_as_the_model_was(data, model):
    objective = Transduction("bleu")
    known = data.describe()
    written, right, rows = texts_of(data, model, objective)

    found = objective.scores(rows, known)
    predictions, targets = objective.read(rows, known)
    again = objective.metrics(known)

    assert [row["source"] for row in rows][:4] == READ[:4]
    expected = sacrebleu.corpus_bleu(written, [right], tokenize="none", force=True).score
    assert found["bleu"] == pytest.approx(expected)
    for name, metric in again.items():
        metric.update(predictions, targets)
        assert float(metric.compute()) == pytest.approx(found[name], abs=1e-4)


def test_rows_have_scores_and_no_target_where_there_is_none(data, tmp_path):
    (tmp_path / "new.txt").write_text("a big book\nthe house\n", "utf-8")
    known, objective = data.describe(), Transduction(beam_size=3)
    (batch,) = data.new(tmp_path / "new.txt", known)

    outcome = asked(objective, model_of(data).eval(), batch)
    rows = objective.rows(outcome, batch, known)

    assert [row["target"] for row in rows] == [None, None]
    assert all(row["score"] < 0 for row in rows)
    assert float(outcome.loss) == 0


def test_a_row_without_a_text_is_reported(data):
    rows = [{"prediction": "a", "target": "a"}, {"prediction": "a", "target": None}]

    with pytest.raises(DataError, match="Row 2: target is None, expected a text"):
        Transduction().scores(rows, data.describe())


def test_the_loss_is_the_mean_over_tokens_that_are_scored():
    data = Sort(5, train_size=4, test_size=4)
    model = model_of(data).eval()
    batch = next(iter(data.loader("val")))

    outcome = asked(Transduction(), model, batch)

    with torch.no_grad():
        p = model(*batch[:2], batch.lengths).log_softmax(-1)
    nats = [
        -float(p[row, step, token])
        for row, tokens in enumerate(batch.y.tolist())
        for step, token in enumerate(tokens)
        if token != IGNORE
    ]
    assert float(outcome.loss.detach()) == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    assert int(outcome.scored) == len(nats)


def test_labels_are_smoothed_in_training_only():
    data = Sort(5, train_size=4, test_size=4)
    model, batch = model_of(data), next(iter(data.loader("val")))
    plain, smooth = Transduction(), Transduction(label_smoothing=0.2)

    trained = [float(o(model, batch).loss.detach()) for o in (plain, smooth)]
    model.eval()
    asked = [float(o(model, batch).loss.detach()) for o in (plain, smooth)]

    p = model(*batch[:2], batch.lengths).log_softmax(-1)[batch.y != IGNORE]
    spread = float(-p.mean().detach())  # the loss against all tokens alike
    assert trained[1] == pytest.approx(0.8 * trained[0] + 0.2 * spread, rel=1e-5)
    assert asked == pytest.approx([trained[0]] * 2, rel=1e-5)


def test_sorting_is_learned():
    data = Sort(3, symbols=3, train_size=200, test_size=50, batch_size=20)
    model = learned(data, steps=150)
    metric = Transduction().metrics(data.describe())["exact_match"]

    for batch in data.loader("test"):
        outcome = asked(Transduction(), model, batch)
        metric.update(outcome.predictions, outcome.targets)

    assert float(metric.compute()) > 0.9 > data.baselines()["copying the source"]


def test_a_table_of_texts_and_pictures_of_attention_are_shown(data, model):
    pytest.importorskip("matplotlib")
    objective = Transduction("bleu")
    batch = next(iter(data.loader("val")))

    found = objective.pictures(asked(objective, model, batch), batch, data.describe())

    assert list(found) == ["written", "attention/0", "attention/1", "attention/2"]
    lines = found["written"].splitlines()
    assert lines[0] == "| source | written | right |"
    assert lines[2].startswith(f"| {READ[0]} | ")
    assert "nrefs:1" in lines[-1]
    labels = [tick.get_text() for tick in found["attention/0"].axes[0].get_xticklabels()]
    assert "".join(labels).replace("\u2581", "") == READ[0].replace(" ", "")


def test_without_attention_only_the_table_is_shown(data):
    model, objective = model_of(data, attention=None).eval(), Transduction()
    batch = next(iter(data.loader("val")))

    assert list(objective.pictures(asked(objective, model, batch), batch, data.describe())) == [
        "written"
    ]


def test_a_table_cell_shows_a_text_verbatim():
    known = {
        side: {"unit": "words", "tokens": ["<eos>", "<unk>", "<*a|b*>"]}
        for side in ("source", "target")
    }
    data = Batch(torch.tensor([[2]]), torch.tensor([[2, END]]))
    model = SequenceToSequence(GRUCell, 3, vocab_size=3).eval()
    objective = Transduction()

    table = objective.pictures(asked(objective, model, data), data, known)["written"]

    assert table.splitlines()[2].startswith("| &lt;\\*a\\|b\\*&gt; |")


def test_a_wider_beam_is_never_less_likely():
    data = Sort(5, train_size=4, test_size=30)
    model, batch = model_of(data).eval(), next(iter(data.loader("val")))
    narrow, wide = (Transduction(beam_size=size, length_penalty=0.0) for size in (1, 40))

    scores = [objective(model, batch).details.scores for objective in (narrow, wide)]

    assert (scores[1] >= scores[0] - 1e-5).all()


def test_rows_have_the_n_best_texts_with_their_scores(data, model):
    known, batch = data.describe(), next(iter(data.loader("val")))
    alone, several = (Transduction(beam_size=4, n_best=n) for n in (1, 3))

    outcome = asked(several, model, batch)
    plain = asked(alone, model, batch)
    rows = several.rows(outcome, batch, known)

    codec = read_codec(known["target"])
    for number, row in enumerate(rows):
        found = row.pop("candidates")
        assert [each["score"] for each in found] == outcome.details.scores[number].tolist()
        assert [each["prediction"] for each in found] == [
            codec.decode(ids) for ids in outcome.details.tokens[number].tolist()
        ]
        assert len(found) == 3
        assert found[0] == {"prediction": row["prediction"], "score": row["score"]}
    assert rows == alone.rows(plain, batch, known)
    pictures = several.pictures(outcome, batch, known)
    assert list(pictures) == list(alone.pictures(plain, batch, known))
    assert pictures["written"] == alone.pictures(plain, batch, known)["written"]


def test_rows_have_no_more_candidates_than_a_search_finds():
    known = {side: {"unit": "words", "tokens": ["<eos>", "<unk>", "a"]} for side in SIDES}
    data = Batch(torch.tensor([[2], [2]]), torch.tensor([[2, END], [END, IGNORE]]))
    model = SequenceToSequence(GRUCell, 3, vocab_size=3).eval()
    objective = Transduction(beam_size=9, n_best=8, max_length=1)

    rows = objective.rows(asked(objective, model, data), data, known)

    assert [{each["prediction"] for each in row["candidates"]} for row in rows] == [
        {"", "<unk>", "a"}
    ] * 2
    assert "Infinity" not in json.dumps(rows)


def test_more_candidates_than_the_beam_holds_are_refused():
    with pytest.raises(ConfigError, match="Transduction: n_best is 3, expected at most 2, which"):
        Transduction(beam_size=2, n_best=3)
    with pytest.raises(ConfigError, match="Transduction: n_best is 0, expected a whole number"):
        Transduction(n_best=0)


def test_a_target_outside_the_vocabulary_is_refused():
    data = Sort(5, train_size=4, test_size=4)
    batch = next(iter(data.loader("val")))

    with pytest.raises(DataError, match=r"is 99, expected 0\.\.11"):
        Transduction()(model_of(data), batch._replace(y=torch.full_like(batch.y, 99)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beam_size", 1.5),
        ("beam_size", True),
        ("max_length", 0),
        ("max_length", 2.0),
        ("label_smoothing", 1.0),
        ("length_penalty", -1.0),
        ("metric", "rouge"),
    ],
)
def test_an_option_is_refused_by_its_name_and_value(name, value):
    with pytest.raises(ConfigError, match=f"Transduction: {name} is {value!r}, expected"):
        Transduction(**{name: value})
