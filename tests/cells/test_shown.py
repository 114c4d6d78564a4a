"""What cells show of themselves: their sizes, and the options that differ from their defaults."""

import inspect
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch

import seqnets
from seqnets.cells import (
    ClipState,
    Clockwork,
    Dilated,
    InputDropout,
    IRNNCell,
    LayerNorm,
    LIFCell,
    LSTMCell,
    Mogrifier,
    RecurrentDropout,
    RNNCell,
    VariationalDropout,
    block_diagonal,
    surrogates,
    weight_drop,
)
from seqnets.cells.constructors import arguments_of
from seqnets.errors import ConfigError

from .final import FINAL_CELLS

if TYPE_CHECKING:
    from decimal import Decimal

OTHERS = {
    "a_max": 0.99, "a_min": 0.5, "alpha": 0.5, "backbone_layers": 2, "backbone_size": 3,
    "beta": 0.5, "bias": False, "chunk_size": 2, "context_size": 3, "decay_a": 0.5, "decay_i": 0.5,
    "decay_v": 0.5, "depth": 2, "detach_reset": True, "dt": 0.5, "dt_max": 0.2, "dt_min": 0.01,
    "epsilon": 0.2, "forget": "exp", "forget_bias": 2.0, "frame": (2, 2), "gamma": 0.5,
    "highway_bias": 1.0, "inner_size": 8, "kernel_size": 5, "key_size": 3, "leak": 0.01,
    "learn_decays": True, "learn_threshold": True, "lower_bound": 0.25, "mass_size": 2,
    "max_phase": 1.0, "mode": "pure", "nonlinearity": "tanh", "num_groups": 2, "num_heads": 2,
    "open_ratio": 0.1, "order": 8, "periods": (1, 3), "proj_size": 2, "r_max": 0.9, "r_min": 0.5,
    "rank": 3, "reset": "zero", "scale": 0.5, "solver": "imex", "state_size": 3,
    "surrogate": "arctan", "theta": 50.0, "threshold": 0.5, "timed": True, "transform_bias": -1.0,
    "unfolds": 3, "writes": 3,
}  # fmt: skip
"""Of each option a value that is no cell's default, but for the tanh that some have."""

UNSHOWN = {"input_size", "hidden_size", "device", "dtype"}


def takes(cell_cls, option):
    """Whether a cell can be made with another value of an option."""
    if option == "proj_size":
        return cell_cls.projects
    return option not in UNSHOWN and (cell_cls, option) != (IRNNCell, "nonlinearity")


@pytest.mark.parametrize(
    ("cell_cls", "option"),
    [(cls, option) for cls in FINAL_CELLS for option in arguments_of(cls) if takes(cls, option)],
)
def test_cells_that_differ_in_an_option_show_it(cell_cls, option):
    with_it = {"num_heads": 2} if option == "num_groups" else {}
    plain = cell_cls(4, 4, **with_it)
    value = OTHERS[option]
    if getattr(plain, option, None) == value:
        value = "relu"

    other = cell_cls(4, 4, **with_it, **{option: value})

    assert f", {option}=" in repr(other)
    assert repr(other) != repr(plain)


@pytest.mark.parametrize("cell_cls", FINAL_CELLS)
def test_of_what_is_left_to_a_cell_only_sizes_that_it_chose_are_shown(cell_cls):
    shown = cell_cls(4, 4).extra_repr().split(", ")[2:]

    names = [option.split("=")[0] for option in shown]
    assert all(name.endswith("_size") or name == "rank" for name in names)


def test_a_users_cell_shows_the_options_that_it_keeps_by_their_names():
    class Mine(RNNCell):
        def __init__(self, input_size, hidden_size, kept, *, slope=1.0, lost=2, **options):
            super().__init__(input_size, hidden_size, **options)
            self.kept, self.slope = kept, slope

    assert Mine(3, 4, "a").extra_repr() == "3, 4, kept='a'"
    assert Mine(3, 4, 1, slope=0.5, lost=3, bias=False).extra_repr() == (
        "3, 4, kept=1, slope=0.5, bias=False"
    )


