import numpy as np
import pytest

from seqnets.insight.fixed_points import draw_fixed_points, kinds_of, time_constants

random = np.random.default_rng(0)
PATHS = [random.normal(size=(9, 3)) for _ in range(4)]
POINTS = np.zeros((4, 3))
EIGENVALUES = np.array([[0.9, 0.1, 0], [1 + 1e-7, 0.5, 0], [1.2, 0.3j, -0.3j], [0.99, 0.2, 0.1]])
FIXED = np.array([True, True, True, False])


def legend_of(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_a_point_is_what_its_largest_eigenvalue_makes_it_unless_the_state_moves_there():
    assert kinds_of(EIGENVALUES, FIXED) == ["stable", "marginal", "unstable", "slow"]
    assert kinds_of(np.zeros((0, 3)), np.zeros(0, bool)) == []


def test_a_direction_of_half_the_length_at_each_step_is_forgotten_in_a_step_and_a_half():
    found = time_constants(np.array([0.5, -0.5, 2.0, 0.5j, 1.0, 0.0]))

    assert found[:4].tolist() == pytest.approx([1 / np.log(2)] * 4)
    assert found[4:].tolist() == [np.inf, 0]


def test_the_legend_counts_the_points_of_each_kind():
    figure = draw_fixed_points(PATHS, POINTS, EIGENVALUES, FIXED)
    figure.draw_without_rendering()

    told = ["1 stable", "1 marginal", "1 unstable", "1 slow, not fixed"]
    assert legend_of(figure) == told
    assert figure.axes[1].get_title() == "slowest to be forgotten: 9 steps"


def test_points_far_from_the_trajectories_are_counted_and_do_not_shrink_them():
    near = draw_fixed_points(PATHS, POINTS, EIGENVALUES, FIXED)
    moved = np.concatenate([POINTS[:1] + 1e3, POINTS[1:]])
    far = draw_fixed_points(PATHS, moved, EIGENVALUES, FIXED)

    assert legend_of(far)[0] == "1 stable, outside"
    assert far.axes[0].get_xlim() == near.axes[0].get_xlim()


def test_the_plane_is_that_in_which_states_vary_most():
    wide = [path * [0.1, 10, 1] for path in PATHS]
    figure = draw_fixed_points(wide, POINTS, EIGENVALUES, FIXED)

    states = np.concatenate(wide)
    dots = figure.axes[0].collections[-5].get_offsets()  # below the four kinds of points
    across = np.corrcoef(dots[:, 0], states[:, 1])[0, 1]
    assert abs(across) > 0.99
    assert "first principal component (9" in figure.axes[0].get_xlabel()


def test_colours_tell_classes_by_name_numbers_by_a_scale_and_else_the_time():
    ends = [np.where(np.arange(9) == 8, number % 2, -100) for number in range(4)]
    numbers = [np.where(np.arange(9) == 8, number, np.nan) for number in range(4)]

    classes = draw_fixed_points(PATHS, POINTS, EIGENVALUES, FIXED, ends, ["even", "odd $"])
    scale = draw_fixed_points(PATHS, POINTS, EIGENVALUES, FIXED, numbers)
    named = draw_fixed_points(PATHS, POINTS, EIGENVALUES, FIXED, numbers, quantity="speed $")
    time = draw_fixed_points(PATHS, POINTS, EIGENVALUES, FIXED)

    assert legend_of(classes)[:2] == ["even", r"odd \$"]
    told = [figure.axes[-1].get_ylabel() for figure in (scale, named, time)]
    assert told == ["value", r"speed \$", "step"]


def test_trajectories_without_points_and_of_one_number_are_drawn():
    none = np.zeros((0, 1))

    figure = draw_fixed_points([np.zeros((1, 1))], none, none, np.zeros(0, bool), title="at $x")
    figure.canvas.draw()

    assert legend_of(figure) == ["no fixed or slow points"]


@pytest.mark.parametrize(("steps", "bars"), [(1, 0), (2, 1), (9, 1)])
def test_colours_tell_whole_steps_if_there_are_several(steps, bars):
    paths = [path[:steps] for path in PATHS]
    figure = draw_fixed_points(paths, POINTS, EIGENVALUES, FIXED)
    figure.draw_without_rendering()

    assert len(figure.axes) == 2 + bars
    assert all(tick == round(tick) for axis in figure.axes[2:] for tick in axis.get_yticks())
