"""Forward derivatives of the layers are those of torch's layers, and a layer that has none is found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from layers.forward import derivative, without_derivative
from layers.normalisation import SharedStatistics
from layers.pooling import AvgPool2d
from tests.conftest import build


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_a_linear_map_is_its_own_derivative() -> None:
    weight, x, moved, turned = drawn(4, 3), drawn(5, 3), drawn(5, 3).flip(0), drawn(4, 3).flip(0)
    found = derivative(lambda x, w: x @ w.t(), [x, weight], [moved, turned])
    torch.testing.assert_close(found, moved @ weight.t() + x @ turned.t())
    assert not found.requires_grad


def test_what_does_not_depend_on_the_point_has_zeros_and_the_point_stays() -> None:
    x = drawn(5, 3)
    before = x.clone()
    found = derivative(lambda x: torch.ones(2) if x.relu_().any() else x, [x], [drawn(5, 3)])
    assert torch.equal(found, torch.zeros(2)) and torch.equal(x, before)


def test_averages_over_tiles_are_torchs() -> None:
    x, moved = drawn(2, 3, 4, 6), drawn(2, 3, 4, 6).flip(3)
    assert torch.equal(derivative(AvgPool2d((2, 3)), [x], [moved]), derivative(nn.AvgPool2d((2, 3)), [x], [moved]))


def test_shared_statistics_move_as_torchs() -> None:
    layer, x, moved = nn.BatchNorm2d(3).double(), drawn(4, 3, 5, 2), drawn(4, 3, 5, 2).flip(0)
    plain = derivative(layer, [x], [moved])
    with SharedStatistics(lambda values: values.clone(), 1):
        torch.testing.assert_close(derivative(layer, [x], [moved]), plain)


class _Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Opaque(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _Opaque.apply(x)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_first_part_without_a_derivative_is_found(device: str) -> None:
    x, known = torch.zeros(2, 3, 4, 4, device=device), nn.Conv2d(3, 3, 3, device=device)
    assert without_derivative([known, nn.Sequential(nn.ReLU(), Opaque()), Opaque()], x) == 1
    assert without_derivative([known], x) is None


@pytest.mark.parametrize("name", ["BasicCNN", "ResNet20"])
def test_the_networks_of_the_project_have_them(name: str) -> None:
    backbone = build(name, 8)
    assert without_derivative([*backbone.blocks, backbone.classifier], torch.zeros(2, 3, 8, 8)) is None
