"""Arguments of the processes that compile kernels ahead of measurements can be pickled."""

import pickle
from pathlib import Path

import pytest
import yaml

from seqnets.cli.build import build

CELLS = Path(__file__).parents[2] / "configs" / "model" / "cell"


@pytest.mark.parametrize("name", ["lstm", "min_gru", "clockwork_rnn"])
def test_the_factory_of_a_cell_can_be_sent_to_another_process(name):
    config = yaml.safe_load((CELLS / f"{name}.yaml").read_text(encoding="utf-8"))
    config.pop("hidden_size", None)

    maker = pickle.loads(pickle.dumps(build({**config, "_partial_": True})))

    assert maker(3, 4).hidden_size == 4
