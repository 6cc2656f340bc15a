"""BatchNorm with shared statistics is torch's where nobody shares, and leaves everything else alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from layers.normalisation import SharedStatistics

KINDS = {
    "2d": (nn.BatchNorm2d(3), (4, 3, 5, 2)),
    "1d": (nn.BatchNorm1d(3), (4, 3)),
    "not affine": (nn.BatchNorm2d(3, affine=False), (4, 3, 5, 2)),
    "no statistics": (nn.BatchNorm2d(3, track_running_stats=False), (4, 3, 5, 2)),
    "cumulative": (nn.BatchNorm2d(3, momentum=None), (4, 3, 5, 2)),
}


def no_others(values: Tensor) -> Tensor:
    return values.clone()


def steps(layer: nn.Module, x: Tensor, mode: SharedStatistics | None) -> list[Tensor]:
    """Outputs, gradients and state after two steps."""
    layer, found = copy.deepcopy(layer), []
    for factor in (1.0, -2.0):
        leaf = (factor * x + 3).requires_grad_()
        if mode is None:
            out = layer(leaf)
        else:
            with mode:
                out = layer(leaf)
        (out * out.detach().cos() * torch.arange(x[0].numel()).view(x[0].shape)).sum().backward()
        found += [out.detach(), leaf.grad, *(parameter.grad for parameter in layer.parameters())]
    return [*found, *layer.state_dict().values()]


@pytest.mark.parametrize("kind", KINDS)
def test_alone_it_is_torchs(kind: str) -> None:
    layer, shape = KINDS[kind]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layer = layer.double().train()
    torch.testing.assert_close(steps(layer, x, SharedStatistics(no_others, 1)), steps(layer, x, None))


def test_a_layer_in_evaluation_asks_nobody() -> None:
    layer, x = nn.BatchNorm2d(3).eval(), torch.randn(2, 3, 4, 4)
    with SharedStatistics(lambda values: pytest.fail("asked"), 2):
        assert torch.equal(layer(x), nn.BatchNorm2d(3).eval()(x))


def test_two_equal_halves_have_the_running_variance_of_both() -> None:
    """A replica's unbiased estimate divides by one less than the number of its own values."""
    layer, x_BC = nn.BatchNorm1d(3, momentum=1.0).double(), torch.randn(4, 3, dtype=torch.float64)
    with SharedStatistics(no_others, 2):
        layer(x_BC)
    torch.testing.assert_close(layer.running_var, torch.cat((x_BC, x_BC)).var(0))


def test_type_and_memory_order_stay_and_half_precision_is_no_obstacle() -> None:
    """bf16 cannot tell this mean from the values."""
    layer = nn.BatchNorm2d(3)
    x_BCHW = (torch.randn(8, 3, 4, 4) * 2 + 500).bfloat16().contiguous(memory_format=torch.channels_last)
    with SharedStatistics(no_others, 1):
        out_BCHW = layer(x_BCHW)
    assert out_BCHW.dtype == torch.bfloat16 and out_BCHW.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out_BCHW, nn.BatchNorm2d(3)(x_BCHW.float()).bfloat16(), rtol=0.02, atol=0.02)
