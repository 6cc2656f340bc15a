"""What every rule that sends signals down has in common: a signal lies in memory as the map does that it belongs to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import methods
from methods._signal import SignalMethod, Trace
from tests.conftest import CASES, make_batch, make_method

NAMES = [name for name in methods.names() if isinstance(make_method(name), SignalMethod)]
ORDERS = (torch.channels_last, torch.contiguous_format)


def test_they_are_found() -> None:
    assert set(NAMES) < set(CASES) and {"bp", "dfa", "drtp", "fa", "dni"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", ORDERS)
def test_a_signal_has_the_memory_order_of_its_map(name: str, order: torch.memory_format) -> None:
    """Otherwise every operation of the block's backward pass meets two orders at once."""
    method, batch, seen = make_method(name).to(memory_format=order), make_batch(), []
    assert isinstance(method, SignalMethod)
    signal = method.signal

    def watched(index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        seen.append((trace.outputs[index], signal(index, trace, above_BCHW)))
        return seen[-1][1]

    method.signal = watched  # type: ignore[method-assign]
    method.fill_grads(batch._replace(x_BCHW=batch.x_BCHW.to(memory_format=order)))
    assert len(seen) == 3
    for out_BCHW, signal_BCHW in seen:
        assert out_BCHW.is_contiguous(memory_format=order)
        assert signal_BCHW.shape == out_BCHW.shape
        assert signal_BCHW.is_contiguous(memory_format=order)


@pytest.mark.parametrize("name", ["dfa", "drtp"])
def test_a_broadcast_signal_has_the_same_values_in_any_order(name: str) -> None:
    method = make_method(name)
    assert isinstance(method, SignalMethod)
    trace, _ = method.run(make_batch())
    for index in range(3):
        shape = trace.outputs[index].shape
        one, other = (method.signal(index, trace, torch.empty(shape).to(memory_format=order)) for order in ORDERS)
        assert torch.equal(one, other)
