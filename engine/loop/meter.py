"""Per-block loss and accuracy, accumulated on the device and copied to the host once per log line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from consts import ACCURACY, LOSS, block_name, metric_name
from methods._base import StepOutput


@dataclass(frozen=True)
class Totals:
    """Sums over ``num_images`` images, on the host; names are those of `metric_name` without the split."""

    num_images: int = 0
    sums: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Totals) -> Totals:
        """Totals of both sets of images."""
        sums = {name: self.sums.get(name, 0.0) + value for name, value in other.sums.items()}
        return Totals(self.num_images + other.num_images, sums)

    def means(self, split: str) -> dict[str, float]:
        """Metrics by full name; accuracies in percent. Empty where nothing was counted."""
        if not self.num_images:
            return {}
        return {
            metric_name(split, name): total / self.num_images * (100 if name.endswith(ACCURACY) else 1)
            for name, total in self.sums.items()
        }

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"num_images": self.num_images, "sums": dict(self.sums)}


class Meter:
    """Running sums on the device. Only `read` waits for the device."""

    def __init__(self, totals: Totals | None = None) -> None:
        totals = totals or Totals()
        self._names = list(totals.sums)
        self._sums_M = torch.tensor(list(totals.sums.values()), dtype=torch.float64) if self._names else None
        self.num_images = totals.num_images

    def add(self, output: StepOutput, y_B: Tensor) -> None:
        """Count one batch of (B,) labels."""
        self._names, sums_M = batch_sums(output, y_B)
        if self._sums_M is None:
            self._sums_M = sums_M
        else:  # sums of a checkpoint are still on the host at the first step
            self._sums_M = self._sums_M.to(sums_M.device, non_blocking=True) + sums_M
        self.num_images += y_B.shape[0]

    def read(self) -> Totals:
        """The totals so far; one copy from the device."""
        values = [] if self._sums_M is None else self._sums_M.tolist()
        return Totals(self.num_images, dict(zip(self._names, values, strict=True)))


def batch_sums(output: StepOutput, y_B: Tensor) -> tuple[list[str], Tensor]:
    """Names and sums over one batch of (B,) labels, (M,) in float64 on the device."""
    values = dict(_sums(output, y_B))
    if not values:  # of a network whose first blocks have no exit
        return [], torch.zeros(0, dtype=torch.float64, device=y_B.device)
    return list(values), torch.stack(list(values.values()))


def _sums(output: StepOutput, y_B: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Name and sum over the batch of everything in ``output``; the last block's values also stand for the network."""
    count, means = len(output.losses), [*output.losses, *output.metrics.values()]
    sums = _stacked(means, lambda means_G: means_G * y_B.shape[0])
    hits = _stacked(output.logits, lambda logits_GBN: (logits_GBN.argmax(2) == y_B).sum(1))
    for index, pair in enumerate(zip(sums[:count], hits, strict=True)):
        for name, value in zip((LOSS, ACCURACY), pair, strict=True):
            if value is not None:
                yield f"{block_name(index)}/{name}", value
                if index == count - 1:
                    yield name, value
    yield from ((name, value) for name, value in zip(output.metrics, sums[count:], strict=True) if value is not None)


def _stacked(values: Sequence[Tensor | None], work: Callable[[Tensor], Tensor]) -> list[Tensor | None]:
    """What ``work`` makes of each value, in float64; it gets those of one shape and type at once.

    On a GPU every operation has its launch, so that their number must not grow with the number of blocks.
    """
    groups: dict[tuple[torch.Size, torch.dtype], dict[int, Tensor]] = {}
    for place, value in enumerate(values):
        if value is not None:
            groups.setdefault((value.shape, value.dtype), {})[place] = value
    found: dict[int, Tensor] = {}
    for group in groups.values():
        done = work(torch.stack(list(group.values()))).double()
        found |= zip(group, done.unbind(), strict=True)
    return [found.get(place) for place in range(len(values))]
