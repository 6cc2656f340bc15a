"""Direct random target projection: dfa with the label in place of the error, blind to images and weights."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from methods._base import Method
from tests.conftest import CLASSES, gradients, make_batch, make_method


def signals(method: Method, batch) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The signal of every block, and the error at the logits."""
    trace, _ = method.run(batch)
    return [method.signal(i, trace, torch.zeros_like(trace.outputs[i])) for i in range(3)], trace.error_BN


def test_it_is_dfa_with_the_label_in_place_of_the_error(monkeypatch) -> None:
    ours, dfa, batch = make_method("drtp"), make_method("dfa"), make_batch()
    run = dfa.run

    def with_the_label(batch):
        trace, logits_BN = run(batch)
        trace.error_BN = F.one_hot(batch.y_B, len(CLASSES)).double() / len(batch.y_B)
        return trace, logits_BN

    monkeypatch.setattr(dfa, "run", with_the_label)
    for method in (ours, dfa):
        method.fill_grads(batch)
    for name, gradient in gradients(ours).items():
        if "classifier" not in name:  # it learns from the error
            torch.testing.assert_close(gradients(dfa)[name], gradient, rtol=1e-12, atol=1e-15, msg=name)


def test_the_classifier_learns_as_in_back_propagation() -> None:
    ours, whole = make_method("drtp"), make_method("bp")
    for method in (ours, whole):
        method.fill_grads(make_batch())
    for name, gradient in gradients(whole).items():
        if "classifier" in name:
            assert torch.equal(gradients(ours)[name], gradient), name


def test_the_sign_of_the_error_is_the_label_up_to_a_constant() -> None:
    method, batch = make_method("drtp"), make_batch()
    found, error_BN = signals(method, batch)
    for index, signal_BCHW in enumerate(found):
        matrix_ND = method.feedback.get_buffer(f"block_{index:02d}")
        expected = matrix_ND.sum(0) - 2 * len(batch.y_B) * signal_BCHW.flatten(1)
        torch.testing.assert_close(error_BN.sign() @ matrix_ND, expected, rtol=1e-12, atol=1e-14)


def test_signals_depend_on_labels_alone() -> None:
    method, batch = make_method("drtp"), make_batch()
    before, _ = signals(method, batch)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    after, _ = signals(method, batch._replace(x_BCHW=batch.x_BCHW.flip(0) + 1))
    assert all(map(torch.equal, before, after))
    other, _ = signals(method, batch._replace(y_B=(batch.y_B + 1) % len(CLASSES)))
    assert not any(map(torch.equal, before, other))
