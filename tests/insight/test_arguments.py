import re

import numpy as np
import pytest
import torch

from seqnets import insight
from seqnets.errors import ConfigError, DtypeError, SeqnetsError, ShapeError

T, S, K = 9, 3, 2
random = np.random.default_rng(0)
STATES = random.normal(size=(T, S)).astype(np.float32)


def points(**changed):
    """Draw fixed points of arguments that fit, but for those that are changed."""
    fitting = {
        "paths": [STATES, STATES[1:]],
        "points": np.zeros((K, S)),
        "eigenvalues": np.full((K, S), 0.5j),
        "fixed": np.ones(K, bool),
    }
    return insight.draw_fixed_points(**fitting | changed)


def states(**changed):
    return insight.draw_states(**{"parts": {"h": STATES}} | changed)


def units(**changed):
    return insight.draw_units(**{"tokens": "nine sign", "part": STATES} | changed)


TWO = [np.arange(T), np.arange(T - 1)]


@pytest.mark.parametrize(
    ("draw", "changed", "kind", "told"),
    [
        (points, {"points": np.zeros((K, 2 * S))}, ShapeError, "expected (K, S) with S = 3"),
        (points, {"points": np.full((K, S), np.nan)}, ConfigError, "points has numbers that are"),
        (points, {"points": np.zeros((K, S), complex)}, DtypeError, "ndarray of complex128"),
        (points, {"eigenvalues": np.zeros(K)}, ShapeError, "eigenvalues has shape (2,)"),
        (points, {"fixed": [True]}, ShapeError, "fixed has shape (1,), expected (K,) with K = 2"),
        (points, {"paths": STATES}, ShapeError, "paths[0] has shape (3,), expected (T, S)"),
        (points, {"paths": [STATES, STATES[:, 1:]]}, ShapeError, "paths[1] has shape (9, 2)"),
        (points, {"paths": [STATES * np.inf]}, ConfigError, "paths[0] has numbers that are not"),
        (points, {"paths": []}, ShapeError, "paths are empty"),
        (points, {"paths": [STATES[:0]]}, ShapeError, "paths are empty"),
        (points, {"paths": None}, DtypeError, "paths is None, expected a list of arrays"),
        (points, {"paths": [["a"]]}, DtypeError, "paths[0] is list of <U1, expected an array"),
        (points, {"paths": [[[1, 2], [3]]]}, DtypeError, "paths[0] is list, expected an array"),
        (points, {"values": [0, 1]}, ShapeError, "values[0] has shape (), expected (T,) with T"),
        (points, {"values": TWO[:1]}, ShapeError, "1 array, expected one for each of 2 paths"),
        (points, {"values": TWO, "labels": ["a"]}, ShapeError, "labels has 1 name"),
        (states, {"parts": STATES}, DtypeError, "parts is ndarray, expected a mapping"),
        (states, {"parts": {}}, ShapeError, "parts are empty"),
        (states, {"parts": {"h": STATES[None]}}, ShapeError, "part 'h' has shape (1, 9, 3)"),
        (states, {"parts": {"h": STATES[:0]}}, ShapeError, "expected at least one step"),
        (states, {"x": []}, ShapeError, "x is empty"),
        (states, {"x": 3}, DtypeError, "x is 3, expected texts or an array"),
        (states, {"x": torch.arange(T)}, ShapeError, "list(map(str, x.tolist()))"),
        (states, {"x": STATES, "features": ["a"]}, ShapeError, "features has 1 name, expected I"),
        (states, {"units": 0}, ConfigError, "units is 0"),
        (units, {"part": STATES[1:]}, ShapeError, "part has shape (8, 3), expected (T, H) with T"),
        (units, {"part": STATES[:, :0]}, ShapeError, "expected at least one step and one unit"),
        (units, {"tokens": [1, 2]}, DtypeError, "a token is 1, expected text"),
        (units, {"lines": 0}, ConfigError, "lines is 0"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named_with_what_was_expected(draw, changed, kind, told):
    who = f"draw_{'fixed_points' if draw is points else draw.__name__}: "

    with pytest.raises(kind, match=f"^{who}.*") as caught:
        draw(**changed)

    assert told in str(caught.value)


def test_a_figure_of_no_size_is_refused():
    with pytest.raises(SeqnetsError, match=re.escape("new_figure: width is 0, expected a number")):
        insight.new_figure(0)


@pytest.mark.parametrize(
    "given",
    [
        lambda a: torch.tensor(a).requires_grad_(),
        lambda a: torch.tensor(a).bfloat16(),
        lambda a: torch.tensor(a).half(),
        lambda a: a.astype(np.float16),
        lambda a: a.tolist(),
        lambda a: list(torch.tensor(a).bfloat16().requires_grad_()),
        lambda a: (a > 0).tolist(),
    ],
)
def test_tensors_of_all_kinds_and_lists_are_drawn(given):
    h, spectrum = given(STATES), torch.full((K, S), 0.5j, requires_grad=True).conj()
    values = [torch.arange(T) % 2 == 0, torch.zeros(T, dtype=torch.int8)]

    figures = [
        states(parts={"h": h}, x=h),
        units(part=h),
        points(paths=[h, h], points=given(STATES[:K]), eigenvalues=spectrum, values=values),
        points(paths=[h, h], fixed=[True, False], values=[given(STATES[:, 0])] * 2),
    ]

    for figure in figures:
        figure.draw_without_rendering()


class Table:
    """A table as of pandas, which goes through the names of its columns."""

    ndim = 2

    def __iter__(self):
        return iter("abc")

    def __array__(self, dtype=None, copy=None):
        return np.array(STATES, dtype)


def test_a_table_has_features_though_its_columns_have_names():
    curves, *_ = states(x=Table()).axes

    assert len(curves.lines) == S
