"""Sizes of parts of a network against formulas and against torch's own count of a network built of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules import module
from torch.utils.flop_counter import FlopCounterMode

from studies._exits import measure_costs
from tests.conftest import CASES, gradients, make_method

IMAGE = torch.zeros(1, 3, 8, 8)
WITH_EXITS = [case for case in CASES if CASES[case][0] in ("dgl", "critic", "predsim")]


@pytest.mark.parametrize("case", WITH_EXITS)
@pytest.mark.parametrize("first", [0, 1])
def test_a_prefix_costs_what_a_network_of_its_parts_costs(case: str, first: int) -> None:
    method = make_method(case, first_trainable_block=first).float()
    costs = measure_costs(method, IMAGE)
    assert method.training
    for index in costs.exits:
        blocks = [method.backbone.block(below) for below in range(index + 1)]
        head_reads_features = case.startswith("predsim") and index < 2
        network = nn.Sequential(*blocks[:-1], blocks[-1].features if head_reads_features else blocks[-1])
        alone = nn.Sequential(network, method.head(index)).eval()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            alone(IMAGE)
        found = costs.of([index])
        assert found.multiply_adds == counter.get_total_flops() // 2
        assert found.num_parameters == sum(p.numel() for p in alone.parameters())


def test_exits_together_share_their_blocks() -> None:
    costs = measure_costs(make_method("dgl").float(), IMAGE)
    both = costs.of([0, 1])
    assert both.multiply_adds == costs.of([1]).multiply_adds + costs.heads[0].multiply_adds
    assert both.num_parameters == costs.of([1]).num_parameters + costs.heads[0].num_parameters


def test_only_what_classifies_is_counted() -> None:
    """Decoders and heads of similarity serve training alone."""
    for plain, more in (("dgl", "dgl ssl"), ("dgl", "dgl supcon")):
        one, other = (measure_costs(make_method(case).float(), IMAGE) for case in (plain, more))
        assert [one.of([i])._replace(parameters=frozenset()) for i in range(3)] == [
            other.of([i])._replace(parameters=frozenset()) for i in range(3)
        ]
        assert [one.of([i]).num_parameters for i in range(3)] == [other.of([i]).num_parameters for i in range(3)]


def test_a_pass_for_every_class_counts() -> None:
    method = make_method("ff").float()
    costs, once = measure_costs(method, IMAGE), measure_costs(make_method("bp").float(), IMAGE).of([1])
    label = 5 * 9 * 4 * 8 * 8  # what the first convolution's channel for the label adds
    assert costs.of([1]).multiply_adds == 5 * once.multiply_adds + label
    assert costs.of([1]).num_parameters == once.num_parameters + 9 * 4


@pytest.mark.parametrize("case", ["bp", "dni", "dgl ssl shift alone"])
def test_a_network_without_heads_has_one_exit(case: str) -> None:
    method = make_method(case).float()
    costs = measure_costs(method, IMAGE)
    assert costs.exits == [2]
    assert costs.of([2]).num_parameters == sum(p.numel() for p in method.backbone.parameters())
    assert all(cost.multiply_adds == 0 and not cost.parameters for cost in costs.heads[:2])


def test_measuring_changes_nothing() -> None:
    method = make_method("critic").float()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    measure_costs(method, IMAGE)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert not any(gradient is not None for gradient in gradients(method).values())
    assert not module._global_forward_hooks and not module._global_forward_pre_hooks
