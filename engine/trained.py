"""A run at the weights of one of its checkpoints, as ``evaluate`` and its studies look at it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from datamodules.base import ImageSet, Splits
from datamodules.feed import EVALUATION_BATCH, Feed
from engine.run.folder import RunFolder
from methods._base import Method
from utils import write_text


@dataclass(frozen=True)
class Trained:
    """What is needed to measure something of a run that has ended.

    Attributes:
        folder: where it stands, and where studies write.
        method: with the weights of the checkpoint, on ``device``.
        splits: its data.
        precision: ``fp32`` or ``bf16``, what the run computed in.
        device: where to measure.
    """

    folder: RunFolder
    method: Method
    splits: Splits
    precision: str
    device: torch.device

    def feed(self, images: ImageSet) -> Feed:
        """Images as they are, on the device."""
        return Feed(images, self.splits.spec, EVALUATION_BATCH, self.device)

    def write_table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write the CSV file ``name`` into the folder, whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        with self.folder.writing(name):
            write_text(self.folder.path / name, buffer.getvalue())
