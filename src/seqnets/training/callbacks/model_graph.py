"""The model's layers in TensorBoard's GRAPHS tab."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.graph_pb2 import GraphDef

from seqnets.insight.model_graph import Layer, layers_of
from seqnets.training.callbacks.base import SequenceCallback
from seqnets.training.callbacks.display import first_rows, sample_batch
from seqnets.training.evaluating import evaluating
from seqnets.training.loggers import writer_of

_INPUT = "input"


class ModelGraph(SequenceCallback):
    """Draw in TensorBoard's GRAPHS tab which layers of the model feed which.

    A box is a layer with parameters, with its class, the number of its parameters and the shapes of
    its outputs for two sequences of the validation part; a double click opens a box of several. It
    is drawn when training starts, from a call of the model in evaluation mode: layers that are used
    in training only are missing.
    """

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Call the model and draw."""
        writer = writer_of(trainer)
        if writer is None:
            return
        model, precision = pl_module.model, trainer.precision_plugin
        batch = first_rows(sample_batch(trainer, pl_module), 2)
        with evaluating(model), precision.forward_context():
            batch = precision.convert_input(batch)
            layers = layers_of(model, lambda: pl_module.objective(model, batch))
        drawn = graph(layers, tuple(batch.x.shape))
        writer._get_file_writer().add_event(Event(graph_def=drawn.SerializeToString()))


def graph(layers: Mapping[str, Layer], shape: tuple[int, ...]) -> GraphDef:
    """The graph of a model's layers, as TensorBoard reads it.

    Args:
        layers: The layers by name.
        shape: That of the input, (B, T) or (B, T, I).
    """
    found = GraphDef()
    _add(found, _INPUT, Layer("Input", 0, [shape]))
    for name, layer in layers.items():
        _add(found, name, layer)
    return found


def _add(found: GraphDef, name: str, layer: Layer) -> None:
    sources = layer.sources or [_INPUT] * (name != _INPUT)
    node = found.node.add(name=_path(name), op=layer.kind, input=map(_path, sources))
    if layer.parameters:
        node.attr["parameters"].i = layer.parameters
    shapes = node.attr["_output_shapes"].list.shape
    for sizes in layer.shapes:
        shape = shapes.add()
        for size in sizes:
            shape.dim.add(size=size)


def _path(name: str) -> str:
    """A layer's name with slashes, by which TensorBoard puts boxes into boxes."""
    return name.replace(".", "/")
