import pytest

from seqnets.benchmarking import Case, cases_of
from seqnets.errors import ConfigError

KNOWN = ["gru", "lstm", "rnn"]
GRID = [
    {
        "cells": ["gru", "lstm"],
        "pass": ["forward", "training"],
        "shapes": [[1, 64, 32], [4, 8, 16]],
    },
    {"cells": "all", "except": ["gru"], "pass": "step", "B": 1, "H": 32},
]


def test_a_grid_stands_for_all_combinations_of_its_lists():
    cases = cases_of([{"cells": "gru", "pass": "forward", "B": [1, 2], "T": 3, "H": [4, 5]}], KNOWN)

    assert [(c.shape, c.I) for c in cases] == [
        ((1, 3, 4), 4),
        ((1, 3, 5), 5),
        ((2, 3, 4), 4),
        ((2, 3, 5), 5),
    ]


def test_a_grid_may_be_a_single_entry():
    entry = {"cells": "gru", "B": [1, 2], "T": 3, "H": 4}

    assert cases_of(entry, KNOWN) == cases_of([entry], KNOWN)


def test_the_pass_step_has_one_step_whatever_the_grid_says():
    cases = cases_of([{"cells": "gru", "pass": "step", "B": 1, "T": 9, "H": 4}], KNOWN)

    assert cases == [Case("gru", 1, 1, 4, 4, "step")]


def test_all_cells_but_the_excepted_ones_are_taken():
    steps = [case.cell for case in cases_of(GRID, KNOWN) if case.pass_ == "step"]

    assert steps == ["lstm", "rnn"]


def test_given_values_replace_the_grids_and_no_case_occurs_twice():
    cases = cases_of(GRID, KNOWN, {"cells": ["rnn"], "B": 2, "T": 5, "H": 7, "I": 3})

    assert cases == [
        Case("rnn", 2, 5, 3, 7, "forward"),
        Case("rnn", 2, 5, 3, 7, "training"),
        Case("rnn", 2, 1, 3, 7, "step"),
    ]


def test_a_given_cell_is_timed_even_if_the_suite_excludes_it():
    cases = cases_of(GRID, KNOWN, {"cells": ["gru"], "pass": "step"})

    assert cases == [Case("gru", 1, 1, 32, 32, "step")]


def test_a_given_pass_keeps_its_cases():
    cases = cases_of(GRID, KNOWN, {"pass": "training"})

    assert len(cases) == 4
    assert {case.pass_ for case in cases} == {"training"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"B": 0}, "B: is 0, expected a positive integer"),
        ({"T": [8, -1]}, "T: is -1"),
        ({"H": 2.5}, "H: is 2.5"),
        ({"I": True}, "I: is True"),
        ({"B": "many"}, "B: is 'many'"),
        ({"B": []}, "no case"),
        ({"cells": ["grru"]}, "cells: is 'grru', expected one of"),
        ({"pass": "backward"}, "pass: is 'backward'"),
    ],
)
def test_values_that_give_no_case_are_refused(given, told):
    with pytest.raises(ConfigError, match=told):
        cases_of(GRID, KNOWN, given)


def test_a_pass_that_the_suite_lacks_is_refused():
    with pytest.raises(ConfigError, match="that the suite has: step"):
        cases_of(GRID[1:], KNOWN, {"pass": "training"})


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"cels": "gru"}, "grid: has cels"),
        (5, "grid: has 5, expected B, H"),
        ({"cells": "gru", "shapes": 5}, "shapes: has 5, expected"),
        ({"cells": "gru", "shapes": [[1, 2]]}, r"has \[1, 2\]"),
        ({"cells": "gru", "pass": "forward", "B": 1, "T": 2}, "H: is None"),
    ],
)
def test_a_grid_that_cannot_be_read_is_refused(entry, told):
    with pytest.raises(ConfigError, match=told):
        cases_of([entry], KNOWN)


def test_each_dtype_of_an_entry_is_a_case_and_its_rows_are_those_named():
    entry = {"cells": "gru", "pass": "forward", "B": 1, "T": 2, "H": 3}
    named = {"dtype": ["float16", "tf32"], "rows": ["auto", "torch.nn"]}

    cases = cases_of([entry | named, entry], KNOWN)

    assert [(case.dtype, case.rows) for case in cases] == [
        ("float16", ("auto", "torch.nn")),
        ("tf32", ("auto", "torch.nn")),
        ("float32", None),
    ]
    assert [str(case) for case in cases[1:]] == [
        "gru, forward, tf32, B=1 T=2 H=3",
        "gru, forward, B=1 T=2 H=3",
    ]


def test_given_dtype_and_rows_replace_the_grids():
    entry = {"cells": "gru", "pass": "forward", "B": 1, "T": 2, "H": 3, "dtype": "float16"}

    (case,) = cases_of([entry], KNOWN, {"dtype": "float64", "rows": "auto"})

    assert (case.dtype, case.rows) == ("float64", ("auto",))


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ConfigError, match="dtype: is 'float31', expected one of float32"):
        cases_of(GRID, KNOWN, {"dtype": "float31"})
