"""Seconds of work on a device, by turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import torch

Work = Callable[[], object]


def seconds(work: Work, device: torch.device) -> float:
    """How long the device needs for ``work``, by its own clock where it has one."""
    if device.type != "cuda":
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin
    begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin_event.record()
    work()
    end_event.record()
    end_event.synchronize()
    return begin_event.elapsed_time(end_event) / 1000


def in_turns(
    measures: Mapping[str, Callable[[], float]], rounds: Iterable[object], warm_up: bool = True
) -> dict[str, list[float]]:
    """What every measure gave in each of ``rounds``, all of them taking turns; one round before warms up."""
    if warm_up:
        for measure in measures.values():
            measure()
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in rounds:
        for name, measure in measures.items():
            found[name].append(measure())
    return found
