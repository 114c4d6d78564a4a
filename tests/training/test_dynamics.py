"""The inside of layers in TensorBoard, and what is drawn of a batch."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seqnets.cells import ConvLSTMCell, GRUCell, IRNNCell, LSTMCell, MLSTMCell, PhasedLSTMCell
from seqnets.errors import ConfigError, DataError
from seqnets.layers import Bidirectional, DeepRNN, Hierarchical, Recurrent, watch_layers
from seqnets.models import SequenceToSequence
from seqnets.training.callbacks import Dynamics
from seqnets.training.dynamics import draw_read, draw_seen, rest_of
from seqnets.typing import IGNORE, Batch

from .runs import fit, language_module, parity_data, parity_module, text_data

BITS = {"sizes": {"vocab_size": 2, "num_classes": 2}, "unit": "sequences", "vocabulary": None}
FEATURES = {**BITS, "sizes": {"input_size": 2, "num_classes": 2}}


def events_of(make, data, folder, *callbacks, **options):
    """A run's module, and its events."""
    logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    _, module = fit(make, data, folder, *callbacks, logger=logger, **options)
    return module, EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()


def seen_of(layer, x, lengths=None):
    return watch_layers(layer, lambda: layer(x, None, lengths))


def test_tensorboard_shows_the_inside_and_the_run_stays_the_same(tmp_path):
    make = partial(language_module, scheduler=None)
    data, options = text_data(tmp_path), {"max_steps": 2, "val_check_interval": 1}

    watched, found = events_of(make, data, tmp_path / "run", Dynamics(rows=2), **options)
    _, alone = fit(make, data, tmp_path / "alone", **options)

    layers = [f"encoder.recurrent.layers.{n}" for n in (0, 1)]
    tags = [f"{kind}/{name}" for kind in ("states", "fixed_points") for name in layers]
    assert sorted(found.Tags()["images"]) == sorted(tags)
    assert all([event.step for event in found.Images(tag)] == [1, 2] for tag in tags)
    for a, b in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(a, b)


def test_padded_sequences_are_shown_and_large_states_have_no_fixed_points(tmp_path):
    callback = Dynamics(largest=7)  # the layer has 8 units

    _, found = events_of(parity_module, parity_data(), tmp_path, callback, max_epochs=1)

    assert found.Tags()["images"] == ["states/encoder.recurrent.layers.0"]


def test_a_model_without_a_layer_over_a_sequence_is_trained_all_the_same(tmp_path, caplog):
    def make(data):
        module = parity_module(data)
        module.model.unused = module.model.encoder.recurrent
        step = module.model.encoder.recurrent.layers[0].step
        module.model.encoder.run = lambda x, state, lengths: stepped(module, step, x)
        return module

    def stepped(module, step, x):
        state, outputs = None, []
        for x_t in module.model.encoder.embedding(x).unbind(1):
            y, state = step(x_t, state)
            outputs.append(y)
        return torch.stack(outputs, 1), (state,)

    _, found = events_of(make, parity_data(), tmp_path, Dynamics(), max_epochs=1)

    assert found.Tags()["images"] == []
    assert "No pictures of recurrent layers" in caplog.text


def test_a_picture_that_cannot_be_drawn_ends_no_training(tmp_path, monkeypatch, caplog):
    def failing(*arguments, **options):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr("seqnets.training.callbacks.dynamics.rest_of", failing)

    module, _ = events_of(parity_module, parity_data(), tmp_path, Dynamics(), max_epochs=1)

    assert module.trainer.global_step > 0
    assert "No pictures of recurrent layers: SVD did not converge" in caplog.text


@pytest.mark.parametrize("options", [{"rows": 0}, {"steps": 1.5}, {"largest": -1}])
def test_arguments_that_are_no_counts_are_refused(options):
    with pytest.raises(ConfigError, match=f"Dynamics: {next(iter(options))} is"):
        Dynamics(**options)


def test_each_layer_and_direction_has_a_picture_with_its_tokens():
    net = DeepRNN(LSTMCell, 2, 4, num_layers=2, bidirectional=True).eval()
    batch = Batch(torch.tensor([[0, 1, 1, 0]]), torch.tensor([1]), torch.tensor([3]))
    seen = seen_of(net, torch.randn(1, 4, 2), batch.lengths)

    figures = draw_seen(seen, batch, BITS)

    assert list(figures) == list(seen)
    for figure in figures.values():
        titles = [axis.get_title(loc="left") for axis in figure.axes if axis.images]
        parts = ["state h", "state c", "gate i", "gate f", "gate o", "candidate g"]
        assert [title for title in titles if title] == parts
        labels = [label.get_text() for label in figure.axes[5].get_xticklabels()]
        assert labels == ["0", "1", "1"]


