"""Forward gradients: back-propagation where directions are a basis or the gradient itself, else plain loops."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cli
from layers.saved import SavedBytes
from methods.fg import ForwardGradient
from model import Backbone, Shape, mlp
from networks.table import convolutional_block
from schemas import ModelArgs
from tests.conftest import gradients, losses_of_training, make_batch, make_method, strided_backbone
from tests.layers.test_forward import Opaque
from utils import UsageError


def small(normalised: bool = True) -> Backbone:
    """Two blocks of two channels with pools, and a linear classifier: few enough weights to move one by one."""
    torch.manual_seed(0)
    args, shape, blocks = ModelArgs(model="BasicCNN"), Shape(3, 8, 8), []
    for _ in range(2):
        blocks.append(convolutional_block(shape, 2, 3, pool=True, args=args))
        shape = blocks[-1].out_shape
        blocks[-1].features[1] = blocks[-1].features[1] if normalised else nn.Identity()
    return Backbone(blocks, mlp(shape.num_features, 5, 0, 0))


def of(backbone: Backbone, **settings: Any) -> ForwardGradient:
    method = make_method("fg", backbone, **settings)
    assert isinstance(method, ForwardGradient)
    return method


def by_back_propagation(backbone: Backbone) -> dict[str, Tensor | None]:
    method = make_method("bp", backbone)
    method.fill_grads(make_batch())
    return gradients(method)


def same(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> None:
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-9, atol=1e-12, msg=key)


def basis(of: list[Tensor]) -> Iterator[list[Tensor]]:
    """Orthogonal directions of length sqrt(n) in the space of some tensors; their mean outer product is one."""
    count = sum(each.numel() for each in of)
    for row in math.sqrt(count) * torch.eye(count, dtype=torch.float64):
        parts = row.split([each.numel() for each in of])
        yield [part.view(each.shape) for part, each in zip(parts, of, strict=True)]


def test_weights_moved_along_a_basis_give_back_propagation(monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchNorm in training, ReLU and pools; the classifier too."""
    method = of(small(), perturb="weight")
    monkeypatch.setattr(
        method, "weight_directions",
        lambda weights, guess, batch: ((each, sum(w.numel() for w in weights)) for each in basis(weights)),
    )  # fmt: skip
    method.fill_grads(make_batch())
    same(gradients(method), by_back_propagation(small()))


