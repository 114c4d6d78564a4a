import math
from functools import partial

import pytest
import torch

from seqnets.cells import ConvGRUCell, GRUCell, LayerNorm, LSTMCell, initialize
from seqnets.errors import ConfigError, DataError, DtypeError
from seqnets.layers import Recurrent
from seqnets.models import (
    Encoder,
    Forecaster,
    FramePredictor,
    LanguageModel,
    SequenceClassifier,
    SequenceRegressor,
    SequenceToSequence,
    Transcriber,
)
from seqnets.models import SequenceTagger as Tagger
from seqnets.models.classifier import POOLINGS

TOKENS = torch.tensor([[0, 3, 1, 4, 1, 5], [2, 2, 4, 0, 1, 3]])


def test_language_model_in_chunks_with_carried_state_equals_the_whole():
    model = LanguageModel(LSTMCell, 6, hidden_size=5, num_layers=2).double()

    whole, final = model(TOKENS)
    first, state = model(TOKENS[:, :2])
    second, end = model(TOKENS[:, 2:], state)

    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end, final)


@pytest.mark.parametrize("option", ["hidden_size", "embedding_size", "init_range"])
@pytest.mark.parametrize("value", [-1, "1"])
def test_invalid_sizes_and_ranges_are_refused(option, value):
    with pytest.raises(ConfigError, match=f"{option} is {value!r}, expected"):
        LanguageModel(GRUCell, 6, **{option: value})


def test_language_model_never_looks_ahead():
    model = LanguageModel(GRUCell, 6, hidden_size=5, connection="residual", num_layers=2)
    changed = TOKENS.clone()
    changed[:, 4:] = 5

    assert torch.equal(model(TOKENS)[0][:, :4], model(changed)[0][:, :4])


def test_tied_weights_are_one_parameter_and_stay_so_through_training():
    model = LanguageModel(LSTMCell, 6, hidden_size=5, tie_weights=True)

    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(TOKENS)[0].square().sum().backward()
    optimizer.step()

    assert model.output.weight is model.encoder.embedding.weight
    assert sum(p.shape == (6, 5) for p in model.parameters()) == 1


def test_tied_weights_of_different_widths_are_refused():
    with pytest.raises(ConfigError, match=r"embedding_size is 3 .* 5 wide"):
        LanguageModel(LSTMCell, 6, embedding_size=3, hidden_size=5, tie_weights=True)


def test_language_model_refuses_to_read_backwards():
    with pytest.raises(ConfigError, match="bidirectional"):
        LanguageModel(LSTMCell, 6, bidirectional=True)


LEAN = {
    "in both directions": lambda: Encoder(GRUCell, input_size=3, bidirectional=True, memory="lean"),
    "and reads to write": lambda: SequenceToSequence(GRUCell, 6, vocab_size=6, memory="lean"),
    "over frames": lambda: FramePredictor(ConvGRUCell, 1, 4, 4, num_layers=2, memory="lean"),
}


@pytest.mark.parametrize("case", LEAN)
def test_the_memory_option_reaches_all_layers(case):
    layers = [layer for layer in LEAN[case]().modules() if isinstance(layer, Recurrent)]

    assert [layer.memory for layer in layers] == ["lean", "lean"]


def test_bptt_steps_change_gradients_and_not_outputs():
    torch.manual_seed(0)
    whole = LanguageModel(LSTMCell, 6, hidden_size=5)
    cut = LanguageModel(LSTMCell, 6, hidden_size=5, bptt_steps=2)
    cut.encoder.recurrent.layer.load_state_dict(whole.encoder.recurrent.state_dict())
    cut.encoder.embedding.load_state_dict(whole.encoder.embedding.state_dict())
    cut.output.load_state_dict(whole.output.state_dict())

    gradients = []
    for model in (whole, cut):
        logits, _ = model(TOKENS)
        logits.square().sum().backward()
        gradients.append(model.encoder.embedding.weight.grad)

    torch.testing.assert_close(whole(TOKENS)[0], cut(TOKENS)[0])
    assert not torch.allclose(*gradients)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_row_is_classified_as_it_is_alone_whatever_its_padding(pooling, bidirectional):
    model = SequenceClassifier(
        GRUCell, 4, input_size=3, hidden_size=5, bidirectional=bidirectional, pooling=pooling
    ).double()
    lengths = torch.tensor([7, 2, 4])
    x = torch.randn(3, 7, 3, dtype=torch.float64)
    for row, length in enumerate(lengths):
        x[row, length:] = torch.nan

    together, _ = model(x, lengths=lengths)
    alone = torch.cat([model(x[r : r + 1, :n])[0] for r, n in enumerate(lengths)])

    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_classifier_takes_lengths_as_a_list_as_layers_do(pooling):
    model = SequenceClassifier(GRUCell, 4, input_size=3, hidden_size=5, pooling=pooling)
    x, lengths = torch.randn(2, 7, 3), [0, 5]

    assert torch.equal(model(x, lengths=lengths)[0], model(x, lengths=torch.tensor(lengths))[0])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_row_without_steps_gets_the_bias_alone(pooling):
    model = SequenceClassifier(GRUCell, 4, input_size=3, hidden_size=5, pooling=pooling)

    logits, _ = model(torch.randn(2, 7, 3), lengths=torch.tensor([0, 7]))

    torch.testing.assert_close(logits[0], model.output.bias)


