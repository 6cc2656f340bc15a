"""The choices of ``--dfa --feedback``: each in the limit where it is back-propagation or dfa, and by its law."""

from __future__ import annotations

import copy
import itertools
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from methods._base import Method
from methods._feedback import few_bits
from methods._learned import LEARNED, Learned
from model import Backbone, Shape, mlp
from networks.table import convolutional_block
from schemas import ModelArgs
from sections.rules.dfa import DfaArgs
from tests.conftest import CLASSES, gradients, make_batch, make_method
from tests.methods.test_feedback import assert_refused, assert_same_gradients, close, fill

CHOICES = get_args(DfaArgs.model_fields["feedback"].annotation)


def one_block() -> Backbone:
    torch.manual_seed(0)
    block = convolutional_block(Shape(3, 8, 8), 4, 3, pool=True, args=ModelArgs())
    return Backbone([block], mlp(block.out_shape.num_features, len(CLASSES), 0, 1))


def pair(choice: str, **settings: object) -> tuple[Method, Method, Tensor]:
    """One block under a linear classifier: with the choice, with back-propagation, and the classifier's weights."""
    settings = {"feedback": choice, "feedback_rate_scale": 1} | settings
    method, whole = make_method("dfa", one_block(), **settings), make_method("bp", one_block())
    return method, whole, method.backbone.classifier[-1].weight.detach()


def of_block(method: Method, index: int) -> Learned | Tensor:
    return getattr(method.feedback, f"block_{index:02d}")


def signals(method: Method, index: int = 0, batch=None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one batch the signal, flat, and what it may depend on: the block's output, the error and the labels."""
    batch = batch or make_batch()
    trace, _ = method.run(batch)
    nothing = torch.full_like(trace.outputs[index], torch.nan).detach()
    signal_BD = method.signal(index, trace, nothing).flatten(1)
    return signal_BD, trace.outputs[index].detach().flatten(1), trace.error_BN, batch.y_B


def stay_equal(method: Method, whole: Method) -> None:
    """Three steps, after each of which the gradients are back-propagation's."""
    optimizers = [torch.optim.SGD(m.param_groups(), lr=0.05, momentum=0.9, weight_decay=0.1) for m in (method, whole)]
    for step in range(3):
        for trained, optimizer in zip((method, whole), optimizers, strict=True):
            fill(trained, step)
            optimizer.step()
        assert_same_gradients(method, whole, close)


def test_every_word_of_the_flag_gives_another_signal() -> None:
    found = [signals(make_method("dfa", feedback=choice))[0] for choice in CHOICES]
    assert not any(torch.equal(a, b) for i, a in enumerate(found[:4]) for b in found[:i])
    learned = {choice for choice in CHOICES if isinstance(of_block(make_method("dfa", feedback=choice), 0), Learned)}
    assert learned == set(LEARNED)


# Fixed matrices


def test_sign_of_the_error_is_a_constant_less_twice_the_label() -> None:
    method = make_method("dfa", feedback="sign")
    for index in range(3):
        matrix_ND = of_block(method, index)
        signal_BD, _, _, y_B = signals(method, index)
        torch.testing.assert_close(signal_BD, (matrix_ND.sum(0) - 2 * matrix_ND[y_B]) / 6, rtol=1e-13, atol=1e-15)


def test_few_bits_round_the_error_before_it_is_broadcast() -> None:
    method = make_method("dfa", feedback="few_bits", feedback_bits=2)
    signal_BD, _, error_BN, _ = signals(method)
    assert torch.equal(signal_BD, few_bits(error_BN, 2) @ of_block(method, 0))
    assert not torch.allclose(signal_BD, error_BN @ of_block(method, 0), rtol=0.1)


def test_sparse_matrices_let_every_unit_hear_a_share_of_the_classes() -> None:
    whole = of_block(make_method("dfa"), 0)
    assert torch.equal(of_block(make_method("dfa", feedback="sparse", feedback_density=1), 0), whole)
    matrix_ND = of_block(make_method("dfa", feedback="sparse", feedback_density=0.4), 0)
    is_kept = matrix_ND != 0
    assert (is_kept.sum(0) == 2).all()
    assert is_kept.sum(1).min() > 0.2 * is_kept.shape[1]
    torch.testing.assert_close(matrix_ND[is_kept], whole[is_kept] / 0.4**0.5)


@pytest.mark.parametrize("choice", ["random", "adaptive"])
def test_without_the_derivative_a_block_is_trained_as_if_its_relu_were_not_there(choice: str, monkeypatch) -> None:
    method, whole, weight_ND = pair(choice, ignore_derivative=True)
    feedback = of_block(method, 0)
    (feedback.B.data if isinstance(feedback, Learned) else feedback).copy_(weight_ND)
    fill(method)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x + (x.clamp_min(0) - x).detach())
    fill(whole)
    assert_same_gradients(method, whole, close)


