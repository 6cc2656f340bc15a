"""As the thesis trains (AlonNT/Thesis): an optimiser for every block, and numbers read after every block."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.peers import Batches, Setting
from benchmarks.peers._common import SGD, network
from benchmarks.peers._pictures import turn


class Thesis:
    """One block after the other: forward, backward, step, `.item()`."""

    def __init__(self, setting: Setting) -> None:
        self.blocks, self.heads = network(setting.model)
        self.optimizers = [
            torch.optim.SGD([*block.parameters(), *head.parameters()], **SGD)
            for block, head in zip(self.blocks, self.heads, strict=True)
        ]
        self.loader = turn(setting)
        self.loss, self.correct = 0.0, 0

    def step(self, x: Tensor, y: Tensor) -> float:
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
        return loss.item()

    @torch.no_grad()
    def accuracy(self, pictures: Iterable[tuple[Tensor, Tensor]]) -> float:
        """Accuracy of the last block's head, in percent."""
        parts = [*self.blocks, self.heads[-1]]
        correct, count = 0, 0
        for part in parts:
            part.eval()
        for x, y in pictures:
            for part in parts:
                x = part(x)
            correct += int((x.argmax(1) == y).sum().item())
            count += len(y)
        for part in parts:
            part.train()
        return 100 * correct / count

    def losses(self, batches: Batches) -> list[float]:
        """See `Peer`."""
        return [self.step(x, y) for x, y in batches]

    def train(self) -> float:
        """See `Peer`."""
        begin = time.perf_counter()
        for x, y in self.loader:
            self.step(x, y)
        return time.perf_counter() - begin


PEER = Thesis