def test_the_layers_of_a_decoder_have_the_tokens_that_they_read():
    torch.manual_seed(0)
    model = SequenceToSequence(LSTMCell, 5, vocab_size=4, hidden_size=3).eval()
    codec = {"unit": "words", "tokens": ["<eos>", "<unk>", "ein", "rotes", "Haus"]}
    source = {"unit": "words", "tokens": ["<eos>", "<unk>", "red", "house"]}
    known = {"sizes": {"vocab_size": 4}, "source": source, "target": codec}
    batch = Batch(torch.tensor([[2, 3, 2]]), torch.tensor([[2, 3, 4, 0, IGNORE]]), None)
    seen = watch_layers(model, lambda: model(batch.x, batch.y))

    figures = draw_seen(seen, batch, known)

    written = {
        name: [label.get_text() for label in figure.axes[5].get_xticklabels()]
        for name, figure in figures.items()
    }
    assert written == {
        "encoder.recurrent.layers.0": ["red", "house", "red"],
        "decoder.recurrent.layers.0": ["<eos>", "ein", "rotes", "Haus"],
    }


def test_a_decoder_of_numbers_counts_its_own_steps():
    layer, x = Recurrent(GRUCell(2, 3)).eval(), torch.randn(1, 4, 2)
    seen = {"decoder.layers.0": seen_of(layer, x)[""]}

    (figure,) = draw_seen(seen, Batch(torch.randn(1, 40, 2), torch.zeros(1)), FEATURES).values()

    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert "input" not in titles
    assert figure.axes[0].get_xlim() == (-0.5, 3.5)


def test_a_text_is_written_as_units_see_it_before_their_output_gates():
    layer, x = Recurrent(LSTMCell(2, 3)).eval(), torch.randn(1, 120, 2)
    known = {"sizes": {"vocab_size": 2}, "unit": "characters", "vocabulary": ["a", "\n"]}
    tokens = (torch.arange(120) % 40 == 39).long()[None]
    seen = seen_of(layer, x)

    (figure,) = draw_read(seen, Batch(tokens, tokens), known).values()

    axes = figure.axes[0]
    unit = int(axes.texts[0].get_text().removeprefix("unit "))
    memory = torch.tanh(seen[""].states["c"][0, :40, unit])
    np.testing.assert_allclose(axes.images[0].get_array()[1, :40], memory.detach(), rtol=1e-6)
    assert axes.texts[40].get_text() == "↵"
    assert draw_read(seen, Batch(tokens[:, :99], tokens), known) == {}
    assert draw_read(seen, Batch(x, tokens), FEATURES) == {}


@pytest.mark.parametrize(
    ("cell", "refusal"),
    [
        (PhasedLSTMCell(3, 4), "counts time in its state t"),
        (MLSTMCell(2, 64), "a state has 4,161 numbers"),
        (ConvLSTMCell(16, 1024, frame=(4, 4)), "a state has 2,048 numbers"),
    ],
)
def test_cells_without_fixed_points_are_drawn_over_time_and_say_why(cell, refusal):
    layer, x = Recurrent(cell).eval(), torch.randn(2, 3, cell.input_size)
    batch = Batch(x, torch.tensor([0, 1]))
    seen = seen_of(layer, x)

    rest = rest_of(seen[""], batch, FEATURES)

    assert refusal in rest.refusal
    assert rest.draw(FEATURES) is None
    assert list(draw_seen(seen, batch, FEATURES)) == [""]


def test_the_target_of_a_sequence_colours_the_step_at_which_a_layer_ends():
    net, x = Bidirectional(GRUCell(2, 3)).eval(), torch.randn(2, 4, 2)
    batch = Batch(x, torch.tensor([1, 0]), torch.tensor([4, 2]))

    for layer in seen_of(net, x, batch.lengths).values():
        rest = rest_of(layer, batch, FEATURES)
        assert [told.tolist() for told in rest.told] == [[IGNORE] * 3 + [1], [IGNORE, 0]]
        order = slice(None, None, -1 if layer.layer.reverse else 1)
        np.testing.assert_allclose(rest.paths[1], layer.states["h"][1, :2].detach().numpy()[order])


