"""A trained model as a file that other programs run, checked before it is there."""

from __future__ import annotations

import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.atomic import atomic, named_by
from seqnets.checks import name_of
from seqnets.errors import ConfigError, SeqnetsError
from seqnets.optional import optional
from seqnets.training.module import SequenceModule
from seqnets.training.objectives import Transduction
from seqnets.training.served import Served
from seqnets.training.served_decoder import ServedDecoder
from seqnets.typing import ROUNDING, Batch

_KEY = "seqnets"
"""Under which name a file keeps what a user of the model needs."""

_BATCHES = 2
"""The most batches of data that are compared."""

_SIZES = ((1, 1), (2, 21), (5, 8))
"""Rows and steps of the random inputs that are compared: others than those of the example."""

Run = Callable[[Sequence[Tensor]], dict[str, Tensor]]
"""Maps the inputs of a model to its outputs by name."""


class Format(NamedTuple):
    """A format of files.

    Attributes:
        runner: What runs such files.
        need: Raises ConfigError if a library is missing that writes them.
        save: Writes a model and its description to a file.
        load: Reads a file to a function that runs it; None if the runner is not installed.
    """

    runner: str
    need: Callable[[], object]
    save: Callable[[Served, dict[str, Any], Path], None]
    load: Callable[[Served, Path], Run | None]


class Exported(NamedTuple):
    """What :func:`export` did.

    Attributes:
        files: The files that were written, and the description that is in each.
        runner: What ran them.
        difference: The largest difference of the outputs; None if the runner is not installed, so
            that nothing was compared.
        batches: Batches of data that were compared, beside random inputs.
    """

    files: dict[Path, dict[str, Any]]
    runner: str
    difference: float | None
    batches: int


def export(
    module: SequenceModule,
    path: Path | str,
    form: str | None = None,
    batches: Iterable[Batch] = (),
) -> Exported:
    """Write a trained model to a file that other programs run, whole and checked.

    A model that writes sequences becomes two files: :func:`files_of` names them.

    A file takes any number of rows and steps. Before it has its name, it is read again and run on
    random inputs of several sizes, and its outputs are compared with the model's, relative to the
    largest where that exceeds 1. docs/export.md says what is in it.

    Args:
        module: The model, its objective, and the description of its data.
        path: The file.
        form: "onnx" or "pt2"; the path's suffix says it if omitted.
        batches: Data for which outputs are compared as well; the first two batches are taken.

    Raises:
        ConfigError: The model cannot be exported, a library is missing, the outputs differ by more
            than 1e-4, or the file cannot be written. Nothing is written then.
    """
    if not hasattr(module, "objective"):
        raise ConfigError(
            f"export: module is {type(module).__name__}, expected a SequenceModule, which also "
            "knows the objective and the data.\n"
            "  torch.export.export takes a model by itself."
        )
    path = Path(path)
    form = form or path.suffix.lower()[1:]
    if form not in FORMATS:
        raise ConfigError(
            f"export: the format of {str(path)!r} is {form or 'not said'}, expected one of "
            f"{', '.join(FORMATS)}: as the file's suffix, or as `form`."
        )
    kind = FORMATS[form]
    kind.need()
    parts = module.model, module.objective, module.card["data"]
    served = {file: make(*parts) for file, make in files_of(module, path).items()}
    about = {file: part.describe() for file, part in served.items()}
    given = [*islice(batches, _BATCHES)]
    found: list[float | None] = []
    with named_by("target", path), ExitStack() as whole:
        for file, part in served.items():  # no file has its name before all are checked
            partial = whole.enter_context(atomic(file))
            partial.touch()  # where nothing can be written, at once
            with _refusals(part, form):
                kind.save(part, about[file], partial)
            found.append(_checked(file, part, kind, partial, given))
    differences = [difference for difference in found if difference is not None]
    return Exported(about, kind.runner, max(differences, default=None), len(given))


def files_of(module: SequenceModule, path: Path) -> dict[Path, type[Served]]:
    """The files of a model, and what is in each: one, or of a model that writes sequences two.

    These are ``model.encoder.onnx`` and ``model.decoder.onnx``, if the path is ``model.onnx``.
    """
    if not isinstance(module.objective, Transduction):
        return {path: Served}
    halves = {"encoder": Served, "decoder": ServedDecoder}
    return {
        path.with_name(f"{path.stem}.{name}{path.suffix}"): half for name, half in halves.items()
    }


def _checked(
    file: Path, served: Served, kind: Format, partial: Path, batches: Sequence[Batch]
) -> float | None:
    """By how much a file differs, which is not much; None if nothing runs it."""
    run = kind.load(served, partial)
    if run is None:
        return None
    found = _difference(served, run, map(served.of_batch, batches))
    if not found <= ROUNDING:
        raise ConfigError(
            f"{file}: {kind.runner} and seqnets differ by up to {found:.2g}, expected at most "
            f"{ROUNDING:g}.\n  These are the outputs for the same inputs. Nothing was written."
        )
    return found


