"""Run a verb as a Hydra application, once or as a sweep."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from seqnets.cli import sweep, sweep_rows, sweep_table
from seqnets.cli.arguments import (
    config_flags,
    config_folders,
    key_of,
    parsed,
    quoted,
    searching,
    swept_values,
)
from seqnets.cli.checks import (
    check_added_keys,
    check_arguments,
    check_keys_of_files,
    check_package,
)
from seqnets.cli.console import terminal
from seqnets.cli.flags import MULTIRUN, arranged
from seqnets.cli.help import help_of
from seqnets.cli.hydra_errors import explained
from seqnets.cli.listing import configs
from seqnets.cli.names import UsageError
from seqnets.cli.repeated import output_of, without_settled
from seqnets.errors import ConfigError, DivergenceError, SeqnetsError
from seqnets.quoting import override, override_list

_FULL_ERROR = "HYDRA_FULL_ERROR"

_MODE = "hydra.mode"
"""The key of Hydra's that says whether to sweep."""

_SWEEP = "SEQNETS_SWEEP"
"""Environment variable that tells jobs, also in processes of a launcher, which sweep is theirs."""

_LAUNCH_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
"""Variables Lightning sets for the processes it starts; where set, it starts no others."""


def run(verb: str, arguments: Sequence[str]) -> int:
    """Compose a verb's configuration from the command line and run it, once or as a sweep.

    Returns:
        The exit code: 0, or that of the first failing job, which ends a sweep.

    Raises:
        UsageError: A key, group or option does not exist, or the syntax is wrong.
        SeqnetsError: From the verb itself.
    """
    if {"--help", "-h"} & set(arguments):
        print(help_of(verb, config_folders(arguments)), end="")
        return 0
    application = _Application(verb, arguments)
    command = sys.argv
    with _environment(sweep_rows.FOLDER_VARIABLE, None):
        try:
            end = application.run()
        finally:
            sys.argv = command
            if jobs := sweep_rows.take():
                sweep_table.show(terminal(), jobs)
    if isinstance(end, OmegaConfBaseException):  # from a value that the job resolved
        raise UsageError(f"{end.full_key}: {str(end).splitlines()[0]}") from end
    if isinstance(end, BaseException):
        raise end
    return end


