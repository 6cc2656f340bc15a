"""A good loop by hand, in fp32: one optimiser for all blocks, and numbers read once a turn."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.peers import Batches, Setting
from benchmarks.peers._common import SGD, network
from benchmarks.peers._pictures import turn


class Plain:
    """Backward as soon as a block's loss is known, one step of the optimiser at the end."""

    def __init__(self, setting: Setting) -> None:
        self.blocks, self.heads = network(setting.model)
        parameters = [p for part in (*self.blocks, *self.heads) for p in part.parameters()]
        self.optimizer = torch.optim.SGD(parameters, **SGD)
        self.loader = turn(setting)
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

    def losses(self, batches: Batches) -> list[float]:
        """See `Peer`."""
        return [self.step(x, y).item() for x, y in batches]

    def train(self) -> float:
        """See `Peer`."""
        begin = time.perf_counter()
        for x, y in self.loader:
            self.step(x, y)
        self.loss.item(), self.correct.item()
        return time.perf_counter() - begin


PEER = Plain
