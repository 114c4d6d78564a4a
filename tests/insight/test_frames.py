from __future__ import annotations

import numpy as np
import pytest

from seqnets.insight.frames import draw_frames

pytest.importorskip("matplotlib")


def test_videos_are_rows_and_steps_are_columns():
    figure = draw_frames({"a": np.ones((3, 1, 4, 5)), "b": np.zeros((2, 2, 4, 5))})
    grid = np.reshape(figure.axes, (2, 3))

    assert [[len(panel.images) for panel in row] for row in grid] == [[1, 1, 1], [1, 1, 0]]
    assert [panel.get_title() for panel in grid[0]] == ["1", "2", "3"]
    assert grid[1, 0].get_ylabel() == "b"
    assert grid[0, 2].images[0].get_array().shape == (4, 5)


def test_three_channels_are_colours():
    (panel,) = draw_frames({"video": np.full((1, 3, 4, 5), 2.0)}).axes

    assert panel.images[0].get_array().shape == (4, 5, 3)
    assert panel.images[0].get_array().max() == 1


def test_long_videos_are_cut():
    assert len(draw_frames({"video": np.zeros((30, 1, 2, 2))}, count=4).axes) == 4


def test_wide_frames_make_a_flat_picture():
    flat, tall = (draw_frames({"video": np.zeros((2, 1, *size))}) for size in ((4, 16), (16, 4)))

    flat.draw_without_rendering()
    left, right = flat.axes[0].get_window_extent(), flat.bbox
    assert left.height > 0.3 * right.height
    assert tall.get_figheight() > 5 * flat.get_figheight()
