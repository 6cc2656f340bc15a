"""A training step from its number: what it draws and its rate depend on that and the seed, not on the history."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.base import Batch
from datamodules.feed import Feed
from engine.devices import autocast
from engine.loop.optimizer import rate_dtype, set_rate, update
from engine.loop.schedule import learning_rate
from methods._base import Method, StepOutput
from schemas import Args


class Stepper:
    """Takes steps of ``method`` on ``feed``, each by its number in the run, from 0.

    Attributes:
        per_epoch, count: steps in an epoch, and in the run.
        replica: of a grid of processes, the place of this one among those that train the same blocks; each draws its
            own dropout.
    """

    def __init__(self, args: Args, method: Method, feed: Feed) -> None:
        self._args, self._method, self._feed = args, method, feed
        self.per_epoch = feed.num_steps
        self.count = self.per_epoch * args.optim.epochs
        self.replica = 0

    def take(self, optimizer: torch.optim.Optimizer, step: int) -> tuple[StepOutput, Tensor]:
        """Gradients of all blocks that learn, then the update.

        Returns:
            What the batch gave, and its labels (B,).
        """
        batch = self.batch(step)
        for index in range(self._method.backbone.num_blocks):
            self.seed_block(index, step)
        with autocast(batch.x_BCHW.device, self._args.run.precision):
            output = self._method.fill_grads(batch)
        self.update(optimizer, step)
        return output, batch.y_B

    def batch(self, step: int) -> Batch:
        """The step's batch; also seeds what is drawn for it as a whole."""
        self._seed(step)
        return self._feed.batch(step // self.per_epoch, step % self.per_epoch)

    def _seed(self, step: int) -> None:
        torch.manual_seed(_mix(self._args.optim.seed, step))

    def seed_block(self, index: int, step: int) -> None:
        """Give block ``index`` the randomness that is its own at the step."""
        place = index * 2**16 + self.replica * 2**40  # a block that was joined of many has many keys
        key = _mix(_mix(self._args.optim.seed, step), place)
        self._method.backbone.key_dropout(index, key)

    def update(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Step the blocks whose groups ``optimizer`` has."""
        update(optimizer, self.rate(step), self._args.optim.gradient_clip)

    def rate(self, step: int) -> float:
        """The learning rate at the step."""
        dtype = rate_dtype(self._feed.device)
        return learning_rate(self._args.optim, step, self.count, dtype, self._method.phases.count)

    def leave_as_after(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Bring the optimiser's rate and the generators to where `take` leaves them, for steps taken elsewhere."""
        set_rate(optimizer, self.rate(step))
        self._seed(step)


def _mix(seed: int, step: int) -> int:
    """One number from two, such that neighbouring seeds share no sequence (2^64 over the golden ratio spreads them)."""
    return (seed * 0x9E3779B97F4A7C15 + step) % 2**63