class _Application:
    """A verb that Hydra runs: one job, or the jobs of a sweep.

    Attributes:
        verb: The verb.
        base: The configuration that is overridden: the verb's, or a checkpoint's.
        arguments: The command line, without the verb, its flags last and by their full names.
        sweeps: Whether the command line asks for a sweep, or a file by ``hydra.mode``.
        sweep: The name of the sweep, if it is one.
    """

    def __init__(self, verb: str, arguments: Sequence[str]) -> None:
        self.verb = verb
        self.base = verb
        self.arguments = [quoted(argument) for argument in arranged(verb, arguments)]
        self.sweeps = MULTIRUN in self.arguments
        self.sweep = os.environ.get(_SWEEP) or f"sweep_{secrets.token_hex(4)}"
        self._program = sys.argv[0]

    def run(self) -> int | BaseException:
        """Run all jobs; return 0, or the exit code or error of the job that ended them.

        Raises:
            UsageError: The configuration cannot be composed.
        """
        try:
            # otherwise Hydra would print errors and exit
            with _help_unread(), _environment(_FULL_ERROR, "1"), self._in_sweep():
                check_arguments(self.verb, self.arguments)
                self.base, self.arguments = _with_base(self.verb, self.arguments)
                check_package(self.verb, self.base, self.arguments)
                sys.argv = [f"{os.path.basename(self._program)} {self.verb}", *self.arguments]
                hydra.main(str(configs()), self.base, version_base="1.3")(self._run_job)()
        except (_JobEnded, _JobReturned) as over:
            return over.end
        except SeqnetsError:
            raise
        except (HydraException, OmegaConfBaseException) as error:
            raise explained(self.verb, self.base, self.arguments, error) from error
        except YAMLError as error:
            raise UsageError(f"--config-dir: a file is not YAML: {error}") from error
        except ValueError as error:
            if not self.sweeps:
                raise
            raise UsageError(f"hydra/sweeper: {error}") from error
        except RuntimeError as error:  # a launcher's, of a job whose process was killed
            if sweep_rows.FOLDER_VARIABLE not in os.environ:
                raise
            said = str(error).partition("\n")[0]
            raise SeqnetsError(f"hydra/launcher: a job has no result: {said}") from error
        except OSError as error:  # Hydra's own, since a job's has become a _JobEnded
            if not self.sweeps or error.filename is None:
                raise
            raise ConfigError(
                f"output: {error.filename} cannot be written: {error.strerror}.\n"
                "  A sweep begins in the folder of all runs. Choose another with output=FOLDER."
            ) from error
        return 0

    def _in_sweep(self) -> AbstractContextManager[None]:
        """Tell jobs, also in other processes, which sweep is theirs."""
        return _environment(_SWEEP, self.sweep) if self.sweeps else nullcontext()

    def _run_job(self, config: DictConfig) -> float | None:
        """Run and record one job; return its score, which an optimising sweeper goes by."""
        overrides, sweeper = _overrides_of_job(), HydraConfig.get().sweeper
        self.sweeps = HydraConfig.get().mode is RunMode.MULTIRUN
        # Processes that Lightning starts must run this job only, not the whole sweep.
        sys.argv = [
            self._program,
            self.verb,
            *config_flags(self.arguments),
            *overrides,
            *self._hydras(),
        ]
        swept = swept_values(overrides, self.arguments)
        keys = ",".join(key_of(key).replace("/", ".") for key in swept)
        number = str(HydraConfig.get().job.num) if self.sweeps else None
        self._record(sweep.Job(swept, None, sweep.UNFINISHED))
        try:
            with (
                _environment(sweep.SWEPT_VARIABLE, keys or None),
                _environment(sweep_rows.NUMBER_VARIABLE, number),
                self._in_sweep(),
            ):
                trained = self._run_verb(config)
        except BaseException as error:
            self._record(sweep.Job(swept, None, sweep.failure(error)))
            if isinstance(error, DivergenceError) and sweep.optimises(sweeper):
                print(f"DivergenceError: {error}", file=sys.stderr)
                return sweep.worst(sweeper)  # a search may go on after divergence
            raise _end_of_job(error) from error
        self._record(sweep.Job(swept, trained))
        if trained is None:
            return None
        if trained.code:
            raise _end_of_job(trained.code)
        return trained.score

    def _hydras(self) -> list[str]:
        """The overrides of Hydra's own keys with which another process runs this job, and no sweep.

        It has the environment of this one.
        """
        of_sweep = (f"{_MODE}=", "+hydra.job.env_set.")
        given = [o for o in HydraConfig.get().overrides.hydra if not o.startswith(of_sweep)]
        may_sweep = self.sweeps or any(key_of(argument) == _MODE for argument in self.arguments)
        return [*given, f"{_MODE}=RUN"] if may_sweep else given

    def _record(self, job: sweep.Job) -> None:
        """Have the sweep's table, if this is a job of a sweep, tell what is known of the job."""
        if self.sweeps:
            sweep_rows.write(HydraConfig.get().job.num, job)

    def _run_verb(self, config: DictConfig) -> sweep.Trained | None:
        """Run the verb on a composed configuration; return a training's result, None of others."""
        composed = HydraConfig.get()
        _check_folder()
        also = [*_allowing(config), *searching(self.arguments)]
        if self.base == self.verb:  # a checkpoint may hold keys that others were interpolated from
            check_keys_of_files(self.verb, self.arguments, config)
        check_added_keys(self.verb, self.arguments, config)
        with _environment(_FULL_ERROR, None), _without_hydra(), _alone_again():
            sweep.check_direction(self.verb, config, composed.sweeper)
            from seqnets.cli.options import plain  # late: it brings torch

            verb = _module(self.verb)
            trained = verb.run(
                plain(config),
                choices=composed.runtime.choices,
                folders=config_folders(self.arguments),
                also=also,
            )
            sweep.check_score(trained, composed.sweeper)
        return trained


