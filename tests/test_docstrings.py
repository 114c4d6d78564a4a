"""What the docstrings of public names say of arguments, errors and results is so."""

import builtins
import doctest
import importlib
import inspect
import re
from functools import partial
from typing import get_origin

import pytest
import torch

import seqnets
from seqnets import conversion, errors
from tests.test_public_api import PUBLIC

THINGS = {
    f"{module}.{name}": thing
    for module in (*PUBLIC, "seqnets.datasets")
    for name in importlib.import_module(module).__all__
    if (
        inspect.isclass(thing := getattr(importlib.import_module(module), name))
        and get_origin(thing) is None
    )  # dict[str, Any] is a class to Python 3.10
    or inspect.isfunction(thing)
}
NAMES = {id(thing): name for name, thing in THINGS.items()}.values()  # each once, by its part
EXAMPLES = [name for name in NAMES if ">>>" in (THINGS[name].__doc__ or "")]
ELSEWHERE = re.compile(r"[Tt]he (?:other )?arguments\s(?:of|are\sthose\sof)|As for :class:|drop-in")


def section(text, title):
    """A section of a docstring."""
    found = re.search(rf"^{title}:\n((?: +.*\n|\n)*)", f"{text}\n", re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize("name", NAMES)
def test_the_arguments_that_a_docstring_names_are_those_of_the_signature(name):
    text = inspect.getdoc(THINGS[name]) or ""
    lines = re.findall(r"^    ([*\w]+(?:, [*\w]+)*):", section(text, "Args"), re.MULTILINE)
    told = {each.strip("*") for line in lines for each in line.split(", ")}
    takes = inspect.signature(THINGS[name]).parameters if told else {}

    open_ended = any(each.kind is each.VAR_KEYWORD for each in takes.values())
    assert open_ended or not told - {*takes}
    assert ELSEWHERE.search(text) or not {*takes} - told


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_says_what_the_arguments_are_or_where_that_is_said(name):
    thing = THINGS[name]
    text = inspect.getdoc(thing) or ""
    if inspect.isclass(thing) and issubclass(thing, (seqnets.Cell, Exception)):
        return  # a cell without options of its own takes those of GatedCell

    named = {*inspect.signature(thing).parameters} - {"args", "kwargs"}
    assert len(named) < 2 or re.search(
        rf"^(Args|Attributes):|{ELSEWHERE.pattern}", text, re.MULTILINE
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_errors_that_a_docstring_names_exist(name):
    text = section(inspect.getdoc(THINGS[name]) or "", "Raises")
    lines = re.findall(r"^    ([A-Z]\w+(?:, [A-Z]\w+)*):", text, re.MULTILINE)

    for error in (each for line in lines for each in line.split(", ")):
        assert any(hasattr(where, error) for where in (errors, conversion, builtins)), error


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_docstring_gives_what_it_says(name, capsys):
    part, thing = importlib.import_module(name.rpartition(".")[0]), THINGS[name]
    known = {each: getattr(seqnets, each) for each in seqnets.__all__}
    known |= {each: getattr(part, each) for each in part.__all__}
    known |= {"seqnets": seqnets, "torch": torch, "partial": partial}
    known |= {"x": torch.randn(1, 5, 8), "MyCell": seqnets.cells.MGUCell}
    things = (thing, *(each for each in vars(thing).values() if inspect.isroutine(each)))
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

    for text in filter(None, map(inspect.getdoc, things)):
        for example in doctest.DocTestParser().get_examples(text):
            exec(compile(example.source, name, "single" if example.want else "exec"), known)
            said = capsys.readouterr().out
            told = re.sub("^triton: .*\n", "", example.want, flags=re.MULTILINE)  # has its own mode
            assert doctest.OutputChecker().check_output(told, said, options), said
