"""What the speed runs on CIFAR-10 do, by hand: bf16, channels_last, images in memory, augmentation by batch."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.peers import Batches, Setting
from benchmarks.peers._common import MEAN, SGD, STD, images, network

PADDING = 4


class Tuned:
    """Autocast around a batch, backward as soon as a block's loss is known, fused SGD."""

    def __init__(self, setting: Setting) -> None:
        self.blocks, self.heads = network(setting.model)
        for block in self.blocks:
            block.to(memory_format=torch.channels_last)
        parameters = [p for part in (*self.blocks, *self.heads) for p in part.parameters()]
        self.optimizer = torch.optim.SGD(parameters, **SGD, fused=True)
        chosen = images(setting.num_images)
        x = chosen.images_PHWC.permute(0, 3, 1, 2).float() / 255
        x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        self.padded = F.pad(x, (PADDING,) * 4).contiguous(memory_format=torch.channels_last)
        self.labels, self.batch_size = chosen.labels_P, setting.batch_size
        self.loss, self.correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)

    def augment(self, picked: Tensor) -> Tensor:
        """Crop and flip, in the way of the speed runs: one pass over the batch for every shift."""
        x = self.padded[picked]
        cropped = torch.empty(len(picked), 3, 32, 32).to(memory_format=torch.channels_last)
        shifts = torch.randint(2 * PADDING + 1, (len(picked), 2))
        for top in range(2 * PADDING + 1):
            for left in range(2 * PADDING + 1):
                here = (shifts[:, 0] == top) & (shifts[:, 1] == left)
                if here.any():
                    cropped[here] = x[here, :, top : top + 32, left : left + 32]
        return torch.where((torch.rand(len(picked)) < 0.5)[:, None, None, None], cropped.flip(3), cropped)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One batch; the loss of the last block."""
        with torch.autocast("cpu", torch.bfloat16):
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

    def losses(self, batches: Batches) -> list[float]:
        """See `Peer`."""
        return [self.step(x.contiguous(memory_format=torch.channels_last), y).item() for x, y in batches]

    def train(self) -> float:
        """See `Peer`."""
        begin = time.perf_counter()
        for picked in torch.randperm(len(self.labels)).split(self.batch_size):
            self.step(self.augment(picked), self.labels[picked])
        self.loss.item(), self.correct.item()
        return time.perf_counter() - begin


PEER = Tuned