def test_attention_weighs_steps_by_the_softmax_of_their_scores():
    model = SequenceClassifier(GRUCell, 2, input_size=3, hidden_size=2, pooling="attention")
    model = model.double()
    x = torch.randn(1, 3, 3, dtype=torch.float64)

    logits, _ = model(x, lengths=torch.tensor([2]))
    first, second = model.encoder(x)[0][0, :2].tolist()
    weight = model.score.weight[0].tolist()
    powers = [math.exp(sum(w * v for w, v in zip(weight, y, strict=True))) for y in (first, second)]
    pooled = [
        (powers[0] * a + powers[1] * b) / sum(powers) for a, b in zip(first, second, strict=True)
    ]

    torch.testing.assert_close(
        logits[0], model.output(torch.tensor(pooled, dtype=torch.float64)), rtol=0, atol=1e-12
    )


def test_attention_learns_from_a_batch_with_a_row_without_steps():
    model = SequenceClassifier(GRUCell, 2, input_size=3, hidden_size=2, pooling="attention")

    model(torch.randn(2, 4, 3), lengths=torch.tensor([0, 4]))[0].square().sum().backward()

    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model.score.weight.grad.abs().max() > 0


def test_last_pooling_in_both_directions_keeps_what_each_direction_ended_with():
    model = SequenceClassifier(GRUCell, 4, input_size=3, hidden_size=5, bidirectional=True)
    x = torch.randn(2, 7, 3)

    logits, state = model(x)
    (ahead,), (back,) = state[-1]

    torch.testing.assert_close(logits, model.output(torch.cat([ahead, back], -1)))


def test_regressor_and_tagger_give_the_shapes_of_their_tasks():
    x = torch.randn(2, 7, 3)

    assert SequenceRegressor(GRUCell, 2, input_size=3)(x)[0].shape == (2, 2)
    assert Tagger(GRUCell, 9, input_size=3, bidirectional=True)(x)[0].shape == (2, 7, 9)
    assert Tagger(LSTMCell, 9, vocab_size=6)(TOKENS)[0].shape == (2, 6, 9)


@pytest.mark.parametrize("sizes", [{}, {"input_size": 3, "vocab_size": 4}])
def test_encoder_takes_either_features_or_tokens(sizes):
    with pytest.raises(ConfigError, match="expected one of"):
        Encoder(GRUCell, **sizes)


@pytest.mark.parametrize("option", ["merge", "hiden_size"])
def test_encoder_takes_no_option_that_it_has_no_use_for(option):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'"):
        Encoder(GRUCell, input_size=3, bidirectional=True, **{option: "sum"})


SIZES = {
    "Encoder: input_size": lambda size: SequenceClassifier(GRUCell, 2, input_size=size),
    "Encoder: vocab_size": lambda size: LanguageModel(GRUCell, size),
    "Encoder: embedding_size": lambda size: Encoder(GRUCell, vocab_size=4, embedding_size=size),
    "SequenceClassifier: num_classes": lambda size: SequenceClassifier(GRUCell, size, input_size=3),
    "SequenceRegressor: output_size": lambda size: SequenceRegressor(GRUCell, size, input_size=3),
    "SequenceTagger: num_classes": lambda size: Tagger(GRUCell, size, input_size=3),
    "Transcriber: num_classes": lambda size: Transcriber(GRUCell, size, input_size=3),
    "Forecaster: input_size": lambda size: Forecaster(GRUCell, size, 1, 4),
    "Forecaster: output_size": lambda size: Forecaster(GRUCell, 2, size, 4),
    "Forecaster: horizon": lambda size: Forecaster(GRUCell, 2, 1, size),
    "SequenceToSequence: target_vocab_size": lambda size: SequenceToSequence(
        GRUCell, size, vocab_size=4
    ),
}


@pytest.mark.parametrize("size", [0, 1.5])
@pytest.mark.parametrize("name", SIZES)
def test_a_size_of_zero_is_not_treated_as_omitted(name, size):
    with pytest.raises(ConfigError, match=f"{name} is {size}, expected a whole number"):
        SIZES[name](size)


@pytest.mark.parametrize(("token", "said"), [(6, "is 6"), (-1, "is -1")])
def test_a_token_outside_the_vocabulary_is_named(token, said):
    model = LanguageModel(LSTMCell, 6, hidden_size=5)

    with pytest.raises(DataError, match=rf"{said}, expected 0\.\.5"):
        model(torch.tensor([[0, token]]))


def test_features_given_to_a_model_of_tokens_are_refused():
    with pytest.raises(DtypeError, match="takes tokens"):
        LanguageModel(LSTMCell, 6)(torch.randn(2, 3, 4))


def test_unknown_pooling_is_refused():
    with pytest.raises(ConfigError, match="pooling is 'first', expected one of last, mean, max"):
        SequenceClassifier(GRUCell, 4, input_size=3, pooling="first")


def test_options_of_a_cell_start_as_they_say_whatever_the_range_of_the_others():
    options = {"norm": LayerNorm, "start": partial(initialize, weight_hh="zeros")}
    model = LanguageModel(LSTMCell, 50, hidden_size=20, init_range=0.05, cell_options=options)

    for name, parameter in model.named_parameters():
        if "gain" in name:
            assert (parameter == 1).all(), name
        elif name.endswith("weight_hh"):
            assert (parameter == 0).all(), name
        elif "shift" not in name:
            assert 0.03 < parameter.abs().max() <= 0.05, name


def test_dropping_features_of_an_embedding_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="dropout has input="):
        SequenceClassifier(GRUCell, 4, input_size=3, hidden_size=5, dropout={"input": 0.9})


def test_a_range_to_start_in_holds_for_every_parameter():
    model = LanguageModel(LSTMCell, 50, hidden_size=20, num_layers=2, init_range=0.05)

    for name, parameter in model.named_parameters():
        assert 0.03 < parameter.abs().max() <= 0.05, name
