"""A training step that keeps all its state in fixed tensors, so that a CUDA graph can hold the whole step."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.loop.meter import Totals, batch_sums
from engine.loop.part import Part
from engine.loop.steps import Steps


class Program:
    """Calling it takes one training step of ``part``, with the same bits as an eager one, and moves to the next.

    What changes from step to step (the step's number, the epoch's order and draws, the learning rate, the sums of the
    metrics) is read from and written to tensors of this object, and random numbers come from generators that the host
    seeds before each call (`seed`). No call depends on the host or waits for the device.

    Attributes:
        in_BCHW: output of the part below, to be written before each call; None for the first part.
        out_BCHW: output of the part, from the first call on; None where no block follows.
    """

    def __init__(self, part: Part, steps: Steps, in_BCHW: Tensor | None = None) -> None:
        self.part, self.feed, self.in_BCHW, self._steps = part, steps.feed, in_BCHW, steps
        self.out_BCHW: Tensor | None = None
        device = self.feed.device
        self._generator = torch.Generator(device)
        self._rates_S = steps.rates()
        self._rate_1 = torch.zeros(1, dtype=self._rates_S.dtype, device=device)
        self._step_1 = torch.zeros(1, dtype=torch.int64, device=device)
        self._first_B = torch.arange(self.feed.batch_size, device=device)
        self._epoch = 0
        self._drawn = self.feed.drawn(0).each(lambda drawn_P: drawn_P.to(device))
        self._names: list[str] = []
        self._sums_M = torch.zeros(0, dtype=torch.float64, device=device)

    def begin(self, step: int, before: Totals) -> None:
        """Let the next call take step ``step`` of the run, and add to the sums in ``before``; does not synchronise."""
        self._step_1.fill_(step)
        self._enter(step // self.feed.num_steps)
        if before.sums:
            sums_M = torch.tensor([before.sums[name] for name in self._names], dtype=torch.float64)
            self._sums_M.copy_(sums_M, non_blocking=True)
        else:
            self._sums_M.zero_()

    @property
    def generators(self) -> list[torch.Generator]:
        """What a call may draw from; dropout makes its own at the first call."""
        return [self._generator, *self._steps.generators(self.part.blocks)]

    def seed(self, step: int) -> None:
        """Seed the random generators for step ``step``; do so before every call of the program."""
        self._steps.seed_tasks(self._generator, step)
        self._steps.seed_blocks(self.part.blocks, step)

    def _enter(self, epoch: int) -> None:
        """Copy what is drawn for ``epoch`` into the fixed tensors."""
        if epoch != self._epoch:
            for mine, drawn in zip(self._drawn.tensors(), self.feed.drawn(epoch).tensors(), strict=True):
                mine.copy_(drawn, non_blocking=True)
            self._epoch = epoch

    def __call__(self) -> None:
        """Take the step: gather the batch, compute gradients, update, add to the sums."""
        feed, part = self.feed, self.part
        batch = feed.gather(self._drawn, self._step_1 % feed.num_steps * feed.batch_size + self._first_B)
        batch = batch._replace(generator=self._generator)
        torch.index_select(self._rates_S, 0, self._step_1, out=self._rate_1)
        batch, h_BCHW = part.inputs(batch, self.in_BCHW)
        out_BCHW, output = part.learn(batch, h_BCHW, self._rate_1[0])
        if out_BCHW is not None:
            self.out_BCHW = torch.empty_like(out_BCHW) if self.out_BCHW is None else self.out_BCHW
            self.out_BCHW.copy_(out_BCHW)
        names, sums_M = batch_sums(output, batch.y_B)
        if not self._names:  # the first call shows what there is to count
            self._names, self._sums_M = names, torch.zeros_like(sums_M)
        self._sums_M += sums_M
        self._step_1 += 1

    def totals(self, num_images: int) -> Totals:
        """The sums, over ``num_images`` images; waits for the device."""
        return Totals(num_images, dict(zip(self._names, self._sums_M.tolist(), strict=True)))
