"""MAN: the average against a loop, the head against its formula, and back-propagation as a limit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from heads.momentum import MomentumHead
from methods._base import Method
from model import Backbone, Shape, mlp
from networks import build_backbone
from networks.table import convolutional_block
from schemas import ModelArgs
from tests.conftest import CLASSES, gradients, make_batch, make_method, make_spec
from tests.methods.test_modules import five_blocks, make


def average(method: Method, index: int = 0) -> dict[str, torch.Tensor]:
    """What E of a block has in place of the next block's parameters."""
    followed = dict(method.backbone.block(index + 1).parts[0].features.named_parameters())
    return {name: method.head(index).average.get_buffer(name).clone() for name in followed}


def next_layers(method: Method, index: int = 0) -> dict[str, torch.Tensor]:
    features = method.backbone.block(index + 1).parts[0].features
    return {name: parameter.detach().clone() for name, parameter in features.named_parameters()}


@pytest.mark.parametrize("network", ["strided", "ResNet20"])
@pytest.mark.parametrize("case", ["dgl man", "infopro man"])
def test_the_average_is_that_of_the_weights_before_each_update(case: str, network: str) -> None:
    settings = {"man_momentum": 0.8}
    backbone = None
    if network == "ResNet20":
        torch.manual_seed(0)
        backbone, settings["model"] = build_backbone(ModelArgs(model=network), make_spec(8)), network
    method, batch = make_method(case, backbone, **settings), make_batch()
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.05)
    expected = next_layers(method)
    for _ in range(5):
        for name, weight in next_layers(method).items():
            expected[name] = 0.8 * expected[name] + 0.2 * weight
        method.fill_grads(batch)
        for name, value in average(method).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-15, msg=name)
        optimizer.step()
        optimizer.zero_grad()
    weights = [name for name in expected if name.endswith("weight")]  # BatchNorm leaves a bias before it still
    assert not any(torch.allclose(average(method)[name], next_layers(method)[name]) for name in weights)


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_limits_of_the_momentum(momentum: float) -> None:
    method, batch = make_method("dgl man", man_momentum=momentum), make_batch()
    optimizer, start = torch.optim.SGD(method.param_groups(), lr=0.05), average(method)
    for _ in range(3):
        before = next_layers(method)
        method.fill_grads(batch)
        for name, value in average(method).items():
            assert torch.equal(value, start[name] if momentum else before[name]), name
        optimizer.step()
        optimizer.zero_grad()


def test_only_training_moves_the_average() -> None:
    method, batch = make_method("dgl man"), make_batch()
    with torch.no_grad():
        for parameter in method.backbone.block(1).parameters():
            parameter.add_(1.0)
    before = copy.deepcopy(method.state_dict())
    method.eval().block_logits(batch.x_BCHW)
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), name
    method.train().fill_grads(batch)
    moved = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {name for name in before if "running_" in name or "num_batches" in name}
    assert moved - statistics == {f"heads.block_00.average.{name}" for name in average(method)}


def test_gradients_are_those_of_the_formula() -> None:
    """Written out with torch's functions, for a next block that the average has moved away from."""
    method, batch = make_method("dgl man", man_momentum=0.75), make_batch()
    head, block = method.head(0), method.backbone.block(0)
    followed, bias = method.backbone.block(1).features, head.bias
    with torch.no_grad():
        for parameter in [*followed.parameters(), *bias.parameters()]:
            parameter.add_(0.1 * torch.randn_like(parameter))
    h_BCHW = block.pool(block.features(batch.x_BCHW))

    def layers(weight, b, gamma, beta) -> torch.Tensor:
        mapped_BCHW = F.conv2d(h_BCHW, weight, b, stride=2, padding=1)
        return F.relu(F.batch_norm(mapped_BCHW, None, None, gamma, beta, training=True))

    mixed = [
        0.75 * head.average.get_buffer(name) + 0.25 * parameter.detach()
        for name, parameter in followed.named_parameters()
    ]
    y_BCHW = layers(*bias.parameters()) + layers(*mixed)
    loss = F.cross_entropy(head.head(y_BCHW), batch.y_B)
    trained = [*block.parameters(), *bias.parameters(), *head.head.parameters()]
    expected = torch.autograd.grad(loss, trained)
    method.fill_grads(batch)
    for parameter, gradient in zip(trained, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-13)


def two_blocks() -> Backbone:
    first = convolutional_block(Shape(3, 8, 8), 4, 3, pool=True, args=ModelArgs())
    second = convolutional_block(first.out_shape, 6, 3, pool=False, args=ModelArgs())
    return Backbone([first, second], mlp(second.out_shape.num_features, len(CLASSES), 1, 9))


