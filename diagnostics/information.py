"""What features still tell of the image and of its label: the two curves of InfoPro, estimated on a frozen network.

Wang et al. 2021 (arXiv 2101.10832, figure 2) train a decoder and a classifier on the features h of every module:

- ``I(h, x) = H(x) - H(x|h)``, and the error R of any decoder bounds ``H(x|h)`` from above. R is here the binary
  cross-entropy of a pixel value, which takes grey levels for probabilities, and H(x) is not known: -R orders features,
  its differences are nats of that model, and it is no amount of information by itself.
- ``I(h, y) = H(y) - H(y|h) >= H(y) - CE`` for the cross-entropy CE of any classifier, in nats. H(y) is that of the
  images it is measured on: ln C where classes are as many, and what lets nothing pass gets 0, not a little more.

Both are lower bounds, as good as the decoder and the classifier: they need not fall from block to block, as the
quantities themselves do. Their best epoch is chosen on the images they are measured on, which flatters all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datamodules.base import Batch, DataSpec, ImageSet, pixels_of
from datamodules.feed import EVALUATION_BATCH, Feed
from diagnostics.features import block_maps
from heads.classifiers import convolutional
from heads.decoder import small_decoder
from methods._base import Method
from model import Shape
from objectives.classification import cross_entropy
from objectives.reconstruction import pixel_cross_entropy
from schemas import DataArgs

EPOCHS = 10
BATCH, LEARNING_RATE = 64, 3e-3  # of Adam
WIDTH, HIDDEN_DIM = 64, 256  # of the classifier
_SEED = 0  # not the run's: every run is asked by the same decoders and classifiers
_AS_THEY_ARE = DataArgs(random_crop=False, random_horizontal_flip=False)  # shuffled, but not augmented

Features = Callable[[Batch], Sequence[Tensor]]  # the maps (B, C, H, W) of every place, without a graph


class Information(NamedTuple):
    """What one place tells, at the best epoch of its decoder and of its classifier.

    Attributes:
        reconstruction_error: R, nats a pixel value, at least the pixels' own entropy.
        label_information: in nats, from 0 to the entropy of the labels.
        accuracy: of the classifier, in percent.
    """

    reconstruction_error: float
    label_information: float
    accuracy: float


class Probe(nn.Module):
    """A decoder and a classifier that see one map.

    The classifier first brings every map to `WIDTH` channels, so that it is as strong on an image as on a block, and
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
        """R, CE and the share of labels that are right, means over the batch."""
        logits_BN = self.classifier(h_BCHW)
        error = pixel_cross_entropy(self.decoder(h_BCHW), pixels_BCHW)
        return error, cross_entropy(logits_BN, y_B), (logits_BN.argmax(1) == y_B).double().mean()


def frozen_features(method: Method, batch: Batch) -> list[Tensor]:
    """A constant, the image itself, and what every block of ``method`` makes of it, without a graph."""
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
    """Train decoders and classifiers of all places side by side, and measure them on held-out images.

    Features are made anew for every batch, so memory does not grow with the number of images. Every place starts from
    the same seed and sees the same batches: what it gets does not depend on the others. The random state of the process
    stays as it was.

    Args:
        features: of a frozen network; their type, float32 or float64, is that of the heads.
        fit: images to learn from, 2 or more.
        held: images to measure on.
        spec: their description.
        device: of the features.
        epochs: passes over ``fit``.
        advance: called after every step; there are `num_steps` of them.
    """
    feed = Feed(fit, spec, min(BATCH, fit.num_images), device, augment=_AS_THEY_ARE, seed=_SEED)
    held_feed = Feed(held, spec, EVALUATION_BATCH, device)
    probes = _build(features(held_feed.batch(0, 0)), spec)
    optimizer = torch.optim.Adam([weight for probe in probes for weight in probe.parameters()], LEARNING_RATE)
    found = []
    for epoch in range(epochs):
        for step in range(feed.num_steps):
            optimizer.zero_grad()
            for error, loss, _ in _ask(probes, features, feed.batch(epoch, step), spec):
                (error + loss).backward()
            optimizer.step()
            advance()
        found.append(_measure(probes, features, held_feed, spec))
    entropy = label_entropy(held.labels_P)
    return [_best(epochs_E3, entropy) for epochs_E3 in torch.stack(found, 1)]


def num_steps(num_images: int, epochs: int = EPOCHS) -> int:
    """Steps that `estimate` takes with ``num_images`` to learn from."""
    return epochs * (num_images // min(BATCH, num_images))


def _build(maps: Sequence[Tensor], spec: DataSpec) -> list[Probe]:
    probes = []
    for h_BCHW in maps:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_SEED)  # on the CPU: no other generator is touched
            probes.append(Probe(Shape(*h_BCHW.shape[1:]), spec).to(h_BCHW.device, h_BCHW.dtype))
    return probes


def _ask(
    probes: Sequence[Probe], features: Features, batch: Batch, spec: DataSpec
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    pixels_BCHW = pixels_of(batch.x_BCHW, spec)
    for probe, h_BCHW in zip(probes, features(batch), strict=True):
        yield probe(h_BCHW, pixels_BCHW.to(h_BCHW.dtype), batch.y_B)


def _measure(probes: Sequence[Probe], features: Features, feed: Feed, spec: DataSpec) -> Tensor:
    """R, CE and share of right labels on all images of a feed: one row of three for each probe, float64 on the CPU."""
    sums_K3 = torch.zeros(len(probes), 3, dtype=torch.float64)
    for probe in probes:
        probe.eval()
    with torch.no_grad():
        for step in range(feed.num_steps):
            batch = feed.batch(0, step)
            means = [torch.stack([part.double() for part in parts]) for parts in _ask(probes, features, batch, spec)]
            sums_K3 += len(batch.y_B) * torch.stack(means).cpu()
    for probe in probes:
        probe.train()
    return sums_K3 / feed.num_images


def _best(epochs_E3: Tensor, entropy: float) -> Information:
    errors_E, losses_E, shares_E = epochs_E3.unbind(1)
    epoch = int(losses_E.argmin())
    return Information(float(errors_E.min()), max(0.0, entropy - float(losses_E[epoch])), 100 * float(shares_E[epoch]))


def label_entropy(y_P: Tensor) -> float:
    """Entropy of the labels in nats; ln C where every class has as many images."""
    shares_N = torch.bincount(y_P).double() / len(y_P)
    return float(torch.special.entr(shares_N).sum())


def pixel_entropy(images: ImageSet) -> float:
    """Mean binary entropy of the pixel values in nats, in [0, ln 2]: the least that R can be."""
    levels_L = torch.bincount(images.images_PHWC.flatten(), minlength=256).double()  # one entropy for each grey level
    values_L = torch.arange(256, dtype=torch.float64) / 255
    entropies_L = torch.special.entr(values_L) + torch.special.entr(1 - values_L)
    return float(levels_L @ entropies_L / levels_L.sum())
