from functools import partial

import pytest
import torch

from seqnets import Recurrent
from seqnets.cells import Cell, GRUCell
from seqnets.errors import ConfigError
from seqnets.testing import check_backend, check_cell, check_layer

from . import wrong_cells as wrong


class Decay(Cell):
    """A running mean: nothing is learned."""

    states = ("h",)

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.register_buffer("rate", torch.full((hidden_size,), 0.5))

    def project(self, x):
        return x

    def step(self, wx, state):
        (h,) = state
        return (h + self.rate * (torch.tanh(wx) - h),)


@pytest.mark.parametrize(
    ("cell_cls", "law"),
    [
        (wrong.LeakingCell, "rows"),
        (wrong.BatchMeanCell, "rows"),
        (wrong.ForgetfulCell, "usefulness"),
        (wrong.InPlaceCell, "purity"),
        (wrong.DetachedCell, "gradients"),
        (wrong.OnceDifferentiableCell, "gradients"),
        (wrong.InexactCell, "gradients"),
        (wrong.ForesightCell, "causality"),
        (wrong.CountingCell, "purity"),
        (wrong.UnregisteredCell, "state_dict"),
        (wrong.ClosureCell, "copies"),
        (wrong.BranchingCell, "ensembles"),
        (wrong.DoublyNamedCell, "names"),
    ],
)
def test_a_wrong_cell_is_caught_by_the_law_that_it_breaks(cell_cls, law):
    with pytest.raises(AssertionError, match=f"^{cell_cls.__name__} breaks the law '{law}'"):
        check_cell(partial(cell_cls, hidden_size=4))


def test_a_broken_law_is_reported_with_the_numbers():
    with pytest.raises(AssertionError, match=r"row 0 alone: .*\n.*\nMismatched .*\n.*\d\.\d+"):
        check_cell(partial(wrong.LeakingCell, hidden_size=4))


def test_an_output_that_no_step_reads_is_to_be_declared():
    class DeclaredEchoCell(wrong.EchoCell):
        output_only = True

    with pytest.raises(AssertionError, match=r"part 0 .*\n.*declare output_only = True"):
        check_cell(partial(wrong.EchoCell, hidden_size=4))
    check_cell(partial(DeclaredEchoCell, hidden_size=4))


def test_a_state_that_steps_only_compare_is_told_how_to_pass():
    class RestingCell(Decay):
        states = ("h", "rests")

        def step(self, wx, state):
            (h,) = super().step(wx, state[:1])
            return torch.where(state[1] > 0, state[0], h), (h > 0.3).to(h.dtype)

    make = partial(RestingCell, hidden_size=3)

    with pytest.raises(AssertionError, match=r"part 1 .*\n.*compare it.*skip=\('usefulness',\)"):
        check_cell(make)
    check_cell(make, skip=("usefulness",))


def test_a_law_that_is_skipped_is_not_checked():
    check_cell(partial(wrong.ClosureCell, hidden_size=4), skip=("copies",))


def test_a_cell_class_defined_in_a_function_obeys_the_laws():
    class LocalCell(GRUCell):
        pass

    check_cell(partial(LocalCell, hidden_size=4))


def test_a_cell_with_a_buffer_and_no_parameters_obeys_the_laws():
    check_cell(partial(Decay, hidden_size=3))
    check_layer(Recurrent(Decay(3, 3)))
    check_backend(Decay(3, 3), "eager", steps=(2,))


class PositiveCell(Cell):
    """A state that is to be positive, as the weights of a memory's places are."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.inputs = torch.nn.Linear(input_size, hidden_size)

    def initial_state(self, batch_size):
        return (torch.ones_like(super().initial_state(batch_size)[0]),)

    def project(self, x):
        return self.inputs(x)

    def step(self, wx, state):
        return (torch.softmax(wx + state[0] ** 1.5, -1),)


def test_states_that_a_cell_makes_nan_of_are_not_checked():
    check_cell(partial(PositiveCell, hidden_size=3))
    check_layer(Recurrent(PositiveCell(3, 3)))
    check_backend(PositiveCell(3, 3), "eager", steps=(2,))


class ReadingCell(PositiveCell):
    """Reads a number, which torch does not let it do under vmap."""

    def step(self, wx, state):
        float(self.inputs.weight.detach().sum())
        return super().step(wx, state)


def test_what_torch_cannot_do_is_told_how_to_skip():
    make = partial(ReadingCell, hidden_size=3)

    with pytest.raises(AssertionError, match=r"vmap: .*\n(.*\n)*.*skip=\('ensembles',\)"):
        check_cell(make)
    check_cell(make, skip=("ensembles",))


def test_an_unknown_law_cannot_be_skipped():
    with pytest.raises(ConfigError, match=r"'gravity'.*expected some of purity, rows"):
        check_cell(partial(GRUCell, hidden_size=4), skip=("gravity",))


def test_checking_leaves_the_random_numbers_as_they_were():
    state = torch.get_rng_state()

    check_cell(partial(GRUCell, hidden_size=4))

    assert torch.equal(torch.get_rng_state(), state)
