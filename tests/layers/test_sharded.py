"""Layers whose parameters are sharded by torch's ``fully_shard``."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

import seqnets
from seqnets import Recurrent, cells


@pytest.fixture
def mesh():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:DTensor random operators")
@pytest.mark.parametrize(
    "make",
    [
        lambda: Recurrent(cells.LSTMCell(3, 4)),
        lambda: Recurrent(cells.S5Cell(3, 4)),
        lambda: seqnets.MGU(3, 4),
        lambda: seqnets.LSTM(3, 4),
    ],
)
def test_sharded_parameters_are_drawn_as_whole_ones_are(make, mesh):
    with torch.device("meta"):
        layer = make()
    fully_shard(layer, mesh=mesh)
    layer.to_empty(device="cpu")
    whole = make()

    for module in (layer, whole):
        torch.manual_seed(5)
        for inside in module.modules():
            if hasattr(inside, "reset_parameters"):
                inside.reset_parameters()

    for sharded, plain in zip(layer.parameters(), whole.parameters(), strict=True):
        assert torch.equal(sharded.full_tensor(), plain)


class PartlyDrawn(cells.GRUCell):
    def reset_parameters(self):
        with torch.no_grad():
            self.weight_ih.mul_(0.5)


def test_what_a_reset_of_sharded_parameters_does_not_draw_stays(mesh):
    cell = PartlyDrawn(3, 4)
    for parameter in cell.parameters():
        torch.nn.init.ones_(parameter)
    layer = fully_shard(Recurrent(cell), mesh=mesh)

    cell.reset_parameters()

    values = {name: p.full_tensor().unique().tolist() for name, p in layer.named_parameters()}
    assert values.pop("cell.weight_ih") == [0.5]
    assert all(value == [1.0] for value in values.values())
