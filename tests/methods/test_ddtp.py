"""Direct targets: between the steps of Gauss and Newton and back-propagation, by the damping."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from datamodules.base import Batch
from methods.ddtp import DirectTargets
from model import Backbone, Block, Shape, mlp
from tests.conftest import CLASSES, gradients, make_batch, make_method

NUM_IMAGES = 40


def linear() -> Backbone:
    """A deep linear network of 3x3 convolutions on 4x4 images."""
    torch.manual_seed(0)
    blocks = [
        Block(nn.Conv2d(before, after, 3, padding=1), Shape(after, 4, 4), nn.Identity(), nn.Identity())
        for before, after in itertools.pairwise((3, 2, 1, 2))
    ]
    return Backbone(blocks, mlp(32, len(CLASSES), 0, 1))


def make(damping: float, backbone: Backbone | None = None) -> DirectTargets:
    method = make_method("ddtp", backbone, damping=damping)
    assert isinstance(method, DirectTargets)
    return method


def jacobians(method: DirectTargets) -> list[Tensor]:
    """Of the logits with regard to every block's output, (N, D)."""
    found = []
    for index in range(3):
        above = nn.Sequential(*method.backbone.blocks[index + 1 :], method.backbone.classifier)
        point = torch.zeros(1, *method.backbone.out_shapes[index], dtype=torch.float64)
        found.append(jacobian(above, point).reshape(len(CLASSES), -1))
    return found


def tell(method: DirectTargets, damping: float) -> None:
    """Give every matrix what it should learn."""
    with torch.no_grad():
        for index, jacobian_ND in enumerate(jacobians(method)):
            square_NN = jacobian_ND @ jacobian_ND.t()
            mean = square_NN.diagonal().mean()
            damped_NN = square_NN + damping * mean * torch.eye(len(CLASSES), dtype=torch.float64)
            method.inverses[f"block_{index:02d}"].weight.copy_(
                (1 + damping) * mean * torch.linalg.inv(damped_NN) @ jacobian_ND
            )


def all_axes(like: Tensor, trace: object) -> Tensor:
    """Noise ``+-s sqrt(B / 2) e_i`` along every axis that there is: the second moments of normal noise, exactly."""
    size = like[0].numel()
    flat_BD = torch.zeros(len(like), size, dtype=like.dtype)
    for place in range(size):
        flat_BD[2 * place, place], flat_BD[2 * place + 1, place] = 1, -1
    return 0.1 * (len(like) / 2) ** 0.5 * flat_BD.view_as(like)


@pytest.mark.parametrize("damping", [0.0, 0.5, 100.0])
def test_at_its_optimum_the_feedback_stands_still(damping: float) -> None:
    method = make(damping, linear())
    method.noise = all_axes  # type: ignore[method-assign]
    batch = make_batch(size=4, num_images=64)
    method.fill_grads(batch)
    assert all(matrix.weight.grad.abs().max() > 0.1 for matrix in method.inverses.values())
    method.zero_grad()
    tell(method, damping)
    method.fill_grads(batch)
    for matrix in method.inverses.values():
        assert matrix.weight.grad.abs().max() < 1e-10


def test_with_large_damping_its_optimum_is_back_propagation() -> None:
    method, whole = make(1e6, linear()), make_method("bp", linear())
    tell(method, 1e6)
    for trained in (method, whole):
        trained.fill_grads(make_batch(size=4))
    for key, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(method)[key], gradient, rtol=1e-4, atol=1e-7, msg=key)


def test_without_damping_its_optimum_is_the_step_of_gauss_and_newton() -> None:
    method, batch = make(0.0, linear()), make_batch(size=4)
    tell(method, 0.0)
    trace, _ = method.run(batch)
    for index, jacobian_ND in enumerate(jacobians(method)):
        out_BCHW = trace.outputs[index]
        signal_BD = method.signal(index, trace, torch.zeros_like(out_BCHW)).flatten(1)
        step_BD = trace.error_BN @ torch.linalg.pinv(jacobian_ND).t()
        cosine = torch.nn.functional.cosine_similarity(signal_BD, step_BD)
        torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-9, atol=1e-9)


def test_the_signal_is_the_error_through_the_matrix_and_the_classifier_learns_as_ever() -> None:
    method, whole, seen = make(1.0), make_method("bp"), []
    signal = method.signal

    def watched(index: int, trace: object, above_BCHW: Tensor) -> Tensor:
        seen.append((index, trace.error_BN, signal(index, trace, above_BCHW)))
        return seen[-1][2]

    method.signal = watched  # type: ignore[method-assign]
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    for index, error_BN, found_BCHW in seen:
        expected_BD = error_BN @ method.inverses[f"block_{index:02d}"].weight
        torch.testing.assert_close(found_BCHW.flatten(1), expected_BD, rtol=1e-12, atol=1e-15)
    for key, gradient in gradients(whole).items():
        if "classifier" in key:
            assert torch.equal(gradients(method)[key], gradient), key
    for key, value in whole.state_dict().items():
        assert torch.equal(method.state_dict()[key], value), f"{key}: the passes for the feedback moved it"


def test_the_feedback_finds_its_optimum() -> None:
    method = make(1.0, linear())
    told = make(1.0, linear())
    tell(told, 1.0)
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(method.inverses.parameters(), lr=0.1)
    for _ in range(150):
        method.zero_grad()
        x_BCHW = torch.randn(NUM_IMAGES, 3, 4, 4, generator=generator, dtype=torch.float64)
        method.fill_grads(Batch(x_BCHW, torch.randint(len(CLASSES), (NUM_IMAGES,), generator=generator)))
        optimizer.step()
    for own, other in zip(method.inverses.values(), told.inverses.values(), strict=True):
        cosine = torch.nn.functional.cosine_similarity(own.weight.flatten(), other.weight.flatten(), 0)
        assert cosine > 0.9
        assert (own.weight.norm() / other.weight.norm()).item() == pytest.approx(1, abs=0.3)
