"""Signal propagation: closed forms of the scores' gradients, the sum of all losses, and how it classifies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import cli
from objectives.signals import distance_scores, dot_scores
from tests.conftest import gradients, make_batch, make_method
from utils import UsageError

SCORES = ["distance", "dot"]


def maps(count: int) -> Tensor:
    return torch.randn(count, 4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(count))


def score_of(name: str, h_CHW: Tensor, t_CHW: Tensor) -> Tensor:
    """As the docstring has it, a position at a time."""
    found = []
    for row in range(h_CHW.shape[1]):
        for column in range(h_CHW.shape[2]):
            h_C, t_C = h_CHW[:, row, column], t_CHW[:, row, column]
            found.append(h_C @ t_C if name == "dot" else -((h_C - t_C) ** 2).sum())
    return torch.stack(found).mean()


def loss_of(name: str, h_BCHW: Tensor, t_NCHW: Tensor, y_B: Tensor, temperature: float) -> Tensor:
    """Cross-entropy in a loop over images and labels."""
    total = torch.zeros((), dtype=torch.float64)
    for h_CHW, y in zip(h_BCHW, y_B.tolist(), strict=True):
        scores_N = torch.stack([score_of(name, h_CHW, t_CHW) for t_CHW in t_NCHW]) / temperature
        total = total + scores_N.exp().sum().log() - scores_N[y]
    return total / len(y_B)


def test_values_at_known_inputs() -> None:
    ones, zeros = torch.ones(2, 7, 3, 5), torch.zeros(3, 7, 3, 5)
    assert dot_scores(ones, ones).tolist() == [[7, 7]] * 2
    assert distance_scores(ones, ones).tolist() == [[0, 0]] * 2
    assert distance_scores(ones, zeros).tolist() == [[-7] * 3] * 2
    assert dot_scores(ones.bfloat16(), ones.bfloat16()).dtype is torch.float32


def test_the_gradient_of_the_dot_products_is_its_closed_form() -> None:
    """``(p - y) t`` for images, ``(p - y)^T h`` for labels, over the positions and the images of the mean."""
    h, t, y_B = maps(6).requires_grad_(), maps(5).requires_grad_(), torch.arange(6) % 5
    scores_BN = dot_scores(h, t)
    F.cross_entropy(scores_BN, y_B).backward()
    error_BN = (scores_BN.softmax(1) - F.one_hot(y_B, 5)).detach() / (6 * 6)
    torch.testing.assert_close(h.grad, torch.einsum("bn,nchw->bchw", error_BN, t.detach()))
    torch.testing.assert_close(t.grad, torch.einsum("bn,bchw->nchw", error_BN, h.detach()))


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("num_modules", [1, 3])
def test_equals_the_sum_of_losses(name: str, num_modules: int) -> None:
    """All graphs at once and one backward pass; with one module that is back-propagation of the last block's loss."""
    settings = {"signal_score": name, "signal_temperature": 3.0, "num_modules": num_modules}
    method, oracle, batch = make_method("sigprop", **settings), make_method("sigprop", **settings), make_batch()
    method.fill_grads(batch)
    h, total = torch.cat([batch.x_BCHW, oracle.signals.images_NCHW]), torch.zeros((), dtype=torch.float64)
    for index in range(num_modules):
        block = oracle.backbone.block(index)
        features = block.features(h.detach() if index else h)
        total = total + loss_of(name, features[:6], features[6:], batch.y_B, 3.0)
        h = block.pool(features)
    logits_BN = oracle.backbone.classifier(h[:6].detach())
    (total + F.cross_entropy(logits_BN, batch.y_B)).backward()
    found = gradients(method)
    assert set(found) == set(gradients(oracle)) and "signals.images_NCHW" in found
    for key, gradient in gradients(oracle).items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-9, atol=1e-13, msg=key)


def test_fixed_signals_are_those_at_the_beginning_and_no_parameters() -> None:
    learned, fixed = make_method("sigprop"), make_method("sigprop", fixed_signals=True)
    assert torch.equal(learned.signals.images_NCHW, fixed.signals.images_NCHW)
    for method in (learned, fixed):
        method.fill_grads(make_batch())
    found = gradients(fixed)
    assert set(gradients(learned)) - set(found) == {"signals.images_NCHW"}
    assert all(torch.equal(gradient, gradients(learned)[key]) for key, gradient in found.items())


@pytest.mark.parametrize("name", SCORES)
def test_the_exit_of_a_block_is_the_score_of_every_label(name: str) -> None:
    """Against a loop over images and labels, each by itself; the last exit is the classifier's."""
    method, batch = make_method("sigprop", signal_score=name).eval(), make_batch(num_images=3)
    with torch.no_grad():
        found = method.block_logits(batch.x_BCHW)
        for number in range(3):
            for label in range(5):
                h, t = batch.x_BCHW[number, None], method.signals.images_NCHW[label, None]
                for index in range(2):
                    expected = score_of(name, method.backbone.block(index).features(h)[0],
                                        method.backbone.block(index).features(t)[0])  # fmt: skip
                    assert found[index][number, label].item() == pytest.approx(expected.item(), rel=1e-9)
                    h, t = method.backbone.block(index)(h), method.backbone.block(index)(t)


def test_two_labels_that_change_places_change_the_scores_and_no_feature() -> None:
    method, batch, order = make_method("sigprop").eval(), make_batch(), [0, 3, 2, 1, 4]
    with torch.no_grad():
        before = method.block_logits(batch.x_BCHW)
        method.signals.images_NCHW.copy_(method.signals.images_NCHW[order])
        after = method.block_logits(batch.x_BCHW)
    for index in (0, 1):
        torch.testing.assert_close(after[index], before[index][:, order])
    assert torch.equal(after[2], before[2])


def test_the_classifier_teaches_no_block() -> None:
    plain, moved = make_method("sigprop"), make_method("sigprop")
    with torch.no_grad():
        for parameter in moved.backbone.classifier.parameters():
            parameter.add_(1)
    for method in (plain, moved):
        method.fill_grads(make_batch())
    for key, gradient in gradients(plain).items():
        assert torch.equal(gradients(moved)[key], gradient) != ("classifier" in key), key


def test_running_statistics_are_those_of_images_and_labels() -> None:
    method, batch = make_method("sigprop"), make_batch()
    method.fill_grads(batch)
    first, seen = method.backbone.block(0).features, torch.cat([batch.x_BCHW, method.signals.images_NCHW])
    torch.testing.assert_close(first[1].running_mean, 0.1 * first[0](seen).mean((0, 2, 3)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--signal_temperature 0", "allowed is a number, above 0"),
        ("--signal_score cosine", "allowed is"),
        ("--overlap 1", "belongs to"),
        ("--ssl", "belongs to"),
        ("--pred_aux_type mlp", "belongs to"),
    ],
)
def test_what_has_no_effect_or_no_place_is_one_line(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        cli.parse(["--sigprop", *words.split()])
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2


def test_scores_are_wide_under_autocast() -> None:
    h_BCHW = torch.randn(3, 4, 5, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        for scores in (dot_scores, distance_scores):
            assert scores(h_BCHW, h_BCHW).dtype == torch.float32
        assert distance_scores(h_BCHW, h_BCHW).diagonal().abs().max() < 1e-4


def test_the_rate_of_labels_below_frozen_blocks_is_refused() -> None:
    with pytest.raises(UsageError, match="--signal_rate_scale has no effect"):
        cli.parse(["--sigprop", "--first_trainable_block", "1", "--signal_rate_scale", "3"])
