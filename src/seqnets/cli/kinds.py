"""The kinds of values that options take, according to their annotations."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, ForwardRef, Literal, Union, get_args, get_origin

from torch import Tensor

from seqnets.checks import is_number, is_whole
from seqnets.errors import ConfigError
from seqnets.quoting import shell
from seqnets.signatures import signature_of

_LISTS = (list, tuple, Sequence, Iterable)
_MAPPINGS = (dict, Mapping)

_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "null",
}


def options_of(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The options of a class or function by name, with annotations resolved to types.

    They include options that a class passes on to its bases, or to the class that its
    ``passes_options_to`` names. An annotation that cannot be resolved, such as one imported for
    type checkers only, becomes ``Any``.
    """
    found: dict[str, inspect.Parameter] = {}
    for function in _functions(target):
        parameters = signature_of(function).parameters.values()
        names = getattr(inspect.unwrap(function), "__globals__", {})
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                kind = _resolve(parameter.annotation, names)
                found.setdefault(parameter.name, parameter.replace(annotation=kind))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def check_kind(key: str, value: Any, option: inspect.Parameter) -> None:
    """Raise ConfigError unless a plain value is of a kind that an option takes.

    Only annotations with numbers, texts, booleans, lists and mappings are checked; any other
    accepts every value.
    """
    kind = option.annotation
    if (value is None and option.default is None) or _fits(value, kind):
        return
    advice = ""
    if _fits([value], kind) and isinstance(value, str) and value[:1] == "[":
        advice = f"\n  A list has no quotes around it: {shell(f'{key}={value}')}"
    elif _fits([value], kind):
        advice = f"\n  As a list: {key}=[{value}]."
    elif isinstance(value, (int, float)) and _fits("", kind):
        advice = f"\n  Quoted it is text: '{key}=\"{value}\"'."
    raise ConfigError(f"{key}: is {value!r}, expected {_described(kind)}.{advice}")


def _described(kind: Any) -> str:
    """An annotation in words."""
    *others, last = dict.fromkeys(_alternatives(kind))
    return f"{', '.join(others)} or {last}" if others else last


def _alternatives(kind: Any) -> Iterator[str]:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _NAMES:
        yield _NAMES[kind]
    elif origin is Literal:
        yield from map(str, arguments)
    elif origin in (Union, UnionType):
        for one in (a for a in arguments if a is not Tensor):
            yield from _alternatives(one)
    elif origin in _MAPPINGS or kind in _MAPPINGS:
        yield "a mapping"
    else:
        yield f"a list, each of it {_described(arguments[0])}" if arguments else "a list"


def _functions(target: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Yield the functions that take the options: a function, or the ``__init__`` of all bases."""
    if not inspect.isclass(target):
        yield target
        return
    for base in target.__mro__[:-1]:
        if "__init__" in vars(base):
            yield vars(base)["__init__"]
        if (other := vars(base).get("passes_options_to")) is not None:
            yield from _functions(other)


def _resolve(annotation: Any, names: dict[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty or isinstance(annotation, ForwardRef):
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names)  # as typing.get_type_hints does, but each by itself
    except Exception:
        return Any


def _fits(value: Any, kind: Any) -> bool:
    if kind is float:
        return is_number(value) and not math.isnan(value)
    if kind is Tensor:  # which no configuration can give
        return False
    if kind is int:
        return is_whole(value)
    if kind in _NAMES:
        return isinstance(value, kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in arguments)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin in _LISTS or kind in _LISTS:
        return isinstance(value, (list, tuple)) and (
            not arguments or all(_fits(entry, arguments[0]) for entry in value)
        )
    if origin in _MAPPINGS or kind in _MAPPINGS:
        return isinstance(value, Mapping)
    return True
