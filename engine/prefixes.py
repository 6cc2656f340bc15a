"""``evaluate --prefixes POINTS``: the blocks up to each exit as networks of their own, and the least that will do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter

from torch import Tensor

from consts import PLOT_DIR, TEST, VAL, block_name
from diagnostics.costs import Cost, Costs, measure_costs
from diagnostics.exits import ensemble_accuracy
from engine.evaluation import exit_logits
from engine.trained import Trained
from reports.prefixes import draw_prefixes
from utils import UsageError

SIZES = ("num_parameters", "multiply_adds")
TABLE, PLOT = "prefixes.csv", f"{PLOT_DIR}/prefixes.svg"


@dataclass(frozen=True)
class Part:
    """A part of the network that can be used alone.

    Attributes:
        name: the block of its exit; for several exits, what of theirs is summed.
        cost: of the blocks up to its last exit, and of the heads that it asks.
        accuracies: in percent, by split.
    """

    name: str
    cost: Cost
    accuracies: Mapping[str, float]

    @property
    def multiply_adds(self) -> int:
        """Of one image."""
        return self.cost.flops // 2

    @property
    def num_parameters(self) -> int:
        """Weights and biases, of the normalisation too."""
        return self.cost.num_parameters

    def line(self, whole: Part) -> str:
        """The part in words, its cost also as a share of the network's."""
        found = "  ".join(f"{split} {accuracy:6.2f}" for split, accuracy in self.accuracies.items())
        return (
            f"  {self.name:35} {found}  {self.multiply_adds / 1e6:9.2f} M multiply-adds "
            f"({100 * self.multiply_adds / whole.multiply_adds:3.0f} %)  {self.num_parameters / 1e6:7.3f} M parameters "
            f"({100 * self.num_parameters / whole.num_parameters:3.0f} %)"
        )


def study_prefixes(run: Trained, within: float) -> Iterator[str]:
    """Write ``prefixes.csv`` and ``plots/prefixes.svg``, and say what they show, line by line.

    It names the prefix with the fewest parameters, and the one with the fewest operations, among those whose accuracy
    lies at most ``within`` points below the whole network's, on the validation images where there are any.

    Raises:
        UsageError: the network has one exit only.
    """
    splits = run.splits
    feeds = {split: run.feed(images) for split, images in ((VAL, splits.val), (TEST, splits.test)) if images}
    costs = measure_costs(run.method, feeds[TEST].batch(0, 0).x_BCHW[:1])
    if len(costs.exits) < 2:
        raise UsageError("--prefixes: this run has one exit only; it needs blocks with classifiers, as --dgl has")
    answers = {split: exit_logits(run.method, feed, costs.exits, run.precision) for split, feed in feeds.items()}
    every = range(len(costs.exits))
    prefixes = [part_of(costs, [place], answers) for place in every]
    groups = [places for places in (every[:-1], every) if len(places) > 1]
    sums = [part_of(costs, places, answers, kind) for places in groups for kind in ("logits", "softmax")]
    whole, split = prefixes[-1], next(iter(feeds))
    good = [each for each in prefixes if each.accuracies[split] >= whole.accuracies[split] - within]
    least = {name: min(good, key=attrgetter(name)) for name in SIZES}
    run.write_table(
        TABLE,
        ["network", *SIZES, *(f"{split}_accuracy" for split in feeds)],
        ([each.name, *attrgetter(*SIZES)(each), *each.accuracies.values()] for each in [*prefixes, *sums]),
    )
    with run.folder.writing(PLOT):
        sizes = {name: [getattr(each, name) for each in prefixes] for name in SIZES}
        accuracies = [each.accuracies[split] for each in prefixes]
        chosen = {name: prefixes.index(part) for name, part in least.items()}
        draw_prefixes(sizes, accuracies, costs.exits, chosen, within, split, run.folder.path / PLOT)
    yield "Prefixes: the blocks up to an exit and its head, as networks of their own; shares of the whole network"
    yield from (each.line(whole) for each in [*prefixes, *sums])
    for name, part in least.items():
        yield (
            f"  fewest {name.removeprefix('num_').replace('_', '-')} within {within:g} points (chosen on "
            f"{len(answers[split][1])} images of {split}): {part.name}: {TEST} {part.accuracies[TEST]:.2f}, the whole "
            f"network {whole.accuracies[TEST]:.2f}"
        )
    if split == TEST:
        yield "  (there are no validation images, so the test images chose it; train with --val_size to do better)"
    yield f"  written: {run.folder.path / TABLE}, {run.folder.path / PLOT}"


def part_of(
    costs: Costs, places: list[int] | range, answers: Mapping[str, tuple[Tensor, Tensor]], kind: str = "logits"
) -> Part:
    """The part with the exits at ``places`` among all; of several exits the logits or the probabilities are summed."""
    exits = [costs.exits[place] for place in places]
    first, last = block_name(exits[0]), block_name(exits[-1])
    name = last if len(exits) == 1 else f"sum of {kind} {first} to {last}"
    accuracies = {}
    for split, (logits_EPN, y_P) in answers.items():
        said_EPN = logits_EPN[list(places)]
        accuracies[split] = ensemble_accuracy(said_EPN if kind == "logits" else said_EPN.softmax(2), y_P)
    return Part(name, costs.of(exits), accuracies)
