"""``seqnets convert``: weights to and from other libraries, checked on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from seqnets.checks import name_of
from seqnets.cli import report
from seqnets.cli.build import build, option_errors
from seqnets.cli.console import quiet, terminal
from seqnets.cli.names import UsageError, near
from seqnets.cli.options import Config, check_new, check_truths
from seqnets.cli.trained import find_checkpoint, load_module
from seqnets.conversion import FORMATS, read, write
from seqnets.conversion.networks import layers_of
from seqnets.errors import ConfigError, counted

_OURS = "seqnets"


def run(options: Config, **_: Any) -> None:
    """Read a network, convert it, compare the outputs of both sides, and write it.

    Raises:
        SeqnetsError: A file is missing or unreadable, the target exists already, the other library
            has no such cell, or the outputs differ.
    """
    source, target = (Path(str(options[key])).expanduser() for key in ("source", "target"))
    before = _format(options["from"], source, "from")
    after = _format(options["to"], target, "to")
    shape = {key: options[key] for key in ("lengths", "state")}
    check_truths(**shape)
    check_new("target", target, options["overwrite"])
    if before != _OURS and not source.exists():
        raise ConfigError(f"source: {str(source)!r} is not there, expected a file of weights.")
    cell = options.get("model", {}).get("cell")
    factory = cell and build({**cell, "_partial_": True}, options["allow"], "model.cell")
    console = terminal()
    if before == _OURS:
        with quiet():
            module = load_module(find_checkpoint(str(options["source"])), options["allow"]).model
    else:
        with option_errors(cell or {}, "model.cell"):
            module, found = read(source, before, factory)
        _report_check(console, before, found)
    found = write(module, target, after, **(shape if after == "onnx" else {}))
    _report_check(console, after, found)
    report.show(console, "Written:", f"{report.shown(target)} ({_summary(module)})")


def _format(named: str | None, path: Path, key: str) -> str:
    """The format that the user names, or that a path's suffix implies."""
    known = [_OURS, *FORMATS] if key == "from" else list(FORMATS)
    if named is not None:
        if named not in known:
            raise UsageError(f"{key}: is {named!r}.\n  {near(str(named), known)}")
        return named
    suffixes = {suffix: name for name, side in FORMATS.items() for suffix in side.suffixes}
    if key == "from":
        suffixes[".ckpt"] = _OURS
    if path.suffix in suffixes:
        return suffixes[path.suffix]
    if key == "from" and (path.is_dir() or path.name == "last"):
        return _OURS
    raise UsageError(
        f"{key}: {str(path)!r} does not imply a format, expected one of {', '.join(suffixes)}.\n"
        f"  Name it: {key}={'|'.join(known)}."
    )


def _report_check(console: Console, form: str, found: float | None) -> None:
    """Print by how much the outputs of one side differ; None if its library is missing."""
    text = "not checked: its library is not installed"
    if found is not None:
        text = f"differs by at most {found:.1g}"
    console.print(f"{form:7}{text}")


def _summary(module: nn.Module) -> str:
    """A description of the layers: "2 layers of GRUCell, 8 to 16 units, both directions"."""
    layers = layers_of(module)
    first = layers[0][0]
    kind, units = name_of(first.innermost), f"{first.input_size} to {first.hidden_size} units"
    both = ", both directions" if len(layers[0]) == 2 else ""
    return f"{counted(len(layers), 'layer')} of {kind}, {units}{both}"
