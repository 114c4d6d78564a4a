"""Trained models as files: what goes in and out, and what is refused before anything is there."""

import json
import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
import torch

from seqnets.cells import (
    ClockworkRNNCell,
    ConvLSTMCell,
    ExpRNNCell,
    GRUCell,
    GRUDCell,
    LearnedState,
    LSTMCell,
    PhasedLSTMCell,
    orthogonal,
)
from seqnets.datasets.scaling import Scaling
from seqnets.errors import ConfigError
from seqnets.models import (
    AdaptiveSoftmax,
    BahdanauAttention,
    ConditionalRandomField,
    EncoderDecoder,
    Forecaster,
    FramePredictor,
    LanguageModel,
    LuongAttention,
    NegativeBinomialHead,
    QuantileHead,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
    SequenceToSequence,
    Transcriber,
    VideoClassifier,
    WordEmbedding,
)
from seqnets.training import (
    Classification,
    Forecasting,
    FramePrediction,
    LanguageModelling,
    Objective,
    Polyphony,
    Regression,
    Tagging,
    Transcription,
    Transduction,
)
from seqnets.training.exporting import FORMATS, export
from seqnets.training.served import Port, Served
from seqnets.training.served_decoder import ServedDecoder
from seqnets.typing import IGNORE, Batch
from tests.slow import mostly_slow

WRITES_ONNX = all(map(find_spec, ("onnx", "onnxscript", "onnxruntime")))
SCALING = {"mean": [1e6, 5.0], "deviation": [3.0, 1e-3]}
FEATURES = {"labels": None, "scaling": {"x": SCALING, "y": None}}
FRAMES = {"channels": 1, "height": 8, "width": 8}

