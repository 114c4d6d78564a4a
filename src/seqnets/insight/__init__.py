"""Figures and sounds that show what a model does, made from plain arrays."""

from seqnets.insight.canvas import Sound, new_figure

__all__ = ["Sound", "new_figure"]
