"""Similarity matching against loops, and its values at known inputs."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from objectives.similarity import similarity_matching, similarity_matrix


def by_loops(x: torch.Tensor) -> list[list[float]]:
    """The definition, one number at a time."""
    rows: list[list[float]] = []
    for image in x:
        if image.dim() == 3 and image.shape[0] > 3 and image.shape[1] > 1:
            row = []
            for channel in image:
                pixels = channel.flatten().tolist()
                mean = sum(pixels) / len(pixels)
                row.append((sum((pixel - mean) ** 2 for pixel in pixels) / (len(pixels) - 1)) ** 0.5)
        else:
            row = image.flatten().tolist()
        mean = sum(row) / len(row)
        row = [value - mean for value in row]
        norm = sum(value * value for value in row) ** 0.5 + 1e-8
        rows.append([value / norm for value in row])
    return [[min(1, max(-1, sum(a * b for a, b in zip(p, q, strict=True)))) for q in rows] for p in rows]


@pytest.mark.parametrize("shape", [(6, 7), (6, 4, 3, 5), (6, 5, 1, 4), (6, 3, 4, 4), (6, 8, 1, 1), (6, 4, 2, 1)])
def test_equals_the_loops(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y_B = torch.arange(6) % 4
    expected_BB = torch.tensor(by_loops(x), dtype=torch.float64)
    target_BB = torch.tensor(by_loops(F.one_hot(y_B, 4).double()), dtype=torch.float64)
    torch.testing.assert_close(similarity_matrix(x), expected_BB, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(similarity_matching(x, y_B, 4), ((expected_BB - target_BB) ** 2).mean())


def test_maps_are_compared_by_spread_only_with_more_than_three_channels_and_one_row() -> None:
    """Turning one channel of one image around keeps its standard deviation, and not much else."""
    for shape, by_spread in (((4, 4, 3, 3), True), ((4, 3, 3, 3), False), ((4, 4, 1, 9), False)):
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        turned = x.clone()
        turned[0, 0] = x[0, 0].flip(0, 1)
        assert torch.allclose(similarity_matrix(x), similarity_matrix(turned)) == by_spread


@pytest.mark.parametrize("num_classes", [2, 5, 10])
def test_labels_are_one_or_a_little_below_zero(num_classes: int) -> None:
    y_B = torch.randint(num_classes, (12,))
    smooth_BN = 0.9 * F.one_hot(y_B, num_classes).double() + 0.1 / num_classes
    same_BB = y_B[:, None] == y_B[None]
    expected_BB = torch.where(same_BB, 1.0, -1 / (num_classes - 1)).double()
    for target_BN in (F.one_hot(y_B, num_classes).double(), smooth_BN):
        torch.testing.assert_close(similarity_matrix(target_BN), expected_BB, rtol=1e-6, atol=1e-6)


def test_the_diagonal_is_one_but_for_an_image_without_features() -> None:
    x = torch.randn(5, 6, 4, 4, dtype=torch.float64)
    x[2] = 3.0
    assert torch.allclose(similarity_matrix(x).diagonal(), torch.tensor([1.0, 1, 0, 1, 1], dtype=torch.float64))


@pytest.mark.parametrize("shape", [(4, 5), (4, 4, 2, 3), (4, 2, 2, 2)])
def test_gradient(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: similarity_matching(x, torch.tensor([0, 1, 1, 2]), 3), x)


def test_dead_maps_have_a_finite_gradient() -> None:
    x = torch.randn(4, 6, 3, 3)
    x[0], x[1, :3] = 0, 0
    x.requires_grad_()
    similarity_matching(x, torch.tensor([0, 1, 1, 2]), 3).backward()
    assert torch.isfinite(x.grad).all()


def test_half_precision_is_widened_also_within_autocast() -> None:
    x, y_B = torch.randn(8, 6, 3, 3).bfloat16(), torch.arange(8) % 3
    with torch.autocast("cpu", torch.bfloat16):
        loss = similarity_matching(x, y_B, 3)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, similarity_matching(x.float(), y_B, 3))
    assert similarity_matrix(x.double()).dtype == torch.float64