def _need_onnx() -> None:
    for library in ("onnx", "onnxscript"):  # torch's exporter asks for the second
        with optional(f"ONNX is written by {library}", "onnx"):
            import_module(library)


def _save_onnx(served: Served, about: dict[str, Any], path: Path) -> None:
    program: Any = torch.onnx.export(
        served,
        _example(served),
        dynamo=True,
        dynamic_shapes=_varying(served, "B", "T"),
        input_names=served.inputs,
        output_names=[port["name"] for port in about["outputs"]],
        verbose=False,
    )
    import_module("onnx_ir.passes.common").RemoveUnusedNodesPass()(program.model)
    model = program.model_proto
    model.metadata_props.add(key=_KEY, value=json.dumps(about))
    import_module("onnx").save(model, path)


def _load_onnx(served: Served, path: Path) -> Run | None:
    try:
        runtime = import_module("onnxruntime")
    except ModuleNotFoundError:
        return None
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(given: Sequence[Tensor]) -> dict[str, Tensor]:
        arrays = (tensor.numpy() for tensor in given)
        found = session.run(None, dict(zip(served.inputs, arrays, strict=True)))
        return {name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)}

    return run


def _save_pt2(served: Served, about: dict[str, Any], path: Path) -> None:
    shapes = _varying(served, *[torch.export.Dim.DYNAMIC] * 2)
    program = torch.export.export(served, _example(served), dynamic_shapes=shapes)
    _drop_unread(program)
    whole = io.BytesIO()  # torch's writer of files aborts the process where a disk is full
    torch.export.save(program, whole, extra_files={f"{_KEY}.json": json.dumps(about)})
    path.write_bytes(whole.getbuffer())


def _drop_unread(program: torch.export.ExportedProgram) -> None:
    """Take out of a program the parameters that it does not read, as those of the other half."""
    specs = program.graph_signature.input_specs
    idle = {n.name: n for n in program.graph.nodes if n.op == "placeholder" and not n.users}
    unread = [s for s in specs if s.arg.name in idle and s.target in program.state_dict]
    for spec in unread:
        program.graph.erase_node(idle[spec.arg.name])
        specs.remove(spec)
    program.graph_module.recompile()
    for name in program.state_dict.keys() - {spec.target for spec in specs}:
        del program.state_dict[name]


def _load_pt2(served: Served, path: Path) -> Run:
    model = torch.export.load(path).module()
    return lambda given: model(*given)


FORMATS = {
    "onnx": Format("ONNX Runtime", _need_onnx, _save_onnx, _load_onnx),
    "pt2": Format("torch.export.load", lambda: None, _save_pt2, _load_pt2),
}
"""The formats of files by name, which is their suffix, too."""


def _example(served: Served) -> tuple[Tensor, ...]:
    return tuple(served.example(3, served.steps(8)))


def _varying(served: Served, rows: Any, steps: Any) -> dict[str, Any]:
    """The sizes of the inputs that vary, for torch's exporters: rows, and steps of sequences."""
    sizes = (
        {0: rows, **({1: steps} if name in served.sequences else {})} for name in served.inputs
    )
    return {"given": tuple(sizes)}


@contextmanager
def _refusals(served: Served, form: str) -> Iterator[None]:
    """Turn an exporter's refusal of a model into a ConfigError, and keep its warnings back."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except (SeqnetsError, OSError):  # the latter of a file
        raise
    except Exception as error:  # of torch's exporters, which document none
        cause: BaseException = error
        while cause.__cause__ is not None:  # below what the exporter says of it
            cause = cause.__cause__
        first, *_ = [*str(cause).strip().splitlines(), ""]
        raise ConfigError(
            f"export: {name_of(served.model)} cannot be written as {form} for any number of rows "
            f"and steps: {type(cause).__name__}: {first.rstrip('.')}.\n"
            "  Nothing was written. `seqnets predict` runs the model."
        ) from error
    finally:
        logger.setLevel(level)


def _difference(served: Served, run: Run, batches: Iterable[Sequence[Tensor]]) -> float:
    """The largest difference of the outputs, relative to the largest where that exceeds 1."""
    made = (served.example(B, served.steps(T), seed=T) for B, T in _SIZES)
    found = []
    with torch.no_grad():
        for given in (*made, *batches):
            ours, theirs = served.in_own_scale(served(*given)), served.in_own_scale(run(given))
            for name, expected in ours.items():
                if theirs[name].shape != expected.shape:
                    return math.inf
                size = expected.abs().max().clamp(min=1)
                found.append((theirs[name] - expected).abs().max() / size)
    return float(torch.stack(found).max())  # of NaN, too
