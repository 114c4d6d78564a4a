"""Every configuration file composes, with arguments that its class takes."""

import inspect
from functools import cache
from importlib import import_module
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from seqnets.cells import initialize
from seqnets.datasets.readers import LogMel
from seqnets.models import Encoder
from tests.cells.final import FINAL_CELLS

CONFIGS = Path(__file__).parents[2] / "configs"
VERBS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
OPTIONS = sorted(
    str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob("*/**/*.yaml")
)
DATASETS = sorted(path.stem for path in (CONFIGS / "dataset").glob("*.yaml"))

FITTING = {
    "adding": ("SequenceRegressor", "Regression"),
    "classification": ("SequenceClassifier", "Classification"),
    "copy": ("SequenceTagger", "Tagging"),
    "etth1": ("Forecaster", "Forecasting"),
    "forecasting": ("Forecaster", "Forecasting"),
    "digit_strings": ("Transcriber", "Transcription"),
    "digits": ("SequenceClassifier", "Classification"),
    "mnist": ("SequenceClassifier", "Classification"),
    "moving_digits": ("VideoClassifier", "Classification"),
    "moving_digits_next": ("FramePredictor", "FramePrediction"),
    "music": ("SequenceTagger", "Polyphony"),
    "dyck": ("SequenceTagger", "Tagging"),
    "multi30k": ("SequenceToSequence", "Transduction"),
    "pairs": ("SequenceToSequence", "Transduction"),
    "names": ("SequenceClassifier", "Classification"),
    "parity": ("SequenceClassifier", "Classification"),
    "ptb": ("LanguageModel", "LanguageModelling"),
    "python_docs": ("LanguageModel", "LanguageModelling"),
    "recall": ("SequenceClassifier", "Classification"),
    "repeat": ("SequenceToSequence", "Transduction"),
    "regression": ("SequenceRegressor", "Regression"),
    "shakespeare": ("LanguageModel", "LanguageModelling"),
    "sort": ("SequenceToSequence", "Transduction"),
    "sst": ("SequenceClassifier", "Classification"),
    "tagging": ("SequenceTagger", "Tagging"),
    "text": ("LanguageModel", "LanguageModelling"),
    "transcription": ("Transcriber", "Transcription"),
    "ucr": ("SequenceClassifier", "Classification"),
    "wnut17": ("SequenceTagger", "Tagging"),
}

BUILT = ("dataset/", "experiment/", "model/", "objective/", "optimizer/")
"""Groups whose options are all built, and take a step, in test_steps.py."""


@cache
def compose(*overrides, verb="train"):
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra.compose(verb, overrides=list(overrides))


def targets(node, key=""):
    """Every node that names a class, with its place."""
    if isinstance(node, DictConfig) and "_target_" in node:
        yield key, node
    if not OmegaConf.is_config(node):
        return
    for name in node if isinstance(node, DictConfig) else range(len(node)):
        if not OmegaConf.is_missing(node, name):
            yield from targets(node[name], f"{key}.{name}".lstrip("."))


def class_of(node):
    module, _, name = node["_target_"].rpartition(".")
    return getattr(import_module(module), name)


def accepted(cls):
    """The arguments of a class and of what its ``**kwargs`` go to: a base, encoder or stack."""
    if not inspect.isclass(cls):
        return set(inspect.signature(cls).parameters)
    names = set()
    for base in (*inspect.getmro(cls), Encoder, Encoder.passes_options_to):
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"self"}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                return names
    return names


def class_name(node):
    return node["_target_"].rpartition(".")[2]


@pytest.mark.parametrize("file", [*VERBS, *OPTIONS])
def test_a_file_begins_with_a_comment_of_one_line(file):
    lines = (CONFIGS / f"{file}.yaml").read_text(encoding="utf-8").splitlines()
    comment, *rest = (line for line in lines if not line.startswith("# @package"))

    assert comment.startswith("# ")
    assert len(comment) <= 100
    assert not any(line.startswith("#") for line in rest[:1])


@pytest.mark.parametrize("file", [*VERBS, *OPTIONS])
def test_a_comment_beside_a_key_ends_by_column_100(file):
    lines = (CONFIGS / f"{file}.yaml").read_text(encoding="utf-8").splitlines()

    assert not [line for line in lines if "# " in line and len(line) > 100]