# Adaptive


def test_adaptive_from_the_weights_of_the_classifier_stays_back_propagation() -> None:
    method, whole, weight_ND = pair("adaptive")
    of_block(method, 0).B.data.copy_(weight_ND)
    stay_equal(method, whole)


def test_adaptive_comes_to_the_classifier_by_the_decay_alone() -> None:
    method, _, _ = pair("adaptive")
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.05, weight_decay=2)

    def difference() -> Tensor:
        return method.backbone.classifier[-1].weight.detach() - of_block(method, 0).B.detach()

    start = difference()
    for step in range(1, 9):
        fill(method, step)
        optimizer.step()
        torch.testing.assert_close(difference(), 0.9**step * start, rtol=1e-11, atol=1e-14)


# Low rank


def test_full_rank_from_the_weights_of_the_classifier_stays_back_propagation() -> None:
    method, whole, weight_ND = pair("low_rank", feedback_rank=len(CLASSES))
    feedback = of_block(method, 0)
    feedback.P.data.copy_(torch.linalg.qr(feedback.P.data).Q)  # orthogonal to the last bit
    feedback.Q.data.copy_(feedback.P.data @ weight_ND)
    fill(method)
    torch.testing.assert_close(feedback.P.grad, torch.zeros_like(feedback.P), rtol=0, atol=1e-15)  # at rest
    for parameter in method.parameters():
        parameter.grad = None
    optimizers = [torch.optim.SGD(m.param_groups(), lr=0.05, momentum=0.9) for m in (method, whole)]
    for step in range(3):
        for trained, optimizer in zip((method, whole), optimizers, strict=True):
            fill(trained, step)
            optimizer.step()
        assert_same_gradients(method, whole, close)


def test_low_rank_signal_and_gradients_are_those_of_the_formulas_image_by_image() -> None:
    method = make_method("dfa", feedback="low_rank", feedback_rank=2)
    feedback = of_block(method, 1)
    p_RN, q_RD = feedback.P.detach(), feedback.Q.detach()
    signal_BD, out_BD, error_BN, _ = signals(method, 1)
    of_p, of_q = torch.zeros_like(p_RN), torch.zeros_like(q_RD)
    for signal_D, h_D, e_N in zip(signal_BD, out_BD, error_BN, strict=True):
        torch.testing.assert_close(signal_D, q_RD.t() @ (p_RN @ e_N), rtol=1e-12, atol=1e-14)
        own_N = 6 * e_N
        outer_NN = torch.outer(own_N, own_N)
        of_p -= (p_RN @ outer_NN - p_RN @ outer_NN @ p_RN.t() @ p_RN) / 6
        of_q += torch.outer(p_RN @ e_N, h_D)
    close(feedback.P.grad, of_p)
    close(feedback.Q.grad, of_q)
    assert sum(p.numel() for p in feedback.parameters()) == 2 * (len(CLASSES) + out_BD.shape[1])


