"""From a configuration to objects: the only place where configured classes are made."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, ListConfig, OmegaConf

from seqnets.cli.kinds import check_kind, options_of
from seqnets.cli.names import near
from seqnets.errors import ConfigError, SeqnetsError
from seqnets.signatures import signature_of

ALLOWED = (
    "seqnets",
    "torch.nn",
    "torch.optim",
    "lightning.pytorch.trainer",
    "lightning.pytorch.loggers",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.strategies",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
)
"""Modules whose classes a configuration may name."""

_OPTIONS = ("seqnets.cells",)  # where functions that change a cell are, beside classes

_TARGET, _PARTIAL = "_target_", "_partial_"


def build(config: Any, allow: Sequence[str] = (), key: str = "") -> Any:
    """Make the objects that a configuration describes: each ``_target_``, from the inside out.

    A target is judged by what it *is*, not by the name it was found under: it must be a class
    defined in one of the :data:`ALLOWED` modules, or a class or function in one that the user
    allows. All targets are checked before the first is called. Hydra's own policy applies as well.

    Args:
        config: A mapping, a list or a plain value; values reach the targets as plain containers.
            With ``_partial_: true`` a target becomes a factory.
        allow: Further modules, classes or functions, by their dotted names. It must come from the
            user, never from a checkpoint.
        key: The config's key, for messages.

    Raises:
        ConfigError: A target is not allowed, does not exist, or does not take these options.
    """
    if isinstance(config, (DictConfig, ListConfig)):
        config = OmegaConf.to_container(config, resolve=True)
    factories = {where: _factory(node, allow, where) for where, node in _targets(config, key)}
    return _make(config, factories, key)


def _targets(node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict) and _TARGET in node:
        yield key, node
    for name, child in _children(node):
        yield from _targets(child, _join(key, name))


def _make(node: Any, factories: dict[str, Callable[..., Any]], key: str) -> Any:
    made = {name: _make(child, factories, _join(key, name)) for name, child in _children(node)}
    if isinstance(node, list):
        return list(made.values())
    if not isinstance(node, dict):
        return node
    if _TARGET not in node:
        return made
    options = {name: value for name, value in made.items() if name not in (_TARGET, _PARTIAL)}
    if node.get(_PARTIAL):
        return partial(factories[key], **options)
    try:
        with option_errors(node, key):
            return factories[key](**options)
    except TypeError as error:
        if not re.search(r"unexpected keyword|required .*argument", str(error)):
            raise
        said = str(error).rstrip(".")
        if "required" in said:
            said += f".\n  If seqnets is to pass them: {_PARTIAL}: true, in its file"
        raise ConfigError(
            f"{key}: {node[_TARGET]} cannot be made from the options "
            f"{', '.join(options) or 'none'}: {said}."
        ) from error
    except (MisconfigurationException, ValueError, ImportError) as error:
        if isinstance(error, SeqnetsError):
            raise
        how = "lacks a package" if isinstance(error, ImportError) else "refuses its options"
        raise ConfigError(f"{key}: {node[_TARGET]} {how}: {error}") from error


@contextlib.contextmanager
def option_errors(node: Any, key: str) -> Iterator[None]:
    """Turn the TypeError for an unknown option that was passed on into a ConfigError.

    Args:
        node: The configuration that the options come from.
        key: Its key, for messages.
    """
    try:
        yield
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        owners = ((k, n[_TARGET]) for k, n in _targets(node, key) if unknown and unknown[1] in n)
        found = next(owners, None)
        if not (unknown and found):
            raise
        where, target = found
        others = options_of(get_object(target)).keys() - {"self", unknown[1]}
        raise ConfigError(
            f"{_join(where, unknown[1])}: {target} has no such option.\n"
            f"  {near(unknown[1], others)}"
        ) from error


def _children(node: Any) -> list[tuple[Any, Any]]:
    if isinstance(node, dict):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, list) else []


def _factory(node: dict[str, Any], allow: Sequence[str], key: str) -> Callable[..., Any]:
    """A factory of the class or function that a target names, once all is checked."""
    name = node[_TARGET]
    permitted = (*ALLOWED, *allow)
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{key}._target_: is {name!r}, expected a dotted name of a class.")
    roots = {entry.split(".")[0] for entry in permitted}
    if name.split(".")[0] not in roots:  # which is then not even imported
        raise _refusal(key, name, name, allow)
    try:
        # A deferred call: Hydra's policy is asked about the target now and about its call later.
        factory = instantiate({_TARGET: name, _PARTIAL: True})
    except InstantiationException as error:
        if "blocklisted" in str(error):
            raise _refusal(key, name, name, allow) from error
        raise _missing(key, name, error) from error
    target = factory.func
    known_as = f"{getattr(target, '__module__', '?')}.{getattr(target, '__qualname__', '?')}"
    users = _within(known_as, allow) and (inspect.isclass(target) or inspect.isfunction(target))
    free = inspect.isfunction(target) and "." not in target.__qualname__  # not a method
    option = _within(known_as, _OPTIONS) and free
    ours = option or (_within(known_as, ALLOWED) and inspect.isclass(target))
    if not (users or ours) or _find(known_as, target) is not target:
        raise _refusal(key, name, known_as, allow)
    _check_options(node, target, key)
    return factory


def _within(name: str, places: Sequence[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _find(name: str, target: Any) -> Any:
    """The object that a target's own name leads to; a different one if that name is false."""
    found: Any = sys.modules.get(target.__module__)
    for part in target.__qualname__.split("."):
        found = getattr(found, part, None)
    return found


def _check_options(node: dict[str, Any], target: Callable[..., Any], key: str) -> None:
    options = options_of(target)
    given = {name: value for name, value in node.items() if name not in (_TARGET, _PARTIAL)}
    parameters = signature_of(target).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for name in given.keys() - parameters.keys():
            raise ConfigError(
                f"{_join(key, name)}: {node[_TARGET]} has no such option.\n"
                f"  {near(name, parameters)}"
            )
    for name, value in given.items():
        made = isinstance(value, dict) and _TARGET in value
        if not made and name in options:
            check_kind(_join(key, name), value, options[name])


def _missing(key: str, name: str, error: Exception) -> ConfigError:
    module, _, last = name.rpartition(".")
    cause: BaseException = error
    while cause.__cause__ is not None:  # below what Hydra says of it
        cause = cause.__cause__
    lines = [f"{key}._target_: {name} could not be imported.", f"{type(cause).__name__}: {cause}"]
    if module in sys.modules:
        classes = [known for known in dir(sys.modules[module]) if known[0].isupper()]
        lines.append(near(last, classes))
    elif getattr(cause, "name", None) == name.split(".")[0]:
        lines.append("A module of your own must be on PYTHONPATH: PYTHONPATH=. seqnets ...")
    return ConfigError("\n  ".join(lines))


def _refusal(key: str, name: str, known_as: str, allow: Sequence[str]) -> ConfigError:
    alias = "" if name == known_as else f" (which is {known_as})"
    module = known_as.rpartition(".")[0] or known_as
    return ConfigError(
        f"{key}._target_: {name}{alias} may not be used in a configuration.\n"
        f"  Allowed are the classes of {', '.join(ALLOWED)}"
        f"{''.join(f', {entry}' for entry in allow)}.\n"
        f"  A module of your own is allowed by its name on the command line: "
        f"'allow=[{module}]'."
    )


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)
