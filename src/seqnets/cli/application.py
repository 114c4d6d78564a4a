"""Run a verb as a Hydra application, with errors that suggest similar names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from seqnets.cli import sweep
from seqnets.cli.console import terminal
from seqnets.cli.help import groups_of, help_of, own_of
from seqnets.cli.listing import configs, options
from seqnets.cli.names import UsageError, near, override, shell
from seqnets.errors import DivergenceError, SeqnetsError

_FULL_ERROR = "HYDRA_FULL_ERROR"

_MULTIRUN = ("-m", "--multirun")

_LAUNCH_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
"""Variables Lightning sets for the processes it starts; where set, it starts no others."""

_LIST_GROUPS = ("model/option", "callbacks", "experiment")
"""Config groups that accept several options at once: GROUP=[ONE,ANOTHER]."""

_ROOTED = ("experiment", "suite")
"""Config groups whose files set keys at the root."""


class _JobEnded(BaseException):
    """Raised when a job failed or was stopped, so that Hydra starts no further job of the sweep.

    Attributes:
        end: The job's error or exit code.
    """

    def __init__(self, end: int | BaseException) -> None:
        super().__init__()
        self.end = end


def run(verb: str, arguments: Sequence[str]) -> int:
    """Compose a verb's configuration from the command line and run it, once or as a sweep.

    Returns:
        The exit code: 0, or that of the first failing job, which ends a sweep.

    Raises:
        UsageError: A key, group or option does not exist, or the syntax is wrong.
        SeqnetsError: From the verb itself.
    """
    if {"--help", "-h"} & set(arguments):
        print(help_of(verb, _folders(arguments)), end="")
        return 0
    name = verb
    end: int | BaseException = 0
    command = sys.argv
    sweeps = bool(set(_MULTIRUN) & set(arguments))
    jobs: list[sweep.Job] = []

    def job(config: DictConfig) -> float | None:
        composed = HydraConfig.get()
        # Processes that Lightning starts must run this job only, not the whole sweep.
        sys.argv = [command[0], verb, *flags(arguments), *composed.overrides.task]
        swept = _swept(composed.overrides.task, arguments)
        try:
            if name == verb:  # a checkpoint may hold keys that others were interpolated from
                _refuse_unread_files(verb, arguments, config)
            ended = _run_job(verb, arguments, config)
        except BaseException as error:
            jobs.append(sweep.Job(swept, None))
            if isinstance(error, DivergenceError) and sweep.optimises(composed.sweeper):
                print(f"DivergenceError: {error}", file=sys.stderr)
                return sweep.worst(composed.sweeper)  # a search may go on after divergence
            raise _JobEnded(error) from error
        trained = ended if isinstance(ended, sweep.Trained) else None
        jobs.append(sweep.Job(swept, trained))
        code = ended if trained is None else trained.code
        if code:
            raise _JobEnded(code)
        return None if trained is None else trained.score

    try:
        # Otherwise Hydra would print errors itself and exit.
        with _environment(_FULL_ERROR, "1"):
            _refuse_hidden(arguments)
            _refuse_taken_away(verb, arguments)
            _refuse_fixed(verb, arguments)
            arguments = [_quoted(argument) for argument in arguments]
            _refuse_no_name(verb, arguments)
            _refuse_nothing(arguments)
            # argparse accepts no option between overrides
            name, arguments = _start(verb, sorted(arguments, key=_MULTIRUN.__contains__))
            application = hydra.main(str(configs()), name, version_base="1.3")(job)
            sys.argv = [f"{os.path.basename(command[0])} {verb}", *arguments]
            application()
    except _JobEnded as over:
        end = over.end
    except SeqnetsError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise _explained(verb, name, arguments, error) from error
    except YAMLError as error:
        raise UsageError(f"--config-dir: a file is not YAML: {error}") from error
    except ValueError as error:
        if not sweeps:
            raise
        raise UsageError(f"hydra/sweeper: {error}") from error
    finally:
        sys.argv = command
        if verb == "train" and jobs and sweeps:
            sweep.show(terminal(), jobs)
    if isinstance(end, OmegaConfBaseException):  # a value's, which was resolved by the job
        raise UsageError(f"{end.full_key}: {str(end).splitlines()[0]}") from end
    if isinstance(end, BaseException):
        raise end
    return end


def _run_job(verb: str, arguments: Sequence[str], config: DictConfig) -> Any:
    """Run a verb on the composed configuration; return the training result or an exit code."""
    composed = HydraConfig.get()
    needed = [*(o for o in arguments if o.startswith("allow=")), *flags(arguments)]
    also = "".join(f" {shell(argument)}" for argument in needed)
    with _environment(_FULL_ERROR, None), _without_hydra(), _alone_again():
        _refuse_unread(verb, arguments, config)
        sweep.check_direction(verb, config, composed.sweeper)
        ended = _module(verb).run(config, composed.runtime.choices, also)
        sweep.check_score(ended, composed.sweeper)
    return ended


def _module(verb: str) -> Any:
    return import_module(f"seqnets.cli.{verb}")


def _start(verb: str, arguments: list[str]) -> tuple[str, list[str]]:
    """Return the name of the base configuration, the verb's or a checkpoint's, and overrides."""
    if not any(argument.startswith(("resume=", "checkpoint=")) for argument in arguments):
        return verb, arguments
    if verb == "train" and set(_MULTIRUN) & set(arguments):
        raise UsageError("resume: goes on with one run, and -m asks for several.")
    given = {o.key_or_group: o.value() for o in _parsed(arguments) if not o.is_sweep_override()}
    own = OmegaConf.load(configs() / f"{verb}.yaml")
    values: Any = OmegaConf.to_container(own)
    read = getattr(_module(verb), "from_checkpoint", None)
    found = None if read is None else read(given, values)
    if found is None:
        return verb, arguments
    config, settled = found
    name = f"{verb}_from_checkpoint"
    logging = [entry for entry in values["defaults"] if any("hydra/" in key for key in entry)]
    started = {"defaults": ["_self_", *logging], **config, "hydra": values["hydra"]}
    ConfigStore.instance().store(name, started)
    keys = [argument.partition("=")[0] for argument in arguments]
    return name, [
        override(key, settled[key]) if key in settled else argument
        for key, argument in zip(keys, arguments, strict=True)
    ]


def _quoted(argument: str) -> str:
    """Quote a prompt for Hydra, so that it is taken literally; quoted ones stay as they are."""
    key, _, text = argument.partition("=")
    if key != "prompt" or re.fullmatch(r"""(['"]).*\1""", text, re.DOTALL):
        return argument
    return override(key, text)


def _swept(overrides: Sequence[str], arguments: Sequence[str]) -> dict[str, str]:
    """Return the overrides that vary between the jobs of a sweep."""
    several = {o.get_key_element() for o in _parsed(arguments) if o.is_sweep_override()}
    fixed = {argument.partition("=")[0] for argument in arguments} - several
    pairs = (override.partition("=")[::2] for override in overrides)
    return {key: value for key, value in pairs if key not in fixed}


def _parsed(arguments: Sequence[str]) -> list[Override]:
    given = [argument for argument in arguments if "=" in argument and argument[0] != "-"]
    return OverridesParser.create().parse_overrides(given)


def flags(arguments: Sequence[str]) -> list[str]:
    """Return the ``--config-dir`` arguments of a command line."""
    for place, argument in enumerate(arguments):
        if argument in ("--config-dir", "-cd"):
            return list(arguments[place : place + 2])
        if argument.startswith("--config-dir="):
            return [argument]
    return []


def _folders(arguments: Sequence[str]) -> list[Path]:
    """Return the user's config folder, if the command line names one."""
    return [Path(flag.removeprefix("--config-dir=")) for flag in flags(arguments)[-1:]]


def _refuse_hidden(arguments: Sequence[str]) -> None:
    """Raise if a file of the user's has the name of one of seqnets' own, which Hydra would take."""
    for folder, path in ((f, p) for f in _folders(arguments) for p in sorted(f.rglob("*.yaml"))):
        if (configs() / path.relative_to(folder)).exists():
            raise UsageError(
                f"--config-dir: {path} has the name of a file of seqnets' own, which would be "
                f"taken instead.\n  Give it another name."
            )


def _refuse_taken_away(verb: str, arguments: Sequence[str]) -> None:
    """Raise if an override takes away a key or group that the verb itself reads."""
    keys, groups = own_of(verb)
    groups -= set(_ROOTED)
    for argument in arguments:
        key = argument[1:].partition("=")[0]
        if argument[:1] == "~" and key in keys | groups:
            choices = " or ".join(options(key, [configs()])) if key in groups else "VALUE"
            raise UsageError(
                f"{argument}: takes away what `seqnets {verb}` reads, expected another value.\n"
                f"  Give it as {key}={choices}."
            )


def _refuse_fixed(verb: str, arguments: Sequence[str]) -> None:
    """Raise if an override changes what a checkpoint alone says, such as its model."""
    keys, groups = own_of(verb)
    if "checkpoint" not in keys:
        return
    for argument in arguments:
        key, root = _key_and_root(argument)
        if "=" in argument and (configs() / root).is_dir() and root not in keys | groups:
            raise UsageError(
                f"{key}: is what the checkpoint says, expected no other.\n"
                f"  `seqnets {verb}` takes {', '.join(sorted(keys | groups))}."
            )


def _refuse_unread(verb: str, arguments: Sequence[str], config: DictConfig) -> None:
    """Raise if a key is added that nothing reads: neither the verb nor another key by ${KEY}."""
    keys, groups = own_of(verb)
    known = {_key_and_root(name)[1] for name in (*keys, *groups, "hydra")}
    text = OmegaConf.to_yaml(config)
    for argument in arguments:
        key, root = _key_and_root(argument)
        if argument[:1] == "+" and root not in known and f"${{{root}" not in text:
            raise UsageError(
                f"+{key}: nothing reads it, expected a key or group of `seqnets {verb}`.\n"
                f"  {near(key, _keys(verb, verb, arguments))}"
            )


def _refuse_unread_files(verb: str, arguments: Sequence[str], config: DictConfig) -> None:
    """Raise if one of the user's files sets a key that nothing reads."""
    keys, groups = own_of(verb)
    known = {_key_and_root(name)[1] for name in (*keys, *groups, *map(_added, arguments))}
    text = OmegaConf.to_yaml(config)
    for key in map(str, config):
        read = key in known and not (key in _ROOTED and OmegaConf.is_dict(config[key]))
        if read or re.search(rf"\$\{{[^}}]*\b{re.escape(key)}\b", text):
            continue
        if key in _ROOTED:
            set_there = ", ".join(map(str, config[key]))
            raise UsageError(
                f"{key}: its file sets {key}.{set_there}, which nothing reads, expected "
                f"{set_there}.\n  Begin the file with the line `# @package _global_`."
            )
        raise UsageError(
            f"{key}: is set by a file, and nothing reads it, expected a key or group of "
            f"`seqnets {verb}`.\n  {near(key, _keys(verb, verb, arguments))}"
        )


def _added(argument: str) -> str:
    """The key that an override adds, which is judged as such."""
    return _key_and_root(argument)[0] if argument[:1] == "+" else ""


def _key_and_root(argument: str) -> tuple[str, str]:
    """What an override sets, and the first part of that."""
    key = argument.lstrip("+").partition("=")[0].partition("@")[0]
    return key, re.split("[./]", key)[0]


def _refuse_no_name(verb: str, arguments: Sequence[str]) -> None:
    """Raise if a group is given no name, or several of which Hydra would silently take the last."""
    for o in _parsed(arguments):
        group = o.key_or_group
        if not (configs() / group).is_dir() or o.is_delete() or o.is_sweep_override():
            continue
        value = o.value()
        if isinstance(value, list) and group not in _LIST_GROUPS:
            raise UsageError(
                f"{group}: got several, {', '.join(map(str, value))}, expected one.\n"
                f"  A run with each: seqnets {verb} -m {group}={','.join(map(str, value))}"
            )
        if not isinstance(value, (str, list)):
            there = ", ".join(options(group, [configs()]))
            raise UsageError(f"{group}: is {value!r}, expected a name.\n  There are: {there}.")


def _refuse_nothing(arguments: Sequence[str]) -> None:
    """Raise if a sweep has nothing to try, which Hydra takes for a sweep that is done."""
    for o in _parsed(arguments):
        key, value = o.key_or_group, o.value()
        names = options(key, [configs(), *_folders(arguments)])
        if isinstance(value, Glob):
            tried: Iterable[object] = value.filter([*names])
        elif o.is_discrete_sweep():
            tried = o.sweep_iterator()
        else:
            continue
        if not any(True for _ in tried):
            there = f"There are: {', '.join(names)}."
            advice = there if names else f"Give them as {key}=ONE,ANOTHER."
            raise UsageError(
                f"{o.input_line}: fits nothing, expected one value or more to try.\n  {advice}"
            )


def _owners(group: str) -> list[str]:
    """Of a group in another one, such as model/head, the models in whose files it is chosen."""
    whole, _, part = group.rpartition("/")
    files = sorted((configs() / whole).glob("*.yaml")) if whole else []
    chosen = re.compile(rf"^  - {re.escape(part)}:", re.MULTILINE)
    return [path.stem for path in files if chosen.search(path.read_text(encoding="utf-8"))]


def _explained(verb: str, name: str, arguments: Sequence[str], error: Exception) -> Exception:
    """Hydra's error in our words, with what is near."""
    if isinstance(error, MissingConfigException):
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        # of a name in a list Hydra does not say what there is
        known = error.options or list(options(group, [configs(), *_folders(arguments)]))
        if known:
            return _no_such_option(group, option, known)
    several = re.match(r"(Ambiguous) value for argument '(.*)'|Sweep .* '(.*)' r", str(error))
    if several:
        return _several(verb, several[2] or several[3], alone=not several[1])
    mistyped = re.search(r"Could not (override|delete)(?: from config.)? '([^'=]+)'", str(error))
    if mistyped:
        key = mistyped[2].split("@")[0]
        return _no_such_key(verb, name, arguments, key, to_set=mistyped[1] == "override")
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return UsageError(
            f"seqnets {verb}: {error.override} cannot be read, expected KEY=VALUE.\n"
            f"  A value with other than plain characters is quoted twice: \"{key}='{value}'\"."
        )
    if "BasicSweeper does not support" in str(error):
        return UsageError(
            f"seqnets {verb} -m: got an interval, expected values to be tried one by one.\n"
            "  Give them as KEY=ONE,ANOTHER; hydra/sweeper=optuna searches in an interval."
        )
    there = re.search("Could not append to config. An item is already at '([^']+)'", str(error))
    if there:
        return UsageError(
            f"+{there[1]}: is a key already, expected it without the +.\n"
            f"  Give it as {there[1]}=VALUE."
        )
    causes = [str(e).splitlines()[0] for e in (error, error.__cause__) if e is not None and str(e)]
    return UsageError(f"seqnets {verb}: " + "\n  ".join(dict.fromkeys(causes)))


def _no_such_option(group: str, option: str, known: Sequence[str]) -> UsageError:
    if (group, option) == ("hydra/sweeper", "optuna"):
        return UsageError(
            "hydra/sweeper: optuna is a library of its own, which is not installed.\n"
            "  Install it: pip install 'seqnets[optuna]'"
        )
    return UsageError(
        f"{group}: there is no option {option!r}.\n  {near(option, known)}\n"
        f"  `seqnets list` says what they are; --config-dir FOLDER adds your own."
    )


def _no_such_key(
    verb: str, name: str, arguments: Sequence[str], key: str, to_set: bool
) -> UsageError:
    """The error for a key or group that is not there, and was to be set or taken away."""
    if name != verb and (configs() / key).is_dir():
        return UsageError(
            f"{key}: is what the checkpoint says, expected no other.\n"
            f"  Single keys can be changed: {key}.KEY=VALUE."
        )
    owners = _owners(key)
    if owners:
        whole, _, part = key.rpartition("/")
        return UsageError(
            f"{key}: this {whole} has no {part}, expected one that has: {', '.join(owners)}.\n"
            f"  The dataset picks a {whole}; {whole}=NAME takes another."
        )
    keys = list(_keys(verb, name, arguments))
    added = ""
    if to_set and key.rpartition(".")[0] in keys:
        added = f"  An option that is not listed is added by +{key}=VALUE.\n"
    return UsageError(
        f"{key}: is no key or group of `seqnets {verb}`.\n  {near(key, keys)}\n{added}"
        f"  `seqnets {verb} --cfg job` prints all keys, `seqnets {verb} --help` all groups."
    )


def _several(verb: str, argument: str, alone: bool) -> UsageError:
    """The error for several values without -m; alone: they can be no list and no text."""
    key, _, values = argument.partition("=")
    told = f"{key}: got several, {values}, expected one.\n"
    told += f"  A run with each: seqnets {verb} -m {shell(argument)}"
    group = (configs() / key).is_dir()
    if key in _LIST_GROUPS or not (group or alone):
        told += f"\n  A list of them: {shell(f'{key}=[{values}]')}"
    if not (group or alone):
        told += f"\n  A text with a comma: {shell(override(key, values))}"
    return UsageError(told)


def _keys(verb: str, name: str, arguments: Sequence[str]) -> Iterator[str]:
    """All keys and groups of the configuration, as far as it can be composed."""
    groups = groups_of(verb, [configs()])
    yield from groups
    chosen = [
        str(o.input_line)
        for o in _parsed(arguments)
        if o.key_or_group in groups and isinstance(o.value(), str)
    ]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(configs()), version_base="1.3"):
        try:
            composed = hydra.compose(name, overrides=chosen)
        except HydraException:
            composed = hydra.compose(name)
    yield from _flat(OmegaConf.to_container(composed, resolve=False))


def _flat(node: Any, prefix: str = "") -> Iterator[str]:
    for name, child in node.items() if isinstance(node, dict) else ():
        if name in ("_target_", "_partial_"):
            continue
        yield f"{prefix}{name}"
        yield from _flat(child, f"{prefix}{name}.")


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


@contextmanager
def _without_hydra() -> Iterator[None]:
    """Hide Hydra from Lightning, which would give the processes it starts Hydra's options."""
    instance = HydraConfig.instance()
    before, instance.cfg = instance.cfg, None
    try:
        yield
    finally:
        instance.cfg = before


@contextmanager
def _alone_again() -> Iterator[None]:
    """Leave the processes that ran a job together: a sweep's next job starts its own."""
    given = os.environ.keys() & set(_LAUNCH_VARIABLES)
    try:
        yield
    finally:
        import torch.distributed as dist  # late: help, completion and mistyped names need none

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
        for name in set(_LAUNCH_VARIABLES) - given:
            os.environ.pop(name, None)
