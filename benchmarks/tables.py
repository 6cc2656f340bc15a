"""Tables of figures as text, as a CSV and as a bar chart.

``python -m benchmarks.tables throughput.csv speed.svg`` draws a CSV again.
"""

from __future__ import annotations

import contextlib
import csv
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
RATES = {"images_per_second": "images/s", "slowest": "slowest", "best": "best", "ratio": "x first"}  # see `rate_rows`


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
    return str(value)


def text(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """A table with right-aligned figures; ``columns`` gives headings by key."""
    cells = [list(columns.values()), *([_shown(row[key]) for key in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        first, *rest = zip(line, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def rate_rows(key: str, rates: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """A row for each name, which stands under ``key``: median, slowest and best rate, and the median over the first."""
    medians = {name: statistics.median(seen) for name, seen in rates.items()}
    first = next(iter(medians.values()))
    return [
        {key: name, "images_per_second": medians[name], "slowest": min(seen), "best": max(seen),
         "ratio": medians[name] / first}
        for name, seen in rates.items()
    ]  # fmt: skip


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """All columns, numbers to six places."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def show(title: str, rows: Sequence[Row], columns: Mapping[str, str], path: Path) -> None:
    """Print a title and the table, and write it."""
    print(f"\n{title}\n{text(rows, columns)}")
    write_csv(path, rows)


def draw_bars(path: Path, rows: Sequence[Row]) -> None:
    """Images per second of every peer, a panel for each network, the roof of the machine above every bar."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = list(dict.fromkeys((row["model"], row["batch_size"]) for row in rows))
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.6), squeeze=False)
    for axis, (model, batch_size) in zip(axes[0], panels, strict=True):
        shown = [row for row in rows if (row["model"], row["batch_size"]) == (model, batch_size)]
        places = range(len(shown))
        colors = ["#2a6f97" if row["peer"].startswith(("dgl", "bp")) else "#b8c4cc" for row in shown]
        bars = axis.bar(places, [row["images_per_second"] for row in shown], color=colors)
        axis.bar_label(bars, [f"{row['ratio']:.2f}x" for row in shown], fontsize=8)
        for place, row in zip(places, shown, strict=True):
            axis.plot([place - 0.4, place + 0.4], [row["roof"]] * 2, color="#c1121f", linewidth=1.5)
        axis.set_xticks(places, [row["peer"] for row in shown], rotation=30, ha="right")
        axis.set_title(f"{model}, batch {batch_size:.0f}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("images per second")
    axes[0][0].plot([], [], color="#c1121f", label="roof: the machine's convolution rate")
    axes[0][0].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, 0.94))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def read_csv(path: Path) -> list[dict[str, Any]]:
    """What `write_csv` wrote: numbers where they are numbers."""
    with path.open(newline="") as stream:
        return [{key: _number(cell) for key, cell in row.items()} for row in csv.DictReader(stream)]


def _number(cell: str) -> float | str:
    with contextlib.suppress(ValueError):
        return float(cell)
    return cell


if __name__ == "__main__":
    draw_bars(Path(sys.argv[2]), read_csv(Path(sys.argv[1])))
