"""Every file under configs/ composes, and names what is there."""

import importlib
import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import seqnets.cli.main  # registers the resolvers that the configurations use

ROOT = Path(seqnets.cli.main.__file__).parents[3] / "configs"
FILES = sorted(path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.yaml"))
GROUPED = [path for path in FILES if path.parent != Path()]


def composed(*overrides, verb="train"):
    with initialize_config_dir(str(ROOT), version_base="1.3"):
        return compose(verb, overrides=[*overrides])


def targets(node):
    if OmegaConf.is_dict(node):
        if "_target_" in node:
            yield node
        for key in node:
            if not OmegaConf.is_missing(node, key):
                yield from targets(node[key])
    elif OmegaConf.is_list(node):
        for child in node:
            yield from targets(child)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_says_what_it_is_in_one_line(path):
    lines = (ROOT / path).with_suffix(".yaml").read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))

    assert first.startswith("# ")
    assert len(first) <= 100


@pytest.mark.parametrize("path", GROUPED, ids=str)
def test_every_choice_composes_and_its_keys_are_those_of_its_class(path):
    config = composed(f"{path.parent}={path.name}")

    for node in targets(config):
        module, _, name = node._target_.rpartition(".")
        accepts = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in accepts.values())
        keys = {str(key) for key in node if not str(key).startswith("_")}
        assert open_ended or keys <= accepts.keys(), node._target_


@pytest.mark.parametrize(
    ("overrides", "model", "cell", "objective"),
    [
        ([], "LanguageModel", "LSTMCell", "LanguageModelling"),
        (["dataset=adding"], "SequenceRegressor", "LSTMCell", "Regression"),
        (["dataset=copy", "model/cell=gru"], "SequenceTagger", "GRUCell", "Tagging"),
        (["dataset=ucr", "model=tagger"], "SequenceTagger", "LSTMCell", "Classification"),
        (["experiment=japanese_vowels"], "SequenceClassifier", "GRUCell", "Classification"),
        (
            ["experiment=japanese_vowels", "model/cell=rnn"],
            "SequenceClassifier",
            "RNNCell",
            "Classification",
        ),
        (["experiment=shakespeare", "dataset=csv"], "SequenceClassifier", "LSTMCell", "Class"),
    ],
    ids=str,
)
def test_the_dataset_picks_its_model_and_the_command_line_has_the_last_word(
    overrides, model, cell, objective
):
    config = composed(*overrides)

    assert config.model._target_.endswith(f".{model}")
    assert config.model.cell._target_.endswith(f".{cell}")
    assert f".{objective}" in config.objective._target_