def doubling():
    """A layer whose states double at each step."""
    cell = IRNNCell(2, 3)
    with torch.no_grad():
        cell.weight_hh.copy_(2 * torch.eye(3))
        cell.weight_ih.fill_(1)
    return Recurrent(cell).eval()


@pytest.mark.parametrize("number", [1.0, np.inf, np.nan])
def test_steps_that_are_not_finite_are_left_out(number):
    layer, x = doubling(), torch.zeros(2, 150, 2)
    x[0, 2:] = number  # 1 overflows in time
    batch = Batch(x, torch.tensor([1, 0]))
    seen = seen_of(layer, x)

    rest = rest_of(seen[""], batch, FEATURES)

    last = int(seen[""].states["h"][0].isfinite().all(1).sum())
    assert list(map(len, rest.paths)) == list(map(len, rest.told)) == [last, 150]
    assert last == (128 if number == 1 else 2)
    assert rest.told[0].max() == IGNORE
    assert rest.told[1][-1] == 0
    assert rest.points.states.tolist() == [[0, 0, 0]]
    rest.draw(FEATURES).draw_without_rendering()
    draw_seen(seen, batch, FEATURES)[""].draw_without_rendering()


def test_where_no_step_is_finite_nothing_is_drawn_of_where_a_layer_rests():
    layer, x = Recurrent(GRUCell(2, 3)).eval(), torch.randn(2, 3, 2)
    torch.nn.init.constant_(layer.cell.weight_hh, np.nan)

    rest = rest_of(seen_of(layer, x)[""], Batch(x, torch.tensor([1, 0])), FEATURES)

    assert rest.refusal == "none of its states is finite"
    assert rest.paths == rest.told == []
    assert rest.draw(FEATURES) is None


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (torch.tensor([[0, IGNORE, 1]]), [[0, IGNORE, 1]]),  # a label a step
        (torch.tensor([[0.5]]), [[np.nan, np.nan, 0.5]]),  # a number a sequence
        (torch.zeros(1, 6, 2), None),  # a forecast
    ],
)
def test_targets_of_other_kinds_are_told_where_colours_can(y, told):
    layer, x = Recurrent(GRUCell(2, 3)).eval(), torch.randn(1, 3, 2)

    rest = rest_of(seen_of(layer, x)[""], Batch(x, y), FEATURES)

    np.testing.assert_equal(None if rest.told is None else [t.tolist() for t in rest.told], told)


def test_the_input_that_stays_the_same_is_one_that_occurs_or_the_token_that_is_asked_for():
    layer, embedded = Recurrent(GRUCell(2, 3)).eval(), torch.randn(2, 2)
    batch = Batch(torch.tensor([[0, 0, 1], [0, 1, 0]]), torch.tensor([0, 1]))
    seen = seen_of(layer, embedded[batch.x])[""]

    typical, asked = (rest_of(seen, batch, BITS, at) for at in (None, "1"))

    assert typical.repeated == "if the input stays that of '0'"  # there are more of them
    assert asked.repeated == "if the input stays that of '1'"
    for rest, x in ((typical, embedded[0]), (asked, embedded[1])):
        (s,) = rest.points.states.float()
        torch.testing.assert_close(layer.cell(x[None], (s[None],))[0], s[None])
    with pytest.raises(DataError, match="reads '2'"):
        rest_of(seen, batch, BITS, "2")
    features = torch.ones(2, 3, 2)
    with pytest.raises(DataError, match=r"at: is '1', expected none: .* read no tokens"):
        rest_of(seen_of(layer, features)[""], Batch(features, batch.y), FEATURES, "1")


def test_a_layer_over_segments_is_left_out_where_a_token_is_asked_for():
    net = Hierarchical(Recurrent(GRUCell(2, 3)), Recurrent(GRUCell(3, 3)), stride=2).eval()
    batch = Batch(torch.tensor([[0, 0, 1, 0]]), torch.tensor([0]))
    seen = seen_of(net, torch.randn(2, 2)[batch.x])

    lower, upper = (rest_of(seen[name], batch, BITS, "1") for name in ("lower", "upper"))

    assert lower.repeated == "if the input stays that of '1'"
    assert upper.refusal == "it reads no tokens one by one, and at is '1'"
    assert rest_of(seen["upper"], batch, BITS).points is not None
