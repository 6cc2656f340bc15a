"""Direct feedback alignment: with the Jacobian of what lies above as feedback it is back-propagation."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from datamodules.base import Batch
from methods._base import Method
from model import Backbone, Shape, mlp
from networks.table import convolutional_block
from schemas import ModelArgs
from tests.conftest import CLASSES, gradients, make_batch, make_method, strided_backbone

DEGREES = 180 / torch.pi


def matrix(method: Method, index: int) -> torch.Tensor:
    return method.feedback.get_buffer(f"block_{index:02d}")


def pair(build: Callable[[], Backbone]) -> tuple[Method, Method]:
    """The same network under DFA and under back-propagation."""
    backbone = build()
    return make_method("dfa", backbone), make_method("bp", copy.deepcopy(backbone))


def plain_blocks(widths: tuple[int, ...], layer: Callable[[int, int], nn.Module], size: int) -> Backbone:
    """Blocks of one given layer each, on ``size`` by ``size`` images, under a linear classifier."""
    blocks = []
    for before, after in itertools.pairwise(widths):
        block = convolutional_block(Shape(before, size, size), after, 1, pool=False, args=ModelArgs())
        block.features = layer(before, after)
        blocks.append(block)
    classifier = mlp(blocks[-1].out_shape.num_features, len(CLASSES), 0, 1)
    return Backbone(blocks, classifier)


def one_block() -> Backbone:
    block = convolutional_block(Shape(3, 8, 8), 4, 3, pool=True, args=ModelArgs())
    return Backbone([block], mlp(block.out_shape.num_features, len(CLASSES), 0, 1))


def test_one_block_under_a_linear_classifier_is_back_propagation() -> None:
    """Whatever is in the block: convolution, normalisation, ReLU and pool take the same signal."""
    method, whole = pair(one_block)
    matrix(method, 0).copy_(method.backbone.classifier[-1].weight.detach())
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    for name, gradient in gradients(whole).items():
        assert torch.equal(gradient, gradients(method)[name]), name


def test_deep_linear_net_with_the_products_of_the_weights_is_back_propagation() -> None:
    method, whole = pair(lambda: plain_blocks((3, 4, 6, 5), lambda i, o: nn.Conv2d(i, o, 3, padding=1), size=4))
    for index in range(3):
        above = nn.Sequential(*method.backbone.blocks[index + 1 :], method.backbone.classifier)
        point = torch.zeros(1, *method.backbone.out_shapes[index], dtype=torch.float64)
        matrix(method, index).copy_(jacobian(above, point).reshape(len(CLASSES), -1))
    for trained in (method, whole):
        trained.fill_grads(make_batch(size=4))
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(method)[name], gradient, rtol=1e-12, atol=1e-14, msg=name)


def test_classifier_is_trained_as_in_back_propagation_and_the_blocks_are_not() -> None:
    method, whole = pair(strided_backbone)
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    for name, gradient in gradients(whole).items():
        if name.endswith("features.0.bias"):
            continue  # zero up to rounding in both: batch normalisation takes the mean away
        assert torch.equal(gradient, gradients(method)[name]) == ("classifier" in name), name


def test_signal_needs_the_error_and_nothing_from_above() -> None:
    method = make_method("dfa")
    trace, _ = method.run(make_batch())
    for index, shape in enumerate(method.backbone.out_shapes):
        nothing = torch.full((6, *shape), torch.nan, dtype=torch.float64)
        signal_BCHW = method.signal(index, trace, nothing)
        expected = torch.einsum("bn,nd->bd", trace.error_BN, matrix(method, index)).reshape(6, *shape)
        torch.testing.assert_close(signal_BCHW, expected)


def test_with_the_error_held_a_block_does_not_feel_the_others_above() -> None:
    """What the broadcast leaves: change blocks 1 and 2, keep the error, and block 0's gradient keeps its bits."""
    method, batch = make_method("dfa"), make_batch()
    held, results = method.run(batch)[0].error_BN, []
    run = method.run

    def run_with_held_error(seen: Batch):
        trace, logits_BN = run(seen)
        trace.error_BN = held
        return trace, logits_BN

    method.run = run_with_held_error
    for _ in range(2):
        method.zero_grad()
        method.fill_grads(batch)
        results.append(gradients(method)["backbone.blocks.0.features.0.weight"])
        with torch.no_grad():
            for parameter in method.backbone.blocks[1:].parameters():
                parameter.add_(torch.randn_like(parameter))
    assert torch.equal(*results)


