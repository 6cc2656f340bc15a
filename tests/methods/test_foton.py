"""Forward-only training with orthogonal weights: back-propagation, where the network is linear."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import cli
from methods.foton import ForwardOrthogonal, excess, orthonormal
from model import Backbone
from tests.conftest import build, gradients, make_batch, make_method, strided_backbone
from tests.methods.test_pepita import linear
from utils import UsageError


def make(backbone: Backbone | None = None, **settings: object) -> ForwardOrthogonal:
    """The weights orthonormal in float64, and F made of these."""
    method = make_method("foton", backbone, **settings)
    assert isinstance(method, ForwardOrthogonal)
    for layer in method.weighted(0):
        layer.weight.data = orthonormal(layer.weight.detach().flatten(1)).view_as(layer.weight)
    method.projection_ND = method.product()
    return method


def test_a_linear_network_with_orthonormal_rows_learns_by_back_propagation() -> None:
    method = make(linear())
    whole = make_method("bp", copy.deepcopy(method.backbone))
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(method.get_parameter(name).grad, gradient, rtol=1e-10, atol=1e-13, msg=name)


def test_the_product_is_the_jacobian_of_the_linear_parts() -> None:
    """Pools are averages; biases, BatchNorm, activations and dropout are left out."""
    method = make(strided_backbone(dropout=0.5))
    parts = copy.deepcopy([*method.backbone.blocks, method.backbone.classifier])
    for block in parts[:3]:
        block.features[1], block.features[2], block.dropout = nn.Identity(), nn.Identity(), nn.Identity()
        block.pool = nn.AvgPool2d(2) if isinstance(block.pool, nn.MaxPool2d) else block.pool
    parts[3][2] = nn.Identity()
    jacobian = torch.autograd.functional.jacobian(nn.Sequential(*parts), make_batch().x_BCHW[:1])
    rows_ND = jacobian.reshape(5, -1)
    torch.testing.assert_close(method.product(), rows_ND / rows_ND.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)])
def test_weights_start_as_the_nearest_orthonormal_ones(shape: tuple[int, int]) -> None:
    weight_OI = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left, _, right = torch.linalg.svd(weight_OI, full_matrices=False)
    torch.testing.assert_close(orthonormal(weight_OI), left @ right)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_what_keeps_them_so_is_the_gradient_of_a_distance(shape: tuple[int, int]) -> None:
    weight_OI = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    square = weight_OI @ weight_OI.t() if shape[0] < shape[1] else weight_OI.t() @ weight_OI
    ((square - torch.eye(4)).square().sum() / 4).backward()
    torch.testing.assert_close(excess(weight_OI.detach()), weight_OI.grad)


def test_the_weight_of_it_is_added() -> None:
    found: list[dict[str, Tensor | None]] = []
    for weight in (0.0, 1.0, 3.0):
        method = make(orthonormal_weight=weight)
        with torch.no_grad():
            for layer in method.weighted(0):
                layer.weight.mul_(1.5)
        method.fill_grads(make_batch())
        found.append(gradients(method))
    name = "backbone.blocks.1.features.0.weight"
    weight = method.get_parameter(name).detach()
    torch.testing.assert_close(found[1][name] - found[0][name], excess(weight.flatten(1)).view_as(weight))
    torch.testing.assert_close(found[2][name] - found[0][name], 3 * excess(weight.flatten(1)).view_as(weight))


@pytest.mark.parametrize(
    ("refresh", "new"), [(1, [False, True, True, True]), (2, [False, False, True, False]), (0, [False] * 4)]
)
def test_the_way_of_the_error_is_made_anew_when_it_is_due(refresh: int, new: list[bool]) -> None:
    method = make(refresh=refresh)
    for is_new in new:
        before = method.projection_ND.clone()
        method.fill_grads(make_batch())
        assert torch.equal(method.projection_ND, method.product() if is_new else before)
        assert not is_new or not torch.equal(method.projection_ND, before)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.mul_(1.1)


def test_it_goes_on_with_the_state_of_a_checkpoint() -> None:
    whole, resumed = make(refresh=3), make(refresh=3)
    for step in range(5):
        if step == 2:
            resumed.load_state_dict(whole.state_dict())
        whole.fill_grads(make_batch())
        if step >= 2:
            resumed.fill_grads(make_batch())
        with torch.no_grad():
            for parameter in [*whole.parameters(), *(resumed.parameters() if step >= 2 else ())]:
                parameter.mul_(1.1)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_network_that_is_no_chain_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--foton: block_01 has a Residual; allowed are") as refusal:
        make_method("foton", build("ResNet20", 8))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("words", ["--refresh -1", "--orthonormal_weight -1", "--projection_scale 1"])
def test_what_is_out_of_range_or_not_its_own_is_one_line(words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        cli.parse(["--foton", *words.split()])
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2
