"""The optimiser's step: the kernels are given other views of the tensors, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from engine.loop import optimizer as optimizers
from engine.loop.optimizer import MemoryOrder

KINDS: list[Callable[..., torch.optim.Optimizer]] = [
    lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01, fused=True),
    lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True, weight_decay=0.01, fused=True),
    lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.01, fused=True),
    lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.01, fused=True),
]


def trained(kind: Callable[..., torch.optim.Optimizer], format: torch.memory_format) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.Conv2d(32, 8, 1), nn.Flatten(), nn.Linear(32, 3)
    )
    layers.to(memory_format=format)
    optimizer = kind(layers.parameters())
    for _ in range(4):
        layers(torch.randn(4, 16, 4, 4)).square().sum().backward()

        optimizers.update(optimizer, 0.05, 0.0)
    return layers, optimizer


@pytest.mark.parametrize("kind", KINDS, ids=["sgd", "momentum", "adam", "adamw"])
@pytest.mark.parametrize("format", [torch.channels_last, torch.contiguous_format])
def test_the_order_in_memory_changes_no_bit(kind, format, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = optimizers._in_memory_order

    def counting(values: list[torch.Tensor], last: list[bool]) -> list[torch.Tensor]:
        seen.append(sum(last))
        return plain(values, last)

    monkeypatch.setattr(optimizers, "_in_memory_order", counting)
    found, optimizer = trained(kind, format)
    assert max(seen) == (2 if format is torch.channels_last else 1)  # a 1x1 kernel is both
    monkeypatch.setattr(optimizers, "_FUSED", ())
    expected, reference = trained(kind, format)
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a, b) and a.stride() == b.stride()
        assert optimizer.state[a].keys() == reference.state[b].keys()
        for name, value in optimizer.state[a].items():
            assert torch.equal(value, reference.state[b][name]), name
            assert value.stride() == reference.state[b][name].stride(), name


def test_a_gradient_in_another_order_than_its_weight_is_still_its_gradient() -> None:
    torch.manual_seed(0)
    results = []
    for inside in (True, False):
        weight = nn.Parameter(torch.arange(72.0).view(2, 4, 3, 3).contiguous(memory_format=torch.channels_last))
        optimizer = torch.optim.SGD([weight], 0.1, 0.9, fused=True)
        for _ in range(2):
            weight.grad = torch.linspace(0, 1, 72).view(2, 4, 3, 3)
            if inside:
                with MemoryOrder():
                    optimizer.step()
            else:
                optimizer.step()
        results.append(weight.detach())
    assert torch.equal(*results)