def test_matrices_are_fixed_and_in_the_state() -> None:
    method = make_method("dfa", first_trainable_block=1)
    names = {name for name in method.state_dict() if name.startswith("feedback.")}
    assert names == {"feedback.block_01", "feedback.block_02"}
    assert matrix(method, 1).shape == (len(CLASSES), 6 * 2 * 2)
    before = copy.deepcopy(method.feedback.state_dict())
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.05, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        method.fill_grads(make_batch())
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(value, before[name]) for name, value in method.feedback.state_dict().items())
    other = make_method("dfa", first_trainable_block=1)
    for value in other.feedback.buffers():
        value.zero_()
    other.load_state_dict(method.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in other.feedback.state_dict().items())


@pytest.mark.parametrize("seed", range(3))
def test_zero_net_of_tanh_aligns_with_its_feedback(seed: int) -> None:
    """300 full-batch steps from zero weights: the signals come within 75 degrees of back-prop's, and the loss falls."""
    method = make_method(
        "dfa",
        plain_blocks((20, 30, 30), lambda i, o: nn.Sequential(nn.Conv2d(i, o, 1), nn.Tanh()), size=1),
    )
    generator = torch.Generator().manual_seed(seed)
    for parameter in method.parameters():
        nn.init.zeros_(parameter)
    for value in method.feedback.buffers():
        value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype).sub(0.5).mul(2 / 30**0.5))
    x_BCHW = torch.randn(200, 20, 1, 1, generator=generator, dtype=torch.float64)
    teacher = torch.randn(20, len(CLASSES), generator=generator, dtype=torch.float64)
    batch = Batch(x_BCHW, (x_BCHW.flatten(1) @ teacher).argmax(1))
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.5)
    losses = []
    for _ in range(300):
        losses.append(method.fill_grads(batch).losses[-1].item())
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.5 * losses[0]
    angles = signal_angles(method, batch)
    assert max(angles) < 75, angles


def signal_angles(method: Method, batch: Batch) -> list[float]:
    """Mean over the images of the angle between what each block gets and what back-prop would send it, from the top."""
    trace, _ = method.run(batch)
    h_BCHW, hidden = batch.x_BCHW, []
    for block in method.backbone.blocks:
        h_BCHW = block(h_BCHW)
        hidden.append(h_BCHW)
    logits_BN = method.backbone.classifier(h_BCHW)
    true = torch.autograd.grad(logits_BN, hidden, trace.error_BN)
    angles = []
    for index, grad_BCHW in enumerate(true):
        own_BCHW = method.signal(index, trace, grad_BCHW)
        cosines = nn.functional.cosine_similarity(own_BCHW.flatten(1), grad_BCHW.flatten(1))
        angles.append((torch.arccos(cosines) * DEGREES).mean().item())
    return angles


def test_matrices_are_uniform_within_one_over_the_root_of_the_features_and_every_block_has_its_own() -> None:
    method = make_method("dfa", plain_blocks((3, 8, 8, 16), lambda i, o: nn.Conv2d(i, o, 1), size=8))
    for index, num_features in enumerate((512, 512, 1024)):
        assert matrix(method, index).shape == (len(CLASSES), num_features)
        counts = matrix(method, index).histc(10, -(num_features**-0.5), num_features**-0.5)
        assert counts.sum() == matrix(method, index).numel()  # none outside, and a tenth in every tenth of the range
        torch.testing.assert_close(counts / counts.sum(), torch.full_like(counts, 0.1), rtol=0, atol=0.03)
    both = torch.stack([matrix(method, index).flatten() for index in range(2)])
    assert abs(torch.corrcoef(both)[0, 1]) < 0.1
