"""The choices of ``--fa --feedback``: each in the limit where it is back-propagation, and by the law that it keeps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cli
from layers.straight import StraightReLU, straighten
from methods import _feedback, _feedback_learned
from methods._base import Method
from methods._feedback import FeedbackLayer, few_bits
from methods._feedback_learned import trained as of_rule
from methods._transport import add_feedback
from methods._way_down import FEEDBACK
from sections.rules.fa import FaArgs
from tests.conftest import gradients, make_batch, make_method
from utils import UsageError

LEARNED = ("kolen_pollack", "weight_mirror")
SIGNS = pytest.mark.parametrize("choice", ["usf", "brsf", "frsf"])


def layers(method: Method) -> list[FeedbackLayer]:
    return [layer for layer in method.modules() if isinstance(layer, FeedbackLayer)]


def feedback(method: Method) -> list[Tensor]:
    return [layer.feedback.weights(layer).clone() for layer in layers(method)]


def weights(method: Method) -> list[Tensor]:
    return [layer.weight.detach().clone() for layer in layers(method)]


def fill(method: Method, seed: int = 0, images: int = 6) -> None:
    """The gradients of a batch of random images, with the step's generator as the engine gives it."""
    method.zero_grad()
    batch = make_batch(num_images=images)
    noise = torch.randn(batch.x_BCHW.shape, generator=torch.Generator().manual_seed(seed), dtype=batch.x_BCHW.dtype)
    method.fill_grads(batch._replace(x_BCHW=batch.x_BCHW + noise, generator=torch.Generator().manual_seed(seed)))


def assert_same_gradients(method: Method, whole: Method, check: Callable[..., None] | None = None) -> None:
    found = gradients(method)
    for name, gradient in gradients(whole).items():
        if gradient is None:
            assert found[name] is None, name
        elif check is None:
            assert torch.equal(found[name], gradient), name
        else:
            check(found[name], gradient, msg=name)


def close(found: Tensor, expected: Tensor, msg: str = "") -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12, msg=msg)


def train(method: Method, steps: int, make: Callable[..., torch.optim.Optimizer], first: int = 0) -> list[list[Tensor]]:
    """Take steps; the differences between forward and feedback weights at the start and after each."""
    optimizer, found = make(method.param_groups()), []
    for step in range(first, first + steps + 1):
        found.append([w - b for w, b in zip(weights(method), feedback(method), strict=True)])
        if step < first + steps:
            fill(method, step)
            optimizer.step()
    return found


def test_the_words_of_the_flag_are_those_of_the_table() -> None:
    assert tuple(FEEDBACK) == get_args(FaArgs.model_fields["feedback"].annotation)


# Sign symmetry


@SIGNS
@pytest.mark.parametrize("first", [0, 1])
def test_sign_symmetry_with_the_sizes_of_the_weights_is_back_propagation(choice: str, first: int, monkeypatch) -> None:
    method, whole = (
        make_method("fa", feedback=choice, first_trainable_block=first),
        make_method("bp", first_trainable_block=first),
    )
    monkeypatch.setattr(_feedback.RedrawnMagnitudes, "before", lambda self, layer, batch: None)
    plain = [layer for layer in whole.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-len(layers(method)) :]
    optimizers = [torch.optim.SGD(m.param_groups(), lr=0.05, momentum=0.9) for m in (method, whole)]
    for step in range(3):
        with torch.no_grad():
            for layer, other in zip(layers(method), plain, strict=True):
                if choice == "usf":
                    size = 1 / math.sqrt(3 * layer.weight[0].numel())
                    layer.weight.copy_(layer.weight.sign() * size)
                    other.weight.copy_(layer.weight)
                else:
                    layer.B.copy_(layer.weight.abs())
        for trained, optimizer in zip((method, whole), optimizers, strict=True):
            fill(trained, step)
            optimizer.step()
        assert_same_gradients(method, whole)


@SIGNS
def test_every_sign_agrees_after_every_step_and_the_sizes_are_the_feedbacks(choice: str) -> None:
    method = make_method("fa", feedback=choice)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.5, momentum=0.9)
    sizes, moved = [], False
    for step in range(5):
        fill(method, step)
        before = weights(method)
        for b, w in zip(feedback(method), before, strict=True):
            assert torch.equal(b.sign(), w.sign())
        sizes.append([b.abs() for b in feedback(method)])
        optimizer.step()
        moved |= any((w.sign() != b.sign()).any() for w, b in zip(weights(method), before, strict=True))
    assert moved  # signs changed, and the feedback followed
    for layer, *drawn in zip(layers(method), *sizes, strict=True):
        bound = 1 / math.sqrt(layer.weight[0].numel())
        if choice == "usf":
            assert all(torch.allclose(s, torch.full_like(s, bound / 3**0.5), rtol=1e-14, atol=0) for s in drawn)
        else:
            assert all(s.max() <= bound and s.std() > 0 for s in drawn)
            assert torch.equal(drawn[0], drawn[1]) == (choice == "frsf")


