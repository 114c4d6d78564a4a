"""The supported formats: reading, writing and checking their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from seqnets.atomic import atomic, named_by
from seqnets.checks import check_choice
from seqnets.conversion import flax, keras, keras_model, onnx, onnx_graph, onnx_model, torch_nn
from seqnets.conversion.checking import difference
from seqnets.conversion.libraries import AbsentError, Array
from seqnets.errors import ConfigError
from seqnets.layers import CellFactory
from seqnets.typing import ROUNDING


class Format(NamedTuple):
    """The functions of a format, whose native networks may be of any type.

    Attributes:
        suffixes: File name suffixes.
        load: Reads a file; takes a cell factory for formats that do not store the cell's type.
        save: Writes a native network to a file.
        restore: Converts a native network to a seqnets network.
        convert: Converts a seqnets network to a native one.
        run: Computes the outputs for padded sequences with the other library.
    """

    suffixes: tuple[str, ...]
    load: Callable[[Path, CellFactory | None], Any]
    save: Callable[[Any, Path], None]
    restore: Callable[[Any], nn.Module]
    convert: Callable[[nn.Module], Any]
    run: Callable[[Any, Array, Array], Array]


FORMATS = {
    "torch": Format(
        (".pt", ".pth"),
        torch_nn.load,
        torch_nn.save,
        torch_nn.from_torch,
        torch_nn.to_torch_like,
        torch_nn.run,
    ),
    "keras": Format(
        (".keras",),
        keras_model.load,
        keras_model.save,
        keras.from_keras,
        keras.to_keras,
        keras_model.run,
    ),
    "flax": Format(
        (".msgpack",),
        flax.load,
        flax.save,
        lambda network: network.module,
        lambda module: flax.Network(flax.to_flax(module), module),
        flax.run,
    ),
    "onnx": Format(
        (".onnx",),
        onnx_graph.load,
        onnx_graph.save,
        onnx.from_onnx,
        onnx.to_onnx,
        onnx_model.run,
    ),
}
"""The formats of files by name, in the order in which a suffix is looked up."""


def read(
    path: Path | str, form: str, cell: CellFactory | None = None
) -> tuple[nn.Module, float | None]:
    """Read a network from a file, and compare its outputs with the other library's.

    Args:
        path: The file.
        form: Name of its format in ``FORMATS``.
        cell: Cell factory, for formats that do not store the cell's type.

    Returns:
        The seqnets network, and the largest difference of the outputs; None if the other library
        is not installed, so that nothing was compared.

    Raises:
        ConfigError: The format is unknown, the file cannot be read or converted, or the outputs
            differ.
    """
    handler, path = _format(form), Path(path)
    native = handler.load(path, cell)
    module = handler.restore(native)
    return module, _check_outputs(module, native, form, str(path))


def write(module: nn.Module, path: Path | str, form: str, **options: Any) -> float | None:
    """Convert a network, compare the outputs of both, and write the result to a file, atomically.

    Args:
        module: The seqnets network.
        path: The file.
        form: Name of its format in ``FORMATS``.
        options: Options of the format's ``convert``.

    Returns:
        The largest difference of the outputs; None if the other library is not installed, so that
        nothing was compared.

    Raises:
        ConfigError: The format is unknown or cannot represent the network, the outputs differ, or
            the file cannot be written.
    """
    handler, path = _format(form), Path(path)
    native = handler.convert(module, **options)
    try:
        found = _check_outputs(module, native, form, str(path))
    except ConfigError as error:
        raise ConfigError(f"{error} Nothing was written.") from error
    with named_by("target", path), atomic(path) as partial:
        handler.save(native, partial)
    return found


def _format(name: str) -> Format:
    check_choice("convert", FORMATS, form=name)
    return FORMATS[name]


def _check_outputs(module: nn.Module, native: Any, form: str, path: str) -> float | None:
    """The largest difference of the outputs, None if the other library is missing."""
    try:
        found = difference(module, lambda x, lengths: FORMATS[form].run(native, x, lengths))
    except AbsentError:
        return None
    if not found <= ROUNDING:
        raise ConfigError(
            f"{path}: {form} and seqnets differ by up to {found:.2g}, expected at most "
            f"{ROUNDING:g}.\n  These are the outputs for the same random sequences."
        )
    return found
