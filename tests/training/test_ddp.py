"""Two processes that train together, on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from seqnets.training import load_checkpoint

from . import two_processes
from .runs import fit, text_data

ROOT = Path(__file__).parents[2]


def launch(*arguments):
    done = subprocess.run(
        [sys.executable, two_processes.__file__, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_with_half_the_batch_each_learn_what_one_learns(tmp_path):
    data = text_data(tmp_path)  # before the processes, which share its cache
    data.setup()
    launch(tmp_path, "two", 12)
    _, alone = fit(two_processes.plain, data, tmp_path / "one", max_steps=12)

    together = load_checkpoint(tmp_path / "two" / "checkpoints" / "last.ckpt")

    drawn = [process["random"]["torch"] for process in together["seqnets"]["processes"]]
    assert len(drawn) == 2
    assert not torch.equal(*drawn), "dropout would drop the same units in both"
    for name, weight in alone.state_dict().items():
        torch.testing.assert_close(together["state_dict"][name], weight, rtol=1e-4, atol=1e-5)
    loss = float((tmp_path / "two" / "loss").read_text())
    assert loss == pytest.approx(float(alone.last_loss), rel=1e-5), "the loss is that of both"


@pytest.mark.slow
def test_two_processes_resume_with_the_states_of_both(tmp_path):
    text_data(tmp_path).setup()
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    launch(tmp_path, "whole", 12)
    launch(tmp_path, "parts", 7)
    launch(tmp_path, "parts", 12, last)

    whole = load_checkpoint(tmp_path / "whole" / "checkpoints" / "last.ckpt")
    parts = load_checkpoint(last)

    for name, weight in whole["state_dict"].items():
        assert torch.equal(parts["state_dict"][name], weight), name


@pytest.mark.slow
def test_scores_and_overviews_are_those_of_all_processes_however_many_rows_each_has(tmp_path):
    counts, figures = two_processes.scored(batch_size=4)
    multiprocessing.spawn(two_processes.score, (str(tmp_path),), nprocs=2)

    for rank in (0, 1):
        theirs, found = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(theirs, counts)
        assert found == pytest.approx(figures, rel=1e-6)
    assert int(counts.sum()) == 11