def test_redrawn_sizes_come_from_the_steps_generator_and_are_not_saved() -> None:
    method, other = make_method("fa", feedback="brsf"), make_method("fa", feedback="brsf")
    torch.manual_seed(3)
    fill(method, 5)
    torch.manual_seed(4)
    fill(other, 5)
    assert all(map(torch.equal, feedback(method), feedback(other)))
    assert not any(name.endswith(".B") for name in method.state_dict())


# Kolen-Pollack


def test_kolen_pollack_from_equal_weights_stays_back_propagation() -> None:
    method, whole = make_method("fa", feedback="kolen_pollack"), make_method("bp")
    for layer in layers(method):
        of_rule(layer).data.copy_(layer.weight.data)
    optimizers = [torch.optim.SGD(m.param_groups(), lr=0.05, momentum=0.9, weight_decay=0.01) for m in (method, whole)]
    for step in range(4):
        for trained, optimizer in zip((method, whole), optimizers, strict=True):
            fill(trained, step)
            optimizer.step()
        assert_same_gradients(method, whole)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_kolen_pollack_difference_shrinks_by_the_decay_alone(kind: type[torch.optim.Optimizer]) -> None:
    """``W_t - B_t = (1 - rate decay)^t (W_0 - B_0)``, whatever the gradients."""
    method = make_method("fa", feedback="kolen_pollack")
    found = train(method, 12, lambda groups: kind(groups, lr=0.02, weight_decay=4))
    for step, differences in enumerate(found):
        for start, difference in zip(found[0], differences, strict=True):
            torch.testing.assert_close(difference, (1 - 0.02 * 4) ** step * start, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("nesterov", [False, True])
def test_kolen_pollack_difference_with_momentum(nesterov: bool) -> None:
    method, rate, momentum, decay = make_method("fa", feedback="kolen_pollack"), 0.03, 0.9, 0.5
    found = train(
        method, 12,
        lambda groups: torch.optim.SGD(groups, lr=rate, momentum=momentum, weight_decay=decay, nesterov=nesterov),
    )  # fmt: skip
    for index, difference in enumerate(found[0]):
        velocity = torch.zeros_like(difference)
        for differences in found:
            torch.testing.assert_close(differences[index], difference, rtol=1e-11, atol=1e-13)
            velocity = momentum * velocity + decay * difference
            difference = difference - rate * (decay * difference + momentum * velocity if nesterov else velocity)


def test_kolen_pollack_weights_are_the_rules_and_not_the_networks() -> None:
    method, whole = make_method("fa", feedback="kolen_pollack", first_trainable_block=1), make_method("bp")
    assert method.backbone.state_dict().keys() == whole.backbone.state_dict().keys()
    own = [weights for name in ("block_01", "block_02") for weights in method.learned[name]]
    assert [id(w) for w in own] == [id(of_rule(layer)) for layer in layers(method)]
    twin = copy.deepcopy(method)
    assert all(
        of_rule(layer) is weights for layer, weights in zip(layers(twin), twin.learned.parameters(), strict=True)
    )
    assert not {id(w) for w in own} & {id(w) for w in twin.learned.parameters()}
    fill(method)
    for layer in layers(method):
        grad = of_rule(layer).grad
        assert torch.equal(grad, layer.weight.grad) and grad.data_ptr() != layer.weight.grad.data_ptr()


# Weight mirror


def test_mirror_of_noise_along_every_axis_is_the_weights_and_then_back_propagation(monkeypatch) -> None:
    """The mean over ``+- sqrt(K) e_k`` of ``(W noise) noise^T`` is W, of a convolution's patch too."""

    def axes(self, layer: FeedbackLayer, batch) -> Tensor:
        count = layer.weight[0].numel()
        noise = math.sqrt(count) * torch.eye(count, dtype=layer.weight.dtype)
        return torch.cat((noise, -noise))

    monkeypatch.setattr(_feedback_learned.WeightMirror, "noise", axes)
    method, whole = make_method("fa", feedback="weight_mirror", mirror_rate=1), make_method("bp")
    for trained in (method, whole):
        fill(trained)
    for b, w in zip(feedback(method), weights(method), strict=True):
        torch.testing.assert_close(b, w, rtol=1e-14, atol=1e-15)
    assert_same_gradients(method, whole, close)


def test_mirror_is_a_running_average_of_the_noise_with_its_answer() -> None:
    method = make_method("fa", feedback="weight_mirror", mirror_rate=0.3, mirror_patches=2)
    start = [layer.running_B.clone() for layer in layers(method)]
    fill(method, 5)
    generator = torch.Generator().manual_seed(5)
    for layer, before in zip(layers(method), start, strict=True):
        flat_OK, count = layer.weight.detach().flatten(1), layer.weight[0].numel()
        noise_SK = torch.randn(12, count, generator=generator, dtype=torch.float64)
        mean_OK = torch.zeros_like(flat_OK)
        for noise_K in noise_SK:
            mean_OK += torch.outer(flat_OK @ noise_K, noise_K) / 12
        expected = 0.7 * before + 0.3 * mean_OK.view_as(before)
        torch.testing.assert_close(layer.running_B, expected, rtol=1e-12, atol=1e-14)
        scaled = expected * layer.weight.detach().norm() / expected.norm()
        torch.testing.assert_close(layer.feedback.weights(layer), scaled, rtol=1e-12, atol=1e-14)


def test_mirror_turns_to_the_weights_without_seeing_them() -> None:
    method = make_method("fa", feedback="weight_mirror", mirror_rate=0.05)
    for step in range(100):
        batch = make_batch(num_images=32)._replace(generator=torch.Generator().manual_seed(step))
        for layer in layers(method):
            layer.feedback.before(layer, batch)
    for b, w in zip(feedback(method), weights(method), strict=True):
        assert F.cosine_similarity(b.flatten(), w.flatten(), dim=0) > 0.98


# Sparse and few bits


def drawn(choice: str, layer: nn.Module, **settings: object) -> FeedbackLayer:
    torch.manual_seed(0)
    (found,) = add_feedback(layer, FEEDBACK[choice](FaArgs(feedback=choice, **settings)))
    return found


@pytest.mark.parametrize("make", [lambda: nn.Linear(40, 7), lambda: nn.Conv2d(8, 7, 3)], ids=["linear", "conv"])
def test_sparse_weights_keep_a_share_of_every_row_and_its_size(make: Callable[[], nn.Module]) -> None:
    whole = drawn("random", make()).B
    assert torch.equal(drawn("sparse", make(), feedback_density=1).B, whole)
    kept = drawn("sparse", make(), feedback_density=0.25).B
    is_kept = kept != 0
    assert (is_kept.flatten(1).sum(1) == whole[0].numel() // 4).all()
    torch.testing.assert_close(kept[is_kept], whole[is_kept] * 2)  # 1 / sqrt(0.25)
    assert len({tuple(row.tolist()) for row in is_kept.flatten(1)}) == 7
    assert (drawn("sparse", make(), feedback_density=1e-9).B.flatten(1).count_nonzero(1) == 1).all()


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_few_bits_are_the_middles_of_equal_steps(bits: int) -> None:
    grad = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grad[grad < -1] = 0
    grad[2] = 0
    found = few_bits(grad, bits)
    for image, told in zip(grad, found, strict=True):
        largest, count = image.abs().max().item(), 2 ** (bits - 1)
        middles = [(step + 0.5) * largest / count for step in range(count)]
        for value, rounded in zip(image.flatten().tolist(), told.flatten().tolist(), strict=True):
            nearest = min(middles, key=lambda middle: abs(middle - abs(value)))
            assert rounded == pytest.approx(math.copysign(nearest, value) if value else 0, rel=1e-12)


def test_many_bits_are_feedback_alignment_and_one_is_not(monkeypatch) -> None:
    plain, fine, coarse = (
        make_method("fa"),
        make_method("fa", feedback="few_bits"),
        make_method("fa", feedback="few_bits", feedback_bits=1),
    )
    asked: list[int] = []

    def finer(grad: Tensor, bits: int) -> Tensor:
        asked.append(bits)
        return few_bits(grad, 45)

    for method in (plain, coarse):
        fill(method)
    monkeypatch.setattr(_feedback, "few_bits", finer)
    fill(fine)
    assert asked == [4] * 4  # every layer but the first, which sends nothing
    assert_same_gradients(
        fine,
        plain,
        lambda found, expected, msg: torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9, msg=msg),
    )
    name = "backbone.blocks.0.features.0.weight"
    assert not torch.allclose(gradients(coarse)[name], gradients(plain)[name], rtol=0.01)
    name = "backbone.classifier.3.weight"
    assert torch.equal(gradients(coarse)[name], gradients(plain)[name])


# Without the derivative of the activation


def test_without_the_derivative_every_relu_lets_the_error_pass(monkeypatch) -> None:
    """With the forward weights as feedback: back-propagation through ``x + sg(relu(x) - x)``."""
    method, whole = make_method("fa", ignore_derivative=True), make_method("bp")
    assert sum(isinstance(layer, StraightReLU) for layer in method.modules()) == 4
    for layer in layers(method):
        layer.B.copy_(layer.weight.detach())
    fill(method)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x + (x.clamp_min(0) - x).detach())
    fill(whole)
    assert_same_gradients(method, whole, close)


