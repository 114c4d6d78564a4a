"""The class of all classes of cells.

It counts changes to them, so that engines can drop what they derived from them.
"""

from __future__ import annotations

import inspect
from abc import ABCMeta
from functools import lru_cache
from types import MethodType
from typing import Any, TypeVar

from torch.nn.utils import parametrize

from seqnets.cells.checks import check_built
from seqnets.cells.constructors import check_call
from seqnets.cells.redrawing import then_initialized
from seqnets.signatures import signature_of

_LIBRARIES = {"seqnets", "torch", "builtins", "abc", "typing"}
"""Top-level packages whose classes are assumed not to change."""


_Cell = TypeVar("_Cell")


class CellType(ABCMeta):
    """Checks new cells, counts changes to attributes, and lets initialisers follow draws."""

    def __call__(cls: type[_Cell], *args: Any, **kwargs: Any) -> _Cell:
        """Make a cell, and check that its base was built."""
        try:
            made: _Cell = super().__call__(*args, **kwargs)  # type: ignore[misc]
        except TypeError as error:
            check_call(cls, args, kwargs, error)
            raise
        check_built(made)
        return made

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of ``__init__``, as of every class: ``help`` would show that of ``__call__``."""
        return signature_of(MethodType(cls.__init__, cls))  # type: ignore[misc]

    def __setattr__(cls, name: str, value: Any) -> None:
        if name == "reset_parameters" and callable(value):
            value = then_initialized(value)
        super().__setattr__(name, value)
        if not _is_internal(name) and not _computes_a_tensor(value):
            _count_change()

    def __delattr__(cls, name: str) -> None:
        value = cls.__dict__.get(name)
        super().__delattr__(name)
        if not _computes_a_tensor(value):
            _count_change()

    def declare(cls, name: str, value: Any) -> None:
        """Set an attribute of a class under construction; not counted as a change."""
        super().__setattr__(name, value)


_changes = 0  # no attribute of a class, which torch.compile does not guard before torch 2.13


def _count_change() -> None:
    global _changes
    _changes += 1


def class_changes() -> int:
    """How often an attribute of any class of cells has been changed so far."""
    return _changes


@lru_cache(maxsize=1024)  # called at every step
def is_counted(kind: type[Any]) -> bool:
    """Whether changes to a class and all its bases are counted: true of classes of cells only."""
    return all(isinstance(base, CellType) for base in users_classes(kind))


def users_classes(kind: type[Any]) -> list[type[Any]]:
    """A class and its bases, without those from libraries."""
    return [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in _LIBRARIES]


def _is_internal(name: str) -> bool:
    """Whether Python sets the attribute of this name on classes by itself."""
    return name.startswith(("__", "_abc_"))


def _computes_a_tensor(value: Any) -> bool:
    """Whether it is the property of a parametrised tensor, in a class made for one cell alone."""
    getter = value.fget if isinstance(value, property) else None
    return getattr(getter, "__module__", None) == parametrize.__name__
