"""Keeps what runs measured of their agreement with back-propagation: ``python .../collect.py STUDY RUNS...``.

A row in the study's ``angles.csv`` for every epoch and block of the runs that its ``results.csv`` has.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from consts import ALIGNMENT, FEEDBACK, GRADIENT_RATIO, INSIDE, SIGNAL, metric_name
from reports.runs import Run, find_runs

VALUES = (ALIGNMENT, GRADIENT_RATIO, SIGNAL[1], FEEDBACK[1])
FIELDS = ("run", "rule", "model", "seed", "epoch", "block", *VALUES)


def rows(run: Run, rule: str) -> Iterator[dict[str, Any]]:
    """What a run measured, by epoch and block."""
    place = {"run": run.name, "rule": rule, "model": run.text("model"), "seed": run.text("seed")}
    for block in range(len(run.block_accuracies())):
        curves = {name: run.curve(metric_name(INSIDE, name, block)) for name in VALUES}
        for epoch in sorted(curves[ALIGNMENT]):
            found = {name: f"{curve[epoch]:.5g}" for name, curve in curves.items() if epoch in curve}
            yield place | {"epoch": epoch, "block": block} | found


def main(study: Path, paths: list[Path]) -> None:
    """Add the runs at ``paths`` to the table; what it has already is not added again."""
    table = study / "angles.csv"
    with (study / "results.csv").open(newline="") as stream:
        rules = {row["run"]: Path(row["config"]).stem for row in csv.DictReader(stream)}
    known = {row["run"] for row in csv.DictReader(table.open())} if table.exists() else set()
    with table.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS, restval="")
        if not known:
            writer.writeheader()
        for run in find_runs(paths):
            if run.name in rules and run.name not in known:
                writer.writerows(rows(run, rules[run.name]))


if __name__ == "__main__":
    folder, *runs = map(Path, sys.argv[1:])
    main(folder, runs)
