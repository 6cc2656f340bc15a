"""Contrastive losses against double loops, and their values at known inputs."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from objectives.contrastive import info_nce, predictive_coding, simclr, supervised_contrastive


def by_loops(z_BD: torch.Tensor, labels: list[int], temperature: float) -> float:
    """The definition, one number at a time."""
    rows = [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in z_BD.tolist()]
    total = 0.0
    for i, anchor in enumerate(rows):
        score = [sum(a * b for a, b in zip(anchor, other, strict=True)) / temperature for other in rows]
        below = sum(math.exp(value) for a, value in enumerate(score) if a != i)
        positives = [p for p in range(len(rows)) if p != i and labels[p] == labels[i]]
        if positives:
            total -= sum(math.log(math.exp(score[p]) / below) for p in positives) / len(positives)
    return total / len(rows)


def embeddings(count: int = 7, width: int = 4) -> torch.Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 0, 3], [0] * 7, [*range(7)]])
def test_equals_the_loops(labels: list[int], temperature: float) -> None:
    z_BD, y_B = embeddings(), torch.tensor(labels)
    expected = torch.tensor(by_loops(z_BD, labels, temperature), dtype=torch.float64)
    torch.testing.assert_close(supervised_contrastive(z_BD, y_B, temperature), expected, rtol=1e-12, atol=1e-14)


def test_with_two_images_to_a_label_it_is_simclr() -> None:
    """Its loss as a classification: which of the others is the second view."""
    z_BD = embeddings(8)
    unit_BD = F.normalize(z_BD, dim=1)
    score_BB = (unit_BD @ unit_BD.T / 0.5).fill_diagonal_(-torch.inf)
    expected = F.cross_entropy(score_BB, torch.tensor([4, 5, 6, 7, 0, 1, 2, 3]))
    torch.testing.assert_close(supervised_contrastive(z_BD, torch.arange(4).repeat(2), 0.5), expected)


@pytest.mark.parametrize("num_images", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
def test_simclr_is_supervised_contrast_with_one_label_for_each_image(num_images: int, temperature: float) -> None:
    z_VD = embeddings(2 * num_images)
    y_V = torch.arange(num_images).repeat(2)
    expected = supervised_contrastive(z_VD, y_V, temperature)
    torch.testing.assert_close(simclr(z_VD, temperature), expected, rtol=1e-12, atol=1e-14)
    looped = torch.tensor(by_loops(z_VD, y_V.tolist(), temperature), dtype=torch.float64)
    torch.testing.assert_close(simclr(z_VD, temperature), looped, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("num_images", [1, 2, 9])
def test_simclr_of_equal_embeddings_is_the_logarithm_of_the_others(num_images: int) -> None:
    z_VD = torch.ones(2 * num_images, 3, dtype=torch.float64)
    assert simclr(z_VD, 0.1).item() == pytest.approx(math.log(2 * num_images - 1))


def test_simclr_finds_the_other_view_and_does_not_mind_the_order() -> None:
    views_VD = torch.eye(5, dtype=torch.float64).repeat(2, 1)
    found = simclr(views_VD, 0.1).item()
    assert found == pytest.approx(math.log(1 + 8 * math.exp(-10)))
    assert simclr(views_VD.roll(5, 0), 0.1).item() == pytest.approx(found)
    assert simclr(torch.cat((views_VD[:5], views_VD[:5].roll(1, 0))), 0.1).item() > 9  # the views of others


def test_the_gradient_of_simclr() -> None:
    assert torch.autograd.gradcheck(lambda z_VD: simclr(z_VD, 0.3), embeddings(6).requires_grad_())


@pytest.mark.parametrize("num_negatives", [1, 4, 16])
def test_at_chance_it_is_the_logarithm_of_the_candidates(num_negatives: int) -> None:
    """A positive and N negatives that look the same: ln(N + 1), as InfoNCE; ln(B - 1) where all are positives."""
    z_BD = torch.ones(num_negatives + 2, 3, dtype=torch.float64)
    for y_B in (torch.zeros(num_negatives + 2, dtype=torch.int64), torch.arange(num_negatives + 2) // 2):
        if y_B.bincount().min() > 1:
            loss = supervised_contrastive(z_BD, y_B, 0.1)
            assert loss.item() == pytest.approx(math.log(num_negatives + 1))


@pytest.mark.parametrize(("count", "labels"), [(1, [0]), (2, [0, 1]), (2, [1, 1]), (3, [0, 0, 1])])
def test_small_batches_and_images_alone_with_their_label_are_finite(count: int, labels: list[int]) -> None:
    z_BD = embeddings(count).requires_grad_()
    loss = supervised_contrastive(z_BD, torch.tensor(labels), 0.1)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z_BD.grad).all()
    assert (loss == 0) == (len(set(labels)) == count or labels == [1, 1])


def test_gradient() -> None:
    z_BD, y_B = embeddings().requires_grad_(), torch.tensor([0, 1, 0, 2, 1, 0, 3])
    assert torch.autograd.gradcheck(lambda z_BD: supervised_contrastive(z_BD, y_B, 0.3), z_BD)


def test_half_precision_is_widened_also_within_autocast() -> None:
    z_BD, y_B = embeddings().bfloat16(), torch.arange(7) % 3
    with torch.autocast("cpu", torch.bfloat16):
        loss = supervised_contrastive(z_BD, y_B, 0.1)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, supervised_contrastive(z_BD.float(), y_B, 0.1))


def anchors(num_anchors: int, num_negatives: int, width: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What is predicted, what is there, and what is elsewhere."""
    rows = embeddings(num_anchors * (2 + num_negatives), width).view(num_anchors, 2 + num_negatives, width)
    return rows[:, 0], rows[:, 1], rows[:, 2:]


