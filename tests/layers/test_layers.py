"""The layers compute what torch's do: values, gradients, and only where they are meant to."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layers import convolution
from layers.convolution import Conv2d, SmallConvolution
from layers.pooling import AvgPool2d


def with_gradients(layer: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Output, then the gradients of input and parameters."""
    layer.zero_grad()
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = layer(leaf)
    out.backward(grad)
    return [out.detach(), leaf.grad, *(parameter.grad for parameter in layer.parameters())]


def drawn(*shape: int, dtype: torch.dtype = torch.float64, last: bool = True) -> Tensor:
    format = torch.channels_last if last else torch.contiguous_format
    return torch.randn(shape, dtype=torch.float64).to(dtype).contiguous(memory_format=format)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (3, 1)])
@pytest.mark.parametrize("side", [(1, 1), (2, 2), (1, 4), (4, 4), (3, 5), (8, 8)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("min_pairs", [0, 10**9])
def test_the_product_is_the_convolution(
    kernel: tuple[int, int], side: tuple[int, int], bias: bool, min_pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "MIN_PAIRS", min_pairs)
    torch.manual_seed(0)
    padding = (kernel[0] // 2, kernel[1] // 2)
    plain = nn.Conv2d(5, 7, kernel, padding=padding, bias=bias).double()
    x, grad = drawn(3, 5, *side), drawn(3, 7, *side)

    class Always(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return SmallConvolution.apply(input, self.weight, self.bias)

    other = copy.deepcopy(plain)
    other.__class__ = Always
    for expected, found in zip(with_gradients(plain, x, grad), with_gradients(other, x, grad), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("side", "kernel"), [((6, 6), (6, 6)), ((6, 6), (2, 3)), ((1, 8), (1, 2)), ((1, 1), (1, 1)), ((4, 2), (4, 2))]
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_windows_that_do_not_overlap_are_a_product(
    side: tuple[int, int], kernel: tuple[int, int], bias: bool, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, kernel, stride=kernel, bias=bias).double()
    ours = Conv2d(5, 7, kernel, stride=kernel, bias=bias).double()
    ours.load_state_dict(plain.state_dict())
    x, grad = drawn(3, 5, *side, last=last), drawn(3, 7, side[0] // kernel[0], side[1] // kernel[1], last=last)
    expected = with_gradients(plain, x, grad)
    monkeypatch.setattr(F, "conv2d", None)
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", None)
    for one, other in zip(expected, with_gradients(ours, x, grad), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [{"stride": 2}, {"stride": 3, "padding": 1}, {"stride": 3, "dilation": 2}, {"stride": 3, "groups": 5}, {}],
)
@pytest.mark.parametrize("side", [7, 9])
def test_other_convolutions_are_torchs(settings: dict[str, int], side: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 5, 3, **settings).double()
    ours = Conv2d(5, 5, 3, **settings).double()
    ours.load_state_dict(plain.state_dict())
    x = drawn(3, 5, side, side)
    assert torch.equal(ours(x), plain(x))


def test_a_kernel_of_one_pixel_on_a_larger_map_is_torchs() -> None:
    plain, ours, x = nn.Conv2d(5, 7, 1).double(), Conv2d(5, 7, 1).double(), drawn(3, 5, 4, 4)
    ours.load_state_dict(plain.state_dict())
    assert not ours._is_tiled(x) and torch.equal(ours(x), plain(x))


def test_what_comes_next_may_overwrite_the_product() -> None:
    layer, x = Conv2d(3, 5, 3, padding=1), torch.randn(2, 3, 2, 2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        F.relu(layer(x), inplace=True).sum().backward()
    assert x.grad is not None


def test_torch_agrees_on_every_gradient_of_the_product() -> None:
    torch.manual_seed(0)
    for side in (2, 4):
        x, weight = drawn(2, 3, side, side).requires_grad_(), drawn(4, 3, 3, 3).requires_grad_()
        torch.autograd.gradcheck(SmallConvolution.apply, (x, weight, torch.randn(4).double().requires_grad_()))


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("side", [1, 2, 4])
def test_in_bf16_it_is_as_near_to_the_truth_as_torch(side: int, last: bool) -> None:
    torch.manual_seed(0)
    truth = nn.Conv2d(64, 96, 3, padding=1).to(memory_format=torch.channels_last)
    ours, theirs = Conv2d(64, 96, 3, padding=1), copy.deepcopy(truth)
    ours.load_state_dict(truth.state_dict())
    x, grad = (drawn(8, channels, side, side, dtype=torch.bfloat16, last=last) for channels in (64, 96))
    exact = with_gradients(truth.double(), x.double(), grad.double())
    with torch.autocast("cpu", torch.bfloat16):
        found, usual = with_gradients(ours, x, grad), with_gradients(theirs, x, grad)
    for name, a, b, c in zip(("out", "x", "weight", "bias"), found, usual, exact, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, name
        errors = [float((value.double() - c).norm() / c.norm()) for value in (a, b)]
        assert errors[0] < max(1.2 * errors[1], 0.005), (name, errors)  # bf16 rounds to 1/256


def test_a_convolution_is_a_product_only_in_bf16_on_tiny_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.Size] = []
    plain = SmallConvolution.apply

    def seen(x: Tensor, *others: Tensor) -> Tensor:
        taken.append(x.shape)
        return plain(x, *others)

    monkeypatch.setattr(convolution.SmallConvolution, "apply", seen)
    layer, x = Conv2d(3, 3, 3, padding=1), torch.randn(2, 3, 4, 4)
    layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(2, 3, 5, 5))
        for other in ({"stride": 2}, {"groups": 3}, {"padding_mode": "reflect"}, {"padding": 0}, {"dilation": 2}):
            Conv2d(3, 3, 3, **({"padding": 1} | other))(x)
        assert not taken
        layer(x)
    assert taken == [x.shape]


def test_bf16_weight_gradients_of_a_5x5_convolution_on_tiny_maps_are_right() -> None:
    """torch 2.14.1 gives garbage here."""
    torch.manual_seed(0)
    layer = Conv2d(4, 4, 5, padding=2)
    for side in ((1, 1), (1, 2), (1, 4)):
        x, grad = drawn(4, 4, *side, dtype=torch.bfloat16), drawn(4, 4, *side, dtype=torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            found = with_gradients(layer, x, grad)[2]
        exact = with_gradients(copy.deepcopy(layer).double(), x.double(), grad.double())[2]
        torch.testing.assert_close(found.double(), exact, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", [2, 3, (2, 3), (6, 6)])
def test_an_average_pool_has_the_bits_of_torch(dtype: torch.dtype, kernel: int | tuple[int, int]) -> None:
    torch.manual_seed(0)
    x, grad = drawn(3, 5, 6, 6, dtype=dtype), F.avg_pool2d(drawn(3, 5, 6, 6, dtype=dtype), kernel)
    for expected, found in zip(
        with_gradients(nn.AvgPool2d(kernel), x, grad), with_gradients(AvgPool2d(kernel), x, grad), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("arguments", [(3, 2), (4,), (2, 2, 1)])
def test_windows_that_do_not_tile_the_map_are_left_to_torch(arguments: tuple[int, ...]) -> None:
    x = drawn(2, 3, 6, 6)
    grad = torch.randn_like(nn.AvgPool2d(*arguments)(x))
    for expected, found in zip(
        with_gradients(nn.AvgPool2d(*arguments), x, grad), with_gradients(AvgPool2d(*arguments), x, grad), strict=True
    ):
        assert torch.equal(found, expected)