def _check_folder() -> None:
    """Raise UsageError if Hydra has changed the working folder, from which paths were given."""
    given, called = HydraConfig.get().job.chdir, HydraConfig.get().runtime.cwd
    if given and not os.path.samefile(called, "."):
        raise UsageError(
            f"hydra.job.chdir: has the job run in {os.getcwd()}, expected {called}, where the "
            "command was called.\n"
            "  Relative paths would lead elsewhere; output=FOLDER says where runs are kept."
        )


def _overrides_of_job() -> list[str]:
    """The overrides of the job that runs, as typed if the job will find that it lacks a value."""
    given = HydraConfig.get().overrides.task
    try:
        return list(given)
    except OmegaConfBaseException:
        as_typed: Any = OmegaConf.to_container(given, resolve=False)
        return list(as_typed)


def _allowing(config: DictConfig) -> list[str]:
    """The option that allows the user's own modules again, which a file may have allowed here."""
    allowed = config.get("allow")
    is_some = isinstance(allowed, ListConfig) and allowed
    return [override_list("allow", allowed)] if is_some else []


class _JobEnded(BaseException):
    """Raised when a job failed or was stopped, so that Hydra starts no further job of the sweep.

    Attributes:
        end: The job's error or exit code.
    """

    def __init__(self, end: int | BaseException) -> None:
        super().__init__(end)  # its arguments are what a launcher's process sends
        self.end = end


class _JobReturned(Exception):  # noqa: N818 (an end, as above)
    """Returned by a job's process to its launcher; raised in the sweep's once all jobs have ended.

    Attributes:
        end: The job's error or exit code.
    """

    def __init__(self, end: int | BaseException) -> None:
        super().__init__(end)
        self.end = end


def _end_of_job(end: int | BaseException) -> BaseException:
    """What a job that failed or was stopped raises: submitit's processes send an Exception only."""
    launcher = HydraConfig.get().launcher._target_
    return _JobReturned(end) if "submitit" in launcher.lower() else _JobEnded(end)


def _with_base(verb: str, arguments: list[str]) -> tuple[str, list[str]]:
    """The configuration to override, the verb's or a checkpoint's, and the overrides of it."""
    if not any(argument.startswith(("resume=", "checkpoint=")) for argument in arguments):
        return verb, arguments
    if verb == "train" and MULTIRUN in arguments:
        raise UsageError("resume: continues one run, but -m asks for several.")
    given = {o.key_or_group: o.value() for o in parsed(arguments) if not o.is_sweep_override()}
    own: Any = OmegaConf.to_container(OmegaConf.load(configs() / f"{verb}.yaml"))
    if given.get("resume") in ("last", "auto"):
        given |= output_of(verb, arguments)
    read = getattr(_module(verb), "from_checkpoint", None)
    found = None if read is None else read(given, own)
    if found is None:
        return verb, arguments
    config, settled = found
    if verb == "train":
        arguments = without_settled(verb, arguments, config)
    base = f"{verb}_from_checkpoint"
    logging = [entry for entry in own["defaults"] if any("hydra/" in key for key in entry)]
    stored = {"defaults": ["_self_", *logging], **config, "hydra": own["hydra"]}
    ConfigStore.instance().store(base, stored)
    keys = [argument.partition("=")[0] for argument in arguments]
    return base, [
        override(key, settled[key]) if key in settled else argument
        for key, argument in zip(keys, arguments, strict=True)
    ]


def _module(verb: str) -> Any:
    return import_module(f"seqnets.cli.{verb}")


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable, or unset it for None, and restore it afterwards."""
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
def _help_unread() -> Iterator[None]:
    """Let Hydra 1.3 declare its options: from Python 3.14 on, argparse reads the help of each.

    One of Hydra's becomes text only when it is printed, and seqnets prints its own help.
    """
    parser: Any = argparse.ArgumentParser
    check = getattr(parser, "_check_help", None)
    if check is None:
        yield
        return
    parser._check_help = lambda self, action: None
    try:
        yield
    finally:
        parser._check_help = check


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
    """Leave the group of processes that ran a job: a sweep's next job starts its own."""
    given = os.environ.keys() & set(_LAUNCH_VARIABLES)
    try:
        yield
    finally:
        import torch.distributed as dist  # late: help, completion and mistyped names need none

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
        for name in set(_LAUNCH_VARIABLES) - given:
            os.environ.pop(name, None)
