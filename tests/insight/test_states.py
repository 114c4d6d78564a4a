import numpy as np
import pytest

from seqnets.insight import draw_states

T, H = 12, 6
random = np.random.default_rng(0)
STATE, GATE = random.normal(size=(T, H)), random.random((T, H))


def heat_maps(figure):
    """The arrays that are drawn, by their titles."""
    return {
        axis.get_title(loc="left"): axis.images[0].get_array().data
        for axis in figure.axes
        if axis.images and axis.get_title(loc="left")
    }


def test_each_part_is_a_heat_map_of_the_same_units():
    shown = heat_maps(draw_states({"state h": STATE, "gate f": GATE}))

    assert list(shown) == ["state h", "gate f"]
    rows = [int(np.flatnonzero((STATE.T == row).all(1))[0]) for row in shown["state h"]]
    assert sorted(rows) == list(range(H))
    np.testing.assert_array_equal(shown["gate f"], GATE.T[rows])


def test_gates_are_drawn_from_zero_to_one_and_states_around_zero():
    state, gate = (axis.images[0] for axis in draw_states({"h": STATE, "f": GATE}).axes[:2])

    assert gate.get_clim() == (0, 1)
    low, high = state.get_clim()
    assert low == -high
    assert 0 < high <= np.abs(STATE).max()


def test_a_state_of_small_positive_numbers_is_seen():
    shown = draw_states({"a": 0.04 * GATE, "m": np.zeros((T, 1)), "f": 0.2 * GATE}).axes[:3]

    scales = [axis.images[0].get_clim() for axis in shown]
    assert scales == [(0, pytest.approx(0.04 * GATE.max())), (0, 1), (0, 1)]


def test_units_that_behave_alike_are_beside_each_other():
    waves = np.stack([np.sin(np.arange(60) / 5), np.sign(np.sin(np.arange(60) / 3))], 1)
    mixed = waves[:, [0, 1, 0, 1, 1, 0]] + 0.01 * random.normal(size=(60, 6))

    (shown,) = heat_maps(draw_states({"h": mixed})).values()

    kinds = [abs(np.corrcoef(row, waves[:, 0])[0, 1]) > 0.9 for row in shown]
    assert sum(a != b for a, b in zip(kinds[1:], kinds, strict=False)) == 1


def test_of_many_units_those_are_drawn_that_vary_most():
    many = random.normal(size=(T, 100)) * np.where(np.arange(100) % 10 == 3, 5, 0.1)

    ((title, shown),) = heat_maps(draw_states({"state c": many}, units=10)).items()

    assert title == "state c, 10 of 100 units"
    assert {tuple(row) for row in shown} == {tuple(many[:, n]) for n in range(3, 100, 10)}


def test_letters_are_written_below_their_steps():
    text = "a $b$\nc\tdéß"
    figure = draw_states({"h": STATE[: len(text)]}, list(text))
    figure.draw_without_rendering()

    axis = next(axis for axis in figure.axes if axis.images)
    written = [label.get_text() for label in axis.get_xticklabels()]
    assert written == ["a", " ", "$", "b", "$", "↵", "c", "", "d", "é", "ß"]
    assert axis.get_xticks().tolist() == list(range(len(text)))


@pytest.mark.parametrize(("token", "most"), [("a", 110), ("word", 44)])
def test_of_a_long_text_as_much_is_drawn_as_can_be_read(token, most):
    figure = draw_states({"h": random.normal(size=(300, H))}, [token] * 300)

    (shown,) = heat_maps(figure).values()
    assert shown.shape == (H, most)


def test_few_features_are_curves_and_many_a_heat_map():
    few = draw_states({"h": STATE}, random.normal(size=(T, 2)), ["load", "oil $"])
    many = draw_states({"h": STATE}, random.normal(size=(T, 30)))

    assert len(few.axes[0].lines) == 2
    assert [text.get_text() for text in few.axes[0].get_legend().get_texts()] == ["load", r"oil \$"]
    assert list(heat_maps(many)) == ["input", "h"]
    assert heat_maps(many)["input"].shape == (30, T)


def test_a_layer_of_another_pace_is_stretched_over_the_input():
    figure = draw_states({"h": STATE[:4]}, random.normal(size=(T, 2)))

    image = next(axis.images[0] for axis in figure.axes if axis.images)
    assert image.get_array().shape == (H, 4)
    assert image.get_extent()[:2] == [-0.5, T - 0.5]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 1)])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_numbers_that_are_constant_or_not_finite_are_drawn(shape, value):
    parts = {"state h": np.full(shape, value), "gate z": np.full(shape, 0.5)}

    draw_states(parts, ["a"] * shape[0]).canvas.draw()


@pytest.mark.parametrize("names", [["a", "b"], [f"temperature, sensor {n}" for n in range(6)]])
def test_the_names_of_features_stand_above_their_curves_and_beside_the_title(names):
    figure = draw_states({"h": STATE}, STATE[:, : len(names)], names)
    figure.draw_without_rendering()

    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == names
    assert figure.axes[0]._left_title.get_window_extent().x1 < legend.get_window_extent().x0


def test_neighbours_of_many_features_share_rows():
    pixels = np.tile(np.arange(960) // 10, (T, 1))
    pixels[0] += 1
    figure = draw_states({"h": STATE}, pixels)

    (title, shown), _ = heat_maps(figure).items()
    assert title == "input, means of 960 features in 96 rows"
    np.testing.assert_array_equal(shown[:, 1], np.arange(96))
    np.testing.assert_array_equal(shown[:, 0], np.arange(96) + 1)
    assert figure.get_figheight() < 6


@pytest.mark.parametrize(("steps", "rotation"), [(5, 0), (12, 90)])
def test_words_stay_upright_where_steps_are_wide(steps, rotation):
    figure = draw_states({"h": STATE[:steps]}, ["walking"] * steps)

    assert figure.axes[0].get_xticklabels()[0].get_rotation() == rotation
