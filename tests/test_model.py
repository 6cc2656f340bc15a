"""Networks: parameter counts of the thesis's table, shapes, and what a block is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from consts import NETWORKS
from layers.dropout import Dropout
from model import Backbone, merged
from networks import build_backbone
from schemas import ModelArgs
from tests.conftest import build, make_spec
from utils import UsageError

# AlonNT/Thesis: convolutional parameters (weights, biases, BatchNorm), number of blocks, side of the last map for
# 32x32.
TABLE = {
    "BasicCNN": (829_952, 3, 4), "VGGs": (0.006e6, 3, 4), "VGGsw": (0.372e6, 3, 4), "VGGsxw": (1.481e6, 3, 4),
    "VGG8c": (4.504e6, 6, 4), "VGG8b": (6.793e6, 6, 2), "VGG11b": (9.449e6, 9, 2), "VGG11c": (9.226e6, 8, 4),
    "VGG13c": (9.411e6, 10, 4), "VGG16c": (14.723e6, 13, 4), "VGG19c": (20.035e6, 16, 4), "VGG11": (9.226e6, 8, 1),
    # As VGGsw; a kernel and a bias at each of 32x32, 16x16 and 8x8 positions, counted by hand.
    "BasicLC": (1024 * 64 * 28 + 256 * 128 * 577 + 64 * 256 * 1153 + 2 * (64 + 128 + 256), 3, 4),
    # He et al. 2015, table 6, counts 0.27, 0.46, 0.85 and 1.7 M with the classifier; here to the last one, without it.
    "ResNet20": (269_072, 10, 8), "ResNet32": (463_504, 16, 8), "ResNet56": (852_368, 28, 8),
    "ResNet110": (1_727_312, 55, 8),
    # Linear layers over 3x32x32 values; then over 2x2 patches, shared and with weights at 16x16, 8x8 and 4x4 places.
    "MLP": (256 * 3073 + 2 * 256 * 257 + 6 * 256, 3, 1), "TreeCNN": (256 * 13 + 2 * 256 * 1025 + 6 * 256, 3, 4),
    "TreeLC": (256 * 256 * 13 + (64 + 16) * 256 * 1025 + 6 * 256, 3, 4),
    "VGG13": (9.411e6, 10, 1), "VGG16": (14.723e6, 13, 1), "VGG19": (20.035e6, 16, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_equal_the_published_table(name: str) -> None:
    assert name in TABLE, f"{name}: add its parameters without the classifier, blocks and last side to TABLE above"
    parameters, num_blocks, side = TABLE[name]
    with torch.device("meta"):
        network = build(name)
    count = sum(p.numel() for p in network.blocks.parameters())
    assert count == (parameters if isinstance(parameters, int) else pytest.approx(parameters, abs=500))
    assert network.num_blocks == num_blocks
    assert network.out_shapes[-1].height == network.out_shapes[-1].width == side


def test_classifiers_of_the_thesis() -> None:
    def count(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    # With ten classes BasicCNN's classifier has 527,114 parameters and VGG11c's 8.400 M; these have five.
    assert count(build("BasicCNN").classifier) == 527_114 - 5 * 257
    assert count(build("VGG11c").classifier) == 8192 * 1024 + 1024 + 1024 * 5 + 5
    assert [type(layer) for layer in build("VGG16").classifier] == [nn.Flatten, nn.Linear]


@pytest.mark.parametrize("name", ["BasicCNN", "VGGs", "VGG8c", "VGG8b", "VGG11", "ResNet20"])
@pytest.mark.parametrize("size", [32, 35])
def test_shapes_by_arithmetic_are_the_real_ones(name: str, size: int) -> None:
    network = build(name, size, channels=1).eval()
    h_BCHW = torch.zeros(1, 1, size, size)
    for block, shape in zip(network.blocks, network.out_shapes, strict=True):
        features_BCHW = block.features(h_BCHW)
        assert features_BCHW.shape[1:] == block.features_shape
        h_BCHW = block(h_BCHW)
        assert torch.equal(h_BCHW, block.pool(features_BCHW))
        assert h_BCHW.shape[1:] == shape
    assert network.classifier(h_BCHW).shape == (1, 5)


def test_building_runs_nothing_and_moves_no_statistics() -> None:
    network = build("VGG8c")
    for name, buffer in network.named_buffers():
        if "num_batches" in name:
            assert buffer == 0


def test_same_seed_same_weights() -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(build("VGGs").state_dict())
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())


def test_too_small_an_image_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"--model VGG11 .* 32x32 .* are 28x28"):
        build("VGG11", 28)


def test_circular_padding_wraps() -> None:
    """Circular padding makes a convolution commute with a circular shift; zero padding does not."""
    x_BCHW = torch.randn(1, 3, 8, 8)
    for mode, commutes in (("circular", True), ("zeros", False)):
        from model import Shape
        from networks.table import convolutional_block

        block = convolutional_block(Shape(3, 8, 8), 4, 3, pool=False, args=ModelArgs(padding_mode=mode))
        convolution = block.features[0]
        shifted = convolution(x_BCHW.roll((2, 3), (2, 3)))
        assert torch.allclose(shifted, convolution(x_BCHW).roll((2, 3), (2, 3)), atol=1e-5) == commutes


def test_keyed_dropout_depends_on_its_key_alone() -> None:
    dropout, x = Dropout(0.3), torch.rand(50, 100, dtype=torch.float64) + 1
    masks = []
    for key, noise in ((5, 1), (5, 2), (6, 2)):
        torch.manual_seed(noise)
        dropout.set_key(key)
        out, state = dropout(x), torch.get_rng_state()
        assert torch.equal(out, dropout(x)) and torch.equal(state, torch.get_rng_state())
        kept = out != 0
        torch.testing.assert_close(out[kept], x[kept] / 0.7)
        assert 0.27 < 1 - kept.double().mean() < 0.33
        masks.append(kept)
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[1], masks[2])
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
def test_keyed_dropout_keeps_the_memory_order_of_a_map_and_draws_the_same_values_in_any(
    order: torch.memory_format,
) -> None:
    dropout = Dropout(0.3)
    dropout.set_key(5)
    x_BCHW = torch.randn(2, 8, 6, 6).to(memory_format=order).requires_grad_()
    out_BCHW = dropout(x_BCHW)
    (grad_BCHW,) = torch.autograd.grad(out_BCHW, x_BCHW, torch.ones_like(x_BCHW))
    assert out_BCHW.stride() == grad_BCHW.stride() == x_BCHW.stride()
    dropped = torch.rand(x_BCHW.shape, generator=torch.Generator().manual_seed(5)) < 0.3
    assert torch.equal(out_BCHW, x_BCHW.masked_fill(dropped, 0) / (1 - 0.3))
    assert torch.equal(grad_BCHW, torch.ones(x_BCHW.shape).masked_fill(dropped, 0) / (1 - 0.3))


def test_every_dropout_of_a_joined_block_has_its_own_key() -> None:
    args = ModelArgs(model="VGGs", dropout_prob=0.5)
    network = build_backbone(args, make_spec(8))
    joined = Backbone([merged([network.block(0), network.block(1)]), network.block(2)], network.classifier)
    for index in range(2):
        joined.key_dropout(index, 2**63 - 1 + 100 * index)
    keys = [part.key for part in joined.modules() if isinstance(part, Dropout)]
    assert keys == [2**63 - 1, 0, 99]


@pytest.mark.parametrize("skipped", [1, 2, 7])
def test_of_a_skipped_block_only_the_pool_stays(skipped: int) -> None:
    whole = build("VGG11c")
    network = build_backbone(ModelArgs(model="VGG11c"), make_spec(32), num_skipped_blocks=skipped)
    assert network.num_blocks == whole.num_blocks
    assert not [*network.blocks[:skipped].parameters()]
    pooled_BCHW = h_BCHW = torch.randn(2, 3, 32, 32)
    for block, whole_block in zip(network.blocks[:skipped], whole.blocks, strict=False):
        pooled_BCHW, h_BCHW = whole_block.pool(pooled_BCHW), block(h_BCHW)
        assert torch.equal(h_BCHW, pooled_BCHW)
        assert h_BCHW.shape[1:] == block.out_shape
    assert [block.out_shape for block in network.blocks[skipped:]] == whole.out_shapes[skipped:]
    assert network.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 5)


@pytest.mark.parametrize(
    ("name", "published"), [("ResNet20", 0.27), ("ResNet32", 0.46), ("ResNet56", 0.85), ("ResNet110", 1.7)]
)
def test_residual_networks_have_the_published_size(name: str, published: float) -> None:
    with torch.device("meta"):
        network = build(name)
    count = sum(p.numel() for p in network.parameters()) + 5 * 65  # ten classes, where these have five
    assert round(count / 1e6, 2 if published < 1 else 1) == published


def test_a_residual_block_whose_body_is_silent_gives_back_its_input() -> None:
    network = build("ResNet20")
    x_BCHW = torch.rand(2, 16, 8, 8)
    for index, (stride, width) in ((1, (1, 16)), (4, (2, 32))):
        features = network.block(index).features
        torch.nn.init.zeros_(features.body[-1].weight)
        expected = torch.zeros(2, width, 8 // stride, 8 // stride)
        expected[:, :16] = x_BCHW[:, :, ::stride, ::stride]
        assert torch.equal(features(x_BCHW), expected)


@pytest.mark.parametrize("skipped", [1, 5, 9])
def test_a_skipped_residual_block_keeps_the_resolution(skipped: int) -> None:
    network = build_backbone(ModelArgs(model="ResNet20"), make_spec(32), num_skipped_blocks=skipped)
    assert not [*network.blocks[:skipped].parameters()]
    assert network.out_shapes[-1] == build("ResNet20").out_shapes[-1]
    assert network.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 5)
