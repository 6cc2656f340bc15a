"""Layer-parallel training on one GPU: at tick t stage i works on batch t - i, each stage as a CUDA graph of its own.

The stages of a tick run side by side in streams. What they hand over lies in two buffers for each link, one that is
written and one that is read, so that none waits for another within a tick; between two ticks all written ones are
copied to where they are read. One graph for the whole tick would save launches, but in the first and last ticks of a
chunk some stages rest, and a graph has no way to leave them out.

On a CPU, with the twin of CUDA graphs, the stages of a tick run one after the other, in whatever order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from datamodules.base import Batch
from datamodules.feed import Feed
from engine.loop.meter import Totals
from engine.loop.program import StaticStep
from engine.loop.recorded import StepGraph
from engine.loop.recorders import Recorder
from engine.parallel.stage import Course, joined, optimizer_of
from methods._base import BlockResult, StepOutput, step_output
from methods._local import LocalMethod
from schemas import Args


class StaticStage(StaticStep):
    """The part of a training step that ``blocks`` have in it.

    Attributes:
        in_BCHW: the output of the block below, put there before each call; None for the first stage.
        out_BCHW: the output of the last block from before its update, from the first call on.
    """

    def __init__(
        self,
        args: Args,
        method: LocalMethod,
        feed: Feed,
        optimizer: torch.optim.Optimizer,
        blocks: range,
        in_BCHW: Tensor | None,
    ) -> None:
        super().__init__(args, method, feed, optimizer_of(optimizer, blocks))
        self._local, self._blocks, self.in_BCHW = method, blocks, in_BCHW
        self.out_BCHW: Tensor | None = None

    def learn(self, batch: Batch) -> StepOutput:
        """Fill the gradients of the stage's blocks."""
        prepared = self._local.prepare(batch)
        h_BCHW = self._local.run_frozen(prepared.x_BCHW) if self.in_BCHW is None else self.in_BCHW
        done: dict[int, BlockResult] = {}
        for index in self._blocks:
            h_BCHW, done[index] = self._local.fill_block_grads(index, h_BCHW, prepared)
        if self.out_BCHW is None:
            self.out_BCHW = torch.empty_like(h_BCHW)
        self.out_BCHW.copy_(h_BCHW)
        return step_output(self._local.backbone.num_blocks, done)


class Wavefront:
    """A `Layout` on one GPU.

    Args:
        args: the settings.
        method: whose blocks learn on their own.
        feed: the training images.
        optimizer: the run's.
        stages: the blocks of every stage.
        recorder: what records a stage.
        step: the run's step, with which the warm-up is made.

    Raises:
        Uncapturable: a stage draws random numbers, waits for the device, or fails.
    """

    def __init__(
        self,
        args: Args,
        method: LocalMethod,
        feed: Feed,
        optimizer: torch.optim.Optimizer,
        stages: Sequence[range],
        recorder: Recorder,
        step: int,
    ) -> None:
        self._feed = feed
        self._programs: list[StaticStage] = []
        self._graphs: list[StepGraph] = []
        in_BCHW: Tensor | None = None
        for blocks in stages:
            program = StaticStage(args, method, feed, optimizer, blocks, in_BCHW)
            self._graphs.append(StepGraph(program, recorder, step))
            self._programs.append(program)
            assert program.out_BCHW is not None
            in_BCHW = program.out_BCHW.clone()
        self._hand_over = recorder.capture(self._copy_outputs)
        is_gpu = feed.device.type == "cuda"
        self._streams = [torch.cuda.Stream(feed.device) for _ in stages] if is_gpu else []

    def _copy_outputs(self) -> None:
        for below, above in pairwise(self._programs):
            assert above.in_BCHW is not None and below.out_BCHW is not None
            above.in_BCHW.copy_(below.out_BCHW)

    def run(self, course: Course) -> Totals:
        """As `Layout.run`; all steps are of one epoch, and ``batch`` is not asked: the stages gather their own."""
        depth, count, tick = len(self._graphs), len(course.steps), 0
        for program in self._programs:
            program.begin(course.steps[0], course.before)
        while tick < count + depth - 1:
            if tick < count and course.is_stopped():
                count = tick  # the batches that are on their way still go through
                continue
            self._tick([place for place in range(depth) if 0 <= tick - place < count])
            if tick >= depth - 1:
                course.advance(course.steps[tick - depth + 1])
            tick += 1
        num_images = course.before.num_images + count * self._feed.batch_size
        return joined([program.totals(num_images) for program in self._programs])

    def _tick(self, places: Sequence[int]) -> None:
        """Let the stages at ``places`` take a step each, then hand their outputs over."""
        if self._streams:
            main = torch.cuda.current_stream(self._feed.device)
            begin = main.record_event()
            for place in places:
                stream = self._streams[place]
                stream.wait_event(begin)
                with torch.cuda.stream(stream):
                    self._graphs[place].replay()
            for place in places:
                main.wait_stream(self._streams[place])
        else:
            for place in places:
                self._graphs[place].replay()
        self._hand_over()

    @property
    def balance(self) -> None:
        """Nobody measures inside a graph."""

    def close(self) -> None:
        """Nothing is under way between two runs."""
