"""Synthetic gradients against back-propagation, an independent regression and a linear case with a known answer."""

from __future__ import annotations

import copy
import gc
import math
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cli import parse
from datamodules.base import Batch
from methods._signal import Trace
from methods.dni import SyntheticGradients
from tests.conftest import CLASSES, gradients, make_batch, make_method
from utils import UsageError

BOTH = pytest.mark.parametrize("name", ["dni", "cdni"])


def make(name: str, *, shaken: bool = True, **settings: object) -> SyntheticGradients:
    """The method; with ``shaken``, its synthesisers do not say zero any more."""
    method = make_method(name, **settings)
    assert isinstance(method, SyntheticGradients)
    if shaken:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in method.synthesisers.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return method


def fill_and_watch(method: SyntheticGradients, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Run a step; return (guess, target) per block from the first on, without graphs."""
    kept: list[tuple[Tensor, Tensor]] = []
    learn = method.learn

    def watched(trace: Trace) -> Tensor:
        kept.extend((guess.detach(), target.clone()) for guess, target in reversed(trace.kept))
        return learn(trace)

    method.learn = watched  # type: ignore[method-assign]
    method.fill_grads(batch)
    method.learn = learn  # type: ignore[method-assign]
    return kept


def blocks_inputs(method: SyntheticGradients, batch: Batch) -> list[Tensor]:
    """Input of every block and of the classifier, from a copy, so that no statistics move."""
    twin, found = copy.deepcopy(method), [batch.x_BCHW]
    with torch.no_grad():
        for block in twin.backbone.blocks:
            found.append(block(found[-1]))
    return found


@BOTH
def test_a_synthesiser_that_knows_the_gradient_is_back_propagation(name: str) -> None:
    oracle, whole = make(name), make_method("bp")
    learned = oracle.signal

    def told(index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        oracle.synthesise = lambda i, t: above_BCHW.clone().requires_grad_()  # type: ignore[method-assign]
        return learned(index, trace, above_BCHW)

    oracle.signal = told  # type: ignore[method-assign]
    for method in (oracle, whole):
        method.fill_grads(make_batch())
    found = gradients(oracle)
    for key, gradient in gradients(whole).items():
        assert torch.equal(found[key], gradient), key


def test_without_its_context_cdni_is_dni() -> None:
    plain, conditional = make("dni"), make("cdni")
    missing, unexpected = conditional.load_state_dict(plain.state_dict(), strict=False)
    assert len(missing) == 3
    assert unexpected == []
    with torch.no_grad():
        for key in missing:
            conditional.get_parameter(key).zero_()
    for method in (plain, conditional):
        method.fill_grads(make_batch())
    found = gradients(conditional)
    for key, gradient in gradients(plain).items():
        assert torch.equal(found[key], gradient), key


def test_context_makes_dni_cdni() -> None:
    first, second = make("dni", context=True), make("cdni")
    for method in (first, second):
        method.fill_grads(make_batch())
    for key, gradient in gradients(first).items():
        assert torch.equal(gradients(second)[key], gradient), key


@BOTH
def test_untrained_synthesisers_say_zero_and_the_classifier_learns(name: str) -> None:
    method, whole = make(name, shaken=False), make_method("bp")
    for each in (method, whole):
        each.fill_grads(make_batch())
    expected = gradients(whole)
    for key, gradient in gradients(method).items():
        if key.startswith("backbone.blocks"):
            assert not gradient.any(), key
        elif key.startswith("backbone.classifier"):
            assert torch.equal(gradient, expected[key]), key
    assert method.synthesisers["block_02"].rest[-1].weight.grad.any()
    assert method.synthesisers["block_02"].rest[-1].bias.grad.any()


@BOTH
def test_targets_are_bootstrapped_from_the_next_guess(name: str) -> None:
    method, batch = make(name), make_batch()
    inputs, twin = blocks_inputs(method, batch), copy.deepcopy(method)
    kept = fill_and_watch(method, batch)
    for index in range(2):
        leaf_BCHW = inputs[index + 1].clone().requires_grad_()
        out_BCHW = twin.backbone.blocks[index + 1](leaf_BCHW)
        (expected,) = torch.autograd.grad(out_BCHW, leaf_BCHW, grad_outputs=kept[index + 1][0])
        torch.testing.assert_close(kept[index][1], expected, rtol=1e-12, atol=0)
    top_BCHW = inputs[3].clone().requires_grad_()
    loss = F.cross_entropy(twin.backbone.classifier(top_BCHW), batch.y_B)
    assert torch.equal(kept[2][1], torch.autograd.grad(loss, top_BCHW)[0])


@BOTH
def test_the_regression_is_an_ordinary_one_and_reaches_synthesisers_only(name: str) -> None:
    """Mean square error of the raw output against B sqrt(n) times the gradient; blocks learn from the guess alone."""
    method, batch = make(name), make_batch()
    inputs, twin = blocks_inputs(method, batch), copy.deepcopy(method)
    kept, found = fill_and_watch(method, batch), gradients(method)
    for index in range(3):
        key = f"block_{index:02d}"
        synthesiser, (guess_BCHW, target_BCHW) = twin.synthesisers[key], kept[index]
        scale = len(target_BCHW) * math.sqrt(target_BCHW[0].numel())
        raw_BCHW = synthesiser(inputs[index + 1], batch.y_B)
        torch.testing.assert_close(guess_BCHW * scale, raw_BCHW.detach(), rtol=1e-12, atol=1e-15)
        loss = F.mse_loss(raw_BCHW, target_BCHW * scale)
        names = dict(synthesiser.named_parameters())
        for part, expected in zip(names, torch.autograd.grad(loss, list(names.values())), strict=True):
            torch.testing.assert_close(found[f"synthesisers.{key}.{part}"], expected, rtol=1e-9, atol=1e-12)
        block = twin.backbone.blocks[index]
        own = torch.autograd.grad(block(inputs[index]), list(block.parameters()), grad_outputs=guess_BCHW)
        for (part, _), expected in zip(block.named_parameters(), own, strict=True):
            assert torch.equal(found[f"backbone.blocks.{index}.{part}"], expected), part


def test_a_linear_synthesiser_with_the_label_can_be_exact() -> None:
    """``|W h - onehot|^2 / 2`` has the gradient ``W^T W h - W^T onehot``: the regression is then solved, bit errors
    aside; without the label the same map is not (feedback_and_targets, section 4.1)."""
    method, batch = make("cdni"), make_batch()
    h_BCHW = torch.randn(6, 5, 1, 1, dtype=torch.float64)
    readout_NC = torch.randn(len(CLASSES), 5, dtype=torch.float64)
    onehot_BN = F.one_hot(batch.y_B, len(CLASSES)).double()
    above_BCHW = ((h_BCHW.flatten(1) @ readout_NC.T - onehot_BN) @ readout_NC / 6)[:, :, None, None]

    class Linear(nn.Module):
        def __init__(self, use_label: bool) -> None:
            super().__init__()
            self.A = nn.Parameter(math.sqrt(5) * readout_NC.T @ readout_NC)
            self.C = nn.Parameter(-math.sqrt(5) * use_label * readout_NC.T)

        def forward(self, h_BCHW: Tensor, y_B: Tensor) -> Tensor:
            return (h_BCHW.flatten(1) @ self.A.T + onehot_BN @ self.C.T)[:, :, None, None]

    losses = []
    for use_label in (True, False):
        method.synthesisers["block_02"] = Linear(use_label)
        trace = Trace(batch, [], [None, None, h_BCHW], above_BCHW, above_BCHW, above_BCHW)
        method.signal(2, trace, above_BCHW)
        losses.append(method.learn(trace).item())
    assert losses[0] < 1e-25
    assert losses[1] > 1e-2


@BOTH
def test_one_synthesiser_run_per_step(name: str) -> None:
    method, calls = make(name), []
    for key, synthesiser in method.synthesisers.items():
        synthesiser.register_forward_hook(lambda *_, key=key: calls.append(key))
    method.fill_grads(make_batch())
    assert calls == ["block_02", "block_01", "block_00"]
    method.eval()(make_batch().x_BCHW)
    assert len(calls) == 3


@BOTH
def test_the_regression_does_not_know_the_batch_size(name: str) -> None:
    """A batch beside its copy has the same statistics: per image the targets stay, and so do S's gradients."""
    single, double, batch = make(name), make(name), make_batch()
    twice = Batch(torch.cat([batch.x_BCHW] * 2), torch.cat([batch.y_B] * 2))
    for (guess, target), (guess2, target2) in zip(
        fill_and_watch(single, batch), fill_and_watch(double, twice), strict=True
    ):
        torch.testing.assert_close(12 * target2, torch.cat([6 * target] * 2), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(12 * guess2, torch.cat([6 * guess] * 2), rtol=1e-9, atol=1e-12)
    for key, gradient in gradients(single).items():
        torch.testing.assert_close(gradients(double)[key], gradient, rtol=1e-8, atol=1e-11, msg=key)


def test_nothing_of_a_step_outlives_it() -> None:
    method, guesses = make("dni"), []
    for synthesiser in method.synthesisers.values():
        synthesiser.register_forward_hook(lambda module, args, output: guesses.append(weakref.ref(output)))
    method.fill_grads(make_batch())
    gc.collect()
    assert [guess() for guess in guesses] == [None] * 3
    copy.deepcopy(method).fill_grads(make_batch())


def test_frozen_blocks_have_no_synthesiser() -> None:
    assert list(make("cdni", first_trainable_block=1).synthesisers) == ["block_01", "block_02"]


def test_a_lambda_of_one_is_back_propagation() -> None:
    method, whole = make("dni", bp_lambda=1), make_method("bp")
    for each in (method, whole):
        each.fill_grads(make_batch())
    found = gradients(method)
    for key, gradient in gradients(whole).items():
        assert torch.equal(found[key], gradient), key
    assert method.synthesisers["block_00"].rest[-1].weight.grad.any()


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_lambda_weighs_how_many_blocks_a_guess_has_come_through(share: float) -> None:
    """The signal is the guess, or else that of n blocks above carried down, with (1 - lambda) lambda^n; at last e."""
    method, batch = make("cdni", bp_lambda=share), make_batch()
    inputs, twin = blocks_inputs(method, batch), copy.deepcopy(method)
    kept, found = fill_and_watch(method, batch), gradients(method)
    inputs = [value.clone().requires_grad_() for value in inputs]
    outputs = [block(value) for block, value in zip(twin.backbone.blocks, inputs[:-1], strict=True)]
    loss = F.cross_entropy(twin.backbone.classifier(inputs[3]), batch.y_B)
    (true_BCHW,) = torch.autograd.grad(loss, inputs[3])
    signals = []
    for index in range(3):
        signal = (1 - share) * kept[index][0]
        for above in range(index + 1, 4):
            carried = true_BCHW if above == 3 else (1 - share) * kept[above][0]
            for block in range(min(above, 2), index, -1):
                carried = torch.autograd.grad(outputs[block], inputs[block], carried, retain_graph=True)[0]
            signal = signal + share ** (above - index) * carried
        signals.append(signal)
        names = dict(twin.backbone.blocks[index].named_parameters())
        own = torch.autograd.grad(outputs[index], list(names.values()), signal, retain_graph=True)
        for name, expected in zip(names, own, strict=True):
            torch.testing.assert_close(found[f"backbone.blocks.{index}.{name}"], expected, rtol=1e-10, atol=1e-14)
    for index in range(2):
        (target_BCHW,) = torch.autograd.grad(outputs[index + 1], inputs[index + 1], signals[index + 1])
        torch.testing.assert_close(kept[index][1], target_BCHW, rtol=1e-10, atol=1e-14)


@BOTH
@pytest.mark.parametrize("knows_the_gradient", [False, True])
def test_synthetic_inputs_that_are_the_real_ones_change_nothing(name: str, knows_the_gradient: bool) -> None:
    """Then it is the rule without them, and with gradients that are the true ones back-propagation."""
    unlocked, batch = make(name, unlock="forward"), make_batch()
    other = make_method("bp") if knows_the_gradient else make(name)
    other.load_state_dict(unlocked.state_dict(), strict=False)
    inputs = blocks_inputs(unlocked, batch)
    for index in (1, 2):
        unlocked.input_synthesisers[f"block_{index:02d}"] = Known(inputs[index])
    if knows_the_gradient:
        learned = unlocked.signal

        def told(index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
            unlocked.synthesise = lambda i, t: above_BCHW.clone().requires_grad_()  # type: ignore[method-assign]
            return learned(index, trace, above_BCHW)

        unlocked.signal = told  # type: ignore[method-assign]
    for method in (unlocked, other):
        method.fill_grads(batch)
    found = gradients(unlocked)
    for key, gradient in gradients(other).items():
        assert torch.equal(found[key], gradient), key


class Known(nn.Module):
    """Says the same for every image."""

    def __init__(self, value_BCHW: Tensor) -> None:
        super().__init__()
        self.value_BCHW = nn.Parameter(value_BCHW)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.value_BCHW * 1


def test_synthetic_inputs_are_an_ordinary_regression_on_the_block_below() -> None:
    """Mean square error to what the block below gives on its own synthetic input; it reaches no block."""
    method, batch = make("cdni", unlock="forward"), make_batch()
    twin = copy.deepcopy(method)
    kept = fill_and_watch(method, batch)
    found = gradients(method)
    below_BCHW = twin.backbone.blocks[0](batch.x_BCHW)
    for index in (1, 2):
        key = f"block_{index:02d}"
        synthesiser = twin.input_synthesisers[key]
        made_BCHW = synthesiser(batch.x_BCHW)
        names = dict(synthesiser.named_parameters())
        loss = F.mse_loss(made_BCHW, below_BCHW.detach())
        for part, expected in zip(names, torch.autograd.grad(loss, list(names.values())), strict=True):
            torch.testing.assert_close(found[f"input_synthesisers.{key}.{part}"], expected, rtol=1e-9, atol=1e-12)
        leaf_BCHW = synthesiser(batch.x_BCHW).detach().requires_grad_()
        below_BCHW = twin.backbone.blocks[index](leaf_BCHW)
        weights = list(twin.backbone.blocks[index].parameters())
        *own, target_BCHW = torch.autograd.grad(below_BCHW, [*weights, leaf_BCHW], kept[index][0])
        for weight, expected in zip(method.backbone.blocks[index].parameters(), own, strict=True):
            assert torch.equal(weight.grad, expected)
        assert torch.equal(kept[index - 1][1], target_BCHW)
    logits_BN = twin.backbone.classifier(below_BCHW.detach())
    assert torch.equal(copy.deepcopy(method).fill_grads(batch).logits[-1], logits_BN)


def test_a_block_on_a_synthetic_input_does_not_wait_for_those_below() -> None:
    """Its own gradients stay the same bits whatever they give, and inference has no synthetic input."""
    method, batch = make("dni", unlock="forward"), make_batch()
    twin = copy.deepcopy(method)
    with torch.no_grad():
        for parameter in twin.backbone.blocks[:2].parameters():
            parameter.fill_(float("nan"))
    for each in (method, twin):
        each.fill_grads(batch)
    for one, other in zip(method.backbone.blocks[2].parameters(), twin.backbone.blocks[2].parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    del method.input_synthesisers
    method.eval()(batch.x_BCHW)


@pytest.mark.parametrize("settings", [{}, {"unlock": "forward"}, {"bp_lambda": 0.5}])
def test_a_signal_waits_for_what_is_above_with_lambda_only(settings: dict[str, object]) -> None:
    """Asked for in any order and with NaN from above, it is the same in every bit (feedback_and_targets, 11.2)."""
    method = make("cdni", **settings)
    trace, _ = method.run(make_batch())
    shapes = [(6, *shape) for shape in method.backbone.out_shapes]

    def signal(index: int, value: float) -> Tensor:
        return method.signal(index, trace, torch.full(shapes[index], value, dtype=torch.float64))

    first = {index: signal(index, 0.0) for index in (2, 1, 0)}
    for index in (1, 2, 0):
        assert torch.equal(signal(index, float("nan")), first[index]) != ("bp_lambda" in settings)


@BOTH
def test_a_block_that_steps_before_the_next_one_runs_gets_the_same_weights(name: str) -> None:
    """Update unlocking as in the paper: no bit differs from one step of all, so there is no setting for it."""
    method, batch, rate = make(name), make_batch(), 0.05
    twin = copy.deepcopy(method)
    method.fill_grads(batch)
    torch.optim.SGD(method.parameters(), lr=rate).step()

    def regress(index: int, target_BCHW: Tensor) -> None:
        (len(target_BCHW) * (guesses[index] - target_BCHW).square().sum()).backward()
        torch.optim.SGD(twin.synthesisers[f"block_{index:02d}"].parameters(), lr=rate).step()

    guesses, h_BCHW = [], batch.x_BCHW
    for index, block in enumerate(twin.backbone.blocks):
        leaf_BCHW = h_BCHW.detach().requires_grad_(index > 0)
        h_BCHW = block(leaf_BCHW)
        guesses.append(twin.synthesise(index, Trace(batch, [], [None] * index + [h_BCHW], *[batch.x_BCHW] * 3)))
        h_BCHW.backward(guesses[-1].detach())
        torch.optim.SGD(block.parameters(), lr=rate).step()
        if index:
            assert leaf_BCHW.grad is not None
            regress(index - 1, leaf_BCHW.grad)
    top_BCHW = h_BCHW.detach().requires_grad_()
    F.cross_entropy(twin.backbone.classifier(top_BCHW), batch.y_B).backward()
    torch.optim.SGD(twin.backbone.classifier.parameters(), lr=rate).step()
    assert top_BCHW.grad is not None
    regress(2, top_BCHW.grad)
    for (key, one), other in zip(method.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other), key


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--unlock forward --first_trainable_block 1",
            "--unlock forward and --first_trainable_block exclude each other",
        ),
        ("--unlock forward --bp_lambda 0.5", "--bp_lambda and --unlock forward exclude each other"),
        ("--unlock update", "--unlock 'update': allowed is one of backward, forward"),
        ("--bp_lambda 1.5", "--bp_lambda '1.5': allowed is a number, at least 0, at most 1"),
    ],
)
def test_what_cannot_be_is_one_line(words: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(["--dni", *words.split()])
    assert str(caught.value).startswith(message)
