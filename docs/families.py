"""Draws the families of rules and what a block receives: ``python docs/families.py images/families.svg``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from reports.canvas import INK, PALETTE, canvas, render, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORWARD, SIGNAL, SECOND = INK, PALETTE[1], PALETTE[0]
NUM_BLOCKS, STEP, HALF = 3, 1.5, 0.42  # blocks drawn, distance between them, half the width of one
IMAGE, LOSS = -1.15, NUM_BLOCKS * STEP + 1.3  # where the image and the loss stand
OUTPUT, WIDE = NUM_BLOCKS * STEP, HALF + 0.12  # where the classifier stands, and half its width

Point = tuple[float, float]


class Family(NamedTuple):
    """A row of the picture and of the page.

    Attributes:
        rules: names of its files in `methods/`.
        receives, when, passes, transported: facts, a line or two each.
        draw: puts its diagram on the axes.
    """

    title: str
    rules: tuple[str, ...]
    receives: str
    when: str
    passes: str
    transported: str
    draw: Callable[[Axes], None]

    @property
    def facts(self) -> dict[str, str]:
        """What stands beside the diagram."""
        return {
            "a block receives": self.receives, "when": self.when, "passes": self.passes,
            "transported": self.transported, "rules": ", ".join(self.rules),
        }  # fmt: skip


def arrow(axes: Axes, start: Point, end: Point, color: str, bend: float = 0, dashed: bool = False) -> None:
    """From one point to another."""
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.3, "linestyle": "--" if dashed else "-"}
    style |= {"connectionstyle": f"arc3,rad={bend}", "shrinkA": 1, "shrinkB": 1, "mutation_scale": 9}
    axes.annotate("", end, start, arrowprops=style)


def box(axes: Axes, at: Point, text: str, color: str = INK, half: float = HALF) -> None:
    """A rounded box with a word in it."""
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (at[0] - half, at[1] - 0.26),
            2 * half,
            0.52,
            boxstyle="round,pad=0.02,rounding_size=0.08",
            facecolor="white",
            edgecolor=color,
            linewidth=1.2,
        )
    )
    axes.text(*at, text, ha="center", va="center", color=color, fontsize=8)


def word(axes: Axes, at: Point, text: str, color: str = INK) -> None:
    """A word without a box."""
    axes.text(*at, text, ha="center", va="center", color=color, fontsize=8)


def chain(axes: Axes, y: float = 0, color: str = FORWARD, image: str = "image", loss: bool = True) -> None:
    """Image, blocks and classifier with the arrows of a forward pass."""
    word(axes, (IMAGE, y), image, color)
    arrow(axes, (IMAGE + 0.4, y), (-HALF, y), color)
    for block in range(NUM_BLOCKS):
        x = block * STEP
        box(axes, (x, y), f"block {block}", color)
        arrow(axes, (x + HALF, y), (x + STEP - (WIDE if x + STEP == OUTPUT else HALF), y), color)
    box(axes, (OUTPUT, y), "classifier", color, WIDE)
    if loss:
        arrow(axes, (OUTPUT + WIDE, y), (LOSS - 0.25, y), color)
        word(axes, (LOSS, y), "loss", color)


def local(axes: Axes) -> None:
    """A head and a loss for every block."""
    chain(axes)
    for block in range(NUM_BLOCKS):
        x = block * STEP
        box(axes, (x + 0.1, 1), "head, loss", SIGNAL, WIDE)
        arrow(axes, (x + 0.25, 0.28), (x + 0.25, 0.72), FORWARD)
        arrow(axes, (x - 0.05, 0.72), (x - 0.05, 0.28), SIGNAL)
    arrow(axes, (LOSS, -0.2), (OUTPUT, -0.3), SIGNAL, -0.4)


def signals(axes: Axes) -> None:
    """A way down from block to block, and a broadcast."""
    chain(axes)
    arrow(axes, (LOSS, -0.2), (OUTPUT, -0.3), SIGNAL, -0.4)
    for block in range(NUM_BLOCKS):
        x = block * STEP
        arrow(axes, (x + STEP, -0.3), (x, -0.3), SIGNAL, -0.35)
        arrow(axes, (LOSS, 0.2), (x, 0.3), SIGNAL, 0.28, dashed=True)


def relaxation(axes: Axes) -> None:
    """States between blocks that move several times."""
    chain(axes)
    arrow(axes, (LOSS, -0.2), (OUTPUT, -0.3), SIGNAL, -0.4)
    for block in range(NUM_BLOCKS):
        x = (block + 0.5) * STEP
        arrow(axes, (x + 0.5, -0.3), (x - 0.5, -0.3), SIGNAL, -0.45)
        arrow(axes, (x - 0.5, 0.3), (x + 0.5, 0.3), SIGNAL, -0.45)
        word(axes, (x, 0.78), "error", SIGNAL)
    word(axes, (LOSS, 0.78), "repeated", SIGNAL)


def two_passes(axes: Axes) -> None:
    """The image is shown again with the error."""
    chain(axes, 0.7)
    chain(axes, -0.7, SECOND, "changed\nimage", loss=False)
    for block in range(NUM_BLOCKS):
        arrow(axes, (block * STEP, 0.42), (block * STEP, -0.42), SIGNAL)
    word(axes, (0.45, 0), "change", SIGNAL)
    axes.plot((LOSS, LOSS, IMAGE, IMAGE), (0.45, -1.45, -1.45, -1.3), color=SIGNAL, linewidth=1.3, linestyle="--")
    arrow(axes, (IMAGE, -1.35), (IMAGE, -1.0), SIGNAL)


def perturbation(axes: Axes) -> None:
    """Random directions, and one number that comes back."""
    chain(axes)
    for block in range(NUM_BLOCKS):
        x = block * STEP
        word(axes, (x - 0.6, 0.75), "random", SECOND)
        arrow(axes, (x - 0.5, 0.6), (x - 0.2, 0.28), SECOND)
        arrow(axes, (LOSS, -0.2), (x, -0.3), SIGNAL, -0.28, dashed=True)
    word(axes, (LOSS, 0.75), "one number", SIGNAL)


FAMILIES = (
    Family(
        "Local losses", ("critic", "dgl", "ff", "infopro", "predsim", "sigprop"),
        "the gradient of a loss of its own", "as soon as its input is there",
        "one forward; backward inside each block", "nothing", local,
    ),
    Family(
        "Signals from above",
        ("bp", "cdni", "ddtp", "dfa", "dni", "drtp", "dualprop", "fa", "ldrl", "tp"),
        "a vector at its output: an error or a target", "after the forward pass, from the top\n(dni, drtp: at once)",
        "one forward, one down or a broadcast",
        "the forward weights in bp and dualprop; else\nrandom, learned or inverse ones", signals,
    ),
    Family(
        "Relaxation", ("ep", "hopfield", "pc"),
        "its error, after errors of all blocks have moved", "after several moves on the same batch",
        "one forward, then two a move", "the forward weights, in every move", relaxation,
    ),
    Family(
        "Two passes", ("foton", "pepita"),
        "how much its output changes in a second pass", "after the second pass",
        "two forward; backward inside each block", "pepita: nothing; foton: products of weights", two_passes,
    ),
    Family(
        "Perturbation", ("es", "fg"),
        "one number: how the loss changes with its own noise", "after the forward pass",
        "es: two for every direction;\nfg: one with its derivative", "nothing", perturbation,
    ),
)  # fmt: skip


def draw(path: Path) -> None:
    """A row for each family: its diagram, and its facts beside it."""
    with canvas(10.5, 10) as figure:
        rows = figure.subplots(len(FAMILIES), 2, width_ratios=(1.25, 1))
        for family, (diagram, facts) in zip(FAMILIES, rows, strict=True):
            for axes in (diagram, facts):
                axes.set_axis_off()
            diagram.set(xlim=(-1.8, LOSS + 0.75), ylim=(-1.6, 1.4))
            diagram.set_title(family.title, fontweight="bold")
            family.draw(diagram)
            for place, (name, text) in enumerate(family.facts.items()):
                style = {"va": "top", "linespacing": 1.3, "transform": facts.transAxes}
                facts.text(0, 0.95 - 0.2 * place, name, fontweight="bold", **style)
                facts.text(0.27, 0.95 - 0.2 * place, text, **style)
        write_bytes(path, render(figure, path.suffix[1:]))


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
