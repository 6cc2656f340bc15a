"""Two runs of full length, block by block: ``python .../gap.py curves.csv gap.svg``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.tables import read_csv
from reports.canvas import INK, MARKERS, PALETTE, canvas, render, write_bytes

NAMES = {"bp": "back-propagation", "dgl": "dgl"}


def draw(table: Path, path: Path) -> None:
    """Exits and the cosine to back-propagation by epoch, and linear probes of the blocks at the end."""
    rows = read_csv(table)
    last = max(row["epoch"] for row in rows)
    with canvas(10.5, 3.2) as figure:
        exits, probes, cosine = figure.subplots(1, 3)
        for block in range(3):
            mine = [row for row in rows if row["rule"] == "dgl" and row["block"] == block]
            epochs = [row["epoch"] for row in mine]
            style = {"color": PALETTE[block], "marker": MARKERS[block], "label": f"dgl, block {block}"}
            exits.plot(epochs, [row["test_accuracy"] for row in mine], **style)
            cosine.plot(epochs, [row["alignment"] for row in mine], **style)
        whole = [row for row in rows if row["rule"] == "bp" and row["block"] == 2]
        exits.plot(
            [row["epoch"] for row in whole],
            [row["test_accuracy"] for row in whole],
            color=INK,
            label="back-propagation",
        )
        for place, (rule, name) in enumerate(NAMES.items()):
            ends = [row for row in rows if row["rule"] == rule and row["epoch"] == last]
            style = {"color": (INK, PALETTE[0])[place], "marker": MARKERS[place], "label": name}
            probes.plot([row["block"] for row in ends], [row["probe_accuracy"] for row in ends], **style)
        exits.set(title="test accuracy of each block's classifier (%)", xlabel="epoch")
        probes.set(title="linear probe of each block, last epoch (%)", xlabel="block", xticks=range(3))
        cosine.set(title="cosine of its gradient to back-propagation's", xlabel="epoch", ylim=(0, 1.05))
        exits.legend(loc="lower right")
        probes.legend(loc="upper left")
        cosine.legend(loc="lower left")
        write_bytes(path, render(figure, "svg"))


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
