"""Cuts are the best there are, and blocks named by hand are checked."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from engine.parallel.partition import measure_blocks, parse_stages, partition
from tests.conftest import gradients, make_batch, make_method
from utils import UsageError


def dearest(costs: list[float], stages: list[range]) -> float:
    return max(sum(costs[index] for index in stage) for stage in stages)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_cut_is_better(seed: int) -> None:
    source = random.Random(seed)
    costs = [source.uniform(0.1, 1) for _ in range(source.randint(1, 9))]
    num_stages = source.randint(1, len(costs))
    stages = partition(costs, num_stages)
    assert len(stages) == num_stages and all(stages)
    assert [index for stage in stages for index in stage] == list(range(len(costs)))
    cuts = itertools.combinations(range(1, len(costs)), num_stages - 1)
    everything = [[range(a, b) for a, b in itertools.pairwise([0, *cut, len(costs)])] for cut in cuts]
    assert dearest(costs, stages) == pytest.approx(min(dearest(costs, other) for other in everything))


def test_a_dear_block_leaves_no_stage_empty() -> None:
    assert partition([1, 1, 100], 3) == [range(0, 1), range(1, 2), range(2, 3)]


def test_stages_by_hand() -> None:
    assert parse_stages("0-1,2,3-7", 0, 7) == [range(0, 2), range(2, 3), range(3, 8)]


@pytest.mark.parametrize("text", ["0-1", "0-1,1-2", "1-2,0", "0,2", "0-3", "2-0", "0,1,2,"[:-1] + ",3"])
def test_stages_that_do_not_cover_the_blocks_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="must name the trainable blocks 0 to 2 in order"):
        parse_stages(text, 0, 2)


def test_measuring_changes_nothing() -> None:
    method = make_method("dgl", first_trainable_block=1)
    before, state = {k: v.clone() for k, v in method.state_dict().items()}, torch.get_rng_state()
    assert len(measure_blocks(method, make_batch(), "fp32", rounds=1)) == 2
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(gradient is None for gradient in gradients(method).values())
    assert torch.equal(torch.get_rng_state(), state)