def test_low_rank_finds_the_largest_directions_of_the_errors() -> None:
    method = make_method("dfa", feedback="low_rank", feedback_rank=2)
    feedback, batch = of_block(method, 0), make_batch(num_images=40)
    batch = batch._replace(y_B=torch.bucketize(torch.arange(40) % 10, torch.tensor([4, 8])))  # 5, 4, 1 of ten
    for _ in range(400):
        feedback.zero_grad()
        _, _, error_BN, _ = signals(method, batch=batch)
        with torch.no_grad():
            feedback.P -= 0.5 * feedback.P.grad
    largest_NR = torch.linalg.eigh(error_BN.t() @ error_BN).eigenvectors[:, -2:]
    p_RN = feedback.P.detach()
    torch.testing.assert_close(p_RN.t() @ p_RN, largest_NR @ largest_NR.t(), rtol=0, atol=1e-6)


# Correlation


def test_correlation_is_the_running_average_of_output_times_error() -> None:
    method = make_method("dfa", feedback="correlation", correlation_momentum=0.7)
    feedback = of_block(method, 1)
    expected = feedback.running_B.clone()
    for step in range(3):
        noise = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        signal_BD, out_BD, error_BN, _ = signals(method, 1, make_batch()._replace(x_BCHW=noise))
        mean = sum(torch.outer(6 * e_N, h_D) for e_N, h_D in zip(error_BN, out_BD, strict=True)) / 6
        expected = 0.7 * expected + 0.3 * mean
        close(feedback.running_B, expected)
        for signal_D, e_N in zip(signal_BD, error_BN, strict=True):
            close(signal_D, expected.t() @ e_N)


def test_of_one_batch_the_signal_is_the_gradient_of_the_correlations_size() -> None:
    """``d (|R|^2 / 2) / dh = R e`` with ``R`` the mean over the images of ``h e^T``, the errors held."""
    method = make_method("dfa", feedback="correlation", correlation_momentum=0)
    signal_BD, out_BD, error_BN, _ = signals(method)
    out_BD.requires_grad_()
    correlation_DN = (out_BD.t() @ (error_BN * 6)) / 6
    (expected,) = torch.autograd.grad(correlation_DN.square().sum() / 2, out_BD)
    close(signal_BD, expected)


@pytest.mark.parametrize("choice", ["correlation", "adaptive", "bidirectional"])
def test_with_the_feedback_frozen_it_is_dfa(choice: str) -> None:
    method, dfa = make_method("dfa", feedback=choice), make_method("dfa")
    for index in range(3):
        feedback = of_block(method, index)
        feedback.momentum = 1
        value = feedback.running_B if choice == "correlation" else feedback.B.data
        value.copy_(of_block(dfa, index))
    for step in range(2):
        for trained in (method, dfa):
            fill(trained, step)
        assert_same_gradients(method, dfa)


# Bidirectional


def test_bidirectional_gradients_are_those_of_the_top_down_loss() -> None:
    method = make_method("dfa", feedback="bidirectional")
    feedback = of_block(method, 0)
    feedback.bias.data.normal_(generator=torch.Generator().manual_seed(0))
    _, out_BD, _, y_B = signals(method)
    found = feedback.B.grad, feedback.bias.grad
    labels_BN = nn.functional.one_hot(y_B, len(CLASSES)).double()
    loss = 0.5 * ((labels_BN @ feedback.B + feedback.bias).relu() - out_BD).square().sum() / len(y_B)
    for gradient, expected in zip(found, torch.autograd.grad(loss, (feedback.B, feedback.bias)), strict=True):
        close(gradient, expected)


