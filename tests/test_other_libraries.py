"""The page on other libraries: what it translates their names to can be made, and is the same."""

import ast
import re
from pathlib import Path

import pytest
import torch

import seqnets
from seqnets import cells, layers

PAGE = (Path(__file__).parent.parent / "docs" / "other-libraries.md").read_text(encoding="utf-8")
MASKS, CONSTRAINTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ROOTS = {"cells", "seqnets", "torch", *layers.__all__}

SAME = """
    ATR CFN DSGU FastGRNN FastRNN IndRNN IntersectionRNN JANET LEM LightRU MGU MUT1 MUT2 MUT3
    MinimalRNN MultiplicativeLSTM NAS PeepholeLSTM RAN SCRN SGU STAR TGRU TLSTM TRNN UGRNN UnICORNN
    WMCLSTM
"""  # layers of torchrecurrent


def called(code):
    """Whether a piece of code is a call of something that has a name here."""
    try:
        call = ast.parse(code, mode="eval").body
    except SyntaxError:
        return False
    root = call.func if isinstance(call, ast.Call) else None
    while isinstance(root, ast.Attribute):
        root = root.value
    return isinstance(root, ast.Name) and root.id in ROOTS


CALLS = [
    code
    for row in re.findall(r"^\| .*\|$", PAGE, re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", row.rsplit(" | ", 1)[1])
    if called(code)
]


@pytest.mark.parametrize("code", CALLS)
def test_what_a_name_elsewhere_is_translated_to_can_be_made(code):
    known = {"cells": cells, "seqnets": seqnets, "torch": torch, "cell": cells.LSTMCell(8, 64)}
    known |= {name: getattr(layers, name) for name in layers.__all__}

    assert isinstance(eval(code, known), torch.nn.Module)


def test_every_table_translates_to_calls():
    assert len(CALLS) > 45


@pytest.mark.parametrize(
    "name",
    SAME.split(),
)
def test_layers_of_torchrecurrent_have_their_names_here(name):
    y, _ = getattr(seqnets, name)(8, 8, num_layers=2)(torch.randn(5, 3, 8))

    assert y.shape == (5, 3, 8)


def test_what_computes_a_weight_is_computed_in_the_loops():
    page = {"torch": torch, "cells": cells}

    exec(CONSTRAINTS, page)

    assert (page["cell"].weight_ih >= 0).all()
    assert seqnets.explain(page["cell"], torch.randn(2, 5, 8)).chosen == "c"
