"""Conversion of weights to and from other libraries, checked by running both networks."""

from seqnets.conversion.checking import difference
from seqnets.conversion.flax import from_flax, to_flax
from seqnets.conversion.formats import FORMATS, Format, read, write
from seqnets.conversion.keras import from_keras, to_keras
from seqnets.conversion.libraries import AbsentError
from seqnets.conversion.onnx import from_onnx, to_onnx
from seqnets.conversion.torch_nn import from_torch, to_torch

__all__ = [
    "FORMATS",
    "AbsentError",
    "Format",
    "difference",
    "from_flax",
    "from_keras",
    "from_onnx",
    "from_torch",
    "read",
    "to_flax",
    "to_keras",
    "to_onnx",
    "to_torch",
    "write",
]
