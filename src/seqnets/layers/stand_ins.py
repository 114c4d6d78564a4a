"""Stand-ins: functions that run a model's recurrent layers for a while, in place of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.errors import ConfigError
from seqnets.layers.recurrent import Recurrent
from seqnets.layers.torch_like import TorchLike
from seqnets.typing import State


@contextmanager
def running(
    model: nn.Module, make: Callable[[str, Recurrent], Callable[..., tuple[Tensor, State]] | None]
) -> Iterator[None]:
    """Have the model's recurrent layers run by other functions, and then as before.

    Args:
        model: The model.
        make: Gives what takes the place of a layer's ``forward``, from its name and the layer; None
            to leave the layer, or the whole module with torch.nn's interface, as it is.
    """
    places: list[tuple[nn.Module, dict[str, Any]]] = []
    for name, module in model.named_modules():
        if isinstance(module, Recurrent):
            if (run := make(name, module)) is not None:
                places.append((module, {"forward": run}))
        elif isinstance(module, TorchLike):
            runs = [make(*each) for each in _layers_of(name, module)]
            if None not in runs:
                unrolls = [partial(_unrolled_by, run) for run in runs]
                places.append((module, {"_unrolls": unrolls, "_watched": True, "_last": None}))
    with replaced_attributes(places):
        yield


def _unrolled_by(
    run: Any, cell: Cell, x: Tensor, state: State | None, lengths: Tensor | None, *, reverse: bool
) -> tuple[Tensor, State]:
    """A cell unrolled by what takes the place of its layer's ``forward``."""
    return run(x, state, lengths)


@contextmanager
def replaced_attributes(
    places: Iterable[tuple[nn.Module, Mapping[str, Any]]],
) -> Iterator[None]:
    """Set attributes or methods of modules within the context; restore what they had after it."""
    own = [(vars(module), attributes) for module, attributes in places]
    before = [{name: had[name] for name in given if name in had} for had, given in own]
    for had, given in own:
        had.update(given)
    try:
        yield
    finally:
        for (had, given), old in zip(own, before, strict=True):
            for name in given:
                had.pop(name, None)
            had.update(old)


def names_of_layers(name: str, module: TorchLike[Any]) -> list[str]:
    """The name of each layer and direction of a module with torch.nn's interface."""
    return [f"{name}.{suffix[1:]}".lstrip(".") for suffix in module._suffixes]


def _layers_of(name: str, module: TorchLike[Any]) -> Iterator[tuple[str, Recurrent]]:
    """Each layer and direction of a module with torch.nn's interface, with its name."""
    for each, cell in zip(names_of_layers(name, module), module.bound_cells(), strict=True):
        reverse = each.endswith("_reverse")
        yield each, Recurrent(cell, reverse=reverse).train(module.training)


def check_calls_a_model(who: str, name: str, given: Any) -> None:
    """Raise ConfigError unless ``given`` is a function, which is called while the model is seen."""
    if not callable(given):
        raise ConfigError(
            f"{who}: {name} is {type(given).__name__}, expected a function that runs the model.\n"
            f"  The model has to run while it is watched: {who}(model, lambda: …)."
        )


def ran_none(who: str, what: str, model: nn.Module) -> ConfigError:
    """The error for something that runs no recurrent layer of a model over a sequence."""
    return ConfigError(
        f"{who}: {what} ran no recurrent layer of {type(model).__name__} over a sequence, expected "
        "at least one.\n"
        "  Layers are Recurrent, or made of it, as Bidirectional and DeepRNN, and those of "
        "seqnets.LSTM and its like. Single steps, by layer.step, and torch.nn's own modules do not "
        "count."
    )
