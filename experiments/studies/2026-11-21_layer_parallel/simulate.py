"""Discrete-event simulation of a pipeline: stages, links between them, and a number of cores (for ``scaling.py``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

DEPTH = 2  # messages that a sender may have under way, as `engine.parallel.wire.DEPTH`


@dataclass
class _Stage:
    """One stage, and the link to the next."""

    work_s: float
    link_s: float
    left_s: float | None = None  # of the step that it works on
    link_left_s: float | None = None  # of the message that travels
    started: int = 0
    finished: int = 0
    has_input: bool = False
    has_output: bool = False  # a finished step whose message finds no room yet
    under_way: int = 0  # messages given to the link, the travelling one included


@dataclass
class Pipeline:
    """Stages in a row that take ``num_steps`` steps; the first has its input at once, the last hands nothing on.

    Args:
        work_s: seconds of a step, by stage.
        link_s: seconds of a message, by link: latency and bytes over bandwidth.
        num_steps: from an empty pipeline to an empty one.
        num_cores: how many stages can work at full speed at once; more share them equally.
    """

    work_s: Sequence[float]
    link_s: Sequence[float]
    num_steps: int
    num_cores: float = math.inf
    _stages: list[_Stage] = field(default_factory=list)

    def seconds(self) -> float:
        """Let it run, and say how long it took."""
        self._stages = [_Stage(*each) for each in zip(self.work_s, [*self.link_s, 0.0], strict=True)]
        now = 0.0
        while self._stages[-1].finished < self.num_steps:
            while sum(self._begin(place) for place in range(len(self._stages))):
                pass
            now += self._pass_time()
        return now

    def _begin(self, place: int) -> bool:
        """Start what can start at a stage and on its link; whether anything did."""
        stage = self._stages[place]
        above = self._stages[place + 1] if place + 1 < len(self._stages) else None
        before = (stage.started, stage.has_output, stage.link_left_s)
        if stage.has_output and (above is None or stage.under_way < DEPTH):
            stage.has_output = False
            stage.under_way += above is not None
        is_free = stage.left_s is None and not stage.has_output and stage.started < self.num_steps
        if is_free and (place == 0 or stage.has_input):
            stage.left_s, stage.has_input = stage.work_s, False
            stage.started += 1
        if above is not None and stage.link_left_s is None and stage.under_way and not above.has_input:
            stage.link_left_s = stage.link_s
        return before != (stage.started, stage.has_output, stage.link_left_s)

    def _pass_time(self) -> float:
        """Go on to the next thing that ends, and say how long that took."""
        working = [stage for stage in self._stages if stage.left_s is not None]
        speed = min(1.0, self.num_cores / max(len(working), 1))
        ends = [stage.left_s / speed for stage in working if stage.left_s is not None]
        ends += [stage.link_left_s for stage in self._stages if stage.link_left_s is not None]
        passed = min(ends)
        for place, stage in enumerate(self._stages):
            if stage.left_s is not None:
                stage.left_s -= passed * speed
                if stage.left_s <= 1e-12:
                    stage.left_s, stage.has_output = None, True
                    stage.finished += 1
            if stage.link_left_s is not None:
                stage.link_left_s -= passed
                if stage.link_left_s <= 1e-12:
                    stage.link_left_s = None
                    stage.under_way -= 1
                    self._stages[place + 1].has_input = True
        return passed


def gpipe_seconds(work_s: Sequence[float], num_micro: int) -> float:
    """A step of back-propagation in GPipe's schedule: M micro-batches through K stages, then back, then the update.

    Huang et al. 2019 (arXiv 1811.06965): (M + K - 1) times the slowest stage's M-th part, so a bubble of
    (K - 1) / (M + K - 1). PipeDream's 1F1B with a flush (Narayanan et al. 2021, arXiv 2104.04473) has the same time.
    """
    return max(work_s) * (num_micro + len(work_s) - 1) / num_micro
