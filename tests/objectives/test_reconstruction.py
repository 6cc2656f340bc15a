"""The reconstruction objective at known inputs."""

from __future__ import annotations

import pytest
import torch

from objectives.reconstruction import (
    masked_reconstruction_loss,
    reconstruction_loss,
    reconstruction_target,
    shift_schedule,
)


def test_loss_is_the_mean_absolute_error() -> None:
    target = torch.zeros(2, 3, 4, 4)
    assert reconstruction_loss(target + 0.5, target) == 0.5
    assert reconstruction_loss(target.bfloat16(), target).dtype == torch.float32


def test_smaller_targets_average_areas() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert reconstruction_target(x, 2, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert reconstruction_target(x, 4, 4) is x


def test_shift_moves_down_and_right_and_wraps_around() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 3] = 1
    assert reconstruction_target(x, 4, 4, 2)[0, 0].nonzero().tolist() == [[3, 1]]


@pytest.mark.parametrize(
    ("num_blocks", "size", "expected"),
    [
        (3, 32, [5, 10, 16]),
        # Lists of the thesis, which counted pools as well: VGG11c with 11 entries, VGG16 with 18.
        (11, 32, [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16]),
        (18, 32, [5, 5, 6, 6, 7, 8, 8, 9, 10, 10, 11, 12, 12, 13, 14, 14, 15, 16]),
        (3, 8, [4, 4, 4]),
        (1, 32, [5]),
    ],
)
def test_schedule(num_blocks: int, size: int, expected: list[int]) -> None:
    assert shift_schedule(num_blocks, size) == expected


def test_masked_errors_are_averaged_over_what_is_masked() -> None:
    target_BCHW = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    mask_B1HW = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    mask_B1HW[0, 0, 1:3, 2:] = 1
    mask_B1HW[1, 0, 0, 0] = 1
    off_BCHW = target_BCHW + torch.where(mask_B1HW == 1, -0.5, 9.0)
    assert masked_reconstruction_loss(off_BCHW, target_BCHW, mask_B1HW).item() == pytest.approx(0.5)
    everywhere = masked_reconstruction_loss(off_BCHW, target_BCHW, torch.ones_like(mask_B1HW))
    torch.testing.assert_close(everywhere, reconstruction_loss(off_BCHW, target_BCHW))
    half = masked_reconstruction_loss(off_BCHW, target_BCHW, mask_B1HW / 2)
    assert half.item() == pytest.approx(0.5)  # a weight for all is none
