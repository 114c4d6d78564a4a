"""``seqnets list``: what there is to choose from, according to the configuration files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from seqnets.cli.lines import hanging
from seqnets.cli.names import UsageError, near
from seqnets.errors import ConfigError

KINDS = {
    "models": "model",
    "cells": "model/cell",
    "options": "model/option",
    "attentions": "model/attention",
    "heads": "model/head",
    "outputs": "model/output",
    "strategies": "model/strategy",
    "datasets": "dataset",
    "augmentations": "dataset/augment",
    "objectives": "objective",
    "optimizers": "optimizer",
    "schedulers": "scheduler",
    "rules": "learning",
    "trainers": "trainer",
    "callbacks": "callbacks",
    "loggers": "logger",
    "experiments": "experiment",
    "suites": "suite",
}
"""The names of config groups in `seqnets list`, and the groups."""


def configs() -> Path:
    """The folder of the configuration files: the package's, or a source tree's.

    Raises:
        ConfigError: There is none: the package is in a zip archive, or its files were left behind.
    """
    try:
        folder = Path(str(files("seqnets.configs") / "train.yaml")).parent
    except ModuleNotFoundError:
        folder = Path(__file__).parents[3] / "configs"
    if not folder.is_dir():
        raise ConfigError(
            f"seqnets: {folder} is not a folder, expected the configurations that come with it.\n"
            "  The command line does not run from a zip archive: install the wheel by pip."
        )
    return folder


def options(group: str, own: Sequence[Path] = ()) -> dict[str, str]:
    """The options of a config group, each with the first comment line of its file."""
    return {path.stem: _comment(path) for path in option_files(group, own)}


def option_files(group: str, own: Sequence[Path] = ()) -> list[Path]:
    """The files of a config group: the package's, then those in folders of the user's own."""
    folders = (configs(), *own)
    return [path for folder in folders for path in sorted((folder / group).glob("*.yaml"))]


def show(arguments: Sequence[str]) -> None:
    """Print all models, cells, datasets, ..., or those of some kinds.

    Raises:
        UsageError: A kind or the folder does not exist.
    """
    parser = argparse.ArgumentParser(
        prog="seqnets list",
        description="What there is to choose from.",
        epilog="hydra.searchpath=[pkg://PACKAGE.conf] lists those of an installed package too.",
    )
    parser.add_argument("kind", nargs="*", help=f"one of {', '.join(KINDS)}; all if omitted")
    parser.add_argument("--config-dir", "-cd", type=Path, help="a folder of your own configs")
    overrides = [argument for argument in arguments if argument.startswith("hydra.searchpath=")]
    asked = parser.parse_args([argument for argument in arguments if argument not in overrides])
    for kind in asked.kind:
        if kind not in KINDS:
            raise UsageError(f"list: there is no kind {kind!r}.\n  {near(kind, KINDS)}")
    if asked.config_dir and not asked.config_dir.is_dir():
        raise UsageError(f"--config-dir: is {str(asked.config_dir)!r}, expected a folder.")
    own = [*filter(None, [asked.config_dir]), *_searched(overrides)]
    blocks = []
    for kind in asked.kind or KINDS:
        lines = options(KINDS[kind], own)
        width = max(map(len, lines), default=0)
        rows = [f"  {name:{width}}  {lines[name]}".rstrip() for name in sorted(lines)]
        rows = [hanging(row, width + 4) for row in rows]
        blocks.append("\n".join([f"{kind} ({KINDS[kind]}=NAME)", *rows]))
    print("\n\n".join(blocks))


def _searched(overrides: Sequence[str]) -> list[Path]:
    """The folders that overrides of ``hydra.searchpath`` name."""
    if not overrides:
        return []
    from seqnets.cli.arguments import check_searched, config_folders  # late: it brings Hydra

    check_searched(overrides)
    return config_folders(overrides)


def _comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = (line[1:].strip() for line in lines if line.startswith("#"))
    return next((line for line in comments if not line.startswith("@package")), "")
