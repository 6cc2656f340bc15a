"""Scores of images against the signals of labels, by what a layer makes of both."""

from __future__ import annotations

import torch
from torch import Tensor

WIDE_BYTES = 4  # of a number in which sums over a map are taken, at least


def dot_scores(h_BCHW: Tensor, t_NCHW: Tensor) -> Tensor:
    """Dot products over the channels, mean over the positions, of every image with every label: (B, N).

    In float32 or wider. Two maps of ones give C.
    """
    with torch.autocast(h_BCHW.device.type, enabled=False):  # autocast would multiply in half precision
        h_BD, t_ND = _flat(h_BCHW), _flat(t_NCHW)
        return h_BD @ t_ND.T / h_BCHW[0, 0].numel()


def distance_scores(h_BCHW: Tensor, t_NCHW: Tensor) -> Tensor:
    """Minus the squared distance over the channels, mean over the positions, of every image and every label: (B, N).

    In float32 or wider. Equal maps give 0 up to rounding, maps of ones and of zeros ``-C``.
    """
    with torch.autocast(h_BCHW.device.type, enabled=False):
        h_BD, t_ND = _flat(h_BCHW), _flat(t_NCHW)
        squares_BN = h_BD.square().sum(1)[:, None] + t_ND.square().sum(1)
        return (2 * h_BD @ t_ND.T - squares_BN) / h_BCHW[0, 0].numel()


def _flat(x_BCHW: Tensor) -> Tensor:
    return (x_BCHW.float() if x_BCHW.dtype.itemsize < WIDE_BYTES else x_BCHW).flatten(1)
