"""``evaluate --linear``: what a linear classifier makes of the frozen output of every block."""

from __future__ import annotations

from collections.abc import Iterator

from consts import ACCURACY, PLOT_DIR, TEST, TRAIN, block_name, metric_name
from diagnostics.features import PROBE_SIDE
from diagnostics.linear import linear_accuracies
from engine.evaluation import evaluate
from engine.run.console import Progress
from engine.trained import Trained
from reports.linear import draw_linear

TABLE, PLOT = "linear.csv", f"{PLOT_DIR}/linear.svg"


def study_linear(run: Trained) -> Iterator[str]:
    """Write ``linear.csv`` and ``plots/linear.svg``, and say what they show, line by line.

    The classifiers are fitted to all training images as they are and measured on all test images. In float32, whatever
    the run computes in.
    """
    fit, held, num_classes = run.feed(run.splits.train), run.feed(run.splits.test), run.splits.spec.num_classes
    progress = Progress(fit.num_steps + held.num_steps, 0, enabled=True)
    found = linear_accuracies(run.method, fit, held, num_classes, lambda: progress.advance("Linear evaluation"))
    progress.close()
    rows = dict(zip(["image", *map(block_name, range(len(found) - 1))], found, strict=True))
    run.write_table(TABLE, ["features", f"{TEST}_{ACCURACY}"], rows.items())
    own = evaluate(run.method, held, run.precision).means(TEST)[metric_name(TEST, ACCURACY)]
    with run.folder.writing(PLOT):
        draw_linear(found, 100 / num_classes, own, run.folder.path / PLOT)
    yield (
        f"Linear classifiers on frozen features (maps averaged to at most {PROBE_SIDE}x{PROBE_SIDE}; ridge "
        f"regression), fitted to {fit.num_images} images of the {TRAIN} split, measured on {held.num_images} of {TEST}:"
    )
    for name, accuracy in rows.items():
        yield f"  {name:8}  {ACCURACY} {accuracy:6.2f}"
    yield f"  the network's own classifier: {ACCURACY} {own:.2f}"
    yield f"  written: {run.folder.path / TABLE}, {run.folder.path / PLOT}"