def test_straight_relu_is_relu_forward() -> None:
    layer, x = nn.ReLU(inplace=True), torch.randn(4, 5, requires_grad=True)
    straighten(layer)
    out = layer(x * 1)
    assert torch.equal(out, x.clamp_min(0))
    (grad,) = torch.autograd.grad(out, x, torch.full_like(x, 3.0))
    assert torch.equal(grad, torch.full_like(x, 3.0))


# Flags

REFUSED = {
    "--bp --feedback usf": "--feedback has no effect with --method bp; it belongs to: ",
    "--fa --feedback sign": "--feedback 'sign': allowed is one of random, usf, ",
    "--fa --mirror_rate 0.5": "--mirror_rate has no effect: it needs --feedback weight_mirror",
    "--fa --mirror_patches 2": "--mirror_patches has no effect: it needs --feedback weight_mirror",
    "--fa --feedback usf --feedback_density 0.5": "--feedback_density has no effect: it needs --feedback sparse",
    "--fa --feedback sparse --feedback_bits 2": "--feedback_bits has no effect: it needs --feedback few_bits",
    "--fa --feedback_rank 2": "--feedback_rank has no effect with --method fa; it belongs to: dfa",
    "--fa --feedback weight_mirror --mirror_rate 0": "--mirror_rate '0': allowed is a number, above 0, at most 1",
    "--fa --feedback weight_mirror --mirror_patches 0": "--mirror_patches '0': allowed is a whole number, at least 1",
    "--fa --feedback sparse --feedback_density 1.5": "'1.5': allowed is a number, above 0, at most 1",
    "--fa --feedback few_bits --feedback_bits 0": "'0': allowed is a whole number, at least 1, at most 16",
    "--fa --ignore_derivative --model torchvision:resnet18": "--ignore_derivative needs a network of the project, as",
    "--fa --feedback kolen_pollack --layer_parallel threads": "--layer_parallel threads",
}