@pytest.mark.parametrize("verb", VERBS)
def test_a_comment_of_a_verbs_key_is_one_line_which_the_help_can_break(verb):
    _, *lines = (CONFIGS / f"{verb}.yaml").read_text(encoding="utf-8").splitlines()

    assert not [line for line in lines if line.lstrip().startswith("#")]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_composes(verb):
    assert compose(verb=verb)


@pytest.mark.parametrize("option", [o for o in OPTIONS if not o.startswith(BUILT)])
def test_an_option_names_existing_classes_and_their_arguments(option):
    group, _, name = option.rpartition("/")
    config = compose(f"{group}={name}", verb="benchmark" if group == "suite" else "train")

    for key, node in targets(config):
        keys = {str(name) for name in node} - {"_target_", "_partial_"}
        target = class_of(node)
        if target is initialize:  # by the names of parameters, which depend on the cell
            continue

        assert keys <= accepted(target), key


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_argument_of_a_dataset_can_be_overridden(dataset):
    node = compose(f"dataset={dataset}").dataset

    assert set(node) - {"_target_"} == accepted(class_of(node))


@pytest.mark.parametrize("dataset", ["classification", "regression", "transcription"])
def test_an_option_of_sound_can_be_overridden(dataset):
    node = compose(f"dataset={dataset}", "dataset.audio.bands=20").dataset

    assert hydra.utils.instantiate(node.audio) == LogMel(bands=20)


@pytest.mark.parametrize("option", sorted((CONFIGS / "model").glob("*.yaml")), ids=lambda o: o.stem)
def test_every_model_has_options_for_backend_and_memory(option):
    model = compose(f"model={option.stem}").model

    assert (model.backend, model.memory) == ("auto", "full")


@pytest.mark.parametrize("cell", FINAL_CELLS)
def test_a_cell_has_an_option(cell):
    files = (CONFIGS / "model" / "cell").glob("*.yaml")

    assert cell in {class_of(OmegaConf.load(path)) for path in files}


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.startswith(("model/", "optimizer/"))])
def test_classes_that_need_sizes_or_parameters_are_factories(option):
    assert OmegaConf.load(CONFIGS / f"{option}.yaml")["_partial_"] is True


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_dataset_selects_its_model_and_objective(dataset):
    config = compose(f"dataset={dataset}")

    assert (class_name(config.model), class_name(config.objective)) == FITTING[dataset]


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset=adding", "model=tagger", "model/cell=gru", "objective=tagging"],
        ["model=tagger", "model/cell=gru", "objective=tagging", "dataset=adding"],
        ["experiment=adding", "model=tagger", "model/cell=gru", "objective=tagging"],
        [
            "experiment=parity",
            "dataset=adding",
            "model=tagger",
            "model/cell=gru",
            "objective=tagging",
        ],
    ],
    ids=["dataset", "dataset last", "experiment", "experiment and dataset"],
)
def test_the_command_line_overrides_the_choices_of_a_dataset(overrides):
    config = compose(*overrides)

    chosen = [class_name(config.model), class_name(config.model.cell), class_name(config.objective)]
    assert chosen == ["SequenceTagger", "GRUCell", "Tagging"]


def test_a_dataset_on_the_command_line_overrides_an_experiments_with_its_model():
    config = compose("experiment=japanese_vowels", "dataset=adding")

    assert (class_name(config.model), class_name(config.objective)) == FITTING["adding"]


def test_an_experiments_cell_survives_the_model_of_its_dataset():
    config = compose("experiment=adding")

    assert class_name(config.model) == "SequenceRegressor"
    assert class_name(config.model.cell) == "GRUCell"


def test_a_cell_on_the_command_line_overrides_an_experiments():
    config = compose("experiment=japanese_vowels", "model/cell=rnn")

    assert class_name(config.model) == "SequenceClassifier"
    assert class_name(config.model.cell) == "RNNCell"


def test_language_modelling_counts_in_the_datasets_unit():
    config = compose("dataset=text", "dataset.path=x", "dataset.unit=words")

    assert config.objective.unit == "words"