KINDS = {
    "classification": (
        lambda: SequenceClassifier(GRUCell, 3, input_size=2, hidden_size=4, bidirectional=True),
        Classification(),
        {"sizes": {"input_size": 2, "num_classes": 3}, **FEATURES},
        ["x (B, T, 2) float64", "lengths (B) int64"],
        ["probabilities (B, 3) float32"],
    ),
    "regression": (
        lambda: SequenceRegressor(GRUCell, 2, input_size=2, hidden_size=4, pooling="attention"),
        Regression(),
        {"sizes": {"input_size": 2, "output_size": 2}, "scaling": {"x": None, "y": SCALING}},
        ["x (B, T, 2) float32", "lengths (B) int64"],
        ["values (B, 2) float64"],
    ),
    "text": (
        lambda: LanguageModel(LSTMCell, 40, hidden_size=16, num_layers=2, output=AdaptiveSoftmax),
        LanguageModelling("words"),
        {"sizes": {"vocab_size": 40}, "unit": "words"},
        [
            *("tokens (B, T) int64", "lengths (B) int64"),
            *(f"initial_{part}_{n} (B, 16) float32" for n in range(2) for part in "hc"),
        ],
        [
            "logits (B, T, 40) float32",
            *(f"{part}_{n} (B, 16) float32" for n in range(2) for part in "hc"),
        ],
    ),
    "forecasts": (
        lambda: Forecaster(
            *(GRUCell, 2, 2, 4),
            strategy=EncoderDecoder,
            segment=2,
            head=QuantileHead,
            hidden_size=4,
        ),
        Forecasting([0.05, 0.5, 0.95]),
        {"sizes": {"input_size": 2, "output_size": 2, "horizon": 4}, "scaling": SCALING},
        ["x (B, T, 2) float64"],
        ["values (B, 4, 2) float64", "quantiles (B, 4, 3, 2) float64"],
    ),
    "forecasts of counts": (
        lambda: Forecaster(
            *(GRUCell, 2, 1, 3),
            strategy=EncoderDecoder,
            head=NegativeBinomialHead,
            normalization="mean",
            hidden_size=4,
        ),
        Forecasting([0.05, 0.5, 0.95]),
        {
            "sizes": {"input_size": 2, "output_size": 1, "horizon": 3},
            "scaling": {"mean": [0.0, 3.0], "deviation": [1.0, 2.0]},
        },
        ["x (B, T, 2) float64"],
        ["values (B, 3, 1) float64", "quantiles (B, 3, 3, 1) float64"],
    ),
    "forecasts of what is known ahead": (
        lambda: Forecaster(*(GRUCell, 2, 1, 3), segment=2, hidden_size=4, ahead_size=1),
        Forecasting(),
        {
            "sizes": {"input_size": 2, "output_size": 1, "horizon": 3, "ahead_size": 1},
            "scaling": SCALING,
        },
        ["x (B, T, 2) float64", "ahead (B, 3, 1) float64"],
        ["values (B, 3, 1) float64"],
    ),
    "tags": (
        lambda: SequenceTagger(GRUCell, 4, input_size=2, hidden_size=4),
        Tagging(),
        {"sizes": {"input_size": 2, "num_classes": 4}, "numbers": {**SCALING, "features": "ab"}},
        ["x (B, T, 2) float64", "lengths (B) int64"],
        ["probabilities (B, T, 4) float32"],
    ),
    "tags of spelled words": (
        lambda: SequenceTagger(
            *(GRUCell, 4),
            vocab_size=9,
            embedding_size=6,
            hidden_size=4,
            embedding=partial(WordEmbedding, filters=2, characters=4),
            output=ConditionalRandomField,
        ),
        Tagging(),
        {"sizes": {"vocab_size": 9, "num_classes": 4}, "words": {"characters": 4}},
        ["tokens (B, T, 5) int64", "lengths (B) int64"],
        ["scores (B, T, 4) float32"],
    ),
    "transcripts": (
        lambda: Transcriber(GRUCell, 4, input_size=2, hidden_size=4, filters=[5], stride=2),
        Transcription(),
        {"sizes": {"input_size": 2, "num_classes": 4}},
        ["x (B, T, 2) float32", "lengths (B) int64"],
        ["probabilities (B, frames, 4) float32", "frames (B) int64"],
    ),
    "music": (
        lambda: SequenceTagger(GRUCell, 5, input_size=5, hidden_size=4),
        Polyphony(),
        {"sizes": {"input_size": 5, "num_classes": 5}},
        ["x (B, T, 5) float32", "lengths (B) int64"],
        ["probabilities (B, T, 5) float32"],
    ),
    "frames": (
        lambda: FramePredictor(ConvLSTMCell, **FRAMES, hidden_channels=2),
        FramePrediction(),
        {"sizes": FRAMES},
        ["x (B, T, 1, 8, 8) float32", "lengths (B) int64"],
        ["pixels (B, T, 1, 8, 8) float32"],
    ),
    "videos": (
        lambda: VideoClassifier(GRUCell, 3, 1, 8, 8, hidden_size=4, filters=[2]),
        Classification(),
        {"sizes": {**FRAMES, "num_classes": 3}},
        ["x (B, T, 1, 8, 8) float32", "lengths (B) int64"],
        ["probabilities (B, 3) float32"],
    ),
}


class Trained:
    """What a SequenceModule is to an export."""

    def __init__(self, model, objective, known):
        torch.manual_seed(0)
        self.model, self.objective, self.card = model(), objective, {"data": known}


def trained(kind):
    return Trained(*KINDS[kind][:3])


def ports(done, side):
    """The inputs or outputs of each file."""
    return [[str(Port(**port)) for port in about[side]] for about in done.files.values()]


def loaded(path):
    """What a program reads of a .pt2 file: a function of tensors, and the description."""
    files = {"seqnets.json": ""}
    return torch.export.load(path, extra_files=files).module(), files


@pytest.mark.parametrize(
    ("kind", "form"),
    mostly_slow(
        [*product(KINDS, FORMATS)],
        [*product(("text",), FORMATS), ("forecasts", "pt2"), ("frames", "pt2")],
    ),
)
def test_a_model_is_written_for_any_number_of_rows_and_steps(kind, form, tmp_path):
    if form == "onnx" and not WRITES_ONNX:
        pytest.skip("needs seqnets[onnx]")
    inputs, outputs = KINDS[kind][3:]

    done = export(trained(kind), tmp_path / f"model.{form}")

    assert ports(done, "inputs") == [inputs]
    assert ports(done, "outputs") == [outputs]
    assert done.difference < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == [f"model.{form}"]