def assert_refused(words: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        cli.parse(words.split())
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_effect_or_no_sense_is_refused_in_one_line(words: str) -> None:
    assert_refused(words, REFUSED[words])


# All


@pytest.mark.parametrize("seed", range(3))
def test_invariant_of_the_two_layer_linear_net(seed: int) -> None:
    """``I = BW + (BW)^T - W0 W0^T`` moves by ``-dW0 dW0^T`` in a step, and so not at all in continuous time."""
    torch.manual_seed(seed)
    lower, upper = nn.Linear(6, 5, bias=False).double(), nn.Linear(5, 4, bias=False).double()
    add_feedback(upper)
    x_BD, y_BN = torch.randn(20, 6, dtype=torch.float64), torch.randn(20, 4, dtype=torch.float64)

    def invariant() -> Tensor:
        product = upper.B.t() @ upper.weight.detach()
        return product + product.t() - lower.weight.detach() @ lower.weight.detach().t()

    optimizer = torch.optim.SGD([*lower.parameters(), *upper.parameters()], lr=0.01)
    for _ in range(10):
        before, old = invariant(), lower.weight.detach().clone()
        optimizer.zero_grad()
        (0.5 * (upper(lower(x_BD)) - y_BN).square().sum()).backward()
        optimizer.step()
        step = lower.weight.detach() - old
        torch.testing.assert_close(invariant() - before, -step @ step.t(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("choice", FEEDBACK)
def test_the_last_layer_learns_by_its_true_gradient(choice: str) -> None:
    method, whole = make_method("fa", feedback=choice), make_method("bp")
    for trained in (method, whole):
        fill(trained)
    found = gradients(method)
    for name, gradient in gradients(whole).items():
        if not name.endswith("features.0.bias"):  # zero up to rounding in both, as batch normalisation follows
            assert torch.equal(found[name], gradient) == name.startswith("backbone.classifier.3."), name


@pytest.mark.parametrize("choice", FEEDBACK)
def test_a_resumed_run_has_the_same_bits(choice: str) -> None:
    def make(groups: list[dict[str, object]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.01)

    method = make_method("fa", feedback=choice)
    optimizer = make(method.param_groups())
    saved = None
    for step in range(6):
        if step == 3:
            saved = copy.deepcopy((method.state_dict(), optimizer.state_dict()))
        fill(method, step)
        optimizer.step()
    other = make_method("fa", feedback=choice)
    for value in other.state_dict().values():
        value.zero_()
    other.load_state_dict(saved[0])
    resumed = make(other.param_groups())
    resumed.load_state_dict(saved[1])
    for step in range(3, 6):
        fill(other, step)
        resumed.step()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in method.state_dict().items())
