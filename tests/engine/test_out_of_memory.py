"""Memory that runs out in a step: what the step held is freed before anything is measured, and the end is recorded."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch

from datamodules.feed import Feed
from engine.loop.layout import Layout
from engine.module import TrainingModule
from methods.bp import BackPropagation


class Activations:
    """Stands for what a step holds."""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """From the second step on memory runs out; the list receives weak references to what those steps hold."""
    held: list[Any] = []
    fill, calls = BackPropagation.fill_grads, []

    def fails(self: BackPropagation, batch: Any) -> Any:
        calls.append(1)
        if len(calls) != 2:
            return fill(self, batch)
        activations = Activations()
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(BackPropagation, "fill_grads", fails)
    return held


def test_the_step_and_its_layout_are_gone_before_the_next_batch(run, capsys, failing, monkeypatch) -> None:
    batch, seen = Feed.batch, []
    layouts: list[weakref.ref[Layout]] = []
    begin = TrainingModule.begin_phase

    def watched(self: TrainingModule) -> None:
        begin(self)
        layouts.append(weakref.ref(self.layout))  # type: ignore[arg-type]

    def gather(self: Feed, epoch: int, step: int) -> Any:
        if failing:
            seen.append((failing[0](), layouts[0]()))
        return batch(self, epoch, step)

    monkeypatch.setattr(TrainingModule, "begin_phase", watched)
    monkeypatch.setattr(Feed, "batch", gather)
    assert run("--bp") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "out of memory with --batch_size 32: activations take" in line
    assert seen == [(None, None)]
    assert run.summary()["status"] == "failed" and run.summary()["error"] in line


def test_memory_that_runs_out_again_is_told_as_what_it_is(run, capsys, failing, monkeypatch) -> None:
    batch = Feed.batch

    def gather(self: Feed, epoch: int, step: int) -> Any:
        if failing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch(self, epoch, step)

    monkeypatch.setattr(Feed, "batch", gather)
    assert run("--bp") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "out of memory with --batch_size 32, and a batch of 8 does not fit either" in line
    assert run.summary()["status"] == "failed" and run.summary()["error"] in line
