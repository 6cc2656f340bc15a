"""Stages as recorded programs, in any order within a tick, give the bits of one block after the other."""

from __future__ import annotations

import random

import pytest
import torch

from engine.loop.tape import Tape
from engine.parallel.streams import Streams
from tests.engine.conftest import no_eager_steps
from tests.engine.test_run import without_times
from tests.engine.test_threads import METHODS, STEPS_50, WAYS, after

STREAMS = ["--layer_parallel", "streams"]


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages are recorded also on a CPU, and those of a tick run in an order drawn anew for each."""
    tick, source = Streams._tick, random.Random(0)

    def shuffled(self: Streams, steps: dict[int, int]) -> None:
        tick(self, dict(source.sample([*steps.items()], len(steps))))

    monkeypatch.setattr("engine.trainer.choose_recorders", lambda args, feed: (Tape, ""))
    monkeypatch.setattr(Streams, "_tick", shuffled)
    no_eager_steps(monkeypatch)


HARD = ["--gradient_clip", "1", "--random_crop", "--random_erasing", *STEPS_50]


@pytest.mark.parametrize(("name", "num_stages", "precision"), WAYS)
def test_same_bits_as_one_after_the_other(run, same, request, name: str, num_stages: str, precision: str) -> None:
    words = [*METHODS[name], *HARD, "--precision", precision]
    assert run(*words) == 0
    whole, records, generator = run.state(), without_times(run.records()), torch.get_rng_state()
    request.getfixturevalue("streams")
    assert run(*words, *STREAMS, "--num_stages", num_stages) == 0
    same(whole, run.state())
    assert torch.equal(torch.get_rng_state(), generator)
    assert without_times(run.records()) == records


@pytest.mark.parametrize("step", [0, 1, 6])
def test_a_signal_lets_batches_on_their_way_through_and_any_layout_goes_on(run, same, request, step: int) -> None:
    words = ["--dgl", "--random_crop", "--optimizer_type", "AdamW"]
    run(*words)
    whole, records = run.state(), without_times(run.records())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.trainer.choose_recorders", lambda args, feed: (Tape, ""))
        after(step, patch)
        assert run(*words, *STREAMS, "--num_stages", "3") == 143
    folder = run.last
    assert step < run.state(folder)["step"] <= step + 3
    assert run.resume(str(folder), "--layer_parallel=off") == 0
    same(whole, run.state(folder))
    assert without_times(run.records(folder)) == records


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dgl", *STREAMS], "--layer_parallel streams runs CUDA graphs side by side: CUDA graphs need a GPU"),
        (["--dgl", *STREAMS, "--cuda_graph", "off"], "streams run CUDA graphs side by side"),
        (["--dgl", *STREAMS, "--async_buffer", "2"], "--async_buffer has no effect: it needs --layer_parallel threads"),
    ],
)
def test_what_cannot_be_is_one_line(run, capsys, words: list[str], message: str) -> None:
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not run.folders


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_streams_of_a_gpu_have_the_bits_of_the_sequential_run(run, same, precision: str) -> None:
    words = ["--dgl", "--deterministic", "--device", "cuda:0", "--precision", precision]
    assert run(*words, "--cuda_graph", "off") == 0
    whole = run.state()
    assert run(*words, *STREAMS, "--num_stages", "3") == 0
    same(whole, run.state())
