"""The buffer that drops and reuses: its policy by hand, and what it leaves of a run."""

from __future__ import annotations

import queue
import time

import pytest

from engine.parallel.replay import ReplayBuffer
from engine.parallel.stage import Stage
from tests.engine.test_run import without_times

ASYNC = ["--dgl", "--layer_parallel", "threads", "--num_stages", "3", "--async_buffer"]


def test_of_the_least_read_the_newest_comes() -> None:
    buffer = ReplayBuffer[str](3)
    for value in "abcd":  # a full buffer forgets the oldest
        buffer.put(value)
    assert [buffer.get() for _ in range(7)] == ["d", "c", "b", "d", "c", "b", "d"]
    buffer.put("e")  # in place of b
    assert [buffer.get() for _ in range(4)] == ["e", "e", "e", "c"]


def test_the_oldest_slot_is_not_taken_for_the_newest() -> None:
    """What the published code gets wrong: the slot to be written next is read first."""
    buffer = ReplayBuffer[int](2)
    for value in range(3):
        buffer.put(value)
    assert buffer.get() == 2


def test_one_slot_and_turns_are_a_queue() -> None:
    buffer = ReplayBuffer[int](1)
    got = []
    for value in range(5):
        buffer.put(value)
        got.append(buffer.get())
    assert got == list(range(5))


def test_it_waits_for_the_first_value_only_and_the_end_comes_once() -> None:
    buffer = ReplayBuffer[int](2)
    with pytest.raises(queue.Empty):
        buffer.get(timeout=0.01)
    buffer.put(1)
    assert (buffer.get(timeout=0), buffer.get(timeout=0)) == (1, 1)
    buffer.put(None)
    assert (buffer.get(), buffer.get()) == (None, 1)


def slow_block(index: int, delay_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delay every step of the stage that has block ``index``."""
    learn = Stage.learn

    def learn_slowly(self: Stage, *inputs):
        time.sleep(delay_s if index in self.blocks else 0)
        return learn(self, *inputs)

    monkeypatch.setattr(Stage, "learn", learn_slowly)


def test_every_stage_takes_all_its_steps_and_the_run_says_so(run, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_block(2, 0.02, monkeypatch)
    assert run(*ASYNC, "2") == 0
    assert run.summary()["status"] == "done"
    assert run.state()["step"] == 15
    steps = [record for record in run.records() if record["kind"] == "epoch"]
    assert [record["step"] for record in steps] == [5, 10, 15]
    assert all(f"train/block_0{index}/loss" in steps[-1] for index in range(3))


def test_a_slow_stage_only_slows(run, same, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--dgl", "--dropout_prob", "0.3", "--layer_parallel", "threads", "--num_stages", "3"]
    assert run(*words) == 0
    whole, records = run.state(), without_times(run.records())
    slow_block(1, 0.03, monkeypatch)
    assert run(*words) == 0
    same(whole, run.state())
    assert without_times(run.records()) == records


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dgl", "--async_buffer", "2"], "--async_buffer has no effect: it needs --layer_parallel threads"),
        (["--dgl", "--layer_parallel", "processes", "--async_buffer", "2"], "--async_buffer has no effect"),
        (["--dgl", "--layer_parallel", "processes", "--num_replicas", "3"], "--batch_size is 32"),
        (["--dgl", "--layer_parallel", "threads", "--stages", "0,1-2", "--num_stages", "2"], "it needs no --stages"),
    ],
)
def test_what_cannot_be_is_one_line(run, capsys, words: list[str], message: str) -> None:
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not run.folders