def test_a_users_cell_may_keep_its_options_under_any_name():
    class Mine(RNNCell):
        def __init__(self, input_size, hidden_size, **options):
            super().__init__(input_size, hidden_size, **options)
            self._options = options

    assert repr(Mine(3, 4, bias=False)) == "Mine(3, 4, bias=False)"


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (seqnets.LIF(3, 4, threshold=0.5), "LIF(3, 4, threshold=0.5)"),
        (
            seqnets.LIFCell(3, 4, bias=False, threshold=0.5),
            "LIFCell(3, 4, bias=False, threshold=0.5)",
        ),
        (
            seqnets.CfC(3, 4, 2, mode="pure"),
            "CfC(3, 4, num_layers=2, mode='pure', backbone_size=4)",
        ),
        (seqnets.LSTM(3, 4, proj_size=2), "LSTM(3, 4, proj_size=2)"),
        (seqnets.RNN(3, 4, nonlinearity="relu"), "RNN(3, 4)"),  # as torch.nn.RNN
    ],
)
def test_a_module_with_torchs_interface_shows_the_options_of_its_cell(module, told):
    assert repr(module) == told


@pytest.mark.parametrize("kept", [torch.ones(9, 9), torch.ones(9, 9).numpy()])
def test_of_a_large_array_a_line_shows_the_beginning(kept):
    class Mine(RNNCell):
        def __init__(self, input_size, hidden_size, *, kept=None):
            super().__init__(input_size, hidden_size)
            self.kept = kept

    shown = repr(Mine(3, 4, kept=kept))

    assert shown.startswith("Mine(3, 4, kept=")
    assert shown.endswith("1., …)")


class Slope:
    def __call__(self, v):
        return surrogates.arctan(v)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (surrogates.arctan, "arctan"),
        (partial(surrogates.fast_sigmoid, slope=25.0), "partial(fast_sigmoid, slope=25.0)"),
        (partial(torch.mul, Slope()), "partial(mul, Slope())"),
        (Slope(), "Slope()"),
        (Slope().__call__, "__call__"),
        (lambda v: v, "<lambda>"),
    ],
)
def test_a_function_is_shown_by_its_name_and_without_its_address(given, told):
    assert repr(LIFCell(3, 4, surrogate=given)) == f"LIFCell(3, 4, surrogate={told})"


@pytest.mark.parametrize(
    ("around", "told"),
    [
        (partial(ClipState, limit=2, states=["c"]), "limit=2.0, states=('c',)"),
        (partial(Clockwork, periods=[1, 3]), "periods=(1, 3)"),
        (partial(Dilated, dilation=2), "dilation=2"),
        (partial(InputDropout, p=0.2, per_step=False), "p=0.2, per_step=False"),
        (partial(LayerNorm, eps=0.001), "eps=0.001"),
        (partial(Mogrifier, rounds=2), "rounds=2"),
        (partial(RecurrentDropout, p=0.2), "p=0.2"),
        (partial(VariationalDropout, p=0.2), "p=0.2"),
    ],
)
def test_an_option_around_a_cell_shows_what_differs_from_its_defaults(around, told):
    assert around(LSTMCell(3, 4)).extra_repr() == told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (partial(block_diagonal, num_heads=2), "num_heads=2"),
        (partial(weight_drop, p=0.2), "p=0.2"),
    ],
)
def test_a_weight_that_is_computed_shows_how(change, told):
    assert f"({told})\n" in repr(change(LSTMCell(3, 4)))


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")
def test_a_cell_whose_annotations_name_what_is_not_defined_is_shown_and_explained():
    class Own(LSTMCell):
        def __init__(self, input_size: int, hidden_size: int, slope: Decimal = 1):
            super().__init__(input_size, hidden_size)
            self.slope = slope

    assert repr(Own(2, 3, slope=2)) == "Own(2, 3, slope=2)"
    assert [*inspect.signature(Own).parameters] == ["input_size", "hidden_size", "slope"]
    with pytest.raises(TypeError, match="Own: unexpected keyword argument 'slop', expected slope"):
        Own(2, 3, slop=2)
    with pytest.raises(ConfigError, match=r"cell is Own\(input_size, hidden_size, slope\)"):
        seqnets.testing.check_cell(partial(Own, 2, size=3))
