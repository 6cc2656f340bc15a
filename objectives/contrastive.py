"""Contrastive objectives: an image must find those of its class among the others of the batch.

Written here because it is a few lines of matrix arithmetic; lightly and pytorch-metric-learning would be a dependency
each for one function, with their own sampling around it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def supervised_contrastive(z_BD: Tensor, y_B: Tensor, temperature: float) -> Tensor:
    """SupCon (Khosla et al. 2020, arXiv 2004.11362, equation 2), in float32 or wider whatever the type of ``z_BD``.

    The mean over anchors i of ``-1/|P(i)| sum_{p in P(i)} log(exp(z_i z_p / t) / sum_{a != i} exp(z_i z_a / t))``, with
    z scaled to unit length and P(i) the other images of the same label. An anchor without one counts as 0, and so does
    a batch of one. Equal embeddings give ``ln(B - 1)``, where every anchor has a positive. With two images to a label,
    the two views of one image, it is `simclr`. Their factor t / t_b is 1.
    """
    if z_BD.shape[0] < 2:
        return 0 * z_BD.sum()
    log_share_BB, itself_BB = _log_shares(z_BD, temperature)
    positive_BB = (y_B[:, None] == y_B) & ~itself_BB
    found_B = torch.where(positive_BB, log_share_BB, 0).sum(1) / positive_BB.sum(1).clamp(min=1)
    return -found_B.mean()


def simclr(z_VD: Tensor, temperature: float) -> Tensor:
    """NT-Xent (Chen et al. 2020, arXiv 2002.05709, equation 1), in float32 or wider whatever the type of ``z_VD``.

    The mean over V = 2B views i of ``-log(exp(z_i z_j / t) / sum_{a != i} exp(z_i z_a / t))``, with z scaled to unit
    length and j the other view of the same image: i + B, or i - B. Equal embeddings give ``ln(2B - 1)``, which for one
    image is 0 whatever its views.
    """
    log_share_VV, _ = _log_shares(z_VD, temperature)
    num_images = z_VD.shape[0] // 2
    return -torch.cat([log_share_VV.diagonal(offset) for offset in (num_images, -num_images)]).mean()


def _log_shares(z_BD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The logarithm of the share that each other has in an anchor's row, and where an anchor meets itself (-inf)."""
    with torch.autocast(z_BD.device.type, enabled=False):  # autocast would multiply in half precision
        z_BD = F.normalize(z_BD.float() if z_BD.dtype.itemsize < 4 else z_BD, dim=1)
        itself_BB = torch.eye(z_BD.shape[0], dtype=torch.bool, device=z_BD.device)
        score_BB = (z_BD @ z_BD.T / temperature).masked_fill(itself_BB, -torch.inf)
        return score_BB - score_BB.logsumexp(1, keepdim=True), itself_BB
