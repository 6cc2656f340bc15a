"""Modules of several blocks and overlapping modules: limit cases, oracles, and how blocks are shared out."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from methods._base import Method
from methods._local import LocalMethod
from model import Backbone, Shape, block_costs, cut, mlp, sum_of_squares
from networks.table import convolutional_block
from schemas import ModelArgs
from tests.conftest import CLASSES, build, make_batch, make_method, make_spec, strided_backbone

# Local methods whose last block learns from its classifier alone.
ALONE = {
    "dgl": {},
    "dgl ssl": {"ssl_loss_weight": 0.5},
    "dgl ssl shift alone": {},
    "predsim": {"sim_loss_weight": 0.0},
    "critic": {},
}


def five_blocks(dropout: float = 0.0) -> Backbone:
    args, shape, blocks = ModelArgs(dropout_prob=dropout), Shape(3, 8, 8), []
    for channels, pool in ((4, False), (5, True), (6, False), (4, True), (5, False)):
        blocks.append(convolutional_block(shape, channels, 3, pool, args))
        shape = blocks[-1].out_shape
    return Backbone(blocks, mlp(shape.num_features, len(CLASSES), 1, 7))


def network_gradients(method: Method) -> list[torch.Tensor | None]:
    """Of the backbone, in its order, which modules do not change."""
    return [parameter.grad for parameter in method.backbone.parameters()]


def make(case: str, build: Callable[[], Backbone] = strided_backbone, **settings: object) -> Method:
    torch.manual_seed(0)
    return make_method(case, build(), **settings)


def filled(case: str, build: Callable[[], Backbone] = strided_backbone, **settings: object) -> Method:
    method = make(case, build, **settings)
    torch.manual_seed(1)
    method.fill_grads(make_batch())
    return method


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("first", [0, 1, -1])
@pytest.mark.parametrize("case", ALONE)
def test_one_module_is_back_propagation(case: str, first: int, dropout: float) -> None:
    methods = []
    for name, settings in (("bp", {}), (case, ALONE[case] | {"num_modules": 1})):
        methods.append(filled(name, lambda: strided_backbone(dropout), first_trainable_block=first, **settings))
    for (name, expected), gradient in zip(methods[0].named_parameters(), network_gradients(methods[1]), strict=True):
        assert (expected.grad is None) == (gradient is None), name
        assert gradient is None or torch.equal(expected.grad, gradient), name
    buffers = [[*method.backbone.buffers()] for method in methods]
    assert all(torch.equal(a, b) for a, b in zip(*buffers, strict=True))
    assert len(methods[1].param_groups()) == 1


@pytest.mark.parametrize("case", ["dgl", "dgl ssl", "predsim"])
def test_as_many_modules_as_blocks_change_nothing(case: str) -> None:
    plain, modules = filled(case), filled(case, num_modules=3)
    assert plain.state_dict().keys() == modules.state_dict().keys()
    for ours, theirs in zip(plain.parameters(), modules.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("case", ["dgl", "predsim"])
def test_two_modules_are_two_losses_and_one_backward(case: str) -> None:
    own = {"sim_loss_weight": 0.0, "pred_aux_type": "mlp"} if case == "predsim" else {}
    method, oracle = filled(case, five_blocks, module_ends=(1,), **own), make("bp", five_blocks)
    assert method.backbone.num_blocks == 2
    head, batch = method.head(0), make_batch()
    blocks = oracle.backbone.blocks
    features_BCHW = blocks[1].features(blocks[0](batch.x_BCHW))
    h_BCHW = blocks[1].pool(features_BCHW)
    loss = F.cross_entropy(head(features_BCHW if case == "predsim" else h_BCHW), batch.y_B)
    logits_BN = oracle.backbone.classifier(blocks[4](blocks[3](blocks[2](h_BCHW.detach()))))
    (loss + F.cross_entropy(logits_BN, batch.y_B)).backward()
    for expected, gradient in zip(oracle.backbone.parameters(), network_gradients(method), strict=True):
        torch.testing.assert_close(gradient, expected.grad, rtol=1e-12, atol=1e-14)


def test_modules_take_the_blocks_place_in_what_is_reported() -> None:
    method = make("dgl ssl", five_blocks, module_ends=(1, 2))
    output = method.fill_grads(make_batch())
    assert len(output.losses) == len(output.logits) == len(method.block_logits(make_batch().x_BCHW)) == 3
    assert [group["name"] for group in method.param_groups()] == ["block_00", "block_01", "block_02"]
    assert sorted(method.reconstructions(make_batch())) == [0, 1]


@pytest.mark.parametrize("split", ["equal", "flops", "memory"])
@pytest.mark.parametrize("num_modules", [1, 2, 4])
def test_a_network_of_modules_computes_the_same_from_the_same_weights(split: str, num_modules: int) -> None:
    settings = {"size": 16, "model": "VGG8c"}
    plain = make("bp", lambda: build("VGG8c", 16), **settings).eval()
    joined = make("dgl", lambda: build("VGG8c", 16), num_modules=num_modules, split=split, **settings).eval()
    assert joined.backbone.num_blocks == num_modules
    for ours, theirs in zip(plain.parameters(), joined.backbone.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    x_BCHW = make_batch(16).x_BCHW
    assert torch.equal(plain(x_BCHW), joined(x_BCHW))
    for block in joined.backbone.blocks:
        features_BCHW = block.features(x_BCHW)
        assert features_BCHW.shape[1:] == block.features_shape
        x_BCHW = block(x_BCHW)
        assert torch.equal(x_BCHW, block.pool(features_BCHW))
        assert x_BCHW.shape[1:] == block.out_shape


def test_frozen_blocks_stay_single_and_modules_share_the_others() -> None:
    # The settings are checked against the six blocks of VGG8c; of these five, -4 is block 1.
    method = make("dgl", five_blocks, model="VGG8c", first_trainable_block=-4, num_modules=2)
    assert method.first_trainable == 1
    assert method.backbone.num_blocks == 3
    output = method.fill_grads(make_batch())
    assert [loss is None for loss in output.losses] == [True, False, False]


@pytest.mark.parametrize("costs_of", [[1] * 7, [5, 1, 1, 1, 9, 2, 2], [3, 1, 4, 1, 5, 9, 2, 6]])
@pytest.mark.parametrize("num_parts", [1, 2, 3, 5, 7])
def test_a_partition_is_the_best_of_all(costs_of: list[int], num_parts: int) -> None:
    def badness(ends: tuple[int, ...]) -> int:
        starts = (0, *(end + 1 for end in ends))
        return sum(sum(costs_of[start : end + 1]) ** 2 for start, end in zip(starts, ends, strict=False))

    last = len(costs_of) - 1
    every = [(*ends, last) for ends in itertools.combinations(range(last), num_parts - 1)]
    assert cut(costs_of, num_parts, sum_of_squares) == min(every, key=lambda ends: (badness(ends), ends))


@pytest.mark.parametrize(("count", "num_parts", "ends"), [(16, 4, (3, 7, 11, 15)), (55, 4, (12, 26, 40, 54))])
def test_equal_parts_are_those_of_infopro(count: int, num_parts: int, ends: tuple[int, ...]) -> None:
    """Their ResNet-32 and ResNet-110 in four modules: the stem, then residual blocks."""
    assert cut([1] * count, num_parts, sum_of_squares) == ends


def test_costs_are_those_of_arithmetic() -> None:
    network, spec = build("BasicCNN", 32), make_spec(32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    taps, pixels = 25, (32 * 32, 16 * 16, 8 * 8)
    flops = [2 * 2 * taps * inputs * 128 * count for inputs, count in zip((3, 128, 128), pixels, strict=True)]
    assert block_costs(network, spec, "flops") == flops
    # Of two images: the input (the first block's takes part, its weight needs it), what the convolution and BatchNorm
    # with ReLU give, in floats, and of each pooled value its place; BatchNorm also keeps two means and two deviations.
    sizes = zip((3 * 32 * 32, 128 * 256, 128 * 64), pixels, strict=True)
    memory = [2 * (4 * inputs + 8 * 128 * count + 8 * 128 * count // 4) + 4 * 4 * 128 for inputs, count in sizes]
    assert block_costs(network, spec, "memory") == memory
    assert block_costs(network, spec, "equal") == [1, 1, 1]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def overlapping_loss(method: LocalMethod, depth: int) -> torch.Tensor:
    """Every module's loss on a graph of its own that begins ``depth`` modules below it."""
    batch, total, h_BCHW = make_batch(), torch.zeros((), dtype=torch.float64), [make_batch().x_BCHW]
    count = method.backbone.num_blocks
    for block in method.backbone.blocks:
        h_BCHW.append(block(h_BCHW[-1]).detach())
    for index in range(count):
        start = max(index - depth, 0)
        out_BCHW = h_BCHW[start]
        for block in method.backbone.blocks[start : index + 1]:
            out_BCHW = block(out_BCHW)
        total = total + F.cross_entropy(method.head(index)(out_BCHW), batch.y_B)
    return total


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_overlap_equals_the_sum_of_losses_on_graphs_of_their_own(depth: int) -> None:
    settings = {"model": "VGG8c", "module_ends": (1, 2, 3, 5), "overlap": depth}
    immediate, oracle = (make("dgl", five_blocks, **settings) for _ in range(2))
    assert immediate.backbone.num_blocks == 4
    immediate.fill_grads(make_batch())
    overlapping_loss(oracle, depth).backward()
    for (name, expected), gradient in zip(oracle.named_parameters(), immediate.parameters(), strict=True):
        torch.testing.assert_close(gradient.grad, expected.grad, rtol=1e-10, atol=1e-13, msg=name)


def test_where_no_head_says_anything_an_overlap_of_all_is_back_propagation() -> None:
    """Linear heads start at zero and send nothing down, so that only the last loss is left."""
    local = filled("dgl", pred_aux_type="linear", overlap=2)
    for expected, gradient in zip(filled("bp").parameters(), network_gradients(local), strict=True):
        assert torch.equal(expected.grad, gradient)


@pytest.mark.parametrize("case", ["dgl", "predsim", "dgl ssl"])
def test_the_top_module_and_every_loss_are_those_without_overlap(case: str) -> None:
    outputs, tops = [], []
    for overlap in (0, 1, 2):
        method = make(case, overlap=overlap)
        outputs.append(method.fill_grads(make_batch()))
        tops.append([p.grad for p in method.param_groups()[-1]["params"]])
    for output, top in zip(outputs[1:], tops[1:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(output.losses, outputs[0].losses, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(top, tops[0], strict=True))
