"""What a step reads outside its cell: globals, and variables of the functions around it.

A notebook changes these from one of its cells to the next: it runs one again, with another helper
or number. Where functions read them is found in their bytecode; what is there is compared at every
call.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from functools import lru_cache, partial, partialmethod
from importlib.util import resolve_name
from itertools import count
from operator import is_
from types import CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

from seqnets.cells.metaclass import users_classes
from seqnets.engine.frozen import COMPARED, frozen, is_only_a_dict

LIBRARIES = {"seqnets", "torch", *sys.stdlib_module_names}
"""Packages that users do not change."""

_Place = tuple[dict[str, Any] | CellType, tuple[str, ...]]
"""A function's globals, all modules, or a variable around it; and names: ("config", "rate")."""
_ALL = "__dict__"
"""The last name of what is read as a whole, as where it is given to a function."""
_NOTHING = object()
_DERIVED = {"_recurrent_gates"}  # a member that seqnets makes of others
_KEPT = "_read_outside"
_changes = count(1)  # of all: one that is made anew has not seen what was there before
_INSTALLED = ("site-packages", "dist-packages")
_HOLDS = (list, tuple, dict, partial)
_MOST_ITEMS = 64  # of a list or dictionary, which is looked through at every call
_MOST_INSIDE = 512  # of one and those in it


class _Seen(NamedTuple):
    """What was read when a key was made."""

    functions: list[FunctionType]
    places: list[_Place]
    values: list[Any]
    items: dict[int, list[Any]]  # of a place's value that holds others
    key: tuple[Any, ...]


class Outside:
    """What methods read outside them, and in the users' functions that they call.

    Args:
        methods: Those of a class, or a function. No step calls special ones, such as ``__init__``:
            what these read does not count, ``__call__`` aside.
        kind: The class.
        held: The names of its members that count too, by what they hold.
    """

    def __init__(
        self,
        methods: tuple[FunctionType, ...],
        kind: type[Any] | None = None,
        held: tuple[str, ...] = (),
    ) -> None:
        self._methods = methods
        root = {"": kind}
        self._held: list[_Place] = [(root, ("", name)) for name in held]
        self._others: list[Any] = []
        self._changes = 0
        self._written: dict[tuple[int, tuple[str, ...]], Any] = {}  # roots, which keep their ids so
        self._seen = _Seen([], [], [], {}, ())

    def key(self) -> tuple[Any, ...]:
        """A key of the functions' code and defaults, and of the values that they read.

        Of an object that cannot be compared, only that it is another one counts.
        """
        functions, places, values, items, key = self._seen  # at once: another thread may set it
        now = _values(functions, places)
        if key and _same(values, now) and all(_same(_items(now[n]), items[n]) for n in items):
            return key
        functions, places = self._found()
        values = _values(functions, places)
        items = {n: _items(values[n]) for n in range(len(places)) if isinstance(values[n], _HOLDS)}
        parts, others = [], []
        for value in values:
            for item in (value, *_items(value)):
                if isinstance(item, FunctionType) and item in functions:
                    parts.append(functions.index(item))  # its code is a part of the key
                    continue
                try:
                    parts.append(_compared(item))
                except TypeError:
                    others.append(item)
        if not _same(others, self._others):
            self._others, self._changes = others, next(_changes)
        self._seen = _Seen(functions, places, values, items, (*parts, self._changes))
        return self._seen.key

    def is_of(self, methods: tuple[FunctionType, ...]) -> bool:
        """Whether it is what these read."""
        return self._methods == methods

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, ()  # what writes functions by value, as notebooks' are, leaves it out

    def leave_out_what_changed(self) -> None:
        """Leave out what was changed since the last key: while a step is traced, by itself."""
        functions, places, values, items, _ = self._seen
        now = _values(functions, places)
        for n, (root, names) in enumerate(places):
            if now[n] is not values[n] or not _same(_items(now[n]), items.get(n, [])):
                self._written[id(root), names] = root
                self._seen = _Seen([], [], [], {}, ())

    def _found(self) -> tuple[list[FunctionType], list[_Place]]:
        """The methods and the functions that they call, and all places that these read."""
        functions = [*self._methods]
        places: list[_Place] = []
        known = {*self._written}

        def add(more: Iterable[_Place], *given: Any) -> None:
            called = [function for value in given for function in _called_in(value)]
            for root, names in more:
                value = _value(root, names)
                is_guess = names[-1] == _ALL or (root is sys.modules and len(names) > 1)
                if (id(root), names) in known or (is_guess and value is _NOTHING):
                    continue
                known.add((id(root), names))
                places.append((root, names))
                called += _called_in(value)
                if isinstance(value, FunctionType) and len(names) > 1:  # of an object, perhaps
                    called += _methods_of_users(_value(root, names[:-1]))
                    add([(root, (*names[:-1], _ALL))])
            for function in called:
                if function not in functions:
                    functions.append(function)

        add(self._held)
        for function in functions:  # grows
            name = function.__name__
            if name == "__call__" or not (name.startswith("__") and name.endswith("__")):
                add(_places(function), function.__defaults__, function.__kwdefaults__)
        return functions, places


