"""Seconds of work on a device, and what the device can do at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from benchmarks.on_gpu.runs import make_recorder

DIFFERENCES = "differences"  # unit of what must be 0

Work = Callable[[], object]


class Row(NamedTuple):
    """A line of the table: the median and the best of some rounds, and the slowest over the fastest of them."""

    check: str
    case: str
    median: float
    unit: str
    best: float | None = None
    spread: float | None = None
    note: str | None = None


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


def interleaved(works: Mapping[str, Work], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every work in every round, all works taking turns; one round before is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for count in range(rounds + 1):
        for name, work in works.items():
            taken = seconds(work, device)
            if count:
                times[name].append(taken)
    return times


def rate_row(check: str, case: str, amount: float, times: Sequence[float], unit: str, note: str | None = None) -> Row:
    """``amount`` per second, over the rounds."""
    median, best = amount / statistics.median(times), amount / min(times)
    return Row(check, case, median, unit, best, max(times) / min(times), note)


def calibrate(device: torch.device, side: int, num_floats: int, rounds: int) -> tuple[list[Row], float]:
    """Rows of the matmul rate, the copy rate and the time of a replay with one small kernel; the matmul's FLOP/s."""
    a_MM, b_MM = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source_N = torch.randn(num_floats, device=device)
    target_N, count_1 = torch.empty_like(source_N), torch.zeros(1, device=device)
    recorder, repeats = make_recorder(device), 10

    def tick() -> None:
        count_1.add_(1)

    recorder.warm_up(tick)
    replay = recorder.capture(tick)

    def times(work: Work) -> list[float]:
        def repeated() -> None:
            for _ in range(repeats):
                work()

        return [taken / repeats for taken in interleaved({"": repeated}, rounds, device)[""]]

    matmul = times(lambda: torch.matmul(a_MM, b_MM))
    copies, replays = times(lambda: target_N.copy_(source_N)), times(replay)
    rows = [
        rate_row("calibration", f"bf16 matmul {side}", 2 * side**3 / 1e12, matmul, "TFLOP/s"),
        rate_row("calibration", f"copy of {source_N.nbytes >> 20} MiB", 2 * source_N.nbytes / 1e9, copies, "GB/s"),
        Row("calibration", "replay of one small kernel", 1e6 * statistics.median(replays), "us",
            1e6 * min(replays), max(replays) / min(replays)),
    ]  # fmt: skip
    return rows, 2 * side**3 / min(matmul)
