"""Figures and sounds that show what a model does, made from plain arrays."""

from seqnets.insight.canvas import Sound, new_figure
from seqnets.insight.fixed_points import draw_fixed_points
from seqnets.insight.states import draw_states
from seqnets.insight.units import draw_units

__all__ = ["Sound", "draw_fixed_points", "draw_states", "draw_units", "new_figure"]
