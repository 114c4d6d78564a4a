"""All formats, and the way from one file to another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from seqnets.atomic import atomic
from seqnets.conversion import flax, keras, onnx, torch_nn
from seqnets.conversion.checking import LIMIT, difference
from seqnets.conversion.parts import AbsentError, Array
from seqnets.errors import ConfigError
from seqnets.layers import CellFactory


class Format(NamedTuple):
    """One side of a conversion, whose networks are of any type.

    Attributes:
        suffixes: Of its files.
        load: Reads a file; takes the cell too, where a file does not name it.
        save: Writes one.
        restore: From its network to one of seqnets.
        convert: From a network of seqnets to its own.
        run: Outputs over padded sequences, by the other library.
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
        (".keras",), keras.load, keras.save, keras.from_keras, keras.to_keras, keras.run
    ),
    "flax": Format(
        (".msgpack",),
        flax.load,
        flax.save,
        lambda network: network.cells,
        lambda module: flax.Network(flax.to_flax(module), module),
        flax.run,
    ),
    "onnx": Format((".onnx",), onnx.load, onnx.save, onnx.from_onnx, onnx.to_onnx, onnx.run),
}


def read(
    path: Path | str, form: str, cell: CellFactory | None = None
) -> tuple[nn.Module, float | None]:
    """Read a network, and compare it with what the other library computes.

    Args:
        path: The file.
        form: A name in ``FORMATS``.
        cell: Makes the cells, where a file does not name them.

    Returns:
        The network of seqnets, and the largest difference; None if it could not be checked,
        because the other library is not there.

    Raises:
        ConfigError: There is no such format, the file or what is in it cannot be read, or the
            outputs differ.
    """
    side, path = _format(form), Path(path)
    native = side.load(path, cell)
    module = side.restore(native)
    return module, _checked(module, native, form, str(path))


def write(module: nn.Module, path: Path | str, form: str, **options: Any) -> float | None:
    """Convert a network, compare both, and write a file, whole or not at all.

    Args:
        module: The network of seqnets.
        path: The file.
        form: A name in ``FORMATS``.
        options: Of the format's ``convert``.

    Returns:
        The largest difference; None if it could not be checked, because the other library is not
        there.

    Raises:
        ConfigError: There is no such format, it has no place for the network, the outputs differ,
            or the file cannot be written.
    """
    side, path = _format(form), Path(path)
    native = side.convert(module, **options)
    try:
        found = _checked(module, native, form, str(path))
    except ConfigError as error:
        raise ConfigError(f"{error} Nothing was written.") from error
    try:
        with atomic(path) as partial:
            side.save(native, partial)
    except OSError as error:
        raise ConfigError(
            f"target: is {str(path)!r}, expected a file that can be written: {error.strerror}."
        ) from error
    return found


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(f"convert: form is {name!r}, expected one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def _checked(module: nn.Module, native: Any, form: str, where: str) -> float | None:
    try:
        found = difference(module, lambda x, lengths: FORMATS[form].run(native, x, lengths))
    except AbsentError:
        return None
    if not found <= LIMIT:
        raise ConfigError(
            f"{where}: {form} and seqnets differ by up to {found:.2g}, expected at most {LIMIT:g}."
            f"\n  The outputs for the same random sequences are not the same."
        )
    return found
