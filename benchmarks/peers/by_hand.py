"""Local losses in plain PyTorch: as the thesis trains, as a careful loop, and tuned as for speed records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.engine import MEAN, STD, random_images
from benchmarks.peers import Setting
from benchmarks.peers.shared import SGD, check_batches, network, turn

PADDING = 4


class Plain:
    """In fp32: backward as soon as a block's loss is known, one optimiser, and numbers read once a turn."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.batches: Callable[[], Iterator[Any]] = turn(setting).__iter__
        self.blocks, self.heads = network(setting.model)
        self.parameters = [p for part in (*self.blocks, *self.heads) for p in part.parameters()]
        self.optimizer = torch.optim.SGD(self.parameters, **SGD)
        self.loss, self.correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One batch; the loss of the last block."""
        for block, head in zip(self.blocks, self.heads, strict=True):
            x = block(x.detach())
            logits = head(x)
            loss = F.cross_entropy(logits, y)
            loss.backward()
            self.loss += loss.detach()
            self.correct += (logits.argmax(1) == y).sum()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def losses(self) -> list[float]:
        """See `Peer`."""
        return [self.step(x, y).item() for x, y in check_batches(self.setting)]

    def train(self) -> float:
        """See `Peer`."""
        begin = time.perf_counter()
        for x, y in self.batches():
            self.step(x, y)
        self.loss.item(), self.correct.item()
        return time.perf_counter() - begin


class Thesis(Plain):
    """As the thesis trains (AlonNT/Thesis): an optimiser for every block, and numbers read after every block."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        pairs = zip(self.blocks, self.heads, strict=True)
        self.optimizers = [torch.optim.SGD([*block.parameters(), *head.parameters()], **SGD) for block, head in pairs]

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One batch; the loss of the last block."""
        for block, head, optimizer in zip(self.blocks, self.heads, self.optimizers, strict=True):
            optimizer.zero_grad()
            x = block(x.detach())
            logits = head(x)
            loss = F.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            self.loss += loss.item()
            self.correct += int((logits.argmax(1) == y).sum().item())
        return loss.detach()

    @torch.no_grad()
    def accuracy(self, pictures: Iterable[tuple[Tensor, Tensor]]) -> float:
        """Accuracy of the last block's head, in percent."""
        parts = torch.nn.Sequential(*self.blocks, self.heads[-1]).eval()
        correct, count = 0, 0
        for x, y in pictures:
            correct += int((parts(x).argmax(1) == y).sum().item())
            count += len(y)
        parts.train()
        return 100 * correct / count


class Tuned(Plain):
    """What the speed records on CIFAR-10 do: bf16, channels_last, images in memory, augmentation by batch."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        for block in self.blocks:
            block.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.parameters, **SGD, fused=True)
        chosen = random_images(setting.num_images)
        x = chosen.images_PHWC.permute(0, 3, 1, 2).float() / 255
        x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        self.padded = F.pad(x, (PADDING,) * 4).contiguous(memory_format=torch.channels_last)
        self.labels, self.batches = chosen.labels_P, self.augmented

    def augment(self, picked: Tensor) -> Tensor:
        """Crop and flip as in the speed records: one pass over the batch for every shift."""
        x = self.padded[picked]
        cropped = torch.empty(len(picked), 3, 32, 32).to(memory_format=torch.channels_last)
        shifts = torch.randint(2 * PADDING + 1, (len(picked), 2))
        for top in range(2 * PADDING + 1):
            for left in range(2 * PADDING + 1):
                here = (shifts[:, 0] == top) & (shifts[:, 1] == left)
                if here.any():
                    cropped[here] = x[here, :, top : top + 32, left : left + 32]
        return torch.where((torch.rand(len(picked)) < 0.5)[:, None, None, None], cropped.flip(3), cropped)

    def augmented(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of a turn."""
        for picked in torch.randperm(len(self.labels)).split(self.setting.batch_size):
            yield self.augment(picked), self.labels[picked]

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One batch under autocast; the loss of the last block."""
        with torch.autocast("cpu", torch.bfloat16):
            return super().step(x.contiguous(memory_format=torch.channels_last), y)
