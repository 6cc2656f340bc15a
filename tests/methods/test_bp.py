"""Back-propagation by cut graph equals autograd on the whole network, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.conftest import gradients, make_batch, make_method


def autograd_gradients(first: int, smoothing: float) -> tuple[dict, dict]:
    method, batch = make_method("bp", first_trainable_block=first), make_batch()
    F.cross_entropy(method(batch.x_BCHW), batch.y_B, label_smoothing=smoothing).backward()
    return gradients(method), method.state_dict()


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_autograd(first: int, smoothing: float) -> None:
    method = make_method("bp", first_trainable_block=first, label_smoothing=smoothing)
    method.fill_grads(make_batch())
    expected, state = autograd_gradients(first, smoothing)
    for name, gradient in gradients(method).items():
        if gradient is not None:  # autograd also fills parameters that do not learn
            assert torch.equal(gradient, expected[name]), name
    for name, value in method.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_signal_other_than_the_one_from_above_is_another_rule() -> None:
    """The equality above can fail: halve the signal and every block but the classifier differs."""
    method = make_method("bp")
    method.signal = lambda index, trace, above: above / 2  # type: ignore[method-assign]
    method.fill_grads(make_batch())
    expected, _ = autograd_gradients(0, 0.0)
    for name, gradient in gradients(method).items():
        assert torch.equal(gradient, expected[name]) == ("classifier" in name), name
