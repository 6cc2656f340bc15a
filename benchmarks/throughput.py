"""Training steps per second, loading included: this engine and the ways in which others write the same."""

from __future__ import annotations

import contextlib
import statistics
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from benchmarks import tables
from benchmarks.peers import Setting
from benchmarks.worker import Worker

COLUMNS = {
    "peer": "", "images_per_second": "images/s", "best": "best", "spread": "spread", "ratio": "x first",
    "percent_of_roof": "% of roof", "loss": "loss", "warmup_s": "warm-up s",
}  # fmt: skip
MAX_SPREAD = 1.25  # upper over lower quartile of a peer's turns; above it the machine is too busy to say anything
TOLERANCE = {"fp32": 0.01, "bf16": 0.05}  # relative, on the mean loss of the checked steps


@dataclass
class Result:
    """What was seen of one peer.

    Attributes:
        name: the peer.
        warmup_s: seconds to build, take the checked steps, and take the first turn.
        loss: mean over the checked steps.
        seconds: of every turn.
    """

    name: str
    warmup_s: float
    loss: float
    seconds: list[float] = field(default_factory=list)

    @property
    def spread(self) -> float:
        """Upper over lower quartile of the turns' seconds."""
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return upper / lower


def measure(
    workers: Sequence[Worker], calibration: Worker, setting: Setting, rounds: int
) -> tuple[list[Result], dict[str, float]]:
    """Let the peers take turns, the calibration among them; its rates are the best of the rounds."""
    results = []
    roofs: dict[str, float] = {}
    with tqdm(total=rounds + 2, leave=False, unit="round", desc=f"{setting.model} {setting.batch_size}") as bar:
        for worker in workers:
            begin = time.perf_counter()
            worker.ask(setting)
            loss = statistics.fmean(worker.ask("losses"))
            results.append(Result(worker.name, time.perf_counter() - begin, loss))
        bar.update()
        for number in range(rounds + 1):
            for result, worker in zip(results, workers, strict=True):
                seconds = worker.ask("turn")
                if number:
                    result.seconds.append(seconds)
                else:
                    result.warmup_s += seconds
            seen = calibration.ask("calibrate")
            roofs = {key: max(rate, roofs.get(key, 0.0)) for key, rate in seen.items()}
            bar.update()
    return results, roofs


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
    from benchmarks.calibrate import flops_per_image

    flops = {method: flops_per_image(setting.model, method) for method in ("dgl", "bp")}
    rates = {result.name: setting.num_images / statistics.median(result.seconds) for result in results}
    reference = next(iter(rates))
    table = []
    for result in results:
        method = "bp" if result.name.startswith("bp") else "dgl"
        roof = roofs["conv_bf16"] / flops[method]
        table.append(
            {
                "model": setting.model,
                "batch_size": setting.batch_size,
                "peer": result.name,
                "images_per_second": rates[result.name],
                "best": setting.num_images / min(result.seconds),
                "spread": result.spread,
                "ratio": rates[result.name] / rates[reference],
                "roof": roof,
                "percent_of_roof": 100 * rates[result.name] / roof if ":" not in result.name else None,
                "loss": result.loss,
                "warmup_s": result.warmup_s,
            }
        )
    return table


def run(options: Namespace) -> int:
    """Print the tables, write them and the chart; 1 where a figure must not be used."""
    everything, bad = [], []
    with contextlib.ExitStack() as stack:
        *workers, calibration = [stack.enter_context(Worker(name)) for name in [*options.peers, "calibration"]]
        for setting in [Setting(model, size, options.steps) for model in options.model for size in options.batch_size]:
            results, roofs = measure(workers, calibration, setting, options.rounds)
            everything += _print(setting, results, roofs)
            bad += [f"{setting.model} {setting.batch_size}: {line}" for line in problems(results)]
    tables.write_csv(options.out / "throughput.csv", everything)
    tables.draw_bars(options.out / "throughput.svg", everything)
    for line in bad:
        print(f"not to be used: {line}")
    return int(bool(bad))


def _print(setting: Setting, results: list[Result], roofs: dict[str, float]) -> list[dict[str, Any]]:
    table = rows(setting, results, roofs)
    units = {name: "GB/s" if name == "copy" else "GFLOP/s" for name in roofs}
    words = ", ".join(f"{name} {rate / 1e9:.0f} {units[name]}" for name, rate in roofs.items())
    print(f"\n{setting.model}, batch {setting.batch_size}, {setting.num_steps} steps a turn; best rates here: {words}")
    print(tables.text(table, COLUMNS))
    return table
