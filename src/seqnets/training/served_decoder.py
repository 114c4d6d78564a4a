"""The decoder of a trained model as another program runs it: one step a call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqnets.checks import name_of
from seqnets.errors import ConfigError
from seqnets.layers.state import leaves
from seqnets.models import SequenceToSequence
from seqnets.models.decoder import Memory
from seqnets.training.objectives import Objective
from seqnets.training.objectives.base import BEFORE
from seqnets.training.served import Served, nested
from seqnets.typing import END, Batch, Known


class ServedDecoder(Served):
    """One step of what writes, from what the whole :class:`Served` model reads of a source.

    Its call takes ``tokens``, the one before the step of each row, (B,), the ``lengths`` of the
    sources if it looks back at them, and all that reading gave, by the same names. It returns
    ``logits`` of the next token, (B, V), the state after the step, which goes into the next one,
    and with attention the ``attention`` that each of the source's steps got, (B, T).

    Args:
        model: A :class:`~seqnets.models.SequenceToSequence`.
        objective: Its :class:`~seqnets.training.Transduction`.
        known: The description of the dataset that it was trained on.

    Attributes:
        reads: The names of what reading a source gives.
        looks: Whether the steps look back at it.

    Raises:
        ConfigError: The model is another.
    """

    def __init__(self, model: nn.Module, objective: Objective, known: Known) -> None:
        if not isinstance(model, SequenceToSequence):
            raise ConfigError(
                f"export: the model is {name_of(model)}, expected SequenceToSequence or a class of "
                f"yours that is one.\n  How other models read and write is not known."
            )
        super().__init__(model, objective, known)
        self.reads = list(super().forward(*super().example(1, 2)))
        self.looks = "memory" in self.reads

    def forward(self, *given: Tensor) -> dict[str, Tensor]:
        """The logits, the state after the step, and the attention."""
        parts = dict(zip(self.inputs, given, strict=True))
        model: Any = self.model
        memory: Any = None
        if self.looks:
            values = parts["memory"]
            memory = Memory(values, parts["lengths"], parts.get("keys", values))
        state = [parts[BEFORE + name] for name in self.states]
        fed = None if model.decoder.feed == "nothing" else state.pop()
        logits, weights, after = model.write(
            parts["tokens"], memory, (nested(state, model.decoder), fed)
        )
        found = {"logits": logits, **dict(zip(self.states, leaves(after), strict=True))}
        return found if weights is None else {**found, "attention": weights}

    @property
    def inputs(self) -> list[str]:
        """The names of the inputs, in the order of a call."""
        return ["tokens", *(["lengths"] if self.looks else []), *self.reads]

    @property
    def sequences(self) -> list[str]:
        """The names of the inputs that have the source's steps, T."""
        return [name for name in self.reads if not name.startswith(BEFORE)]

    def example(self, rows: int, steps: int, seed: int = 0) -> list[Tensor]:
        """Random inputs of a step that is not the first, after random sources.

        Args:
            rows: B.
            steps: T, of the longest source.
            seed: Of the random numbers.
        """
        random = torch.Generator().manual_seed(seed)
        V = self.known["sizes"]["target_vocab_size"]
        first, second = torch.randint(V, (2, rows), generator=random)
        given = dict(zip(self.inputs, self._begin(super().example(rows, steps, seed)), strict=True))
        with torch.no_grad():
            after = self(*{**given, "tokens": first}.values())
        reached = {f"{BEFORE}{name}": after[name] for name in self.states}
        return [*{**given, **reached, "tokens": second}.values()]

    def of_batch(self, batch: Batch) -> list[Tensor]:
        """The inputs of the first step after the sources of a batch; of its first rows only."""
        return self._begin(super().of_batch(batch))

    def describe(self) -> dict[str, Any]:
        """What a user of the model needs, as plain values."""
        objective: Any = self.objective
        per_step, more = objective.longest
        writing = {
            "begin": END,
            "end": END,
            "longest": {"per_step": per_step, "more": more},
            "beam_size": objective.beam_size,
            "length_penalty": objective.length_penalty,
        }
        return {**super().describe(), "writing": writing}

    def _begin(self, source: list[Tensor]) -> list[Tensor]:
        """The inputs of the first step after sources."""
        with torch.no_grad():
            read = super().forward(*source)
        x, lengths = source
        tokens = torch.full((len(x),), END)
        return [tokens, *([lengths] if self.looks else []), *read.values()]
