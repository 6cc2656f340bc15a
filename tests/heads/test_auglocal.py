"""AugLocal's heads: which blocks they are like, and how deep they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from consts import NETWORKS
from heads.auglocal import auglocal, pyramid_depth, sampled
from model import Block, Shape, merged
from networks import build_backbone
from schemas import ModelArgs
from tests.conftest import build, make_spec


@pytest.mark.parametrize(
    ("index", "num_blocks", "depth", "expected"),
    [
        (0, 16, 3, [5, 10, 15]),
        (0, 16, 1, [15]),
        (0, 16, 2, [8, 15]),
        (10, 16, 3, [12, 13, 15]),
        (12, 16, 3, [13, 14, 15]),
        (13, 16, 3, [14, 15]),
        (0, 55, 6, [9, 18, 27, 36, 45, 54]),
    ],
)
def test_sampled_blocks(index: int, num_blocks: int, depth: int, expected: list[int]) -> None:
    assert sampled(index, num_blocks, depth) == expected


def test_samples_ascend_to_the_last_block() -> None:
    for num_blocks in range(2, 20):
        for index in range(num_blocks - 1):
            for depth in range(1, num_blocks + 1):
                found = sampled(index, num_blocks, depth)
                assert len(found) == min(depth, num_blocks - 1 - index)
                assert found == sorted(set(found)) and found[0] > index and found[-1] == num_blocks - 1


@pytest.mark.parametrize(
    ("depth", "slope", "expected"),
    [(5, 0.5, [5, 4, 4, 4, 3]), (3, 0.5, [3, 3, 2, 2, 2]), (3, 1, [3, 2, 2, 2, 1]), (1, 0.5, [1] * 5), (6, 0, [6] * 5)],
)
def test_pyramid(depth: int, slope: float, expected: list[int]) -> None:
    assert [pyramid_depth(depth, slope, i / 4) for i in range(5)] == expected


@pytest.mark.parametrize("name", NETWORKS)
def test_fresh_blocks_in_a_chain_are_the_network_again(name: str) -> None:
    with torch.device("meta"):
        network = build(name)
        shape = Shape(3, 32, 32)
        for index in range(network.num_blocks):
            block, made = network.block(index), network.block(index).fresh(shape)
            assert (made.features_shape, made.out_shape) == (block.features_shape, block.out_shape)
            assert [(key, value.shape) for key, value in made.state_dict().items()] == [
                (key, value.shape) for key, value in block.state_dict().items()
            ]
            shape = made.out_shape


# The code of the paper halves once with every block for as long as there is something to catch up with.
@pytest.mark.parametrize(
    ("name", "index", "depth", "expected"),
    [
        ("ResNet32", 0, 3, [(16, 32, 32), (32, 16, 16), (64, 8, 8)]),
        ("ResNet32", 0, 2, [(32, 16, 16), (64, 8, 8)]),
        ("ResNet32", 0, 1, [(64, 16, 16)]),
        ("ResNet32", 11, 2, [(64, 8, 8), (64, 8, 8)]),
        ("VGG11", 0, 2, [(512, 8, 8), (512, 4, 4)]),
        ("VGG8b", 0, 3, [(256, 16, 16), (512, 8, 8), (512, 4, 4)]),
    ],
)
def test_shapes_of_the_fresh_blocks(name: str, index: int, depth: int, expected: list[tuple[int, int, int]]) -> None:
    with torch.device("meta"):
        network = build(name)
        head = auglocal(network.out_shapes[index], 10, list(network.blocks), index, depth)
    made = [part for part in head if isinstance(part, Block)]
    assert [block.out_shape for block in made] == expected
    h_BCHW = torch.zeros(2, *network.out_shapes[index], device="meta")
    for block in made:
        h_BCHW = block(h_BCHW)
        assert h_BCHW.shape[1:] == block.out_shape
    assert head(torch.zeros(2, *network.out_shapes[index], device="meta")).shape == (2, 10)
    assert any(isinstance(part, nn.BatchNorm1d) for part in head) == (depth == 1)


def test_fresh_blocks_have_no_dropout_and_keep_the_padding() -> None:
    args = ModelArgs(model="VGGs", dropout_prob=0.5, padding_mode="circular")
    made = build_backbone(args, make_spec(8)).block(1).fresh(Shape(8, 4, 4))
    assert isinstance(made.dropout, nn.Identity)
    assert made.features[0].padding_mode == "circular"


def test_a_joined_block_knows_its_parts_and_has_no_weight_twice() -> None:
    network = build("ResNet20")
    blocks = [network.block(index) for index in range(4)]
    joined = merged([merged(blocks[:2]), *blocks[2:]])
    assert joined.parts == tuple(blocks) and blocks[0].parts == (blocks[0],)
    assert len(list(joined.parameters())) == sum(len(list(block.parameters())) for block in blocks)
    assert len(joined.state_dict()) == sum(len(block.state_dict()) for block in blocks)
