"""Training batches on their way through a dataset's augmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.alignment import frames_needed
from seqnets.cells.checks import timed_cells
from seqnets.checks import is_whole, name_of
from seqnets.datasets.augmentation.base import Augmentation, TimeAugmentation, ValueAugmentation
from seqnets.datasets.readers.cells import few
from seqnets.errors import ConfigError, DtypeError, ShapeError, counted
from seqnets.typing import IGNORE, Batch

Augmentations = Sequence[Augmentation] | Mapping[str, Augmentation]
"""What a dataset is given to change its training batches; it runs in this order."""


def listed(who: str, augment: Any) -> tuple[Augmentation, ...]:
    """The augmentations that a dataset is given.

    Raises:
        ConfigError: It is given anything else.
    """
    if not isinstance(augment, (Mapping, list, tuple)):
        raise ConfigError(
            f"{who}: augment is {_named(augment)}, expected augmentations, by names or in a list.\n"
            "  A file of your own, dataset/augment/NAME.yaml, begins with the line "
            "`# @package dataset.augment.NAME`."
        )
    found = tuple(augment.values() if isinstance(augment, Mapping) else augment)
    for one in found:
        if not isinstance(one, Augmentation):
            raise ConfigError(f"{who}: augment has {_named(one)}, expected augmentations.")
    return found


class Augmenter:
    """Takes batches through augmentations.

    Args:
        who: The dataset, for messages.
        augmentations: The augmentations, in order.
        x: Steps of the training part, by which features are told from tokens.
        names: Names of the features, if they have any.
        stepwise: Whether each step has a target.
        transcribed: Whether targets are transcripts.
        timed: Whether the last feature is the time of steps, which changes of values leave alone.
        next_steps: Whether the target of a step is the step after it.
        longest: Steps of the longest sequence, if that is known.

    Raises:
        ConfigError: The input is no features, a feature does not exist, or an augmentation does not
            suit the targets.
    """

    def __init__(
        self,
        who: str,
        augmentations: Sequence[Augmentation],
        x: Tensor,
        names: Sequence[str] = (),
        *,
        stepwise: bool = False,
        transcribed: bool = False,
        timed: bool = False,
        next_steps: bool = False,
        longest: int | None = None,
    ) -> None:
        self.who, self.longest = who, longest
        self.stepwise, self.transcribed = stepwise, transcribed
        if x.dim() != 2 or not x.is_floating_point():
            tokens = not x.is_floating_point()
            what = "tokens, whose numbers have no size" if tokens else "frames of pictures"
            advice = "\n  model.dropout drops features of their embedding." if tokens else ""
            raise ConfigError(
                f"{who}: augment has {name_of(augmentations[0])}, expected none: it changes "
                f"features, and the input is {what}.{advice}"
            )
        self.size = x.shape[1]
        self.moves = any(isinstance(one, TimeAugmentation) for one in augmentations)
        self._all: list[tuple[Augmentation, list[int] | None]] = []
        for augmentation in augmentations:
            columns = None
            if isinstance(augmentation, TimeAugmentation):
                self._check_suits(augmentation, timed, next_steps)
            elif augmentation.only:
                columns = _columns(name_of(augmentation), augmentation.only, names, x.shape[1])
            elif timed:
                columns = [*range(x.shape[1] - 1)]
            self._all.append((augmentation, columns))

    def _check_suits(self, augmentation: TimeAugmentation, timed: bool, next_steps: bool) -> None:
        """Raise ConfigError if other steps would not have the targets, or the times, of these."""
        has = f"{self.who}: augment has {name_of(augmentation)}, expected none"
        if self.transcribed and not augmentation.keeps_all:
            raise ConfigError(
                f"{has} with transcripts: nobody knows which of their labels would be left."
            )
        if timed and not augmentation.keeps_pace:
            raise ConfigError(f"{has} that changes how far steps are apart: the dataset has times.")
        if next_steps and not augmentation.keeps_pace:
            raise ConfigError(
                f"{has} where the next step is predicted: at another pace it is another, and steps "
                "between two show it in advance."
            )

    def __call__(self, batch: Batch, random: torch.Generator) -> Batch:
        """A changed batch; the memory of ``batch.x`` may be used for it.

        Args:
            batch: A batch of sequences of features.
            random: Where all random numbers come from.

        Raises:
            DtypeError: An augmentation returns no values of their dtype.
            ShapeError: It returns others than it was given values or steps for.
        """
        x, y, lengths = batch.x, batch.y, batch.lengths
        if lengths is None:
            lengths = torch.full(x.shape[:1], x.shape[1])
        for augmentation, columns in self._all:
            if isinstance(augmentation, TimeAugmentation):
                places, lengths = _steps(augmentation, lengths, self.needed(y), random)
                x = _interpolated(x, places)
                y = _nearest(y, places) if self.stepwise else y
            elif columns is None:
                x = _values(augmentation, x, lengths, random)
            else:
                x[..., columns] = _values(augmentation, x[..., columns], lengths, random)
        outside = torch.arange(x.shape[1]) >= lengths[:, None]
        x[outside] = 0
        if self.stepwise:
            y[outside] = IGNORE
        return batch._replace(x=x, y=y, lengths=lengths if self.moves else batch.lengths)

    def needed(self, y: Tensor) -> Tensor:
        """The fewest steps that targets need, (N,)."""
        if not self.transcribed:
            return torch.ones(len(y), dtype=torch.int64)
        return frames_needed(y).clamp(min=1)

    def fewest(self, lengths: Tensor, y: Tensor) -> Tensor:
        """The fewest steps that may be left of sequences, (N,)."""
        for augmentation, _ in self._all:
            if isinstance(augmentation, TimeAugmentation):
                lengths = augmentation.fewest(lengths, self.needed(y))
        return lengths

    def check(self, model: nn.Module) -> None:
        """Check before training what nothing else depends on.

        Raises:
            ConfigError: An augmentation changes nothing, or what a cell of the model takes for
                times.
        """
        for augmentation, columns in self._all:
            count = self.size if columns is None else len(columns)
            if self.longest is not None and not augmentation.can_change(count, self.longest):
                raise ConfigError(
                    f"{self.who}: augment has {name_of(augmentation)}, which changes nothing in "
                    f"sequences of {counted(count, 'feature')} and at most "
                    f"{counted(self.longest, 'step')}, expected one that does.\n"
                    "  Its options come to less than one of these: raise them, or leave it out."
                )
        timed = timed_cells(model)
        if not timed:
            return
        for augmentation, columns in self._all:
            who, its = name_of(augmentation), f"{name_of(timed[0].innermost)} has timed=True"
            if isinstance(augmentation, TimeAugmentation):
                if not augmentation.keeps_pace:
                    raise ConfigError(
                        f"{who}: {its}, expected False: the times of steps would not be those that "
                        "they are taken at."
                    )
            elif columns is None or self.size - 1 in columns:
                raise ConfigError(
                    f"{who}: {its}, so that the last feature is the time, expected to leave it.\n"
                    "  The option only names the features to change."
                )


def _columns(who: str, only: Sequence[str | int], names: Sequence[str], count: int) -> list[int]:
    """The places of features that are named or numbered."""
    columns, places = [], {name: place for place, name in enumerate(names)}
    for one in only:
        place = places.get(one) if isinstance(one, str) else one
        if not (is_whole(place) and 0 <= place < count):
            there = f"one of {few(names)} or a number" if names else "a number"
            raise ConfigError(f"{who}: only has {one!r}, expected {there} from 0 to {count - 1}.")
        columns.append(place)
    if len(set(columns)) < len(columns):
        raise ConfigError(f"{who}: only is {list(only)}, expected each feature once.")
    return columns


def _values(
    augmentation: ValueAugmentation, x: Tensor, lengths: Tensor, random: torch.Generator
) -> Tensor:
    """What an augmentation makes of values, if it can take their place."""
    shape, dtype = x.shape, x.dtype
    made: Any = augmentation(x, lengths, random)
    got = made.dtype if isinstance(made, Tensor) else type(made).__name__
    if got != dtype:
        raise DtypeError(f"{name_of(augmentation)}: returned {got}, expected {dtype} as it got.")
    if made.shape != shape:
        raise ShapeError(
            f"{name_of(augmentation)}: returned shape {tuple(made.shape)}, expected that of what "
            f"it got, (B, T, I) = {tuple(shape)}."
        )
    return made


def _steps(
    augmentation: TimeAugmentation, lengths: Tensor, needed: Tensor, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The steps that an augmentation takes, and how many, if each row has them."""
    places, after = augmentation(lengths, needed, random)
    B, least, most = len(lengths), int(after.min()), int(after.max())
    if not len(places) == len(after) == B or not 1 <= least <= most <= places.shape[1]:
        raise ShapeError(
            f"{name_of(augmentation)}: returned steps {tuple(places.shape)} with {len(after)} "
            f"lengths of {least} to {most}, expected (B, T') with B = {B}, and B lengths from 1 to "
            "T'."
        )
    wrong = ((places < 0) | (places > lengths[:, None] - 1)).nonzero()
    if len(wrong):
        row, step = wrong[0].tolist()
        raise ShapeError(
            f"{name_of(augmentation)}: returned step {places[row, step].item()} of a row of "
            f"{counted(int(lengths[row]), 'step')}, expected steps from 0 to "
            f"{int(lengths[row]) - 1}, past the row's new length too."
        )
    return places, after


def _nearest(values: Tensor, places: Tensor) -> Tensor:
    """What stands at the steps nearest to places, (B, T'), of values (B, T, ...)."""
    rows = torch.arange(len(values))[:, None]
    return values[rows, (places + 0.5).long() if places.is_floating_point() else places]


def _interpolated(x: Tensor, places: Tensor) -> Tensor:
    """Features at places, (B, T'), of sequences (B, T, I); missing where the nearest step's are."""
    if not places.is_floating_point():
        return _nearest(x, places)
    rows, before = torch.arange(len(x))[:, None], places.long()
    after = (before + 1).clamp(max=x.shape[1] - 1)
    share = (places - before)[..., None].to(x.dtype)
    between = torch.lerp(x[rows, before], x[rows, after], share)
    missing = between.isnan()
    return torch.where(missing, _nearest(x, places), between) if missing.any() else between


def _named(given: Any) -> str:
    """What something is, for a message."""
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return repr(given) if isinstance(given, (str, int, float)) else name_of(given)
