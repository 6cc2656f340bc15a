"""Layer-parallel training on one GPU: at tick t stage i trains on batch t - i, each stage as a CUDA graph of its own.

The stages of a tick run concurrently, each in a stream. Between two neighbours there are two buffers, one that is
written and one that is read, so that no stage waits for another within a tick; after each tick all written buffers are
copied to those that are read. One graph for the whole tick would save launches, but in the first and last ticks of a
range of steps some stages are idle, and a graph cannot leave them out.

On a CPU, with `engine.loop.tape` in place of CUDA graphs, the stages of a tick run one after the other, in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from engine.loop.layout import Course, Layout
from engine.loop.meter import Totals
from engine.loop.program import Program
from engine.loop.recorded import Recording
from engine.loop.recorders import Recorders
from engine.loop.steps import Steps
from engine.parallel.stage import Stage, joined


class Streams(Layout):
    """A recording for each stage, in streams of one GPU.

    Args:
        stages: in order, covering all blocks that train.
        steps: of the run.
        recorders: what records a stage, made anew for each.
        step: the run's step, with which the warm-up is made.

    Raises:
        Uncapturable: as `Recording`.
    """

    def __init__(self, stages: Sequence[Stage], steps: Steps, recorders: Recorders, step: int) -> None:
        self._feed = steps.feed
        self._programs: list[Program] = []
        self._recordings: list[Recording] = []
        in_BCHW: Tensor | None = None
        for stage in stages:
            program = Program(stage, steps, in_BCHW)
            self._recordings.append(Recording(program, recorders(), step))
            self._programs.append(program)
            in_BCHW = None if program.out_BCHW is None else program.out_BCHW.clone()
        self._hand_over = recorders().capture(self._copy_outputs) if len(stages) > 1 else self._copy_outputs
        is_gpu = self._feed.device.type == "cuda"
        self._streams = [torch.cuda.Stream(self._feed.device) for _ in stages] if is_gpu else []

    def _copy_outputs(self) -> None:
        for below, above in pairwise(self._programs):
            assert above.in_BCHW is not None and below.out_BCHW is not None
            above.in_BCHW.copy_(below.out_BCHW)

    @property
    def step_bytes(self) -> int:
        """As `Layout.step_bytes`: the sum over the stages, which run at the same time, each in memory of its own."""
        return sum(recording.step_bytes for recording in self._recordings)

    def close(self) -> None:
        """Delete the CUDA graphs, which frees their memory."""
        self._recordings.clear()
        self._programs.clear()

    def run(self, course: Course) -> Totals:
        """As `Layout.run`."""
        depth, count, tick = len(self._recordings), len(course.steps), 0
        for program in self._programs:
            program.begin(course.steps[0], course.before)
        while tick < count + depth - 1:
            if tick < count and course.is_stopped():
                count = tick  # batches that some stages have trained on go through the others too
                continue
            self._tick({place: course.steps[tick - place] for place in range(depth) if 0 <= tick - place < count})
            if tick >= depth - 1:
                course.advance(course.steps[tick - depth + 1])
            tick += 1
        num_images = course.before.num_images + count * self._feed.batch_size
        return joined([program.totals(num_images) for program in self._programs])

    def _tick(self, steps: dict[int, int]) -> None:
        """Let each stage in ``steps`` take its step, then copy their outputs to the next stages' inputs."""
        if self._streams:
            main = torch.cuda.current_stream(self._feed.device)
            begin = main.record_event()
            for place, step in steps.items():
                stream = self._streams[place]
                stream.wait_event(begin)
                with torch.cuda.stream(stream):
                    self._recordings[place].replay(step)
            for place in steps:
                main.wait_stream(self._streams[place])
        else:
            for place, step in steps.items():
                self._recordings[place].replay(step)
        self._hand_over()