def test_without_the_bias_and_without_memory_it_is_back_propagation() -> None:
    """Then E is the next block; with the classifier's weights for its head, nothing of the network is missing."""
    expected = make("bp", two_blocks)
    method = make("dgl man", two_blocks, pred_aux_type="mlp", man_momentum=0.0)
    with torch.no_grad():
        head = method.head(0)
        head.head.load_state_dict(method.backbone.classifier.state_dict())
        for parameter in head.bias[1].parameters():  # scale and shift of its BatchNorm
            parameter.zero_()
    for each in (expected, method):
        each.fill_grads(make_batch())
    ours = gradients(method)
    for name, gradient in gradients(expected).items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-10, atol=1e-14, msg=name)


def test_the_next_block_learns_what_it_learns_without() -> None:
    """Nothing that block 0 does changes block 1's gradients, but for the head that block 1 itself has."""
    plain, man = make("dgl", two_blocks), make("dgl man", two_blocks)
    for method in (plain, man):
        method.fill_grads(make_batch())
    for name, gradient in gradients(plain).items():
        if "blocks.1" in name or "classifier" in name:
            assert torch.equal(gradient, gradients(man)[name]), name


def test_the_average_is_saved_and_the_next_block_is_not_saved_twice() -> None:
    method = make_method("dgl man")
    assert {f"heads.block_00.average.{name}" for name in average(method)} <= method.state_dict().keys()
    assert not any("_followed" in name for name in method.state_dict())
    places = [value.data_ptr() for value in method.state_dict(keep_vars=True).values() if value.numel() > 1]
    assert len(places) == len(set(places))
    for index, group in enumerate(method.param_groups()):
        names = {id(p): name for name, p in method.named_parameters()}
        bias = [names[id(p)] for p in group["params"] if ".bias." in names[id(p)] and "heads" in names[id(p)]]
        assert all(name.startswith(f"heads.block_0{index}.") for name in bias) and bool(bias) == (index < 2)


def test_a_copy_follows_its_own_network() -> None:
    method = make_method("dgl man", man_momentum=0.0)
    twin = copy.deepcopy(method)
    with torch.no_grad():
        for parameter in twin.backbone.block(1).parameters():
            parameter.add_(1.0)
    before = average(method)
    twin.fill_grads(make_batch())
    for name, value in average(twin).items():
        assert torch.equal(value, next_layers(twin)[name]) and not torch.equal(value, before[name]), name
        assert torch.equal(average(method)[name], before[name])


def test_of_a_joined_block_the_first_is_followed() -> None:
    method = make_method("dgl man", five_blocks(), module_ends=(0,), model="VGG8c", pred_aux_type="pooled")
    assert method.backbone.num_blocks == 2
    assert method.head(0).bias[0].weight.shape == (5, 4, 3, 3)  # block 1, at whose resolution the head stands
    assert method.head(0).head[0](torch.zeros(2, 5, 8, 8, dtype=torch.float64)).shape == (2, 5, 2, 2)
    method.fill_grads(make_batch())


def test_heads_of_predsim_begin_with_the_pool_of_the_block() -> None:
    method = make_method("predsim", five_blocks(), man=True, model="VGG8c")
    assert [isinstance(method.head(index), MomentumHead) for index in range(4)] == [True, False, True, False]
    assert [isinstance(part, nn.MaxPool2d) for part in method.head(1)] == [True, False]
    output = method.fill_grads(make_batch())
    assert all(logits.shape == (6, 5) for logits in output.logits)


@pytest.mark.parametrize("settings", [{"is_direct_global": True}, {"ssl": True, "ssl_task": "rotate"}])
def test_it_combines(settings: dict[str, object]) -> None:
    method = make_method("dgl man", **settings)
    output = method.fill_grads(make_batch())
    assert all(torch.isfinite(loss) for loss in output.losses)
    assert method.traits.isolation == ("broadcast" if "is_direct_global" in settings else "neighbour")


def test_a_copied_statistic_is_neither_averaged_nor_shared() -> None:
    """E's BatchNorm counts what E itself has seen."""
    method, batch = make_method("dgl man"), make_batch()
    for _ in range(3):
        method.fill_grads(batch)
    head, followed = method.head(0), method.backbone.block(1).features
    assert [layer[1].num_batches_tracked.item() for layer in (head.average, head.bias, followed)] == [3, 3, 3]
    assert head.average[1].running_mean.data_ptr() != followed[1].running_mean.data_ptr()
