"""What the comparison of layouts compares."""

from __future__ import annotations

import pytest
import torch

from benchmarks.layouts import Runner, Way, Work
from benchmarks.pipeline import choose_ways
from utils import UsageError

WORK = Work("VGGs", 4, "fp32", 2)


def test_every_way_covers_all_blocks_and_threads_are_shared(capsys) -> None:
    threads = torch.get_num_threads()
    ways = choose_ways(WORK, 2, 2)
    torch.set_num_threads(threads)
    assert len(ways) == 5
    for way in ways.values():
        assert [index for stage in way.stages for index in stage] == [0, 1, 2]
    assert [way.num_threads for way in ways.values()] == [2, 1, 2, 1, 2]
    assert "VGGs, batch 4, fp32: stages" in capsys.readouterr().out


def test_more_stages_than_blocks_is_one_line() -> None:
    with pytest.raises(UsageError, match="--num_stages 4: VGGs has 3 blocks"):
        choose_ways(WORK, 4, 2)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_layouts_have_the_bits_of_one_after_the_other() -> None:
    everything, stages = (range(3),), (range(1), range(1, 3))
    states = []
    for way in (Way("turn", everything, 1), Way("threads", stages, 2), Way("processes", stages, 1)):
        with Runner(WORK, way) as runner:
            runner.wait()
            assert runner.turn() > 0
            states.append(runner.state())
    for other in states[1:]:
        assert all(torch.equal(value, other[name]) for name, value in states[0].items())
