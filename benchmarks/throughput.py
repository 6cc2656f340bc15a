"""Images per second of training, loading included: this engine and other implementations of the same."""

from __future__ import annotations

import contextlib
import statistics
from argparse import Namespace
from functools import partial
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks import tables
from benchmarks.calibrate import Calibration, flops_per_image
from benchmarks.peers import ENGINES, Setting, load
from benchmarks.timing import in_turns
from benchmarks.workers import Worker

COLUMNS = {
    "peer": "", "images_per_second": "images/s", "best": "best", "spread": "spread", "ratio": "x first",
    "percent_of_roof": "% of roof", "loss": "loss",
}  # fmt: skip
MAX_SPREAD = 1.25  # upper over lower quartile of a peer's turns; above it the machine is too busy to say anything
TOLERANCE = {"fp32": 0.01, "bf16": 0.05}  # relative, on the mean loss of the checked steps


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
    roofs: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(load, name, setting)) for name in names}
        calibration = stack.enter_context(Worker(Calibration))
        losses = {name: statistics.fmean(worker.ask("losses")) for name, worker in workers.items()}

        def calibrate() -> float:
            for key, rate in calibration.ask("measure").items():
                roofs[key] = max(rate, roofs.get(key, 0.0))
            return 0.0

        turns = {name: partial(worker.ask, "train") for name, worker in workers.items()}
        bar = tqdm(range(rounds), leave=False, unit="round", desc=f"{setting.model} {setting.batch_size}")
        times = in_turns(turns | {"calibration": calibrate}, bar)
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
        row |= {"ratio": rate / rates[0], "roof": roof}
        row |= {"percent_of_roof": 100 * rate / roof if ":" not in result.name else None}
        table.append(row | {"loss": result.loss})
    return table


def run(options: Namespace) -> int:
    """Print the tables, write them and the chart; 1 where a figure must not be used."""
    everything, bad = [], []
    for setting in [Setting(model, size, options.steps) for model in options.model for size in options.batch_size]:
        results, roofs = measure(options.peers, setting, options.rounds)
        table = rows(setting, results, roofs)
        units = {name: "GB/s" if name == "copy" else "GFLOP/s" for name in roofs}
        best = ", ".join(f"{name} {rate / 1e9:.0f} {units[name]}" for name, rate in roofs.items())
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
