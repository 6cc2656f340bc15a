"""One-hot encoding of class labels."""

from __future__ import annotations

import torch

from layers.one_hot import one_hot


def test_it_is_what_torch_gives() -> None:
    y_B = torch.tensor([2, 0, 4, 2])
    assert torch.equal(one_hot(y_B, 5).long(), torch.nn.functional.one_hot(y_B, 5))