def test_raw_values_go_in_and_values_in_their_own_units_come_out(tmp_path):
    scaling = {"x": SCALING, "y": {"mean": [100.0], "deviation": [8.0]}}
    known = {"sizes": {"input_size": 2, "output_size": 1}, "scaling": scaling}
    module = Trained(
        lambda: SequenceRegressor(GRUCell, 1, input_size=2, hidden_size=4), Regression(), known
    )
    x, lengths = torch.randn(3, 5, 2), torch.tensor([5, 1, 4])
    raw = x.double() * torch.tensor(SCALING["deviation"]) + torch.tensor(SCALING["mean"])

    export(module, tmp_path / "model.pt2")
    model, _ = loaded(tmp_path / "model.pt2")

    expected = 8 * module.model.eval()(x, lengths=lengths)[0].double() + 100
    torch.testing.assert_close(model(raw, lengths)["values"], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("cell", [LSTMCell, ClockworkRNNCell])  # the other one counts steps
def test_text_is_read_step_by_step_as_at_once(cell, tmp_path):
    known = {"sizes": {"vocab_size": 7}, "vocabulary": list("abcdefg"), "unit": "characters"}
    module = Trained(
        lambda: LanguageModel(cell, 7, hidden_size=4, num_layers=2), LanguageModelling(), known
    )
    tokens = torch.randint(7, (2, 6))

    done = export(module, tmp_path / "model.pt2")
    model, _ = loaded(tmp_path / "model.pt2")

    (about,) = done.files.values()
    assert set(about["start"].values()) == {0}
    shapes = [port["shape"] for port in about["inputs"][2:]]
    state = [torch.zeros(2, *shape[1:]) for shape in shapes]
    logits = []
    for step in tokens.split(1, 1):
        found = model(step, torch.ones(2, dtype=torch.int64), *state)
        logits.append(found.pop("logits"))
        state = [*found.values()]
    torch.testing.assert_close(torch.cat(logits, 1), module.model.eval()(tokens)[0])


def test_a_learned_beginning_is_told(tmp_path):
    known = {"sizes": {"vocab_size": 7}, "unit": "characters"}
    module = Trained(
        lambda: LanguageModel(lambda **o: LearnedState(GRUCell(**o)), 7, hidden_size=2),
        LanguageModelling(),
        known,
    )
    (layer,) = module.model.encoder.recurrent.layers
    torch.nn.init.constant_(layer.cell.initial_h, 0.5)

    done = export(module, tmp_path / "model.pt2")

    (about,) = done.files.values()
    assert about["start"] == {"initial_h_0": [0.5, 0.5]}


def test_what_stands_around_the_model_is_in_the_file_as_plain_json(tmp_path):
    known = {"sizes": {"vocab_size": 9, "num_classes": 2}, "labels": ["O", "B"], "words": None}
    known |= {"vocabulary": list("abcdefghi"), "counts": {"train": 7}, "sample": {"train": [1.0]}}
    module = Trained(
        lambda: SequenceTagger(
            GRUCell, 2, vocab_size=9, hidden_size=4, output=ConditionalRandomField
        ),
        Tagging(),
        known,
    )
    torch.nn.init.normal_(module.model.output.transitions)

    done = export(module, tmp_path / "model.pt2")
    _, files = loaded(tmp_path / "model.pt2")

    about = json.loads(files["seqnets.json"])
    assert [about] == json.loads(json.dumps([*done.files.values()]))
    assert about["data"] == {n: known[n] for n in ("sizes", "labels", "words", "vocabulary")}
    assert about["crf"]["transitions"] == module.model.output.transitions.tolist()
    assert (about["model"], about["objective"]) == ("SequenceTagger", "Tagging")
    assert about["steps"] == {"least": 1, "multiple": 1}


def test_the_levels_of_quantiles_are_in_the_file_in_the_order_of_the_output(tmp_path):
    (about,) = export(trained("forecasts"), tmp_path / "model.pt2").files.values()

    assert about["quantiles"] == [0.05, 0.5, 0.95]


def test_data_are_compared_as_well(tmp_path, monkeypatch):
    module, seen = trained("tags"), []
    load = FORMATS["pt2"].load

    def watched(served, path):
        run = load(served, path)
        return lambda given: seen.append(given) or run(given)

    monkeypatch.setitem(FORMATS, "pt2", FORMATS["pt2"]._replace(load=watched))
    x = torch.zeros(2, 3, 2)

    done = export(module, tmp_path / "model.pt2", batches=[Batch(x, x, torch.tensor([3, 1]))])

    raw, lengths = seen[-1]
    assert done.batches == 1
    assert raw.unique(dim=0).tolist() == [[SCALING["mean"]] * 3]
    assert lengths.tolist() == [3, 1]


def test_gaps_are_among_the_random_inputs_if_the_data_have_some(tmp_path):
    known = {"sizes": {"input_size": 2, "num_classes": 3}, "gaps": True, **FEATURES}
    model = SequenceClassifier(GRUDCell, 3, input_size=2, hidden_size=4)
    x, _ = Served(model, Classification(), known).example(5, 8)

    done = export(Trained(lambda: model, Classification(), known), tmp_path / "model.pt2")

    assert 0 < x.isnan().double().mean() < 0.5
    assert done.difference < 1e-5


def test_no_time_that_a_cell_reads_is_among_the_gaps_of_random_inputs():
    known = {"sizes": {"input_size": 2, "num_classes": 3}, "gaps": True}
    model = SequenceClassifier(GRUDCell, 3, input_size=2, hidden_size=4, timed=True)
    served = Served(model, Classification(), known)

    given = served.example(5, 8)

    assert given[0][..., 0].isnan().any()
    assert served(*given)["probabilities"].isfinite().all()


@pytest.mark.parametrize("form", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("cell", "stamps"), [(GRUDCell, False), (PhasedLSTMCell, True)])
def test_times_go_in_as_the_data_have_them(cell, stamps, form, tmp_path):
    time = {"column": "when", "kind": "a number", "stamps": stamps, "mean": 4.0}
    scaling = {"x": {"mean": [5.0, 0.0], "deviation": [3.0, 8.0]}, "y": None}
    known = {"sizes": {"input_size": 2, "num_classes": 3}, "scaling": scaling, "time": time}
    known["gaps"] = cell is GRUDCell
    model = SequenceClassifier(cell, 3, input_size=2, hidden_size=4, timed=True, num_layers=2)
    read = torch.tensor([[[1.0, 0.0 if stamps else 0.5], [2.0, 3.0], [3.0, 3.5]]])
    raw = torch.tensor([[[8, 1.7e9], [11, 1.7e9 + 24], [14, 1.7e9 + 28]]], dtype=torch.float64)
    if not stamps:
        read[0, 2, 1] = 0.5

    done = export(Trained(lambda: model, Classification(), known), tmp_path / f"model.{form}")
    served = Served(model, Classification(), known)
    probabilities = served(raw, torch.tensor([3]))["probabilities"]

    assert done.difference < 1e-4
    torch.testing.assert_close(probabilities, model.eval()(read)[0].softmax(-1))
    again = served(served.of_batch(Batch(read, read[:, 0], None))[0], torch.tensor([3]))
    torch.testing.assert_close(again["probabilities"], probabilities)


@pytest.mark.parametrize("wrong", [lambda y: y + 1e-3, lambda y: y * torch.nan, lambda y: y[:1]])
def test_a_file_that_gives_something_else_is_never_there(wrong, tmp_path, monkeypatch):
    load = FORMATS["pt2"].load

    def broken(served, path):
        run = load(served, path)
        return lambda given: {name: wrong(y) for name, y in run(given).items()}

    monkeypatch.setitem(FORMATS, "pt2", FORMATS["pt2"]._replace(load=broken))

    with pytest.raises(ConfigError, match=r"differ by up to .*, expected at most 0.0001"):
        export(trained("tags"), tmp_path / "model.pt2")

    assert not list(tmp_path.iterdir())


def test_a_model_that_has_diverged_is_not_written(tmp_path):
    module = trained("tags")
    torch.nn.init.constant_(module.model.output.bias, torch.nan)

    with pytest.raises(ConfigError, match="differ by up to nan"):
        export(module, tmp_path / "model.pt2")


def test_a_file_that_no_library_can_run_is_written_unchecked(tmp_path, monkeypatch):
    without = FORMATS["pt2"]._replace(load=lambda served, path: None)
    monkeypatch.setitem(FORMATS, "pt2", without)

    done = export(trained("tags"), tmp_path / "model.pt2")

    assert done.difference is None
    assert (tmp_path / "model.pt2").exists()


def test_without_onnx_runtime_an_onnx_file_is_not_checked(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    assert FORMATS["onnx"].load(None, tmp_path) is None


def test_a_library_that_is_missing_is_told_with_the_extra_that_brings_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)

    told = r"by onnxscript, which is not installed\.\n.* pip install 'seqnets\[onnx\]'"
    with pytest.raises(ConfigError, match=told):
        export(trained("tags"), tmp_path / "model.onnx")


@pytest.mark.skipif(not WRITES_ONNX, reason="needs seqnets[onnx]")
def test_onnx_runtime_has_nothing_to_say_of_a_file(tmp_path, capfd):
    known = {"sizes": {"input_size": 2, "num_classes": 3}}
    module = Trained(
        lambda: SequenceTagger(ClockworkRNNCell, 3, input_size=2, hidden_size=4), Tagging(), known
    )

    export(module, tmp_path / "model.onnx")
    capfd.readouterr()
    import_module("onnxruntime").InferenceSession(tmp_path / "model.onnx")

    assert capfd.readouterr() == ("", "")


def test_a_disk_that_is_full_is_no_fault_of_the_model(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)

    with pytest.raises(ConfigError, match=r"target: is .*model.pt2.*: No space left on device"):
        export(trained("tags"), tmp_path / "model.pt2")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a folder without files")
def test_where_nothing_can_be_written_is_found_before_the_work(monkeypatch):
    late = FORMATS["pt2"]._replace(save=lambda *given: pytest.fail("it was exported"))
    monkeypatch.setitem(FORMATS, "pt2", late)

    with pytest.raises(ConfigError, match=r"target: is '/proc/model.pt2', expected a file that"):
        export(trained("tags"), "/proc/model.pt2")


def test_a_model_by_itself_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="module is SequenceTagger, expected a SequenceModule"):
        export(trained("tags").model, tmp_path / "model.pt2")


