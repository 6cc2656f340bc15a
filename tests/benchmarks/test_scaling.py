"""The model of the pipeline against times that can be written down, and what is counted of ResNet-152."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments/studies/2026-11-21_layer_parallel"))

from chains import Block, Chain, resnet152
from link import Link
from scaling import bp_row, curves, local_row
from simulate import Pipeline, gpipe_seconds


@pytest.mark.parametrize(
    ("work_s", "link_s", "num_cores", "expected"),
    [
        ([1, 1, 1], [0, 0], math.inf, 10 + 2),  # K - 1 ticks to fill
        ([1, 2, 1], [0.1, 0.1], math.inf, 1 + 0.1 + 20 + 0.1 + 1),  # the slowest stage never waits
        ([3, 1], [0.5], math.inf, 30 + 0.5 + 1),
        ([1, 1], [3], math.inf, 1 + 30 + 1),  # the link is the slowest stage
        ([1, 1], [0], 1, 20),  # one core does all of the work
        ([1, 3], [0], 1, 40),
        ([1, 1, 1, 1], [0, 0, 0], 2, pytest.approx(20, rel=0.1)),
        ([2], [], math.inf, 20),
    ],
)
def test_ten_steps_take_what_can_be_written_down(work_s, link_s, num_cores: float, expected: float) -> None:
    assert Pipeline(work_s, link_s, 10, num_cores).seconds() == pytest.approx(expected)


def test_a_fast_first_stage_is_held_back_by_what_may_be_under_way() -> None:
    pipeline = Pipeline([0.001, 1], [0.0], 50)
    assert pipeline.seconds() == pytest.approx(50.001)
    ahead = Pipeline([0.001, 1], [1000.0], 50)
    assert ahead.seconds() == pytest.approx(0.001 + 50 * 1000 + 1)


def test_the_published_bubble() -> None:
    assert gpipe_seconds([1, 1, 1, 1], 8) == pytest.approx(11 / 8)
    ideal, taken = 1, gpipe_seconds([1, 1, 1, 1], 8)
    assert 1 - ideal / taken == pytest.approx(3 / 11)  # (K - 1) / (M + K - 1)


def test_resnet_152_has_its_published_size() -> None:
    chain = resnet152(1, 1e9)
    assert len(chain.blocks) == 51
    assert sum(block.bp_parameters for block in chain.blocks) == pytest.approx(
        58.0e6, rel=0.01
    )  # 60.2 with the classifier and BN
    assert sum(block.bp_s for block in chain.blocks) / 6 == pytest.approx(
        11.5, rel=0.01
    )  # thousand million multiply-adds


@pytest.fixture
def chain() -> Chain:
    return Chain("four", 10, "made up", (Block(1.0, 2.0, 100, 50, 1000, 3000, 10),) * 4)


def test_rows_of_a_chain_of_equal_blocks(chain: Chain) -> None:
    link = Link(0.0, math.inf)
    whole, halves = local_row(chain, 1, 1, link, 100), local_row(chain, 2, 1, link, 100)
    assert whole["images_per_second"] == pytest.approx(10 / 4)
    assert halves["images_per_second"] == pytest.approx(10 * 100 / (2 * 101))
    assert whole["mib"] * 2**20 == 4 * 100 * 12 + 1000 + 20  # one block's graph at a time
    replicas = local_row(chain, 1, 3, link, 100)
    assert replicas["images_per_second"] == pytest.approx(3 * whole["images_per_second"])
    bp = bp_row(chain, 2, 8)
    assert bp["images_per_second"] == pytest.approx(10 / (4 * 9 / 8))
    assert bp["mib"] * 2**20 == 2 * 50 * 12 + 2 * 3000  # all micro-batches at once
    assert bp["mib_1f1b"] * 2**20 == 2 * 50 * 12 + 2 * 3000 * 2 / 8


def test_a_slow_link_between_replicas_costs(chain: Chain) -> None:
    free, dear = (local_row(chain, 1, 2, Link(0.0, rate), 10)["images_per_second"] for rate in (math.inf, 100.0))
    assert dear == pytest.approx(free * 4 / (4 + 4 * 400 / 100))


def test_curves_end_with_a_block_for_each_device(chain: Chain) -> None:
    rows = curves(chain, Link(0.0, math.inf), 1000)
    assert [row["stages"] for row in rows] == [1, 2, 4]
    assert rows[-1]["local_ratio"] == pytest.approx(4, rel=0.01)
