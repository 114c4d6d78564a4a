"""Errors for calls of constructors, which name the arguments that would fit."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, KeysView, Mapping, Sequence
from functools import partial, wraps
from textwrap import shorten
from typing import Any

from typing_extensions import ParamSpec

from seqnets.errors import SeqnetsError
from seqnets.signatures import signature_of

_P = ParamSpec("_P")


def checks_calls(init: Callable[_P, None]) -> Callable[_P, None]:
    """Decorate a constructor, so that :func:`check_call` explains a call that does not fit."""

    @wraps(init)
    def build(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            init(*args, **kwargs)
        except TypeError as error:
            for kind in type(args[0]).__mro__:  # none has it where something was put around it
                if getattr(kind, "__init__", None) is build:
                    check_call(kind, args[1:], kwargs, error, getattr(kind, "cell_class", None))
                    break
            raise

    return build


def check_call(
    kind: type[Any],
    given: Sequence[Any],
    named: Mapping[str, Any],
    error: TypeError,
    cell: type[Any] | None = None,
) -> None:
    """Raise TypeError, as Python does, unless a class takes these arguments, and say what to do.

    A constructor may take names out of its ``**options``, so a name is unknown only if ``error``,
    which the call raised, says so. A module like torch.nn's takes its own and those of its cell.
    """
    if isinstance(error, SeqnetsError):
        return
    known = dict.fromkeys([*arguments_of(kind), *(arguments_of(cell) if cell else ())]).keys()
    advice = _MORE_THAN_A_STEP if named.keys() & _OF_LAYERS - known else ""
    if "cell" in known and "input_size" not in known and given and isinstance(given[0], type):
        sizes = [*map(repr, given[1:]), *(f"{k}={v!r}" for k, v in named.items() if k not in known)]
        called = f"{given[0].__name__}({', '.join(sizes) or 'input_size, hidden_size'})"
        advice = f"\n  Make the cell first: {kind.__name__}({called})."
    unknown = [k for k in named if cell or f"unexpected keyword argument {k!r}" in str(error)]
    check_keywords(kind.__name__, known, unknown, advice)
    try:
        signature_of(kind).bind(*given, **named)
    except TypeError as misfit:
        raise TypeError(
            f"{kind.__name__}: {misfit}, expected {kind.__name__}({', '.join(known)}).{advice}"
        ) from None


_OF_LAYERS = {"batch_first", "bidirectional", "dropout", "num_layers"}
_MORE_THAN_A_STEP = (
    "\n  Layers take (B, T, I). DeepRNN takes num_layers, bidirectional and dropout; seqnets.GRU "
    "and its siblings take these and batch_first."
)


def check_keywords(
    who: str, known: Collection[str], named: Iterable[str], advice: str = ""
) -> None:
    """Raise TypeError, as Python does, for an argument whose name is unknown."""
    for name in named:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1) or sorted(known)
            raise TypeError(
                f"{who}: unexpected keyword argument {name!r}, expected {', '.join(near)}.{advice}"
            )


def arguments_of(cls: type[Any]) -> KeysView[str]:
    """The arguments of a constructor, and of its bases where it passes on ``**kwargs``."""
    return _defaults_of(cls).keys()


def shown_options(cls: type[Any], values: Mapping[str, Any]) -> list[str]:
    """The arguments whose values differ from their defaults, as a call has them; no sizes."""
    told = {name: _written(default) for name, default in _defaults_of(cls).items()}
    given = {name: _written(values[name]) for name in told if name in values}
    return [f"{k}={_in_a_line(v)}" for k, v in given.items() if v != told[k] and k not in _SIZES]


def _written(value: Any) -> str:
    """A value as it is written in a call, without its address in memory."""
    if isinstance(value, partial):
        named = [f"{name}={_written(given)}" for name, given in value.keywords.items()]
        inside = ", ".join([_written(value.func), *map(_written, value.args), *named])
        return f"partial({inside})"
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    return f"{type(value).__name__}()" if type(value).__repr__ is object.__repr__ else repr(value)


def _in_a_line(written: str) -> str:
    """The same in one line: of several lines, such as a large array's, the beginning."""
    return shorten(written, 60, placeholder=" …") if "\n" in written else written


def _defaults_of(cls: type[Any]) -> dict[str, Any]:
    """The arguments of a constructor, as :func:`arguments_of` lists them, and their defaults."""
    defaults: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            taken = list(signature_of(vars(base)["__init__"]).parameters.values())
            for argument in [p for p in taken if p.kind not in _MANY][1:]:
                defaults.setdefault(argument.name, argument.default)
            if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken):
                break
    return defaults


_SIZES = ("input_size", "hidden_size")

_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
