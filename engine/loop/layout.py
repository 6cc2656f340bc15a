"""The interface through which training steps are taken, wherever and however a layout takes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.loop.meter import Totals


@dataclass(frozen=True)
class Course:
    """A range of training steps to take.

    Attributes:
        steps: their numbers in the run, all of one epoch.
        before: totals to add to.
        advance: called with every step's number when the step is done (recorded: enqueued).
        is_stopped: asked at every step, before or after it, whether to end early.
    """

    steps: Sequence[int]
    before: Totals = field(default_factory=Totals)
    advance: Callable[[int], None] = lambda step: None
    is_stopped: Callable[[], bool] = lambda: False


class Layout(ABC):
    """Takes training steps; between two calls of `run` no work is pending."""

    @abstractmethod
    def run(self, course: Course) -> Totals:
        """Take the steps of ``course`` and wait until all of them are done.

        Returns:
            Sums of the metrics, added to ``course.before``.
        """

    def collect(self) -> None:
        """Copy what other processes have learned to the leader."""

    @property
    def balance(self) -> float | None:
        """Mean busy time of the stages over that of the busiest; 1 is perfect, None where it is not measured."""
        return None

    @property
    def step_bytes(self) -> int:
        """Memory on the GPU that a step needs and that does not show as allocated: the pools of CUDA graphs."""
        return 0

    def close(self) -> None:
        """Release threads and buffers."""
