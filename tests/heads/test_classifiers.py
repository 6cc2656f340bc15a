"""Classification heads: shapes at any size, parameter counts of the thesis, the pool against torch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from heads.classifiers import CLASSIFIERS, average_pool, pool_to_at_most
from model import Shape


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 16])
def test_logits_at_any_resolution(kind: str, size: int) -> None:
    head = CLASSIFIERS[kind](Shape(12, size, size), 10, 1, 8)
    assert head(torch.randn(3, 12, size, size)).shape == (3, 10)


# AlonNT/Thesis, BasicCNN (256 wide) and VGG11c (1024 wide) by block.
@pytest.mark.parametrize(
    ("kind", "shape", "width", "count"),
    [
        ("mlp", (128, 16, 16), 256, 8_391_434),
        ("mlp", (128, 8, 8), 256, 2_099_978),
        ("mlp", (64, 32, 32), 1024, 67.12e6),
        ("cnn", (64, 32, 32), 1024, 16.83e6),
        ("cnn", (512, 8, 8), 1024, 10.76e6),
    ],
)
def test_parameter_counts_of_the_thesis(kind: str, shape: tuple[int, int, int], width: int, count: float) -> None:
    with torch.device("meta"):
        head = CLASSIFIERS[kind](Shape(*shape), 10, 1, width)
    assert sum(p.numel() for p in head.parameters()) == pytest.approx(
        count, abs=5000 if isinstance(count, float) else 0
    )


# Lee et al., released code: 128 filters without bias, then the full map.
@pytest.mark.parametrize(("depth", "count"), [(0, 64 * 256 * 10 + 10), (1, 64 * 9 * 128 + 128 * 256 * 10 + 10)])
def test_a_critic_keeps_the_full_map(depth: int, count: int) -> None:
    head = CLASSIFIERS["conv"](Shape(64, 16, 16), 10, depth, 128)
    assert sum(p.numel() for p in head.parameters()) == count


def test_pooled_heads_have_the_same_size_at_every_resolution() -> None:
    for kind in ("pooled", "mlp_sr"):
        counts = {
            sum(p.numel() for p in CLASSIFIERS[kind](Shape(16, size, size), 10, 2, 32).parameters())
            for size in (4, 8, 16, 32)
        }
        assert len(counts) == 1


@pytest.mark.parametrize(
    ("side", "target"),
    [(8, 2), (16, 4), (7, 2), (3, 2), (2, 2), (1, 2), (5, 2), (9, 3), (10, 3), (8, 7), (16, 7), (14, 4)],
)
def test_pool_reaches_its_size_and_is_the_adaptive_one_up_to_a_remainder_of_one(side: int, target: int) -> None:
    x_BCHW = torch.randn(2, 3, side, side, dtype=torch.float64)
    pool, shape = average_pool(Shape(3, side, side), target)
    out_BCHW = pool(x_BCHW)
    assert out_BCHW.shape[1:] == shape == (3, min(side, target), min(side, target))
    if side >= target:
        same = torch.allclose(out_BCHW, F.adaptive_avg_pool2d(x_BCHW, target))
        assert same == (side % target <= 1)


def test_a_map_that_is_not_square() -> None:
    pool, shape = average_pool(Shape(3, 1, 8), 2)
    assert pool(torch.zeros(1, 3, 1, 8)).shape[1:] == shape == (3, 1, 2)


# anokland/local-loss at 2048 features: the sizes that its rule gives on CIFAR-10.
@pytest.mark.parametrize(
    ("shape", "kernel", "size"),
    [
        ((128, 32, 32), (8, 8), (4, 4)),
        ((256, 32, 32), (16, 8), (2, 4)),
        ((256, 16, 16), (8, 4), (2, 4)),
        ((512, 16, 16), (8, 8), (2, 2)),
        ((512, 8, 8), (4, 4), (2, 2)),
        ((512, 4, 4), (2, 2), (2, 2)),
        ((512, 5, 5), (4, 4), (2, 2)),
        ((512, 1, 9), (1, 4), (1, 3)),
        ((4096, 3, 3), (3, 3), (1, 1)),
    ],
)
def test_pool_to_at_most_2048_features(
    shape: tuple[int, int, int], kernel: tuple[int, int], size: tuple[int, int]
) -> None:
    pool, small = pool_to_at_most(Shape(*shape), 2048)
    assert (pool.kernel_size, small) == (kernel, (shape[0], *size))
    assert pool(torch.ones(1, *shape)).shape[1:] == small
    assert torch.allclose(pool(torch.ones(1, *shape)), torch.ones(1, *small))  # the last window is not padded


def test_small_maps_are_not_pooled() -> None:
    assert isinstance(pool_to_at_most(Shape(512, 2, 2), 2048)[0], torch.nn.Identity)


def test_a_linear_head_starts_at_zero() -> None:
    head = CLASSIFIERS["linear"](Shape(4, 8, 8), 10, 1, 8)
    x_BCHW = torch.randn(3, 4, 8, 8, requires_grad=True)
    F.cross_entropy(head(x_BCHW), torch.arange(3)).backward()
    assert not head(x_BCHW).any()
    assert not x_BCHW.grad.any()
    assert head[2].weight.grad.any()


@pytest.mark.parametrize(("k", "count"), [(1, 5386), (2, 153_098), (3, 300_810)])  # 2C + 40C + 10, and 9CC + 2C more
def test_the_head_of_greedy_training_has_k_minus_1_convolutions_at_full_resolution(k: int, count: int) -> None:
    head = CLASSIFIERS["cnn_full"](Shape(128, 16, 16), 10, k - 1, 8)
    assert sum(p.numel() for p in head.parameters()) == count
    seen: list[torch.Size] = []
    for layer in head:
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    head(torch.randn(2, 128, 16, 16))
    assert seen == [(2, 128, 16, 16)] * (k - 1)


def test_without_convolutions_it_is_linear_in_what_it_sees() -> None:
    head = CLASSIFIERS["cnn_full"](Shape(3, 8, 8), 5, 0, 8).double().eval()
    one, other = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(head(one) + head(other), head(one + other) + head(torch.zeros_like(one)))
    expected = F.adaptive_avg_pool2d(one, 2) / (1 + 1e-5) ** 0.5  # statistics are those of a new BatchNorm
    torch.testing.assert_close(head(one), F.linear(expected.flatten(1), head[-1].weight, head[-1].bias))
