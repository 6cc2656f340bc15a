"""Contrastive losses: SupCon, SimCLR and InfoNCE, which classify the positive of an anchor among negatives.

They are a few lines each; lightly or pytorch-metric-learning would be a dependency for one function, with a sampling of
their own.
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


def cross_view(first_BD: Tensor, second_BD: Tensor, temperature: float) -> Tensor:
    """Contrast of two views (Tian et al. 2019, arXiv 1906.05849, equations 5 and 6), in float32 or wider.

    The sum over both directions of the mean over images i of ``-log(exp(u_i v_i / t) / sum_j exp(u_i v_j / t))``, with
    u and v of unit length. Negatives are the other view of other images only. Equal embeddings give ``2 ln B``.
    """
    with torch.autocast(first_BD.device.type, enabled=False):
        first_BD, second_BD = (
            F.normalize(z_BD.float() if z_BD.dtype.itemsize < 4 else z_BD, dim=1) for z_BD in (first_BD, second_BD)
        )
        score_BB = first_BD @ second_BD.T / temperature
        own_B = score_BB.diagonal()
        return (score_BB.logsumexp(1) - own_B).mean() + (score_BB.logsumexp(0) - own_B).mean()


def info_nce(predicted_AD: Tensor, positive_AD: Tensor, negative_AND: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, equation 4), in float32 or wider.

    The mean over anchors of ``-log(exp(p z) / (exp(p z) + sum_n exp(p z_n)))``, with p the prediction, z the
    positive and z_n the negatives; the vectors are not scaled to unit length. Equal scores give ``ln(N + 1)``.
    """
    predicted_AD, positive_AD, negative_AND = (
        part.float() if part.dtype.itemsize < 4 else part for part in (predicted_AD, positive_AD, negative_AND)
    )
    right_A1 = (predicted_AD * positive_AD).sum(1, keepdim=True)
    wrong_AN = (negative_AND * predicted_AD[:, None]).sum(2)  # as a product of matrices it goes back more slowly
    return (torch.cat((right_A1, wrong_AN), 1).logsumexp(1) - right_A1[:, 0]).mean()


def predictive_coding(z_BCHW: Tensor, predicted_BKCHW: Tensor, candidate_BGN: Tensor, skip: int) -> Tensor:
    """CPC on the columns of a map, as Greedy InfoMax (Lowe et al. 2019, arXiv 1905.11786): mean over k of `info_nce`.

    Args:
        z_BCHW: the map, of at least K + ``skip`` + 1 rows.
        predicted_BKCHW: predictions from every position; number k, from 0, is for the one k + 1 + ``skip`` rows below.
        candidate_BGN: for the g-th of an image's positions (row by row) N whole numbers from 0, the same for all k.
            They name the negatives: of the positions of all images in the rows that are predicted, from
            k + 1 + ``skip`` down, counted image by image and row by row, the number modulo how many there are.
        skip: rows left out between a position and the first that is predicted from it.

    Negatives from those rows only, as in loeweX/Greedy_InfoMax: from the whole map, a vertical trend in the features
    would tell many of them from the positive, which lies further down than they do on average.
    """
    if z_BCHW.dtype.itemsize < 4:  # once, and not for every negative
        z_BCHW, predicted_BKCHW = z_BCHW.float(), predicted_BKCHW.float()
    num_columns = z_BCHW.shape[3]
    z_BHWC = z_BCHW.permute(0, 2, 3, 1)
    losses = []
    for step, predicted_BCHW in enumerate(predicted_BKCHW.unbind(1), start=1 + skip):
        num_rows = z_BCHW.shape[2] - step
        predicted_AC = predicted_BCHW[:, :, :num_rows].permute(0, 2, 3, 1).flatten(0, 2)
        positive_AC = z_BHWC[:, step:].flatten(0, 2)
        negative_A = candidate_BGN[:, : num_rows * num_columns].flatten() % len(positive_AC)
        negative_ANC = positive_AC.index_select(0, negative_A).view(len(predicted_AC), -1, positive_AC.shape[1])
        losses.append(info_nce(predicted_AC, positive_AC, negative_ANC))
    return torch.stack(losses).mean()


def _log_shares(z_BD: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-softmax of each anchor's similarities (rows) over the other images, and the mask of the diagonal (-inf)."""
    with torch.autocast(z_BD.device.type, enabled=False):  # autocast would multiply in half precision
        z_BD = F.normalize(z_BD.float() if z_BD.dtype.itemsize < 4 else z_BD, dim=1)
        itself_BB = torch.eye(z_BD.shape[0], dtype=torch.bool, device=z_BD.device)
        score_BB = (z_BD @ z_BD.T / temperature).masked_fill(itself_BB, -torch.inf)
        return score_BB - score_BB.logsumexp(1, keepdim=True), itself_BB