@pytest.mark.parametrize("name", ["model.ckpt", "model"])
def test_a_name_says_the_format(name, tmp_path):
    with pytest.raises(ConfigError, match="expected one of onnx, pt2"):
        export(trained("tags"), tmp_path / name)


def test_the_format_may_be_said(tmp_path):
    export(trained("tags"), tmp_path / "model", "pt2")

    assert loaded(tmp_path / "model")


class Sums(torch.nn.Module):
    """A model of a user's own."""

    def forward(self, x, state=None, lengths=None):
        return x.sum(1), None


class Loops(torch.nn.Module):
    """A recurrence of a user's own, which is no layer."""

    def forward(self, x, state=None, lengths=None):
        h = x[:, 0]
        for step in x.unbind(1):
            h = (h + step).tanh()
        return h, None


class Mine(Objective):
    """An objective of a user's own, which names no outputs."""

    def __call__(self, model, batch, state=None):
        raise NotImplementedError

    def metrics(self, known):
        return {}


REFUSED = {
    "a model that writes in a way of its own": (
        lambda: torch.nn.Linear(2, 2),
        *(Transduction(), {"sizes": {"vocab_size": 5, "target_vocab_size": 5}}),
        "the model is Linear, expected SequenceToSequence",
    ),
    "a loop in Python": (
        Loops,
        *(Mine(), {"sizes": {"input_size": 2}}),
        "Loops cannot be written as pt2 for any number of rows and steps: .*\n.*seqnets predict",
    ),
    "inputs of no kind": (
        lambda: torch.nn.Linear(2, 2),
        *(Regression(), {"sizes": {"output_size": 2}}),
        "expected vocab_size, input_size, or channels",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_exported_is_refused_with_the_reason(kind, tmp_path):
    *parts, told = REFUSED[kind]

    with pytest.raises(ConfigError, match=told):
        export(Trained(*parts), tmp_path / "model.pt2")

    assert not list(tmp_path.iterdir())


LOOKING = {"attention": LuongAttention, "bidirectional": True}
WRITERS = {
    "attention": (
        LOOKING,
        ["memory (B, T, 8) float32", "keys (B, T, 4) float32", "initial_h_0 (B, 4) float32"],
        ["logits (B, 7) float32", "h_0 (B, 4) float32", "attention (B, T) float32"],
    ),
    "keys that are the memory": (
        {"attention": partial(LuongAttention, score="dot"), "num_layers": 2, "feed": "output"},
        [
            "memory (B, T, 4) float32",
            *(f"initial_{part} (B, 4) float32" for part in ("h_0", "h_1", "fed")),
        ],
        [
            "logits (B, 7) float32",
            *(f"{part} (B, 4) float32" for part in ("h_0", "h_1", "fed")),
            "attention (B, T) float32",
        ],
    ),
    "the context of the step before": (
        {"attention": BahdanauAttention, "feed": "context", "tie_weights": True},
        [
            *("memory (B, T, 4) float32", "keys (B, T, 4) float32", "initial_h_0 (B, 4) float32"),
            "initial_fed (B, 4) float32",
        ],
        [
            *("logits (B, 7) float32", "h_0 (B, 4) float32", "fed (B, 4) float32"),
            "attention (B, T) float32",
        ],
    ),
    "nothing to look at": (
        {"cell": LSTMCell},
        ["initial_h_0 (B, 4) float32", "initial_c_0 (B, 4) float32"],
        ["logits (B, 7) float32", "h_0 (B, 4) float32", "c_0 (B, 4) float32"],
    ),
}


def writer(objective=None, cell=GRUCell, **options):
    """A model that reads letters and writes numbers."""
    source = {"unit": "characters", "tokens": ["\n", "<unk>", *"abc"]}
    target = {"unit": "words", "tokens": ["<eos>", "<unk>", *map(str, range(5))]}
    known = {"sizes": {"vocab_size": 5, "target_vocab_size": 7}, "source": source, "target": target}
    return Trained(
        lambda: SequenceToSequence(cell, 7, vocab_size=5, hidden_size=4, **options),
        objective or Transduction(),
        known,
    )


@pytest.mark.parametrize(
    ("kind", "form"),
    mostly_slow([*product(WRITERS, FORMATS)], [("the context of the step before", "pt2")]),
)
def test_a_model_that_writes_becomes_an_encoder_and_a_step_of_its_decoder(kind, form, tmp_path):
    if form == "onnx" and not WRITES_ONNX:
        pytest.skip("needs seqnets[onnx]")
    options, carried, outputs = WRITERS[kind]

    done = export(writer(**options), tmp_path / f"model.{form}")

    looks = ["lengths (B) int64"] * ("attention" in options)
    encoder, decoder = (f"model.{half}.{form}" for half in ("encoder", "decoder"))
    assert [path.name for path in done.files] == [encoder, decoder]
    assert {path.name for path in tmp_path.iterdir()} == {encoder, decoder}
    read, step = ports(done, "inputs")
    assert read == ["tokens (B, T) int64", "lengths (B) int64"]
    assert step == ["tokens (B) int64", *looks, *carried]
    assert ports(done, "outputs") == [carried, outputs]
    assert done.difference < 1e-5


def test_a_loop_around_the_step_writes_what_the_model_writes(tmp_path):
    module = writer(Transduction(max_length=9), attention=BahdanauAttention, feed="output")
    torch.manual_seed(15)
    for parameter in module.model.parameters():
        torch.nn.init.normal_(parameter)  # so that it writes more than one token
    torch.nn.init.ones_(module.model.output.bias.data[:1])  # and ends
    tokens, lengths = torch.randint(5, (6, 8)), torch.tensor([8, 1, 3, 5, 8, 2])
    expected = module.objective.write(module.model.eval(), Batch(tokens, tokens, lengths))

    done = export(module, tmp_path / "model.pt2")
    encoder, decoder = (loaded(path)[0] for path in done.files)
    given, last, written = encoder(tokens, lengths), torch.zeros(6, dtype=torch.int64), []
    for _ in range(expected.tokens.shape[1]):
        found = decoder(last, lengths, *given.values())
        given = {name: found.get(name.removeprefix("initial_"), y) for name, y in given.items()}
        last = found["logits"].argmax(-1)
        written.append(last)

    _, about = done.files.values()
    known = expected.tokens != IGNORE
    torch.testing.assert_close(torch.stack(written, 1)[known], expected.tokens[known])
    assert known.sum(1).unique().numel() > 1
    assert about["writing"] == {
        "begin": 0,
        "end": 0,
        "longest": {"per_step": 0, "more": 9},
        "beam_size": 1,
        "length_penalty": 0.6,
    }


def test_each_half_of_a_model_that_writes_holds_its_own_weights_alone(tmp_path):
    done = export(writer(**LOOKING), tmp_path / "model.pt2")
    read, step = ({*torch.export.load(path).state_dict} for path in done.files)

    assert not read & step
    assert read | step == {f"model.{name}" for name in writer(**LOOKING).model.state_dict()} - {
        "model.seen"
    }


def test_of_a_model_that_writes_both_files_are_there_or_none(tmp_path, monkeypatch):
    load = FORMATS["pt2"].load

    def broken(served, path):
        run = load(served, path)
        wrong = 1e-3 * isinstance(served, ServedDecoder)
        return lambda given: {name: y + wrong for name, y in run(given).items()}

    monkeypatch.setitem(FORMATS, "pt2", FORMATS["pt2"]._replace(load=broken))

    with pytest.raises(ConfigError, match=r"model.decoder.pt2: .* differ by up to"):
        export(writer(), tmp_path / "model.pt2")

    assert not list(tmp_path.iterdir())


def test_a_model_and_an_objective_of_ones_own_are_exported_as_they_are(tmp_path):
    done = export(Trained(Sums, Mine(), {"sizes": {"input_size": 2}}), tmp_path / "model.pt2")

    assert ports(done, "outputs") == [["output (B, 2) float32"]]


@pytest.mark.parametrize("form", mostly_slow(FORMATS, ["onnx"]))
def test_weights_that_are_computed_are_in_the_file_as_they_are(form, tmp_path):
    if form == "onnx" and not WRITES_ONNX:
        pytest.skip("needs seqnets[onnx]")
    module = Trained(
        lambda: SequenceTagger(ExpRNNCell, 3, input_size=4, hidden_size=4, num_layers=2, tied=True),
        Tagging(),
        {"sizes": {"input_size": 4, "num_classes": 3}},
    )
    before = {name: part.clone() for name, part in module.model.state_dict().items()}

    done = export(module, tmp_path / f"model.{form}")  # of matrix exponentials torch writes none

    assert done.difference < 1e-5
    torch.testing.assert_close(dict(module.model.state_dict()), before, atol=0, rtol=0)


def test_weights_of_two_parts_are_settled_too():
    model = SequenceTagger(GRUCell, 3, input_size=4, hidden_size=4, num_layers=2, tied=True)
    torch.nn.utils.parametrizations.weight_norm(model.output)
    orthogonal(model.encoder.recurrent.layers[0].cell)
    x = torch.randn(2, 5, 4)

    served = Served(model, Tagging(), {"sizes": {"input_size": 4, "num_classes": 3}})

    assert not any("original" in name for name, _ in served.named_parameters())
    torch.testing.assert_close(served.model(x)[0], model.eval()(x)[0])


def test_the_model_that_is_exported_stays_as_it_is(tmp_path):
    module = trained("tags")
    module.model.double().train()

    export(module, tmp_path / "model.pt2")

    assert module.model.training
    assert {p.dtype for p in module.model.parameters()} == {torch.float64}


def test_what_is_known_ahead_goes_in_in_the_units_of_the_data():
    module = trained("forecasts of what is known ahead")
    served = Served(module.model, module.objective, module.card["data"])
    x, ahead, scaling = torch.randn(2, 4, 2), torch.randn(2, 3, 1), Scaling.read(SCALING)
    mean, deviation = scaling.mean, scaling.deviation

    found = served(scaling.undo(x), ahead * deviation[1:] + mean[1:])["values"]

    expected = module.model(x, ahead=ahead)[0][..., 0]
    torch.testing.assert_close((found - mean[0]) / deviation[0], expected.double())
