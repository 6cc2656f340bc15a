"""A training step as a program on tensors that stay where they are, so that a CUDA graph can hold all of it."""

from __future__ import annotations

import torch

from datamodules.base import Batch
from datamodules.feed import Feed
from engine.devices import autocast
from engine.loop.meter import Totals, batch_sums
from engine.loop.optimizer import rate_dtype, update
from engine.loop.schedule import learning_rates
from methods._base import Method, StepOutput
from schemas import Args


class StaticStep:
    """Calling it takes one training step, with the bits that the module's own loop gives, and moves to the next.

    What changes from step to step (the step's number, the epoch's order and draws, the learning rate, the sums of the
    metrics) is read from and written to tensors of this object. No call depends on the host or waits for the device.

    Args:
        args: the settings.
        method: what is trained.
        feed: the training images.
        optimizer: over the method's parameters.
    """

    def __init__(self, args: Args, method: Method, feed: Feed, optimizer: torch.optim.Optimizer) -> None:
        self.method, self.feed, self.optimizer = method, feed, optimizer
        self._precision, self._gradient_clip = args.run.precision, args.optim.gradient_clip
        device, dtype = feed.device, rate_dtype(feed.device)
        num_steps = feed.num_steps * args.optim.epochs
        self._rates_S = learning_rates(args.optim, range(num_steps), num_steps, dtype, method.phases.count).to(device)
        self._rate_1 = torch.zeros(1, dtype=dtype, device=device)
        self._step_1 = torch.zeros(1, dtype=torch.int64, device=device)
        self._first_B = torch.arange(feed.batch_size, device=device)
        self._epoch = 0
        self._drawn = feed.drawn(0).each(lambda drawn_P: drawn_P.to(device))
        self._names: list[str] = []
        self._sums_M = torch.zeros(0, dtype=torch.float64, device=device)

    def begin(self, step: int, before: Totals) -> None:
        """Let the next call take step ``step`` of the run, and add to the sums in ``before``; waits for nothing."""
        self._step_1.fill_(step)
        self._enter(step // self.feed.num_steps)
        if before.sums:
            sums_M = torch.tensor([before.sums[name] for name in self._names], dtype=torch.float64)
            self._sums_M.copy_(sums_M, non_blocking=True)
        else:
            self._sums_M.zero_()

    def _enter(self, epoch: int) -> None:
        """Bring what is drawn for ``epoch`` into the tensors that are there."""
        if epoch != self._epoch:
            for mine, drawn in zip(self._drawn.tensors(), self.feed.drawn(epoch).tensors(), strict=True):
                mine.copy_(drawn, non_blocking=True)
            self._epoch = epoch

    def __call__(self) -> None:
        """Take the step: gather, gradients, update, sums."""
        feed = self.feed
        batch = feed.gather(self._drawn, self._step_1 % feed.num_steps * feed.batch_size + self._first_B)
        with autocast(feed.device, self._precision):
            output = self.learn(batch)
        torch.index_select(self._rates_S, 0, self._step_1, out=self._rate_1)
        update(self.optimizer, self._rate_1[0], self._gradient_clip)
        names, sums_M = batch_sums(output, batch.y_B)
        if not self._names:  # the first call shows what there is to count
            self._names, self._sums_M = names, torch.zeros_like(sums_M)
        self._sums_M += sums_M
        self._step_1 += 1

    def learn(self, batch: Batch) -> StepOutput:
        """Fill the gradients."""
        return self.method.fill_grads(batch)

    def totals(self, num_images: int) -> Totals:
        """The sums, over ``num_images`` images; waits for the device."""
        return Totals(num_images, dict(zip(self._names, self._sums_M.tolist(), strict=True)))
