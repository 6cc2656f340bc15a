"""Throughput and memory against the number of stages: ``python .../figure.py scaling.csv scaling.svg``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.tables import read_csv
from reports.canvas import INK, MARKERS, PALETTE, canvas, render, write_bytes

CURVES = {
    "local losses, pipelined": ("local_ratio", "local_mib"),
    "back-propagation, GPipe, 32 micro-batches": ("gpipe_32_ratio", "gpipe_32_mib"),
    "back-propagation, GPipe, 8": ("gpipe_8_ratio", "gpipe_8_mib"),
    "back-propagation, 1F1B, 8": ("", "1f1b_8_mib"),
}


def draw(table: Path, path: Path) -> None:
    """Throughput over one device, and memory of the fullest device, against the number of stages."""
    rows = read_csv(table)
    names = list(dict.fromkeys(str(row["chain"]) for row in rows))
    with canvas(3.1 * len(names), 5.2) as figure:
        panels = figure.subplots(2, len(names), sharex="col", squeeze=False)
        for column, name in enumerate(names):
            mine = [row for row in rows if row["chain"] == name]
            stages = [row["stages"] for row in mine]
            for place, (label, keys) in enumerate(CURVES.items()):
                for axes, key in zip(panels[:, column], keys, strict=True):
                    if key:
                        values = [row[key] for row in mine]
                        axes.plot(stages, values, MARKERS[place], ls="-", color=PALETTE[place], label=label)
            top, bottom = panels[:, column]
            top.plot(stages, stages, color=INK, linewidth=0.8, linestyle=":", label="as many times as devices")
            top.set_title(name)
            for axes in (top, bottom):
                axes.set_xscale("log", base=2)
                axes.set_yscale("log", base=2)
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
                axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            bottom.set_xlabel("stages, a device each")
        panels[0, 0].set_ylabel("throughput over one device")
        panels[1, 0].set_ylabel("MiB on the fullest device")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        more = panels[1, 0].get_legend_handles_labels()
        handles, labels = [*handles, more[0][-1]], [*labels, more[1][-1]]
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        write_bytes(path, render(figure, "svg"))


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
