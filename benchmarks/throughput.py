"""Images per second of training, loading included: this engine and other implementations of the same."""

from __future__ import annotations

import contextlib
import statistics
from argparse import Namespace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks import tables
from benchmarks.engine import CPU
from benchmarks.peers import ENGINES, Setting, load
from benchmarks.peers.by_hand import network
from benchmarks.workers import Work, Worker, in_turns, seconds

COLUMNS = {
    "peer": "", "images_per_second": "images/s", "best": "best", "spread": "spread", "ratio": "x first",
    "percent_of_roof": "% of roof", "loss": "loss",
}  # fmt: skip
MAX_SPREAD = 1.25  # upper over lower quartile of a peer's turns; above it the machine is too busy to say anything
TOLERANCE = {"fp32": 0.01, "bf16": 0.05}  # relative, on the mean loss of the checked steps
_BATCH, _CHANNELS, _PIXELS, _KERNEL = 64, 128, 16, 5  # the second convolution of BasicCNN


class Calibration:
    """A matrix product and a convolution on a device, and how many floating-point operations each takes."""

    def __init__(self, device: torch.device = CPU, side: int = 1024) -> None:
        a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
        x = torch.randn(_BATCH, _CHANNELS, _PIXELS, _PIXELS, device=device).bfloat16()
        weight = torch.randn(_CHANNELS, _CHANNELS, _KERNEL, _KERNEL, device=device).bfloat16()
        x, weight = (value.to(memory_format=torch.channels_last) for value in (x, weight))
        convolution = 2 * x.numel() * _CHANNELS * _KERNEL**2  # a multiply-add is two operations
        self._device = device
        self._operations: dict[str, tuple[Work, float]] = {
            "matmul_bf16": (lambda: a @ b, 2 * side**3),
            "conv_bf16": (lambda: F.conv2d(x, weight, padding=_KERNEL // 2), convolution),
        }

    def measure(self) -> dict[str, float]:
        """Operations per second, by name."""
        rates = {}
        for name, (work, amount) in self._operations.items():
            work()
            rates[name] = 3 * amount / sum(seconds(work, self._device) for _ in range(3))
        return rates


def flops_per_image(model: str, method: str) -> float:
    """Operations of convolutions and linear layers in a training step, over the batch; ``method`` is bp or dgl."""
    blocks, heads = network(model)
    x_BCHW, y_B = torch.randn(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        for block, head in zip(blocks, heads, strict=True):
            x_BCHW = block(x_BCHW if method == "bp" else x_BCHW.detach())
            if method == "dgl" or block is blocks[-1]:
                F.cross_entropy(head(x_BCHW), y_B).backward()
    return counter.get_total_flops() / len(y_B)


class Result(NamedTuple):
    """What was seen of one peer: the mean loss over the checked steps, and the seconds of every turn."""

    name: str
    loss: float
    seconds: list[float]

    @property
    def spread(self) -> float:
        """Upper over lower quartile of the turns' seconds."""
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return upper / lower


def measure(names: list[str], setting: Setting, rounds: int) -> tuple[list[Result], dict[str, float]]:
    """Let the peers take turns, the calibration among them; its rates are the best of the rounds."""
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(load, name, setting)) for name in names}
        calibration = stack.enter_context(Worker(Calibration))
        losses = {name: statistics.fmean(worker.ask("losses")) for name, worker in workers.items()}
        turns = {name: partial(worker.ask, "train") for name, worker in workers.items()}
        turns["calibration"] = partial(calibration.ask, "measure")
        bar = tqdm(range(rounds), leave=False, unit="round", desc=f"{setting.model} {setting.batch_size}")
        times: dict[str, list[Any]] = in_turns(turns, bar)
    rates = times["calibration"]
    roofs = {name: max(seen[name] for seen in rates) for name in rates[0]}
    return [Result(name, losses[name], times[name]) for name in names], roofs


def problems(results: list[Result]) -> list[str]:
    """Why these figures must not be used: other losses than the first peer's, or turns that differ too much."""
    found = []
    reference = None  # bp, and other heads, have losses of their own
    for result in results:
        tolerance = TOLERANCE["fp32" if result.name in ("thesis", "plain") else "bf16"]
        is_same = result.name != "bp" and ":" not in result.name
        reference = reference or (result if is_same else None)
        if is_same and reference and abs(result.loss - reference.loss) > tolerance * reference.loss:
            found.append(f"{result.name}: mean loss {result.loss:.4f}, but {reference.name} has {reference.loss:.4f}")
        if result.spread > MAX_SPREAD:
            found.append(
                f"{result.name}: the upper quartile of its turns is {result.spread:.2f} times the lower, more than "
                f"{MAX_SPREAD}; stop what else runs here, or give more --rounds"
            )
    return found


def rows(setting: Setting, results: list[Result], roofs: dict[str, float]) -> list[dict[str, Any]]:
    """One row for each peer, by column."""
    flops = {method: flops_per_image(setting.model, method) for method in ENGINES}
    rates = [setting.num_images / statistics.median(result.seconds) for result in results]
    table = []
    for result, rate in zip(results, rates, strict=True):
        roof = roofs["conv_bf16"] / flops["bp" if result.name.startswith("bp") else "dgl"]
        row = {"model": setting.model, "batch_size": setting.batch_size, "peer": result.name}
        row |= {"images_per_second": rate, "best": setting.num_images / min(result.seconds), "spread": result.spread}
        percent = 100 * rate / roof if ":" not in result.name else None
        row |= {"ratio": rate / rates[0], "roof": roof, "percent_of_roof": percent, "loss": result.loss}
        table.append(row)
    return table


def run(options: Namespace) -> int:
    """Print the tables, write them and the chart; 1 where a figure must not be used."""
    everything, bad = [], []
    for setting in [Setting(model, size, options.steps) for model in options.model for size in options.batch_size]:
        results, roofs = measure(options.peers, setting, options.rounds)
        table = rows(setting, results, roofs)
        best = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in roofs.items())
        print(
            f"\n{setting.model}, batch {setting.batch_size}, {setting.num_steps} steps a turn; best rates here: {best}"
        )
        print(tables.text(table, COLUMNS))
        everything += table
        bad += [f"{setting.model} {setting.batch_size}: {line}" for line in problems(results)]
    tables.write_csv(options.out / "throughput.csv", everything)
    tables.draw_bars(options.out / "throughput.svg", everything)
    for line in bad:
        print(f"not to be used: {line}")
    return int(bool(bad))