def test_outputs_moved_along_a_basis_give_back_propagation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without BatchNorm, so that an image's loss is its own; every image has its slope."""
    for index, count in enumerate((32, 8)):
        method = of(small(normalised=False), directions=count)
        trace, _ = method.run(make_batch())
        out_BCHW, drawn = trace.outputs[index], basis([trace.outputs[index][0].detach()])
        monkeypatch.setattr(method, "draw", lambda shape, like, batch, drawn=drawn: next(drawn)[0].expand(shape))
        found = method.signal(index, trace, torch.empty_like(out_BCHW))
        leaf_BCHW = out_BCHW.detach().requires_grad_()
        above = nn.Sequential(*method.backbone.blocks[index + 1 :], method.backbone.classifier)
        nn.functional.cross_entropy(above(leaf_BCHW), make_batch().y_B).backward()
        torch.testing.assert_close(found, torch.where(leaf_BCHW == 0, 0, leaf_BCHW.grad), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tangent", ["rademacher", "normal"])
def test_weights_as_in_a_plain_loop(tangent: str) -> None:
    """The mean over directions of ``(gradient . v) v``, from one end of the network to the other."""
    method, batch = of(small(), perturb="weight", directions=3, tangent=tangent), make_batch()
    method.fill_grads(batch._replace(generator=torch.Generator().manual_seed(5)))
    true, generator = by_back_propagation(small()), torch.Generator().manual_seed(5)
    for part in ("blocks.0.", "blocks.1.", "classifier."):
        names = [name for name in true if part in name]
        sums = {name: torch.zeros_like(true[name]) for name in names}
        for _ in range(3):
            v = {}
            for name in names:
                made: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
                if tangent == "normal":
                    v[name] = torch.randn(true[name].shape, **made)
                else:
                    v[name] = torch.where(torch.randint(2, true[name].shape, **made) == 1, 1.0, -1.0).double()
            slope = sum((true[name] * v[name]).sum() for name in names)
            sums = {name: sums[name] + slope * v[name] / 3 for name in names}
        same({name: method.get_parameter(name).grad for name in names}, sums)


def test_outputs_as_in_a_plain_loop() -> None:
    """With BatchNorm an image's own loss counts, and that all images move; silent units stay where they are."""
    method, batch = of(small(), directions=2), make_batch()._replace(generator=torch.Generator().manual_seed(5))
    trace, _ = method.run(batch)
    found = method.signal(0, trace, trace.outputs[0].detach())
    draws = torch.Generator().manual_seed(5)
    h_BCHW = trace.outputs[0].detach().requires_grad_()
    losses = nn.functional.cross_entropy(
        method.backbone.classifier(method.backbone.block(1)(h_BCHW)), batch.y_B, reduction="none"
    )
    expected = torch.zeros_like(found)
    for _ in range(2):
        signs = torch.randint(2, h_BCHW.shape, generator=draws, dtype=torch.float64) * 2 - 1
        signs = torch.where(h_BCHW == 0, 0, signs).detach()
        for image, loss in enumerate(losses):
            (gradient,) = torch.autograd.grad(loss, h_BCHW, retain_graph=True)
            expected[image] += (gradient * signs).sum() * signs[image] / len(losses) / 2
    torch.testing.assert_close(found, expected)
    assert (found != 0).any() and not found[h_BCHW == 0].any()


@pytest.mark.parametrize("perturb", ["activity", "weight"])
def test_a_guess_that_is_the_gradient_gives_back_propagation(perturb: str) -> None:
    """Heads that are copies of all that lies above; with BatchNorm where it lets images be told apart."""
    backbone = small(normalised=perturb == "weight")
    method = of(backbone, perturb=perturb, guess="local")
    method.heads["block_00"] = copy.deepcopy(nn.Sequential(backbone.blocks[1], backbone.classifier))
    method.fill_grads(make_batch())
    same(gradients(method), by_back_propagation(small(normalised=perturb == "weight")))


@pytest.mark.parametrize("perturb", ["activity", "weight"])
def test_a_guess_gets_the_length_of_the_projection(perturb: str) -> None:
    settings = {"perturb": perturb, "guess": "local", "pred_aux_type": "pooled"}
    method, batch = of(small(normalised=False), **settings), make_batch()
    method.fill_grads(batch)
    whole = make_method("bp", small(normalised=False))
    block, head = whole.backbone.block(0), copy.deepcopy(method.heads["block_00"])
    h_BCHW = block(batch.x_BCHW)
    out_BCHW = h_BCHW.detach().requires_grad_()
    above = nn.Sequential(whole.backbone.blocks[1], whole.backbone.classifier)
    losses = [nn.functional.cross_entropy(part(out_BCHW), batch.y_B) for part in (above, head)]
    true, guess = (torch.autograd.grad(loss, out_BCHW, retain_graph=True)[0] for loss in losses)
    weights = [*block.parameters()]
    if perturb == "activity":
        slope_B = (true * guess).flatten(1).sum(1) / guess.flatten(1).square().sum(1)
        expected = torch.autograd.grad(h_BCHW, weights, slope_B[:, None, None, None] * guess)
    else:
        true, guess = (torch.autograd.grad(h_BCHW, weights, each, retain_graph=True) for each in (true, guess))
        slope = sum((a * b).sum() for a, b in zip(true, guess, strict=True)) / sum(b.square().sum() for b in guess)
        expected = [slope * each for each in guess]
    for parameter, gradient in zip(method.backbone.block(0).parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    losses[1].backward()
    for one, other in zip(method.heads["block_00"].parameters(), head.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("perturb", ["activity", "weight"])
def test_a_guess_of_zero_is_none(perturb: str) -> None:
    """Linear heads start at zero; the last block and the classifier learn all the same."""
    method = of(small(), perturb=perturb, guess="local")
    method.fill_grads(make_batch())
    for name, gradient in by_back_propagation(small()).items():
        found = method.get_parameter(name).grad
        assert not found.any() if "blocks.0" in name else torch.allclose(found, gradient), name


def test_a_part_of_a_batch_has_its_rows_of_the_draws() -> None:
    whole, parts = of(small(normalised=False)), [of(small(normalised=False)) for _ in range(2)]
    batch = make_batch()
    for method, part in zip((whole, *parts), (batch, batch.shared(0, 2), batch.shared(1, 2)), strict=True):
        method.fill_grads(part._replace(generator=torch.Generator().manual_seed(5)))
    for key, gradient in gradients(whole).items():
        mean = sum(gradients(part)[key] for part in parts) / 2
        torch.testing.assert_close(mean, gradient, msg=key)


@pytest.mark.parametrize("case", ["fg", "fg weight", "fg local", "fg local weight"])
def test_running_statistics_are_those_of_the_forward_pass(case: str) -> None:
    method, whole = make_method(case), make_method("bp")
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    for key, value in whole.state_dict().items():
        assert torch.equal(method.state_dict()[key], value), key


@pytest.mark.parametrize("case", ["fg", "fg weight", "fg local", "fg local weight"])
def test_loss_falls_on_a_fixed_batch(case: str) -> None:
    torch.manual_seed(0)
    losses = losses_of_training(make_method(case, small()), 0.01 if case == "fg weight" else 0.05, 60)
    assert losses[-1] < 0.7 * losses[0]


def test_no_activation_is_kept_where_weights_move() -> None:
    method = of(strided_backbone(), perturb="weight")
    counter = SavedBytes(method.parameters())
    with counter.hooks:
        method.fill_grads(make_batch())
    assert counter.peak_bytes == 0


def test_a_layer_without_a_forward_derivative_is_refused() -> None:
    backbone = strided_backbone()
    backbone.block(1).features[2] = Opaque()
    with pytest.raises(UsageError, match=r"^--fg: block_01 \(Conv2d - BatchNorm2d - Opaque\) has a layer") as refusal:
        make_method("fg", backbone)
    assert "\n" not in str(refusal.value)
    backbone = strided_backbone()
    backbone.classifier[2] = Opaque()
    with pytest.raises(UsageError, match=r"^--fg: the classifier "):
        make_method("fg", backbone)


@pytest.mark.parametrize(
    "words",
    ["--directions 0", "--perturb both", "--guess local --tangent normal", "--guess local --directions 2",
     "--pred_aux_type mlp", "--compile"],
)  # fmt: skip
def test_what_is_out_of_range_or_without_effect_is_one_line(words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        cli.parse(["--fg", *words.split()])
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2
