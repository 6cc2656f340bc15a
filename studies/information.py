"""Information (``evaluate --information``): mutual information of every block's features with image and label.

As in InfoPro (Wang et al. 2021, arXiv 2101.10832, figure 2), a decoder and a classifier are trained on the frozen
features h of every block:

- ``I(h, x) = H(x) - H(x|h)``. The error R of any decoder is an upper bound of ``H(x|h)``; R is here the binary
  cross-entropy of pixel values read as probabilities. H(x) is unknown, so -R ranks features and its differences are
  nats of that model, but R alone is not an amount of information.
- ``I(h, y) = H(y) - H(y|h) >= H(y) - CE``, where CE is the cross-entropy of any classifier, in nats. H(y) is computed
  from the labels of the evaluated images, so that constant features get 0.

Both are lower bounds whose tightness depends on the decoder and the classifier: unlike the true quantities, they need
not decrease from block to block. The best epoch is selected on the evaluated images, which favours all blocks alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from consts import ACCURACY, PLOT_DIR, TEST, TRAIN, block_name
from datamodules.base import Batch, DataSpec, ImageSet, pixels_of
from datamodules.feed import Feed, evaluation_batch
from datamodules.split import at_most
from diagnostics.features import block_maps
from engine.run.console import Progress
from engine.trained import Trained
from heads.classifiers import convolutional
from heads.decoder import small_decoder
from methods._base import Method
from model import Shape
from objectives.classification import cross_entropy
from objectives.reconstruction import pixel_cross_entropy
from reports.information import draw_information
from schemas import DataArgs

FIT_IMAGES, HELD_OUT_IMAGES = 5000, 2000  # at most, class-balanced
EPOCHS = 10
BATCH, LEARNING_RATE = 64, 3e-3  # of Adam
WIDTH, HIDDEN_DIM = 64, 256  # of the classifier
TABLE, PLOT = "information.csv", f"{PLOT_DIR}/information.svg"
_SEED = 0  # not the run's: decoders and classifiers start from the same weights for every run
_NO_AUGMENTATION = DataArgs(random_crop=False, random_horizontal_flip=False)

Features = Callable[[Batch], Sequence[Tensor]]  # maps (B, C, H, W) to measure, without a graph


class Information(NamedTuple):
    """Estimates for one feature map, each at the best epoch."""

    reconstruction_error: float  # R in nats per pixel value, at least the entropy of the pixels
    label_information: float  # in nats, from 0 to the entropy of the labels
    accuracy: float  # of the classifier, in percent


def study(run: Trained, _: bool = True) -> Iterator[str]:
    """Write ``information.csv`` and ``plots/information.svg``, and yield a summary line by line.

    Decoders and classifiers learn from training images without augmentation and are measured on test images. Features
    are computed in float32 whatever the run's precision.
    """
    num_classes = run.splits.spec.num_classes
    fit = at_most(run.splits.train, num_classes, FIT_IMAGES)
    held = at_most(run.splits.test, num_classes, HELD_OUT_IMAGES)
    rows = _measure(run, fit, held)
    floor, entropy = pixel_entropy(held), label_entropy(held.labels_P)
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
        f"split in {EPOCHS} epochs, measured on {held.num_images} of {TEST}:"
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


def _measure(run: Trained, fit: ImageSet, held: ImageSet) -> dict[str, Information]:
    """Estimates by name, in this order: of a constant, of the image, of every block."""
    progress = Progress(num_steps(fit.num_images), 0, enabled=True)
    run.method.eval()
    rows = estimate(
        lambda batch: frozen_features(run.method, batch),
        fit, held, run.splits.spec, run.device, advance=lambda: progress.advance("Information"),
    )  # fmt: skip
    run.method.train()
    progress.close()
    names = ["constant", "image", *map(block_name, range(len(rows) - 2))]
    return dict(zip(names, rows, strict=True))


class Probe(nn.Module):
    """A decoder and a classifier for one feature map.

    The classifier first maps to `WIDTH` channels, so that its capacity is the same for an image and for a block, and
    halves maps of 16 pixels or more, as `heads.classifiers.one_convolution` does.
    """

    def __init__(self, shape: Shape, spec: DataSpec) -> None:
        super().__init__()
        stride = 2 if min(shape.height, shape.width) >= 16 else 1
        small = Shape(WIDTH, -(-shape.height // stride), -(-shape.width // stride))
        self.decoder = small_decoder(shape, Shape(spec.num_channels, spec.height, spec.width))
        self.classifier = nn.Sequential(
            nn.Conv2d(shape.channels, WIDTH, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
            convolutional(small, spec.num_classes, 1, HIDDEN_DIM),
        )

    def forward(self, h_BCHW: Tensor, pixels_BCHW: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """R, CE and the fraction of correct labels, means over the batch."""
        logits_BN = self.classifier(h_BCHW)
        error = pixel_cross_entropy(self.decoder(h_BCHW), pixels_BCHW)
        return error, cross_entropy(logits_BN, y_B), (logits_BN.argmax(1) == y_B).double().mean()


def frozen_features(method: Method, batch: Batch) -> list[Tensor]:
    """A constant, the image itself, and the output of every block of ``method``, without a graph."""
    with torch.no_grad():
        return [torch.zeros_like(batch.x_BCHW[:, :1, :1, :1]), batch.x_BCHW, *block_maps(method, batch.x_BCHW)]


def estimate(
    features: Features,
    fit: ImageSet,
    held: ImageSet,
    spec: DataSpec,
    device: torch.device,
    epochs: int = EPOCHS,
    advance: Callable[[], None] = lambda: None,
) -> list[Information]:
    """Train a decoder and a classifier for each feature map, all at the same time, and measure them on other images.

    Features are recomputed for every batch, so memory does not grow with the number of images. All probes have the same
    seed and batches, so the result for one map does not depend on the others. The global random state is unchanged.

    Args:
        features: computes the maps with a frozen network; their dtype, float32 or float64, is also the probes'.
        fit: images to learn from, 2 or more.
        held: images to measure on.
        spec: description of the images.
        device: of the features.
        epochs: passes over ``fit``.
        advance: called after every step; there are `num_steps` of them.
    """
    feed = Feed(fit, spec, min(BATCH, fit.num_images), device, augment=_NO_AUGMENTATION, seed=_SEED)
    held_feed = Feed(held, spec, evaluation_batch(spec), device)
    probes = _build(features(held_feed.batch(0, 0)), spec)
    optimizer = torch.optim.Adam([weight for probe in probes for weight in probe.parameters()], LEARNING_RATE)
    found = []
    for epoch in range(epochs):
        for step in range(feed.num_steps):
            optimizer.zero_grad()
            for error, loss, _ in _apply(probes, features, feed.batch(epoch, step), spec):
                (error + loss).backward()
            optimizer.step()
            advance()
        found.append(_test(probes, features, held_feed, spec))
    entropy = label_entropy(held.labels_P)
    return [_best(epochs_E3, entropy) for epochs_E3 in torch.stack(found, 1)]


def num_steps(num_images: int, epochs: int = EPOCHS) -> int:
    """Number of training steps of `estimate` with ``num_images`` to learn from."""
    return epochs * (num_images // min(BATCH, num_images))


def _build(maps: Sequence[Tensor], spec: DataSpec) -> list[Probe]:
    probes = []
    for h_BCHW in maps:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_SEED)  # parameters are drawn on the CPU
            probe = Probe(Shape(*h_BCHW.shape[1:]), spec).to(h_BCHW.device, h_BCHW.dtype)
            probes.append(probe.to(memory_format=torch.channels_last))
    return probes


def _apply(
    probes: Sequence[Probe], features: Features, batch: Batch, spec: DataSpec
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    pixels_BCHW = pixels_of(batch.x_BCHW, spec)
    for probe, h_BCHW in zip(probes, features(batch), strict=True):
        yield probe(h_BCHW, pixels_BCHW.to(h_BCHW.dtype), batch.y_B)


def _test(probes: Sequence[Probe], features: Features, feed: Feed, spec: DataSpec) -> Tensor:
    """R, CE and fraction of correct labels over all images of a feed, one row per probe, float64 on the CPU."""
    sums_K3 = torch.zeros(len(probes), 3, dtype=torch.float64)
    for probe in probes:
        probe.eval()
    with torch.no_grad():
        for step in range(feed.num_steps):
            batch = feed.batch(0, step)
            means = [torch.stack([part.double() for part in parts]) for parts in _apply(probes, features, batch, spec)]
            sums_K3 += len(batch.y_B) * torch.stack(means).cpu()
    for probe in probes:
        probe.train()
    return sums_K3 / feed.num_images


def _best(epochs_E3: Tensor, entropy: float) -> Information:
    errors_E, losses_E, shares_E = epochs_E3.unbind(1)
    epoch = int(losses_E.argmin())
    return Information(float(errors_E.min()), max(0.0, entropy - float(losses_E[epoch])), 100 * float(shares_E[epoch]))


def label_entropy(y_P: Tensor) -> float:
    """Entropy of the labels in nats; ln C if all C classes have the same number of images."""
    shares_N = torch.bincount(y_P).double() / len(y_P)
    return float(torch.special.entr(shares_N).sum())


def pixel_entropy(images: ImageSet) -> float:
    """Mean binary entropy of the pixel values in nats, in [0, ln 2]: the lower bound of R."""
    levels_L = images.levels().sum(0).double()  # one entropy for each grey level
    values_L = torch.arange(256, dtype=torch.float64) / 255
    entropies_L = torch.special.entr(values_L) + torch.special.entr(1 - values_L)
    return float(levels_L @ entropies_L / levels_L.sum())
