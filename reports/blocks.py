"""Tables and figures by block: shape and measurements of the blocks of a run, and differences between groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from consts import ACCURACY, ALIGNMENT, FEEDBACK, GRADIENT_RATIO, INSIDE, PROBE_ACCURACY, SIGNAL, TEST, metric_name
from reports.canvas import INK, integer_axis, ratio_axis
from reports.columns import NOTHING
from reports.files import MAX_BLOCKS, finite
from reports.groups import Group, Spread, spread
from reports.looks import Look, plot_spread
from reports.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCE = "bp"  # the method that the others are compared with, if present
NEAR = 0.99  # with a cosine above this in every block, a rule computes nearly the gradient of back-propagation


class Quantity(NamedTuple):
    """A quantity measured for every block: split and name of its metric, title, and number format."""

    split: str
    name: str
    title: str
    form: str

    def of_run(self, run: Run) -> list[float | None]:
        """Values by block, of the last epoch that has any."""
        names = [metric_name(self.split, self.name, index) for index in range(MAX_BLOCKS)]
        for line in reversed(run.epochs):
            values = [finite(line.get(name)) for name in names]
            if known := [index for index, value in enumerate(values) if value is not None]:
                return values[: known[-1] + 1]
        return []

    def of_group(self, group: Group) -> list[Spread | None]:
        """Statistics over the runs of a group, by block."""
        return [spread(values) for values in zip_longest(*map(self.of_run, group.counted))]


COSINE = Quantity(INSIDE, ALIGNMENT, "cosine with back-prop's gradient", "{:.3f}")
QUANTITIES = (
    Quantity(TEST, ACCURACY, "test accuracy (%)", "{:.2f}"),
    Quantity(INSIDE, PROBE_ACCURACY, "linear probe (%)", "{:.2f}"),
    COSINE,
    Quantity(INSIDE, GRADIENT_RATIO, "gradient norm / back-prop's", "{:.3g}"),
    Quantity(INSIDE, SIGNAL[1], "angle of the signal to back-prop's (degrees)", "{:.1f}"),
    Quantity(INSIDE, FEEDBACK[1], "angle of feedback to forward weights (degrees)", "{:.1f}"),
)


def near_back_propagation(run: Run) -> list[str]:
    """One sentence, if at the last look all gradients of another rule were nearly those of back-propagation."""
    cosines = [value for value in COSINE.of_run(run) if value is not None]
    if run.text("method") == REFERENCE or not cosines or min(cosines) <= NEAR:
        return []
    return [
        f"works near back-propagation: every block's gradient has a cosine above {NEAR} with back-propagation's (the "
        f"least {min(cosines):.4f}), so that an accuracy like its own says little about the rule"
    ]


def block_table(run: Run) -> list[list[str]]:
    """A header and one row per block: its shape and size, and its last measurements."""
    described = run.summary.get("blocks")
    facts = [fact if isinstance(fact, dict) else {} for fact in described] if isinstance(described, list) else []
    measured = {quantity: values for quantity in QUANTITIES if (values := quantity.of_run(run))}
    header = ["block", "output", "parameters", "receptive field", "stride", *(quantity.title for quantity in measured)]
    rows = [header]
    for index in range(min(MAX_BLOCKS, max([len(facts), *map(len, measured.values())]))):
        fact = facts[index] if index < len(facts) else {}
        ends = [
            _show(quantity, values[index] if index < len(values) else None) for quantity, values in measured.items()
        ]
        rows.append([str(index), *_facts(fact), *ends])
    return rows


def _facts(fact: Mapping[str, Any]) -> list[str]:
    shape = fact.get("output")
    sides = [finite(side) for side in shape] if isinstance(shape, list) else []
    output = "x".join(NOTHING if side is None else f"{side:.0f}" for side in sides) or NOTHING
    numbers = [finite(fact.get(key)) for key in ("num_parameters", "receptive_field", "stride")]
    return [output, *(NOTHING if number is None else f"{number:,.0f}" for number in numbers)]


def _show(quantity: Quantity, value: float | None) -> str:
    return NOTHING if value is None else quantity.form.format(value)


def difference_table(groups: Sequence[Group]) -> list[list[str]]:
    """A header, and for each quantity a row per group: values by block, and their difference from the reference.

    The reference is the first group trained with back-propagation, or else the first group.
    """
    reference = next((group for group in groups if group.settings.get("method") == REFERENCE), groups[0])
    rows = list(_difference_rows(groups, reference))
    num_blocks = max([len(row) for row in rows], default=2) - 2
    header = ["quantity", "group", *(f"block {index}" for index in range(num_blocks))]
    return [header, *(row + [NOTHING] * (num_blocks + 2 - len(row)) for row in rows)]


def _difference_rows(groups: Sequence[Group], reference: Group) -> Iterator[list[str]]:
    for quantity in QUANTITIES:
        base = quantity.of_group(reference)
        for group in groups:
            cells = []
            for own, other in zip_longest(quantity.of_group(group), base):
                text = _show(quantity, own.mean if own else None)
                if own and other and group is not reference:
                    text += f" ({quantity.form.replace(':', ':+').format(own.mean - other.mean)})"
                cells.append(text)
            if any(cell != NOTHING for cell in cells):
                yield [quantity.title, group.title, *cells]


def difference_panels(groups: Sequence[Group]) -> dict[str, Callable[..., None]]:
    """A panel per quantity that was measured for the blocks of at least two groups, accuracy aside."""
    return {
        quantity.name: partial(_quantity_panel, quantity)
        for quantity in QUANTITIES[1:]
        if sum(any(quantity.of_group(group)) for group in groups) > 1
    }


def _quantity_panel(quantity: Quantity, axes: Axes, groups: Sequence[Group], looks: Sequence[Look]) -> None:
    """One line over the blocks per group."""
    for group, look in zip(groups, looks, strict=True):
        known = {block: value for block, value in enumerate(quantity.of_group(group)) if value is not None}
        if known:
            plot_spread(axes, known, look, marker=look.marker)
    if quantity.name == GRADIENT_RATIO:
        ratio_axis(axes)
        axes.axhline(1, color=INK, linewidth=0.8)
    axes.set_title(quantity.title)
    integer_axis(axes, "block")
