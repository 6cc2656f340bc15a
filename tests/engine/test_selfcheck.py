"""Recorded steps that are not those of an eager run are found before the run relies on them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from engine.layouts import _sample
from engine.loop.eager import Eager, Worker
from engine.loop.layout import Course, Layout
from engine.loop.meter import Totals
from engine.loop.optimizer import build_optimizer
from engine.loop.part import Part, Rules
from engine.loop.recorders import Step
from engine.loop.selfcheck import difference
from engine.loop.steps import Steps
from engine.loop.tape import Tape
from tests.conftest import make_method
from tests.engine.test_graph import everything, make_feed, small_args


class Idle(Tape):
    """Its replay does nothing."""

    def capture(self, step: Step, generators: object = ()) -> Step:
        return lambda: None


class Stale(Tape):
    """Its replay goes on drawing what was drawn for the step that was recorded."""

    def capture(self, step: Step, generators: object = ()) -> Step:
        states = [generator.get_state() for generator in generators]  # type: ignore[attr-defined]
        replay = super().capture(step)

        def again() -> None:
            for generator, state in zip(generators, states, strict=True):  # type: ignore[call-overload]
                generator.set_state(state)
            replay()

        return again


class Fails(Tape):
    """Its replay raises an error."""

    def capture(self, step: Step, generators: object = ()) -> Step:
        def replay() -> None:
            raise RuntimeError("an illegal memory access\nwas encountered")

        return replay


@pytest.mark.parametrize(
    ("recorder", "words"),
    [
        (Idle, "tensors differ from those of eager steps"),
        (Fails, "compared with eager ones: an illegal memory access"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--layer_parallel", "streams", "--num_stages", "2"]])
def test_a_recording_that_is_wrong_is_not_used(run, same, monkeypatch, capsys, recorder, words, more) -> None:
    run("--dgl")
    whole = run.state()
    capsys.readouterr()
    monkeypatch.setattr("engine.trainer.choose_recorders", lambda args, feed: (recorder, ""))
    assert run("--dgl", *more) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "Steps:" in line]
    assert "Steps: eager, since recorded steps were compared with eager ones" in line and words in line
    same(whole, run.state())
    if more:  # layer-parallel layouts exclude the flag
        return
    assert run("--dgl", "--cuda_graph", "on") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "--cuda_graph on: recorded steps were compared" in line and words in line
    assert run.summary()["status"] == "failed"


def test_stages_are_compared_over_several_batches(run, capsys, monkeypatch) -> None:
    """What is drawn for the first batch is right with any recording."""
    monkeypatch.setattr("engine.trainer.choose_recorders", lambda args, feed: (Stale, ""))
    streams = ["--layer_parallel", "streams", "--num_stages", "2"]
    assert run("--dgl", "--dropout_prob", "0.5", *streams) == 0
    assert "tensors differ from those of eager steps" in capsys.readouterr().out


class Wrong(Layout):
    """Eager steps, after which ``spoil`` is called with the number of the round."""

    def __init__(self, eager: Layout, spoil: Callable[[int], None]) -> None:
        self._eager, self._spoil, self._round = eager, spoil, 0

    def run(self, course: Course) -> Totals:
        totals = self._eager.run(course)
        self._round += 1
        self._spoil(self._round)
        return totals


@pytest.mark.parametrize("optimizer_type", ["SGD", "Adam"])
@pytest.mark.parametrize(
    ("scale", "first_round", "exact", "rounds", "is_found"),
    [
        (0.0, 1, True, 3, False),
        (1e-7, 1, True, 1, True),
        (1e-7, 1, False, 1, False),
        (0.1, 1, False, 1, True),
        (float("nan"), 1, False, 1, True),
        (0.1, 3, True, 3, True),
        (0.1, 3, True, 2, False),  # a control: the fault is in the third round
        (0.1, 3, False, 3, True),
    ],
)
def test_how_far_steps_may_differ(same, optimizer_type, scale, first_round, exact, rounds, is_found) -> None:
    args, method = small_args(optimizer_type=optimizer_type, learning_rate=0.01), make_method("dgl").float()
    optimizer, feed = build_optimizer(args.optim, method), make_feed()
    steps = Steps(args, method, feed)
    part = Part(method, optimizer, Rules())
    eager = Eager(Worker(part, steps))
    eager.run(Course(range(1)))
    weight = method.backbone.block(1).features[0].weight

    def spoil(number: int) -> None:
        if number >= first_round:
            weight.data *= 1 + scale

    before, generator = everything(method, optimizer), torch.get_rng_state()
    found = difference(Wrong(eager, spoil), eager, part, range(1, 3), exact=exact, rounds=rounds)
    assert bool(found) == is_found, found
    same(before, everything(method, optimizer))
    assert torch.equal(generator, torch.get_rng_state())


def test_sums_are_compared() -> None:
    args, method = small_args(), make_method("dgl").float()
    optimizer, feed = build_optimizer(args.optim, method), make_feed()
    part = Part(method, optimizer, Rules())
    eager = Eager(Worker(part, Steps(args, method, feed)))

    class Counts(Layout):
        def run(self, course: Course) -> Totals:
            totals = eager.run(course)
            return Totals(totals.num_images, dict(totals.sums) | {"loss": totals.sums["loss"] * self.factor})

    for factor, exact, is_found in (
        (1.0, True, False),
        (1.5, True, True),
        (1.5, False, True),
        (1 + 1e-9, False, False),
    ):
        layout = Counts()
        layout.factor = factor  # type: ignore[attr-defined]
        assert bool(difference(layout, eager, part, range(1), exact=exact)) == is_found


@pytest.mark.parametrize(
    ("step", "count", "expected"),
    [(0, 1, [0]), (5, 1, [5]), (5, 4, [2, 3, 4, 5]), (6, 4, [6, 7, 8, 9]), (3, 11, [0, 1, 2, 3, 4, 5])],
)
def test_which_steps_are_compared(step: int, count: int, expected: list[int]) -> None:
    """All of one epoch, of which the feed has six steps."""
    steps = Steps(small_args(), make_method("dgl").float(), make_feed())
    assert [*_sample(steps, step, count)] == expected
