"""What the comparison of layouts compares."""

from __future__ import annotations

import numpy
import pytest
import torch

from benchmarks.pipeline import Runner, Way, choose_ways, work
from utils import UsageError

WORK = work("VGGs", 4, "fp32")


def test_every_way_covers_all_blocks_and_threads_are_shared() -> None:
    threads = torch.get_num_threads()
    ways = choose_ways(WORK, 2, 2)
    torch.set_num_threads(threads)
    assert len(ways) == 5
    for way in ways.values():
        assert [index for stage in way.stages for index in stage] == [0, 1, 2]
    assert [way.num_threads for way in ways.values()] == [2, 1, 2, 1, 2]


def test_more_stages_than_blocks_is_one_line() -> None:
    with pytest.raises(UsageError, match="--num_stages 4: there are 3 trainable blocks"):
        choose_ways(WORK, 4, 2)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_layouts_have_the_bits_of_one_after_the_other() -> None:
    everything, stages = (range(3),), (range(1), range(1, 3))
    states = []
    for way in (Way("eager", everything, 1), Way("threads", stages, 2), Way("processes", stages, 1)):
        with Runner(WORK, 2, way) as runner:
            assert runner.turn() > 0
            states.append(runner.state())
    for other in states[1:]:
        assert all(map(numpy.array_equal, states[0], other))