@pytest.mark.parametrize("num_negatives", [1, 16])
def test_info_nce_equals_the_loops_and_is_a_classification(num_negatives: int) -> None:
    predicted_AD, positive_AD, negative_AND = anchors(5, num_negatives)
    total = 0.0
    for a in range(5):
        scores = [sum(p * z for p, z in zip(predicted_AD[a].tolist(), row, strict=True))
                  for row in [positive_AD[a].tolist(), *negative_AND[a].tolist()]]  # fmt: skip
        total -= math.log(math.exp(scores[0]) / sum(map(math.exp, scores)))
    assert info_nce(predicted_AD, positive_AD, negative_AND).item() == pytest.approx(total / 5, rel=1e-12)


@pytest.mark.parametrize("num_negatives", [1, 4, 16])
def test_info_nce_of_equal_scores_is_the_logarithm_of_the_candidates(num_negatives: int) -> None:
    positive_AD = embeddings(3)
    loss = info_nce(embeddings(3), positive_AD, positive_AD[:, None].expand(3, num_negatives, 4))
    assert loss.item() == pytest.approx(math.log(num_negatives + 1))
    assert num_negatives != 16 or loss.item() == pytest.approx(2.833, abs=5e-4)


def test_the_gradient_of_info_nce() -> None:
    assert torch.autograd.gradcheck(info_nce, [part.clone().requires_grad_() for part in anchors(3, 4)])


def test_info_nce_in_half_precision_is_widened_also_within_autocast() -> None:
    parts = [part.bfloat16() for part in anchors(5, 16)]
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce(*parts)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, info_nce(*(part.float() for part in parts)))


def coding_by_loops(
    z_BCHW: torch.Tensor, predicted_BKCHW: torch.Tensor, numbers: list[list[list[int]]], skip: int, whole_map: bool
) -> float:
    """The loss of Greedy InfoMax, one score at a time; negatives of the predicted rows, or of the whole map."""
    num_images, _, height, width = z_BCHW.shape
    means = []
    for k in range(predicted_BKCHW.shape[1]):
        below = k + 1 + skip
        first = 0 if whole_map else below
        there = [(b, r, c) for b in range(num_images) for r in range(first, height) for c in range(width)]
        losses = []
        for b in range(num_images):
            for row in range(height - below):
                for column in range(width):
                    predicted = predicted_BKCHW[b, k, :, row, column].tolist()
                    places = [(b, row + below, column)]
                    places += [there[number % len(there)] for number in numbers[b][row * width + column]]
                    scores = [
                        sum(p * z for p, z in zip(predicted, z_BCHW[i, :, r, c].tolist(), strict=True))
                        for i, r, c in places
                    ]
                    losses.append(math.log(sum(map(math.exp, scores))) - scores[0])
        means.append(sum(losses) / len(losses))
    return sum(means) / len(means)


@pytest.mark.parametrize("skip", [0, 1])
def test_predictive_coding_draws_negatives_from_the_predicted_rows_alone(skip: int) -> None:
    """On maps with a vertical trend the rows from which the negatives come decide the loss."""
    generator = torch.Generator().manual_seed(0)
    num_steps = 4 - skip
    noise_BCHW = 0.1 * torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=generator)
    z_BCHW = noise_BCHW + torch.arange(5, dtype=torch.float64)[:, None]
    predicted_BKCHW = 0.5 + 0.1 * torch.randn(2, num_steps, 3, 5, 4, dtype=torch.float64, generator=generator)
    candidate_BGN = torch.randint(2**31, (2, (4 - skip) * 4, 16), generator=generator)
    found = predictive_coding(z_BCHW, predicted_BKCHW, candidate_BGN, skip).item()
    theirs, other = (
        coding_by_loops(z_BCHW, predicted_BKCHW, candidate_BGN.tolist(), skip, whole_map) for whole_map in (False, True)
    )
    assert found == pytest.approx(theirs, rel=1e-12)
    assert theirs > other + 0.1  # negatives from rows above the predicted ones are told apart by the trend alone


def test_the_gradient_of_predictive_coding() -> None:
    z_BCHW = embeddings(2 * 4 * 3, 2).view(2, 4, 3, 2).permute(0, 3, 1, 2)
    predicted_BKCHW = embeddings(2 * 2 * 4 * 3, 2).view(2, 2, 4, 3, 2).permute(0, 1, 4, 2, 3)
    candidate_BGN = torch.randint(2**31, (2, 6, 3), generator=torch.Generator().manual_seed(0))
    parts = [part.clone().requires_grad_() for part in (z_BCHW, predicted_BKCHW)]
    assert torch.autograd.gradcheck(lambda z, predicted: predictive_coding(z, predicted, candidate_BGN, 1), parts)
