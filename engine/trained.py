"""A trained run, loaded from one of its checkpoints: for ``evaluate``, its studies and the teacher of a curriculum."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import Tensor
from torch.nn import functional

from datamodules.base import ImageSet, Splits
from datamodules.feed import Feed, evaluation_batch
from engine.run import checkpoint
from engine.run.folder import RunFolder
from engine.run.same_data import check_same_data, moved_from, words_for_move
from engine.start import assemble
from methods._base import Method
from schemas import Args
from utils import write_text


@dataclass(frozen=True)
class Trained:
    """A trained network with its data.

    Attributes:
        folder: the run folder, into which studies write.
        method: with the weights of the checkpoint, on ``device``.
        splits: the data of the run.
        precision: of the run, ``fp32`` or ``bf16``.
        device: of the method.
    """

    folder: RunFolder
    method: Method
    splits: Splits
    precision: str
    device: torch.device

    def feed(self, images: ImageSet) -> Feed:
        """Batches of images without augmentation, on the device."""
        return Feed(images, self.splits.spec, evaluation_batch(self.splits.spec), self.device)

    def write_table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write the CSV file ``name`` into the run folder, atomically.

        Raises:
            UserError: it cannot be written.
        """
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        with self.folder.writing(name):
            write_text(self.folder.path / name, buffer.getvalue())


def load_trained(path: Path, args: Args, weights: str, device: torch.device) -> Trained:
    """Load the run in the folder ``path``, with settings ``args``, from its checkpoint ``weights`` (best or last).

    Raises:
        UserError: the checkpoint cannot be read, or the data are missing or not those of the run.
    """
    folder = RunFolder(path)
    state = checkpoint.load(folder.checkpoints / f"{weights}.ckpt")
    method, splits = assemble(args, folder=path)
    check_same_data(folder, args.data, splits.facts)
    if (before := moved_from(folder, args.data)) is not None:
        logger.warning(words_for_move(folder, args.data, before))
    checkpoint.restore(method, state)
    method = method.to(device).to(memory_format=torch.channels_last)  # as in training
    return Trained(folder, method, splits, args.run.precision, device)


def losses(teacher: Trained, images: ImageSet) -> Tensor:
    """Cross-entropy of the teacher's network on every image, (P,) in float32 on the CPU.

    Images are not augmented and are normalised as for the teacher's training; the network is in evaluation mode and
    computes in float32.
    """
    feed = teacher.feed(images)
    teacher.method.eval()
    with torch.inference_mode():
        batches = (feed.batch(0, step) for step in range(feed.num_steps))
        parts = [
            functional.cross_entropy(teacher.method(batch.x_BCHW), batch.y_B, reduction="none") for batch in batches
        ]
    return torch.cat(parts).cpu()


def rank(teacher: Trained, images: ImageSet, curriculum: str) -> Tensor:
    """Indices of the images in curriculum order, (P,) int64: by rising loss, or by falling loss for ``hard_first``."""
    easy_first_P = losses(teacher, images).argsort(stable=True)
    logger.info(f"Curriculum: {curriculum}, {images.num_images} images ranked by {teacher.folder.path}")
    return easy_first_P.flip(0) if curriculum == "hard_first" else easy_first_P
