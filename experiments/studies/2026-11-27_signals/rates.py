"""Writes the best of the searched learning rates into every rule's file: ``python .../rates.py search.csv rules``.

Prints the table of the README: held-out accuracy (%) by rule and learning rate.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path


def found(table: Path) -> dict[str, dict[float, float]]:
    """Held-out accuracy (%) by rule's file and learning rate."""
    by_rule: dict[str, dict[float, float]] = {}
    with table.open(newline="") as stream:
        for row in csv.DictReader(stream):
            rate = float(json.loads(row["settings"])["learning_rate"])
            by_rule.setdefault(Path(row["config"]).stem, {})[rate] = float(row["final_test_accuracy"])
    return by_rule


def main(table: Path, rules: Path) -> None:
    """Choose, write and print."""
    by_rule = found(table)
    rates = sorted({rate for values in by_rule.values() for rate in values})
    print(f"| held-out accuracy (%) | {' | '.join(map(str, rates))} |\n|---|{'---|' * len(rates)}")
    for name, values in sorted(by_rule.items()):
        best = max(values, key=values.__getitem__)
        path = rules / f"{name}.yaml"
        kept = [line for line in path.read_text().splitlines() if not line.startswith("learning_rate:")]
        path.write_text("\n".join([*kept, f"learning_rate: {best}"]) + "\n")
        cells = [f"{values[rate]:.2f}" if rate in values else "not finite" for rate in rates]
        shown = (f"**{cell}**" if rate == best else cell for rate, cell in zip(rates, cells, strict=True))
        print(f"| {name} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
