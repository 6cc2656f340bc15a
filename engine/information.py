"""``evaluate --information``: InfoPro's curves of a run, what every block still tells of image and label."""

from __future__ import annotations

from collections.abc import Iterator

from consts import ACCURACY, PLOT_DIR, TEST, TRAIN, block_name
from datamodules.base import ImageSet
from datamodules.split import at_most
from diagnostics import information
from engine.run.console import Progress
from engine.trained import Trained
from reports.information import draw_information

FIT_IMAGES, HELD_OUT_IMAGES = 5000, 2000  # at most, class-balanced
TABLE, PLOT = "information.csv", f"{PLOT_DIR}/information.svg"


def study_information(run: Trained) -> Iterator[str]:
    """Write ``information.csv`` and ``plots/information.svg``, and say what they show, line by line.

    Decoders and classifiers learn from training images as they are and are measured on test images. In float32,
    whatever the run computes in.
    """
    num_classes = run.splits.spec.num_classes
    fit = at_most(run.splits.train, num_classes, FIT_IMAGES)
    held = at_most(run.splits.test, num_classes, HELD_OUT_IMAGES)
    rows = _measure(run, fit, held)
    floor, entropy = information.pixel_entropy(held), information.label_entropy(held.labels_P)
    run.write_table(
        TABLE,
        ["features", "reconstruction_error", "label_information", "accuracy", "pixel_entropy", "label_entropy"],
        ([name, *row, floor, entropy] for name, row in rows.items()),
    )
    constant, *shown = rows.values()
    with run.folder.writing(PLOT):
        draw_information(
            [row.reconstruction_error for row in shown], [row.label_information for row in shown],
            floor, constant.reconstruction_error, entropy, run.folder.path / PLOT,
        )  # fmt: skip
    yield (
        f"Information in frozen features; decoders and classifiers learnt from {fit.num_images} images of the {TRAIN} "
        f"split in {information.EPOCHS} epochs, measured on {held.num_images} of {TEST}:"
    )
    for name, row in rows.items():
        yield (
            f"  {name:8}  R {row.reconstruction_error:.4f} nats a pixel value  "
            f"I(h, y) {row.label_information:.3f} nats  {ACCURACY} {row.accuracy:6.2f}"
        )
    yield (
        f"  both are lower bounds: -R of I(h, x), up to a constant, with R at least {floor:.4f}; "
        f"and of I(h, y), which is at most {entropy:.3f}"
    )
    yield f"  written: {run.folder.path / TABLE}, {run.folder.path / PLOT}"


def _measure(run: Trained, fit: ImageSet, held: ImageSet) -> dict[str, information.Information]:
    """By name, what a constant, the image and every block tell, in this order."""
    progress = Progress(information.num_steps(fit.num_images), 0, enabled=True)
    run.method.eval()
    rows = information.estimate(
        lambda batch: information.frozen_features(run.method, batch),
        fit, held, run.splits.spec, run.device, advance=lambda: progress.advance("Information"),
    )  # fmt: skip
    run.method.train()
    progress.close()
    names = ["constant", "image", *map(block_name, range(len(rows) - 2))]
    return dict(zip(names, rows, strict=True))
