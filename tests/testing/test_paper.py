import pytest

from seqnets.cells import GRUCell, LSTMCell, PeepholeLSTMCell
from seqnets.errors import ConfigError
from seqnets.testing import one_unit, step

FOUR = {"w": (0.5, -0.3, 0.8, 0.9), "u": (0.7, 0.2, -0.6, 0.4)}


def test_one_unit_needs_a_number_for_every_parameter():
    with pytest.raises(ConfigError, match="p_o of PeepholeLSTMCell got 0 numbers, expected 1"):
        one_unit(PeepholeLSTMCell, **FOUR, p_i=0.35, p_f=-0.25)


def test_one_unit_needs_a_parameter_for_every_number():
    with pytest.raises(ConfigError, match="p_i of LSTMCell got 1 number, expected 0"):
        one_unit(LSTMCell, **FOUR, p_i=0.35)


def test_one_unit_needs_a_number_for_every_gate():
    with pytest.raises(ConfigError, match="weight_hh of LSTMCell got 3 numbers, expected 4"):
        one_unit(LSTMCell, w=FOUR["w"], u=(0.7, 0.2, -0.6))


def test_omitted_biases_are_zero():
    cell = one_unit(LSTMCell, **FOUR)

    assert not cell.bias_ih.any()
    assert not cell.bias_hh.any()


def test_step_gives_a_float_for_one_state_and_a_tuple_for_two():
    gru = one_unit(GRUCell, w=(0.5, -0.3, 0.8), u=(0.7, 0.2, -0.6))

    assert isinstance(step(gru, 1.0, 0.5), float)
    assert [type(part) for part in step(one_unit(LSTMCell, **FOUR), 1.0, 0.5, -0.5)] == [float] * 2
