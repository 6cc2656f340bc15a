"""Networks over patches: what a unit sees, and that rules run on them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layers.local import LocallyConnected2d
from methods._base import Method
from methods._transport import FeedbackLayer
from model import Backbone
from networks import build_backbone
from schemas import ModelArgs, build_args
from tests.conftest import DataSpec, gradients, losses_of_training, make_batch, make_method, make_spec, seed
from utils import UsageError

MODELS = ("MLP", "TreeCNN", "TreeLC")


def built(model: str, height: int = 8, width: int = 8, channels: int = 3, **settings: object) -> Backbone:
    spec = DataSpec("test", channels, height, width, tuple("abcde"), (0.5,) * channels, (0.5,) * channels)
    return build_backbone(ModelArgs(model=model, **({"layer_width": 6} | settings)), spec)


def test_an_mlp_is_one_of_linear_layers() -> None:
    network = built("MLP", height=1, width=7, channels=2, num_layers=2).double()
    linears = [nn.Linear(14, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()]
    plain = nn.Sequential(nn.Flatten(), *linears, nn.Linear(6, 5)).double()
    for mine, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        theirs.data.copy_(mine.data.view_as(theirs))
    x_BCHW = torch.randn(9, 2, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(network(x_BCHW), plain(x_BCHW))
    assert [shape[:] for shape in network.out_shapes] == [(6, 1, 1)] * 2


@pytest.mark.parametrize("model", ["TreeCNN", "TreeLC"])
@pytest.mark.parametrize(("height", "width", "patch"), [(1, 16, 2), (9, 9, 3), (8, 4, 2)])
def test_a_unit_of_a_tree_sees_its_patch_and_nothing_else(model: str, height: int, width: int, patch: int) -> None:
    network = built(model, height, width, num_layers=2, patch_size=patch)
    tall, wide = min(height, patch**2), patch**2
    assert network.out_shapes[-1] == (6, height // tall, width // wide)
    x_BCHW = torch.randn(2, 3, height, width, requires_grad=True)
    h_BCHW = x_BCHW
    for block in network.eval().blocks:
        h_BCHW = block.features[0](h_BCHW)
    h_BCHW[:, :, -1, -1].sum().backward()
    seen_HW = x_BCHW.grad.abs().sum((0, 1)) > 0
    assert seen_HW[height - tall :, width - wide :].all() and seen_HW.sum() == tall * wide


def test_places_of_a_tree_share_their_weights_or_have_their_own() -> None:
    shared, local = (built(model, 1, 16, num_layers=2) for model in ("TreeCNN", "TreeLC"))
    counts = [[block.features[0].weight.numel() for block in network.blocks] for network in (shared, local)]
    assert counts == [[6 * 6, 6 * 12], [8 * 6 * 6, 4 * 6 * 12]]
    assert isinstance(local.block(0).features[0], LocallyConnected2d)


@pytest.mark.parametrize(("height", "width"), [(1, 12), (8, 12), (1, 1), (4, 8)])
def test_images_that_no_patches_fit_are_refused_in_one_line(height: int, width: int) -> None:
    with pytest.raises(UsageError, match=r"must be multiples of 8, or 1, but these images are") as caught:
        built("TreeCNN", height, width)
    assert "\n" not in str(caught.value)


def test_the_number_of_blocks_is_known_before_anything_is_built() -> None:
    args = build_args({"model": "MLP", "num_layers": 7})
    assert args.num_blocks == built("MLP", num_layers=7).num_blocks == 7
    assert "num_layers" in args.effective() and "num_layers" not in build_args({}).effective()
    assert "padding_mode" not in args.effective() and "patch_size" not in args.effective()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_fresh_block_comes_down_to_the_network_s_resolution(model: str, dropout: float) -> None:
    """As the heads of some rules make them; on rows too, where the height says nothing."""
    network = built(model, 1, 8, num_layers=2, dropout_prob=dropout)
    second = network.block(1)
    fresh = second.fresh(network.block(0).out_shape)
    assert fresh.out_shape == second.out_shape
    assert isinstance(fresh.dropout, nn.Identity) and isinstance(second.dropout, nn.Identity) == (dropout == 0)
    assert second.fresh(second.out_shape).out_shape == second.out_shape


RULES = [
    "bp", "dgl", "dgl auglocal", "dgl man", "predsim", "fa", "dfa", "dni", "tp", "pc", "ep", "es", "pepita", "infopro",
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("case", RULES)
def test_rules_give_every_block_a_gradient(model: str, case: str) -> None:
    """After a few steps: some heads are zero at first, and the block below another one waits for its."""
    method = made(model, case)
    seed(case)
    losses_of_training(method, 0.1, 4)
    method.fill_grads(make_batch())
    for index in range(3):
        found = [g for name, g in gradients(method).items() if name.startswith(f"backbone.blocks.{index}.")]
        assert any(g is not None and g.abs().max() > 0 for g in found), index
        assert all(g is None or torch.isfinite(g).all() for g in found), index


@pytest.mark.parametrize("model", MODELS)
def test_feedback_alignment_with_the_forward_weights_is_back_propagation(model: str) -> None:
    method, whole = made(model, "fa"), made(model, "bp")
    for layer in method.modules():
        if isinstance(layer, FeedbackLayer):
            layer.B.copy_(layer.weight.detach())
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    expected = gradients(whole)
    for name, gradient in gradients(method).items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def made(model: str, case: str) -> Method:
    torch.manual_seed(0)
    return make_method(case, build_backbone(ModelArgs(model=model, layer_width=6), make_spec(8)))
