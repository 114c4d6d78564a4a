from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from seqnets.training.loggers import finish


class Run:
    """A run of W&B, which notes how it was ended."""

    code = None

    def finish(self, exit_code):
        self.code = exit_code


@pytest.mark.parametrize("failed", [False, True])
def test_a_run_of_wandb_that_began_is_ended_with_its_outcome(failed, tmp_path):
    logger = object.__new__(WandbLogger)
    logger._experiment = run = Run()

    finish(SimpleNamespace(loggers=[CSVLogger(tmp_path), logger]), failed)

    assert run.code == failed


def test_a_run_of_wandb_that_did_not_begin_is_not_begun_to_be_ended():
    logger = object.__new__(WandbLogger)
    logger._experiment = None  # reading ``experiment`` would begin one

    finish(SimpleNamespace(loggers=[logger]), failed=True)
