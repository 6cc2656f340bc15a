"""Everything about a training step that follows from its number and the seed, and not from the steps before it."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.base import Batch
from datamodules.feed import Feed
from engine.loop.optimizer import rate_dtype, set_rate
from engine.loop.schedule import learning_rate, learning_rates
from methods._base import Method
from schemas import Args


class Steps:
    """The steps of a run, numbered from 0: batch, random seeds and learning rate of each.

    Attributes:
        feed: the training images.
        per_epoch, count: steps in an epoch, and in the run.

    Args:
        args: the settings.
        method: what is trained.
        feed: the training images.
        replica: index of this process among those that train the same blocks; each has dropout of its own.
    """

    def __init__(self, args: Args, method: Method, feed: Feed, replica: int = 0) -> None:
        self._optim, self._method, self.feed, self._replica = args.optim, method, feed, replica
        self._generator = torch.Generator(feed.device)
        self.per_epoch = feed.num_steps
        self.count = self.per_epoch * args.optim.epochs

    def batch(self, step: int) -> Batch:
        """The step's batch, with a generator from which tasks draw; also seeds torch's own.

        Those are seeded differently in every replica.
        """
        self._seed(step)
        self.seed_tasks(self._generator, step)
        batch = self.feed.batch(step // self.per_epoch, step % self.per_epoch)
        return batch._replace(generator=self._generator)

    def _seed(self, step: int) -> None:
        # Far apart, so that no replica has the seed of another one's later step.
        torch.manual_seed((_mix(self._optim.seed, step) + self._replica * 2**40) % 2**63)

    def seed_tasks(self, generator: torch.Generator, step: int) -> None:
        """Seed a generator from which tasks draw at this step, the same in every replica (`Batch.rows_of_step`)."""
        generator.manual_seed(_mix(self._optim.seed, step))

    def seed_blocks(self, blocks: range, step: int) -> None:
        """Seed the dropout of each block for this step."""
        for index in blocks:
            place = index * 2**16 + self._replica * 2**40  # a block that was joined of many has many keys
            self._method.backbone.key_dropout(index, _mix(_mix(self._optim.seed, step), place))

    def generators(self, blocks: range) -> list[torch.Generator]:
        """Those that `seed_blocks` seeds, as far as a step has made them."""
        dropouts = [dropout for index in blocks for dropout in self._method.backbone.dropouts(index)]
        return [generator for dropout in dropouts for generator in dropout.generators]

    def rate(self, step: int) -> float:
        """The learning rate at the step."""
        return learning_rate(self._optim, step, self.count, rate_dtype(self.feed.device), self._method.phases.count)

    def rates(self) -> Tensor:
        """The learning rates of all steps, (S,) on the feed's device."""
        device, phases = self.feed.device, self._method.phases.count
        return learning_rates(self._optim, range(self.count), self.count, rate_dtype(device), phases).to(device)

    def leave_as_after(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set learning rate and generator as the step leaves them, whichever layout took it."""
        set_rate(optimizer, self.rate(step))
        self._seed(step)


def _mix(seed: int, step: int) -> int:
    """One number from two, such that neighbouring seeds share no sequence (2^64 over the golden ratio spreads them)."""
    return (seed * 0x9E3779B97F4A7C15 + step) % 2**63