def test_bidirectional_loss_falls_in_every_step_while_the_network_stands_still() -> None:
    method, losses = make_method("dfa", feedback="bidirectional"), []
    feedback = of_block(method, 0)
    optimizer = torch.optim.SGD(feedback.parameters(), lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        _, out_BD, _, y_B = signals(method)
        drawn_BD = (feedback.B[y_B] + feedback.bias).relu()
        losses.append((drawn_BD - out_BD).square().sum().item())
        optimizer.step()
    assert all(later < before for before, later in itertools.pairwise(losses))
    assert losses[-1] < 0.9 * losses[0]


# Flags

REFUSED = {
    "--drtp --feedback sign": "--feedback has no effect with --method drtp; it belongs to: ",
    "--dfa --feedback usf": "--feedback 'usf': allowed is one of random, sparse, ",
    "--dfa --feedback_bits 2": "--feedback_bits has no effect: it needs --feedback few_bits",
    "--dfa --feedback correlation --feedback_rate_scale 2": "it needs --feedback adaptive or low_rank or bidirectional",
    "--dfa --feedback adaptive --feedback_rate_scale=-1": "--feedback_rate_scale '-1': allowed is a number, at least 0",
    "--dfa --feedback_rank 2": "--feedback_rank has no effect: it needs --feedback low_rank",
    "--dfa --correlation_momentum 0.5": "--correlation_momentum has no effect: it needs --feedback correlation",
    "--dfa --feedback low_rank --feedback_rank 0": "--feedback_rank '0': allowed is a whole number, at least 1",
    "--dfa --feedback correlation --correlation_momentum 1": "allowed is a number, at least 0, below 1",
    "--dfa --feedback correlation --num_replicas 2": "--num_replicas exclude each other: each would",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_effect_or_no_sense_is_refused_in_one_line(words: str) -> None:
    assert_refused(words, REFUSED[words])


# All


@pytest.mark.parametrize("choice", [word for word in LEARNED if word != "correlation"])
def test_feedback_learns_at_its_own_rate(choice: str) -> None:
    groups = make_method("dfa", feedback=choice, feedback_rate_scale=0.25).param_groups()
    assert [group["name"] for group in groups[:2]] == ["block_00", "block_00/feedback"]
    assert [group.get("rate_scale") for group in groups] == [None, 0.25] * 3
    whole = make_method("dfa", feedback=choice, feedback_rate_scale=1).param_groups()
    assert [group["name"] for group in whole] == ["block_00", "block_01", "block_02"]
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for g in whole for p in g["params"])


@pytest.mark.parametrize("choice", CHOICES)
def test_signals_need_nothing_from_above_and_no_order(choice: str) -> None:
    """Blocks are asked from the bottom up, with NaN for what the block above says: the signals are the same."""
    method, batch = make_method("dfa", feedback=choice), make_batch()
    expected = []
    probe = copy.deepcopy(method)
    trace, _ = probe.run(batch)
    for index in reversed(range(3)):
        expected.insert(0, probe.signal(index, trace, torch.zeros_like(trace.outputs[index])))
    trace, _ = method.run(batch)
    for index in range(3):
        nothing = torch.full_like(trace.outputs[index], torch.nan).detach()
        assert torch.equal(method.signal(index, trace, nothing), expected[index])


@pytest.mark.parametrize("choice", CHOICES)
def test_the_classifier_learns_as_in_back_propagation(choice: str) -> None:
    method, whole = make_method("dfa", feedback=choice), make_method("bp")
    for trained in (method, whole):
        fill(trained)
    for name, gradient in gradients(whole).items():
        if not name.endswith("features.0.bias"):
            assert torch.equal(gradients(method)[name], gradient) == ("classifier" in name), name


@pytest.mark.parametrize("choice", CHOICES)
def test_a_resumed_run_has_the_same_bits(choice: str) -> None:
    method = make_method("dfa", feedback=choice)
    optimizer, saved = torch.optim.Adam(method.param_groups(), lr=0.01), None
    for step in range(6):
        if step == 3:
            saved = copy.deepcopy((method.state_dict(), optimizer.state_dict()))
        fill(method, step)
        optimizer.step()
    other = make_method("dfa", feedback=choice)
    for value in other.state_dict().values():
        value.zero_()
    other.load_state_dict(saved[0])
    resumed = torch.optim.Adam(other.param_groups(), lr=0.01)
    resumed.load_state_dict(saved[1])
    for step in range(3, 6):
        fill(other, step)
        resumed.step()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in method.state_dict().items())
