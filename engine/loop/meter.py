"""Per-block loss and accuracy, accumulated on the device and copied to the host once per log line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    none_M = torch.zeros(0, dtype=torch.float64, device=y_B.device)  # of a network whose first blocks have no exit
    return list(values), torch.stack([value.double() for value in values.values()]) if values else none_M


def _sums(output: StepOutput, y_B: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Name and sum over the batch of everything in ``output``; the last block's values also stand for the network."""
    last = len(output.logits) - 1
    for index, (loss, logits_BN) in enumerate(zip(output.losses, output.logits, strict=True)):
        prefixes = [f"{block_name(index)}/", *([""] if index == last else [])]
        if loss is not None:
            yield from ((f"{prefix}{LOSS}", loss * y_B.shape[0]) for prefix in prefixes)
        if logits_BN is not None:
            correct = (logits_BN.argmax(1) == y_B).sum()
            yield from ((f"{prefix}{ACCURACY}", correct) for prefix in prefixes)
    yield from ((name, value * y_B.shape[0]) for name, value in output.metrics.items())
