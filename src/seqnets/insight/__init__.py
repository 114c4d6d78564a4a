"""Pictures and sounds of what a model does: numbers in, a figure or a sound out."""

from seqnets.insight.canvas import Sound, new_figure

__all__ = ["Sound", "new_figure"]