outside_of_class = lru_cache(maxsize=1024)(Outside)
"""What methods read outside them, as it was found at the last call."""


def outside_of(held: Any) -> Outside | None:
    """What a function that a cell holds, or an object that it calls as one, reads outside it.

    It is kept with a function, which may refer to the cell: kept elsewhere, both would stay.
    """
    methods = (held,) if isinstance(held, FunctionType) else methods_of(type(held))
    if not methods or not _is_followed(methods[0]):
        return None
    attributes = methods[0].__dict__
    kept: Outside | None = attributes.get(_KEPT)
    if not (kept and kept.is_of(methods)):  # that of another function, which this one wraps
        kept = attributes[_KEPT] = Outside(methods)
    return kept


def read_by(held: Any) -> tuple[Any, ...]:
    """A key of ``outside_of``."""
    outside = outside_of(held)
    return outside.key() if outside else ()


def methods_of(kind: type[Any]) -> tuple[FunctionType, ...]:
    """The functions of a class and its bases outside libraries, properties included."""
    return functions_of([part for base in users_classes(kind) for part in base.__dict__.values()])


def functions_of(members: Sequence[Any]) -> tuple[FunctionType, ...]:
    """The functions among members of a class, those of properties and class methods included."""
    members = [getattr(member, "fget", None) or member for member in members]
    members = [getattr(member, "__func__", member) for member in members]
    return tuple([member for member in members if isinstance(member, FunctionType)])


def holding_members(kind: type[Any]) -> tuple[str, ...]:
    """The names of a class's members, functions aside, that may change inside or are called."""
    found = []
    for base in users_classes(kind):
        for name, member in base.__dict__.items():
            value = _as_read(member, kind)
            if name.startswith("__") or name in _DERIVED or isinstance(value, FunctionType):
                continue
            if isinstance(value, (list, dict)) or _called_in(value):
                found.append(name)
    return tuple(found)


