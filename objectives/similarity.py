"""Similarity matching (Nokland & Eidnes 2019, arXiv 1901.06656): pull features of one class together, others apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from layers.deviation import deviation
from layers.one_hot import one_hot

EPSILON = 1e-8  # added to the norms, as in anokland/local-loss


def similarity_matrix(x: Tensor) -> Tensor:
    """Adjusted cosine similarity of every two images, (B, B), in float32 or wider whatever the type of ``x``.

    A map (B, C, H, W) with more than three channels and more than one row becomes its standard deviations over space
    (unbiased), (B, C); anything else is flattened. The mean over features is taken from each image, not over the
    batch. The diagonal is 1, or 0 where an image's features are all equal.
    """
    with torch.autocast(x.device.type, enabled=False):  # autocast would multiply in half precision
        if x.dim() == 4 and x.shape[1] > 3 and x.shape[2] > 1:
            x_BD = deviation(x)
        else:
            x_BD = (x.float() if x.dtype.itemsize < 4 else x).flatten(1)
        centred_BD = x_BD - x_BD.mean(dim=1, keepdim=True)
        unit_BD = centred_BD / (torch.linalg.vector_norm(centred_BD, dim=1, keepdim=True) + EPSILON)
        return (unit_BD @ unit_BD.T).clamp(-1, 1)


def similarity_loss(x: Tensor, target: Tensor) -> Tensor:
    """Mean of ``(S(x) - S(target))^2`` over all B x B pairs, where S is `similarity_matrix`. Equal inputs give 0."""
    similarity_BB = similarity_matrix(x)
    return F.mse_loss(similarity_BB, similarity_matrix(target.to(similarity_BB.dtype)))


def similarity_matching(x: Tensor, y_B: Tensor, num_classes: int) -> Tensor:
    """`similarity_loss` against the labels, ``onehot(y)``.

    S(onehot(y)) is 1 for two images of one class and ``-1 / (N - 1)`` for others. Smoothed labels have the same S.
    """
    return similarity_loss(x, one_hot(y_B, num_classes))
