"""Linear evaluation (``evaluate --linear``): accuracy of a linear classifier on the frozen output of every block.

It is the probe of ``--diagnostics probes`` (`diagnostics.features.probe_accuracy`), fitted to all training images and
measured on all test images. The fit uses sums over images, so its memory does not grow with the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from consts import ACCURACY, PLOT_DIR, TEST, TRAIN, block_name, metric_name
from datamodules.feed import Feed
from diagnostics.features import PROBE_SIDE, RIDGE, block_maps, pooled, varies
from engine.evaluation import evaluate
from engine.run.console import Progress
from engine.trained import Trained
from methods._base import Method
from reports.linear import draw_linear

TABLE, PLOT = "linear.csv", f"{PLOT_DIR}/linear.svg"


def study(run: Trained, _: bool = True) -> Iterator[str]:
    """Write ``linear.csv`` and ``plots/linear.svg``, and yield a summary line by line.

    Images are not augmented. Features are computed in float32 whatever the run's precision.
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


class RidgeSums:
    """Sufficient statistics of ridge regression on one-hot labels, in float64 on the features' device.

    Args:
        x_BD: a sample of the features; their mean is subtracted before summing, to avoid cancellation.
        num_classes: of the labels.
    """

    def __init__(self, x_BD: Tensor, num_classes: int) -> None:
        self._shift_D = x_BD.double().mean(0)
        num_features, zeros = x_BD.shape[1], self._shift_D.new_zeros
        self.num_images = 0
        self._sum_D, self._peak_D = zeros(num_features), zeros(num_features)
        self._square_DD, self._cross_DN = zeros(num_features, num_features), zeros(num_features, num_classes)
        self._count_N = zeros(num_classes)

    def add(self, x_BD: Tensor, y_B: Tensor) -> None:
        """Add a batch of features and labels."""
        x_BD = x_BD.double()
        self._peak_D = torch.maximum(self._peak_D, x_BD.abs().amax(0))
        x_BD = x_BD - self._shift_D
        y_BN = functional.one_hot(y_B, len(self._count_N)).double()
        self.num_images += len(x_BD)
        self._sum_D += x_BD.sum(0)
        self._square_DD += x_BD.T @ x_BD
        self._cross_DN += x_BD.T @ y_BN
        self._count_N += y_BN.sum(0)

    def classifier(self) -> tuple[Tensor, Tensor]:
        """Weights (D, N) and bias (N) for features in float64, the same that `probe_accuracy` fits."""
        count = self.num_images
        mean_D, share_N = self._sum_D / count, self._count_N / count
        covariance_DD = self._square_DD - count * mean_D[:, None] * mean_D
        std_D = varies((covariance_DD.diagonal() / count).clamp(min=0).sqrt(), self._peak_D)
        scaled_DD = covariance_DD / std_D / std_D[:, None]
        cross_DN = (self._cross_DN - count * mean_D[:, None] * share_N) / std_D[:, None]
        penalty_DD = RIDGE * count * torch.eye(len(std_D), dtype=std_D.dtype, device=std_D.device)
        weights_DN = torch.linalg.solve(scaled_DD + penalty_DD, cross_DN) / std_D[:, None]
        return weights_DN, share_N - (mean_D + self._shift_D) @ weights_DN


def linear_accuracies(
    method: Method, fit: Feed, held: Feed, num_classes: int, advance: Callable[[], None] = lambda: None
) -> list[float]:
    """Accuracy in percent on ``held`` of linear classifiers fitted to ``fit``: on the image, then on every block.

    Args:
        method: evaluated in evaluation mode; training mode is restored.
        fit: images without augmentation, for the fit.
        held: images without augmentation, for the accuracy.
        num_classes: of the labels.
        advance: called after every batch of either.
    """
    method.eval()
    with torch.inference_mode():
        classifiers = [sums.classifier() for sums in _sums(method, fit, num_classes, advance)]
        right_K = torch.zeros(len(classifiers), dtype=torch.int64)
        for step in range(held.num_steps):
            batch = held.batch(0, step)
            for place, x_BD in enumerate(_features(method, batch.x_BCHW)):
                weights_DN, bias_N = classifiers[place]
                right_K[place] += ((x_BD.double() @ weights_DN + bias_N).argmax(1) == batch.y_B).sum().cpu()
            advance()
    method.train()
    return [100 * right / held.num_images for right in right_K.tolist()]


def _sums(method: Method, fit: Feed, num_classes: int, advance: Callable[[], None]) -> list[RidgeSums]:
    found: list[RidgeSums] = []
    for step in range(fit.num_steps):
        batch = fit.batch(0, step)
        features = _features(method, batch.x_BCHW)
        found = found or [RidgeSums(x_BD, num_classes) for x_BD in features]
        for sums, x_BD in zip(found, features, strict=True):
            sums.add(x_BD, batch.y_B)
        advance()
    return found


def _features(method: Method, x_BCHW: Tensor) -> Sequence[Tensor]:
    """The image and every block's output, average-pooled to `PROBE_SIDE` and flattened."""
    return [pooled(h_BCHW, PROBE_SIDE).flatten(1) for h_BCHW in (x_BCHW, *block_maps(method, x_BCHW))]
