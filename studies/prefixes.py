"""Prefixes (``evaluate --prefixes POINTS``): the smallest part of a network that is accurate enough by itself.

A prefix is a network of its own: the blocks up to an exit, and the head of that exit alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from torch import Tensor

from consts import PLOT_DIR, TEST, VAL, block_name
from engine.evaluation import exit_logits
from engine.trained import Trained
from reports.prefixes import draw_prefixes
from studies._exits import Cost, Costs, ensemble_accuracy, measure_costs
from utils import UsageError

SIZES = ("num_parameters", "multiply_adds")
TABLE, PLOT = "prefixes.csv", f"{PLOT_DIR}/prefixes.svg"

Outputs = Mapping[str, tuple[Tensor, Tensor]]  # by split: logits (E, P, N) of all exits, labels (P,)


class Part(NamedTuple):
    """A part of the network that can be used by itself."""

    name: str  # the block of its exit; of several exits, which outputs are summed
    cost: Cost  # of the blocks up to its last exit, and of the heads of its exits
    accuracies: Mapping[str, float]  # in percent, by split

    @property
    def multiply_adds(self) -> int:
        """Of one image."""
        return self.cost.multiply_adds

    @property
    def num_parameters(self) -> int:
        """Number of scalar parameters, those of normalisation layers included."""
        return self.cost.num_parameters

    def line(self, whole: Part) -> str:
        """Accuracy and cost as text, the cost also as a share of the whole network's."""
        found = "  ".join(f"{split} {accuracy:6.2f}" for split, accuracy in self.accuracies.items())
        return (
            f"  {self.name:35} {found}  {self.multiply_adds / 1e6:9.2f} M multiply-adds "
            f"({100 * self.multiply_adds / whole.multiply_adds:3.0f} %)  {self.num_parameters / 1e6:7.3f} M parameters "
            f"({100 * self.num_parameters / whole.num_parameters:3.0f} %)"
        )


def study(run: Trained, within: float) -> Iterator[str]:
    """Write ``prefixes.csv`` and ``plots/prefixes.svg``, and yield a summary line by line.

    The summary names the prefixes with the fewest parameters and with the fewest operations among those whose accuracy
    is at most ``within`` points below the whole network's, on the validation images where there are any.

    Raises:
        UsageError: the network has only one exit.
    """
    splits = run.splits
    feeds = {split: run.feed(images) for split, images in ((VAL, splits.val), (TEST, splits.test)) if images}
    costs = measure_costs(run.method, feeds[TEST].batch(0, 0).x_BCHW[:1])
    if len(costs.exits) < 2:
        raise UsageError("--prefixes: this run has one exit only; it needs blocks with classifiers, as --dgl has")
    outputs = {split: exit_logits(run.method, feed, costs.exits, run.precision) for split, feed in feeds.items()}
    every = range(len(costs.exits))
    prefixes = [part_of(costs, [place], outputs) for place in every]
    groups = [places for places in (every[:-1], every) if len(places) > 1]
    sums = [part_of(costs, places, outputs, kind) for places in groups for kind in ("logits", "softmax")]
    split = next(iter(feeds))
    least = smallest(prefixes, split, within)
    run.write_table(
        TABLE,
        ["network", *SIZES, *(f"{split}_accuracy" for split in feeds)],
        ([each.name, *attrgetter(*SIZES)(each), *each.accuracies.values()] for each in [*prefixes, *sums]),
    )
    with run.folder.writing(PLOT):
        sizes = {name: [getattr(each, name) for each in prefixes] for name in SIZES}
        accuracies = [each.accuracies[split] for each in prefixes]
        draw_prefixes(sizes, accuracies, costs.exits, least, within, split, run.folder.path / PLOT)
    yield "Prefixes: the blocks up to an exit and its head, as networks of their own; shares of the whole network"
    yield from (each.line(prefixes[-1]) for each in [*prefixes, *sums])
    chosen_on = f"within {within:g} points (chosen on {len(outputs[split][1])} images of {split})"
    yield from _choices(prefixes, least, chosen_on)
    if split == TEST:
        yield "  (there are no validation images, so the test images chose it; train with --val_size to avoid it)"
    yield f"  written: {run.folder.path / TABLE}, {run.folder.path / PLOT}"


def smallest(prefixes: Sequence[Part], split: str, within: float) -> dict[str, int]:
    """By kind of size, the position of the smallest prefix that loses at most ``within`` points of accuracy."""
    floor = prefixes[-1].accuracies[split] - within
    good = [place for place, each in enumerate(prefixes) if each.accuracies[split] >= floor]
    return {name: min(good, key=lambda place: int(getattr(prefixes[place], name))) for name in SIZES}


def _choices(prefixes: Sequence[Part], least: Mapping[str, int], chosen_on: str) -> Iterator[str]:
    for name, place in least.items():
        part, whole = prefixes[place], prefixes[-1]
        yield (
            f"  fewest {name.removeprefix('num_').replace('_', '-')} {chosen_on}: {part.name}: "
            f"{TEST} {part.accuracies[TEST]:.2f}, the whole network {whole.accuracies[TEST]:.2f}"
        )


def part_of(costs: Costs, places: Sequence[int], outputs: Outputs, kind: str = "logits") -> Part:
    """The part with the exits at ``places`` among all; of several, the ``logits`` or ``softmax`` outputs are summed."""
    exits = [costs.exits[place] for place in places]
    first, last = block_name(exits[0]), block_name(exits[-1])
    name = last if len(exits) == 1 else f"sum of {kind} {first} to {last}"
    accuracies = {}
    for split, (logits_EPN, y_P) in outputs.items():
        own_EPN = logits_EPN[list(places)]
        accuracies[split] = ensemble_accuracy(own_EPN if kind == "logits" else own_EPN.softmax(2), y_P)
    return Part(name, costs.of(exits), accuracies)
