"""``seqnets export``: a trained model as a file that other programs run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from seqnets.cli import report
from seqnets.cli.console import quiet, terminal
from seqnets.cli.names import UsageError, near
from seqnets.cli.options import Config, check_filled, check_new
from seqnets.cli.trained import find_checkpoint, load_data, load_module
from seqnets.errors import SeqnetsError
from seqnets.layers import Recurrent
from seqnets.training import SequenceModule
from seqnets.training.exporting import FORMATS, Exported, export, files_of
from seqnets.training.served import Port
from seqnets.typing import Batch


def run(options: Config, **_: Any) -> None:
    """Write the model, compare the outputs of the file with its own, and say what it takes.

    Args:
        options: The verb's configuration.

    Raises:
        SeqnetsError: An option or the checkpoint are faulty, the target exists already, the model
            cannot be exported, a library is missing, or the outputs differ.
    """
    form, target = _target(options)
    path = find_checkpoint(options["checkpoint"])
    with quiet():
        module = load_module(path, options["allow"])
        _free_backends(module)
        for file in files_of(module, target):
            check_new("target", file, options["overwrite"])
        done = export(module, target, form, _batches(module, options, path))
    console = terminal()
    _tell_check(console, form, done)
    model = type(module.model).__name__
    for file, about in done.files.items():
        report.show(console, "Written:", f"{report.shown(file)} ({model}, {_size(file)})")
        for side in ("inputs", "outputs"):
            lines = "\n".join(str(Port(**port)) for port in about[side])
            report.show(console, f"Its {side}, in this order:", lines)


def _target(options: Config) -> tuple[str, Path]:
    """The format and the file, checked before anything is read."""
    form, given = options["format"], options["target"]
    check_filled("file", target=given)
    if form is not None and form not in FORMATS:
        raise UsageError(f"format: is {form!r}.\n  {near(str(form), FORMATS)}")
    path = Path(f"model.{form or 'onnx'}" if given is None else str(given)).expanduser()
    suffix = path.suffix.lower()[1:]
    form = form or suffix
    if form not in FORMATS:
        raise UsageError(
            f"target: {str(path)!r} does not imply a format, expected a name that ends with "
            f"{' or '.join(f'.{name}' for name in FORMATS)}.\n"
            f"  Name it: format={'|'.join(FORMATS)}."
        )
    if suffix in FORMATS and suffix != form:
        raise UsageError(
            f"target: {str(path)!r} ends with {path.suffix}, which is another format's, expected "
            f".{form}, as format={form}.\n"
            f"  Name it {path.with_suffix(f'.{form}')}, or leave out format."
        )
    FORMATS[form].need()
    return form, path


def _free_backends(module: SequenceModule) -> None:
    """Let layers run by any backend: the one that training named may not export, or not be here."""
    for layer in module.modules():
        if isinstance(layer, Recurrent):
            layer.backend = "auto"


def _batches(module: SequenceModule, options: Config, path: Path) -> Iterator[Batch]:
    """Yield the test part of the run's data, read once it is asked for; nothing if it is gone."""
    with suppress(SeqnetsError):
        yield from load_data(module, path, allow=options["allow"]).loader("test").in_order()


def _tell_check(console: Console, form: str, done: Exported) -> None:
    """Print by how much the outputs differ, and for which inputs, or why this is not known."""
    if done.difference is None:
        console.print(f"{form:7}not checked: {done.runner} is not installed")
        return
    inputs = "random inputs and on some of the test part"
    if not done.batches:
        inputs = "random inputs alone, since the run's data cannot be read"
    console.print(f"{form:7}differs by at most {done.difference:.1g} on {inputs}", soft_wrap=True)


def _size(path: Path) -> str:
    kib = path.stat().st_size / 2**10
    return f"{kib:.1f} KiB" if kib < 0.1 * 2**10 else f"{kib / 2**10:,.1f} MiB"
