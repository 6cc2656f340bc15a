"""Features of every block, and measures of them without training: linear probes in closed form, and linear CKA.

scikit-learn's `Ridge` is not used: the formula is one line, and the library is 40 MB.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from datamodules.feed import Feed
from methods._base import Method

PROBE_SIDE = 4  # feature maps are average-pooled to at most this side for a probe, as in linear heads
RIDGE = 1e-2  # the probe's weight decay, as a multiple of the number of images


def block_maps(method: Method, x_BCHW: Tensor) -> Iterator[Tensor]:
    """Yield the output of every block on a batch of images, in order."""
    for index in range(method.backbone.num_blocks):
        x_BCHW = method.backbone.block(index)(x_BCHW)
        yield x_BCHW


def block_features(method: Method, feed: Feed, side: int | None = None) -> list[Tensor]:
    """Output of every block on all images of a feed, (P, D) each, on the feed's device.

    Args:
        method: evaluated in evaluation mode; training mode is restored.
        feed: images without augmentation.
        side: of the maps at most; larger ones are average-pooled.
    """
    method.eval()
    parts: list[list[Tensor]] = [[] for _ in range(method.backbone.num_blocks)]
    with torch.inference_mode():
        for step in range(feed.num_steps):
            for part, h_BCHW in zip(parts, block_maps(method, feed.batch(0, step).x_BCHW), strict=True):
                part.append(pooled(h_BCHW, side).flatten(1))
    method.train()
    return [torch.cat(part) for part in parts]


def pooled(h_BCHW: Tensor, side: int | None) -> Tensor:
    """A map average-pooled to ``side`` x ``side``; unchanged if it is not larger or no side is given."""
    if side is None or max(h_BCHW.shape[2:]) <= side:
        return h_BCHW
    return functional.adaptive_avg_pool2d(h_BCHW, (min(side, h_BCHW.shape[2]), min(side, h_BCHW.shape[3])))


def labels(feed: Feed) -> Tensor:
    """Labels (P,) of a feed without augmentation."""
    return torch.cat([feed.batch(0, step).y_B for step in range(feed.num_steps)])


def ridge_weights(x_PD: Tensor, y_PN: Tensor, penalty: float) -> Tensor:
    """Minimiser (D, N) of ``|XW - Y|^2 + penalty |W|^2``, by whichever of its two closed forms is smaller."""
    num_images, num_features = x_PD.shape
    if num_features <= num_images:
        eye_DD = torch.eye(num_features, dtype=x_PD.dtype, device=x_PD.device)
        return torch.linalg.solve(x_PD.T @ x_PD + penalty * eye_DD, x_PD.T @ y_PN)
    eye_PP = torch.eye(num_images, dtype=x_PD.dtype, device=x_PD.device)
    return x_PD.T @ torch.linalg.solve(x_PD @ x_PD.T + penalty * eye_PP, y_PN)


def probe_accuracy(fit_PD: Tensor, fit_y_P: Tensor, held_PD: Tensor, held_y_P: Tensor, num_classes: int) -> float:
    """Accuracy in percent on held-out images of a linear classifier fitted by ridge regression on one-hot labels.

    Features are standardised with the mean and standard deviation of the fitted images, targets are centred, and the
    penalty is `RIDGE` times the number of fitted images. Computed in float64, without random numbers.
    """
    fit_PD, held_PD = fit_PD.double(), held_PD.double()
    mean_D, std_D = fit_PD.mean(0), varies(fit_PD.std(0, correction=0), fit_PD.abs().amax(0))
    y_PN = functional.one_hot(fit_y_P, num_classes).double()
    mean_N = y_PN.mean(0)
    weights_DN = ridge_weights((fit_PD - mean_D) / std_D, y_PN - mean_N, RIDGE * len(fit_PD))
    guesses_P = ((held_PD - mean_D) / std_D @ weights_DN + mean_N).argmax(1)
    return 100 * float((guesses_P == held_y_P).double().mean())


def varies(std_D: Tensor, peak_D: Tensor) -> Tensor:
    """Standard deviations; infinity for a feature that is constant up to the rounding of float32."""
    return torch.where(std_D > 1e-6 * peak_D, std_D, torch.inf)


def gram_cka(x_PP: Tensor, y_PP: Tensor) -> float:
    """Linear CKA of two sets of features of the same images, in [0, 1], from their centred Gram matrices.

    Kornblith et al., arXiv 1905.00414, equation 4; it is 1 for features that are equal up to rotation, scale and shift,
    and 0 if either set is constant. Gram matrices are P by P for any number of features.
    """
    norm = x_PP.norm() * y_PP.norm()
    return float((x_PP * y_PP).sum() / norm) if norm > 0 else 0.0


def block_grams(method: Method, feed: Feed) -> list[Tensor]:
    """`centred_gram` of the output of every block on all images of a feed."""
    return [centred_gram(features_PD) for features_PD in block_features(method, feed)]


def centred_gram(x_PD: Tensor) -> Tensor:
    """Gram matrix (P, P) of the centred features of P images, in float64."""
    x_PD = x_PD.double()
    x_PD = x_PD - x_PD.mean(0)
    return x_PD @ x_PD.T
