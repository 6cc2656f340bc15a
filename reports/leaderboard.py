"""One table over all studies: what each rule reaches at full length, and what that costs beside back-propagation.

Full length means all training images, and `FULL_EPOCHS` epochs or more. A rule is compared with back-propagation on
the same network for as many epochs, with the same images and augmentation. Runs of other lengths are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from consts import DONE
from reports.blocks import REFERENCE
from reports.columns import BEST, FINAL, MEMORY, NOTHING, Column
from reports.groups import Group, differing, group_runs, label_of
from reports.runs import Run, printable

FULL_EPOCHS = 10
SHARED = ("model", "dataset", "random_crop", "random_horizontal_flip", "random_erasing", "epochs")
HEADER = (
    "network", "epochs", "crop, flip", "rule", "a block learns from", "test accuracy (%)", "to bp", "time", "memory",
    "stages at once", "runs",
)  # fmt: skip
LEARNS_FROM = {
    "none": "all blocks", "block": "itself and those below", "neighbour": "the next block too",
    "broadcast": "a signal from the top too",
}  # fmt: skip


class Row(NamedTuple):
    """A line: runs that differ in the seed only, and those of back-propagation that they are compared with."""

    group: Group
    label: str
    reference: Group | None


def is_full_length(run: Run) -> bool:
    """Whether a run is finished, on all training images with their own labels, after `FULL_EPOCHS` or more."""
    known = "train_size" in run.config and run.config["train_size"] is None and not run.config.get("random_labels")
    return known and run.text("status") == DONE and (run.number("epochs") or 0) >= FULL_EPOCHS


def rows(runs: Sequence[Run]) -> list[Row]:
    """The lines: by network, augmentation and length; there the most accurate first."""
    together: dict[tuple[str, ...], list[Run]] = {}
    for run in filter(is_full_length, runs):
        together.setdefault(tuple(run.text(name) for name in SHARED), []).append(run)
    found = []
    for _, alike in sorted(together.items()):
        groups = group_runs(alike)
        by_rule: dict[str, list[Group]] = {}
        for group in groups:
            by_rule.setdefault(str(group.settings.get("method")), []).append(group)
        reference = by_rule.get(REFERENCE, [None])[0]
        for group in groups:
            others = [other.settings for other in by_rule[str(group.settings.get("method"))]]
            found.append(Row(group, label_of(group, differing(others, absence_counts=True)), reference))
    return found


def cells(row: Row) -> tuple[str, ...]:
    """A line as text, in the order of `HEADER`."""
    group, run = row.group, row.group.counted[0]
    augmented = [run.config.get(name) for name in ("random_crop", "random_horizontal_flip")]
    time = "train_s" if run.text("device").startswith("cuda") else "train_cpu_s"
    return (
        run.text("model"), run.text("epochs"), "yes" if all(augmented) else "in part" if any(augmented) else "no",
        row.label, LEARNS_FROM.get(run.text("isolation"), NOTHING), accuracy(group, FINAL), _gap(row),
        _ratio(row, time), _ratio(row, MEMORY.key), "yes" if run.text("blocks_alone") == "True" else "no",
        str(len(group.counted)),
    )  # fmt: skip


def accuracy(group: Group, column: Column) -> str:
    """``85.13 ± 0.20``, a sample standard deviation behind the mean; of one run its value."""
    found = group.spread(column.key)
    if found is None:
        return NOTHING
    return f"{found.mean:.2f}" + (f" ± {found.deviation:.2f}" if found.count > 1 else "")


def _gap(row: Row) -> str:
    own, other = row.group.spread(FINAL.key), row.reference and row.reference.spread(FINAL.key)
    return NOTHING if own is None or not other or row.group is row.reference else f"{own.mean - other.mean:+.2f}"


def _ratio(row: Row, key: str) -> str:
    """How many times what back-propagation takes; unknown where the runs were made on machines that differ.

    On a CPU it is the time that the process worked, since others may have had the cores in between.
    """
    own, other = row.group.spread(key), row.reference and row.reference.spread(key)
    if own is None or not other or not other.mean:
        return NOTHING
    machines = {run.text("machine") for run in (*row.group.counted, *(row.reference.counted if row.reference else ()))}
    return f"{own.mean / other.mean:.2f}" if len(machines) == 1 else NOTHING


def markdown(runs: Sequence[Run]) -> str:
    """The table, its columns aligned so that it reads in a terminal too; empty where no run is of full length."""
    lines = [cells(row) for row in rows(runs)]
    if not lines:
        return ""
    widths = [max(map(len, column)) for column in zip(HEADER, *lines, strict=True)]
    lines = [HEADER, tuple("-" * width for width in widths), *lines]
    shown = (" | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(f"| {printable(line)} |" for line in shown)


def expected(group: Group) -> str:
    """What a group of runs reached, in a line: at the end, and in the epoch that was chosen."""
    chosen = group.counted[0].text("chosen_on")
    best = "" if chosen == "test" else f", {accuracy(group, BEST)} in the epoch chosen on held-out images"
    return f"{accuracy(group, FINAL)} % test accuracy after the last epoch{best}"
