"""AugLocal: with all that follows for a head it is back-propagation, and nothing is shared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods._base import Method
from model import Backbone, Block
from networks import build_backbone
from schemas import ModelArgs
from tests.conftest import make_batch, make_method, make_spec
from tests.methods.test_modules import five_blocks, make

AUGLOCAL = {"pred_aux_type": "auglocal"}


def linear_vgg() -> Backbone:
    """Pools down to one pixel, so that the classifier sees what an average over the map would."""
    return build_backbone(ModelArgs(model="VGGs", mlp_n_hidden_layers=0), make_spec(8))


def resnet() -> Backbone:
    return build_backbone(ModelArgs(model="ResNet20"), make_spec(8))


def with_weights_of_the_network(method: Method) -> Method:
    """Every head gets the weights of the blocks that follow, and of the classifier."""
    backbone = method.backbone
    for index in range(method.last):
        *_, layer = backbone.classifier
        *_, own = method.head(index)
        own.load_state_dict(layer.state_dict())
        following = [part for block in backbone.blocks[index + 1 :] for part in block.parts]
        made = [part for part in method.head(index).modules() if isinstance(part, Block)]
        for copied, block in zip(made, following, strict=True):
            copied.load_state_dict(block.state_dict())
    return method


@pytest.mark.parametrize("ends", [(), (1,)])
@pytest.mark.parametrize("network", [linear_vgg, resnet])
def test_with_all_that_follows_and_its_weights_it_is_back_propagation(network, ends: tuple[int, ...]) -> None:
    model = {"model": "ResNet20"} if network is resnet else {}
    expected = make("bp", network)
    local = with_weights_of_the_network(make("dgl", network, aux_depth=10, module_ends=ends, **AUGLOCAL, **model))
    for method in (expected, local):
        method.fill_grads(make_batch())
    pairs = list(zip(expected.backbone.named_parameters(), local.backbone.parameters(), strict=True))
    assert any(parameter.grad.any() for (_, parameter), _ in pairs)
    for (name, parameter), ours in pairs:
        torch.testing.assert_close(ours.grad, parameter.grad, rtol=1e-10, atol=1e-13, msg=name)


def test_no_weight_is_shared_with_the_network_or_between_heads() -> None:
    method = make_method("dgl", resnet(), model="ResNet20", aux_depth=10, **AUGLOCAL)
    places = [value.data_ptr() for value in method.parameters()]
    assert len(places) == len(set(places))
    assert len({id(p) for p in method.parameters()}) == len(list(method.named_parameters(remove_duplicate=False)))


def blocks_of(method: Method, index: int) -> list[tuple[int, int, int]]:
    return [part.out_shape for part in method.head(index).modules() if isinstance(part, Block)]


def test_a_head_behind_a_module_is_like_the_blocks_behind_it() -> None:
    method = make_method("dgl", five_blocks(), module_ends=(1, 2), aux_depth=2, model="VGG8c", **AUGLOCAL)
    assert [part.out_shape for part in five_blocks().blocks] == [(4, 8, 8), (5, 4, 4), (6, 4, 4), (4, 2, 2), (5, 2, 2)]
    # Two of the three behind block 1: round(1 + 1.5 i) = 2 and 4; all of those behind block 2.
    assert blocks_of(method, 0) == [(6, 4, 4), (5, 2, 2)]
    assert blocks_of(method, 1) == [(4, 2, 2), (5, 2, 2)]
    assert len(method.heads) == 2


def test_a_pyramid_loses_depth_from_the_first_trained_block_to_the_last_head() -> None:
    depths = []
    for first, slope in ((0, 0.0), (0, 1.0), (1, 1.0)):
        settings = {"aux_depth": 3, "aux_pyramid": slope, "first_trainable_block": first, "model": "VGG8c"}
        method = make_method("dgl", five_blocks(), **({"num_modules": None} | settings | AUGLOCAL))
        depths.append([len(blocks_of(method, index)) for index in range(method.first_trainable, method.last)])
    assert depths == [[3, 3, 2, 1], [3, 2, 2, 1], [3, 2, 1]]


def test_heads_of_predsim_begin_with_the_pool_of_the_block() -> None:
    method = make_method("predsim", five_blocks(), model="VGG8c", **AUGLOCAL).eval()
    pools = [isinstance(method.head(index)[0], nn.MaxPool2d) for index in range(4)]
    assert pools == [False, True, False, True]
    block, x_BCHW = method.backbone.block(1), torch.randn(2, 4, 8, 8, dtype=torch.float64)
    assert block.features(x_BCHW).shape[2:] == (8, 8)
    assert torch.equal(method.head(1)(block.features(x_BCHW)), method.head(1)[1](block(x_BCHW)))


@pytest.mark.parametrize("case", ["dgl ssl", "infopro softmax", "infopro", "predsim", "dgl overlap"])
def test_it_is_a_head_like_any_other(case: str) -> None:
    method = make_method(case, **AUGLOCAL)
    output = method.fill_grads(make_batch())
    assert all(torch.isfinite(loss) for loss in output.losses)
    head = [parameter for name, parameter in method.named_parameters() if name.startswith("heads.")]
    assert head and all(parameter.grad is not None for parameter in head)


def test_dropout_of_the_network_is_none_of_the_heads() -> None:
    """Where the masks of the blocks have their keys, nothing else is drawn in a step."""
    args = ModelArgs(model="VGGs", dropout_prob=0.5)
    method = make_method("dgl", build_backbone(args, make_spec(8)), **AUGLOCAL)
    losses = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        for index in range(3):
            method.backbone.key_dropout(index, 7 + index)
        losses.append(method.fill_grads(make_batch()).losses)
    assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))