def _same(values: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(values) == len(others) and all(map(is_, values, others))


def _items(value: Any) -> list[Any]:
    """What a list or dictionary holds, and what those in it hold; empty for other values."""
    found: list[Any] = []
    if not isinstance(value, _HOLDS):
        return found
    _add_items(found, value)
    known = {id(value)}
    for item in found:  # grows
        if type(item) not in COMPARED and id(item) not in known and len(found) < _MOST_INSIDE:
            known.add(id(item))
            _add_items(found, item)
    return found


def _add_items(found: list[Any], value: Any) -> None:
    if isinstance(value, partial):
        found += value.func, value.args, value.keywords
    elif isinstance(value, dict):
        if len(value) <= _MOST_ITEMS:
            found += [*value, *value.values()]
    elif isinstance(value, (list, tuple)):
        if len(value) <= _MOST_ITEMS:
            found += value
    elif (held := _member(value, _ALL)) is not _NOTHING:
        found += [*held, *held.values()]


def _places(function: FunctionType) -> Iterator[_Place]:
    """Where a function reads what is not its own, and not a library's."""
    code = function.__code__
    around = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    roots = {"LOAD_GLOBAL": function.__globals__, "IMPORT_NAME": sys.modules}
    for operation, names in _reads(code):
        if operation == "IMPORT_NAME":
            with suppress(ImportError):  # of a relative one that cannot be, which fails in the step
                package = function.__globals__.get("__package__")
                names = (resolve_name(names[0], package), *names[1:])
        root = roots.get(operation, around.get(names[0]))
        if root is not None:  # else a variable of the function itself, which one inside it reads
            value = _value(root, names[:1])
            if not (isinstance(value, ModuleType) and _is_librarys(value.__name__)):
                yield root, names


@lru_cache(maxsize=4096)
def _reads(code: CodeType) -> list[tuple[str, tuple[str, ...]]]:
    """What code reads outside itself: by which operation, and its name with attributes'.

    Without what it writes too, as where it counts calls. Of what it imports, all that has one of
    the names in the code.
    """
    found: dict[tuple[str, tuple[str, ...]], None] = {}
    written = set()
    by = ""
    names: tuple[str, ...] = ()
    imported: tuple[str, ...] = ()
    known = [i for i in dis.get_instructions(code) if i.opname not in ("EXTENDED_ARG", "PUSH_NULL")]
    for place, instruction in enumerate(known):
        operation, name = instruction.opname, instruction.argval
        if operation in ("LOAD_ATTR", "LOAD_METHOD") and names:
            names = (*names, name)
        else:
            if names and operation not in ("STORE_ATTR", "DELETE_ATTR"):
                found[by, (*names, _ALL)] = None
            names = ()
        if operation in ("LOAD_GLOBAL", "LOAD_NAME"):  # the latter in the body of a class
            by, names = "LOAD_GLOBAL", (name,)
        elif operation == "LOAD_DEREF":
            by, names = operation, (name,)
        elif operation in ("IMPORT_NAME", "IMPORT_FROM"):
            if operation == "IMPORT_NAME":  # two before it, how many dots it begins with
                imported = ("." * known[place - 2].argval + name,)
            else:
                imported = (imported[0], name)
            of_imported = [imported, *((*imported, part) for part in code.co_names)]
            found |= dict.fromkeys(("IMPORT_NAME", names) for names in of_imported)
        elif operation in ("STORE_GLOBAL", "STORE_DEREF"):
            written.add((operation.replace("STORE", "LOAD"), name))
        if names:
            found[by, names] = None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= dict.fromkeys(_reads(constant))
    return [read for read in found if (read[0], read[1][0]) not in written]


def _values(functions: Sequence[FunctionType], places: Sequence[_Place]) -> list[Any]:
    """What is at places now, and the code and defaults of functions, which may be set in place."""
    values = [_value(*place) for place in places]
    values += [function.__code__ for function in functions]
    values += [function.__defaults__ for function in functions]
    values += [function.__kwdefaults__ for function in functions]
    return values


def _value(root: dict[str, Any] | CellType, names: tuple[str, ...]) -> Any:
    """What is at a place; of attributes, without running a property."""
    try:
        value = root.get(names[0], _NOTHING) if isinstance(root, dict) else root.cell_contents
    except ValueError:  # a variable that has no value yet
        return _NOTHING
    for name in names[1:]:
        value = _member(value, name)
    return value


def _member(value: Any, name: str) -> Any:
    if name == _ALL:
        held = vars(value) if is_only_a_dict(value) else None
        if held is None or not all(isinstance(part, COMPARED) for part in held.values()):
            return _NOTHING  # not as settings are
        return held
    owners = value.__mro__ if isinstance(value, type) else (value, *type(value).__mro__)
    for owner in owners:
        held = getattr(owner, "__dict__", {})
        if name in held:
            return _as_read(held[name], value)
    return _NOTHING


def _as_read(member: Any, value: Any) -> Any:
    """What a member of a class is for a value, as far as that runs none of a user's code."""
    if isinstance(member, (staticmethod, classmethod)):
        return member.__func__
    if isinstance(member, property):
        return member.fget
    if isinstance(member, MemberDescriptorType) and isinstance(value, member.__objclass__):
        try:
            return member.__get__(value)  # of a class with slots
        except AttributeError:
            return _NOTHING
    return member


def _compared(value: Any) -> Any:
    """A value as a part of a key; of one that holds others, how many.

    Raises:
        TypeError: It cannot be compared, or has attributes, which are places of their own.
    """
    if value is _NOTHING or isinstance(value, (CodeType, Enum)):
        return value
    if isinstance(value, partial):
        return partial
    if isinstance(value, (list, dict, tuple)) and len(value) <= _MOST_ITEMS:
        return len(value), frozen(type(value), ())
    if not isinstance(value, (FunctionType, type, *COMPARED)):
        raise TypeError(f"{type(value).__name__} is not compared")
    return frozen(value, ())


def _called_in(value: Any) -> list[FunctionType]:
    """The functions that are run where a value, or one that it holds, is called."""
    found: list[Any] = []
    for item in (value, *_items(value)):
        if isinstance(item, FunctionType):
            found.append(item)
        elif isinstance(item, (MethodType, staticmethod)):
            found.append(item.__func__)
        elif isinstance(item, partialmethod):
            found.append(item.func)
        if callable(item):
            found += _methods_of_users(item.__self__ if isinstance(item, MethodType) else item)
        found.append(getattr(item, "__dict__", {}).get("__wrapped__"))
    return [item for item in found if isinstance(item, FunctionType) and _is_followed(item)]


def _methods_of_users(value: Any) -> list[FunctionType]:
    """The methods of an object, which call each other, if it is of a user's class."""
    if isinstance(value, (type, ModuleType, *COMPARED)):
        return []
    return [method for method in methods_of(type(value)) if _is_followed(method)]


def _is_followed(function: FunctionType) -> bool:
    """Whether its user may change a function: none of a package that is installed."""
    return _is_users(function.__module__, function.__code__.co_filename)


@lru_cache(maxsize=4096)
def _is_users(module: str | None, file: str) -> bool:
    return not _is_librarys(str(module)) and not any(folder in file for folder in _INSTALLED)


def _is_librarys(module: str) -> bool:
    return module.partition(".")[0] in LIBRARIES
