"""Stages in processes give the bits of one block after the other, and end together."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from engine.module import TrainingModule
from tests.engine.conftest import SMALL
from tests.engine.grid import Grid, assert_refused
from tests.engine.test_run import without_times
from tests.engine.test_threads import HARD, METHODS, WAYS

PROCESSES = ["--layer_parallel", "processes"]


@pytest.fixture
def grid(run, tmp_path: Path):
    """Runs a command as so many processes; gives their exit codes and what they said."""

    def start(*words: str, count: int = 2, **options) -> Grid:
        fixed = [] if "--resume" in words else [*SMALL, "--model", "VGGs", "--path", str(run.path)]
        quiet = ["--wandb", "disabled"] if "--resume" in words else []
        return Grid([*fixed, *words, *quiet], count, tmp_path / "errors", **options)

    return start


@pytest.mark.parametrize(("name", "num_stages", "precision"), WAYS)
def test_same_bits_as_one_after_the_other(run, grid, same, name: str, num_stages: str, precision: str) -> None:
    words = [*METHODS[name], *HARD, "--precision", precision]
    assert run(*words) == 0
    whole, records = run.state(), without_times(run.records())
    count = int(num_stages)
    assert grid(*words, *PROCESSES, "--num_stages", num_stages, count=count).wait() == [0] * count
    assert len(run.folders) == 2
    same(whole, run.state())
    assert without_times(run.records()) == records


def stop_after(step: int, rank_to_stop: int):
    """Send SIGTERM to one of the processes right after its step ``step``."""

    def prepare(rank: int) -> None:
        advance = TrainingModule._advance

        def advance_and_stop(self: TrainingModule, index: int) -> None:
            advance(self, index)
            if index == step and rank == rank_to_stop:
                os.kill(os.getpid(), signal.SIGTERM)

        TrainingModule._advance = advance_and_stop

    return prepare


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_signal_to_one_stops_all_and_every_layout_goes_on(run, grid, same, stopped: int) -> None:
    words = ["--dgl", "--dropout_prob", "0.3", "--optimizer_type", "AdamW"]
    run(*words)
    whole, records = run.state(), without_times(run.records())
    assert grid(*words, *PROCESSES, before=stop_after(6, stopped)).wait() == [143, 143]
    folder = run.last
    assert run.summary()["status"] == "interrupted"
    others = [["--layer_parallel=off"], PROCESSES]
    assert 0 < run.state()["step"] < whole["step"]
    if stopped:
        assert grid("--resume", str(folder), *others[1]).wait() == [0, 0]
    else:
        assert run.resume(str(folder), *others[0]) == 0
    same(whole, run.state(folder))
    assert without_times(run.records(folder)) == records


def test_two_replicas_are_two_networks_with_averaged_gradients(run, grid) -> None:
    words = ["--dgl", "--num_modules", "2", "--momentum", "0", "--no_nesterov", "--epochs", "1"]
    assert grid(*words, *PROCESSES, "--num_replicas", "2", count=4).wait() == [0] * 4
    found = run.state()["method"]
    expected = averaged_by_hand(words, run)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def averaged_by_hand(words: list[str], run) -> dict[str, torch.Tensor]:
    """One epoch of two copies on the halves of every batch, in this process; the state of the first copy."""
    import cli
    from consts import TRAIN
    from engine.loop.optimizer import build_optimizer, update
    from engine.loop.schedule import learning_rate
    from engine.start import assemble
    from engine.trainer import make_feeds

    args = cli.parse([*SMALL, "--model", "VGGs", "--path", str(run.path), *words]).args
    copies = [assemble(args)[0].to(memory_format=torch.channels_last) for _ in range(2)]
    feed = make_feeds(args, assemble(args)[1], torch.device("cpu"))[TRAIN]
    optimizers = [build_optimizer(args.optim, method) for method in copies]
    for step in range(feed.num_steps):
        batch = feed.batch(0, step)
        for place, method in enumerate(copies):
            part = slice(place * 16, (place + 1) * 16)
            method.fill_grads(batch._replace(x_BCHW=batch.x_BCHW[part], y_B=batch.y_B[part]))
        for one, other in zip(copies[0].parameters(), copies[1].parameters(), strict=True):
            mean = (one.grad + other.grad) / 2
            one.grad, other.grad = mean, mean.clone()
        for optimizer in optimizers:
            update(optimizer, learning_rate(args.optim, step, feed.num_steps, torch.float64), 0)
    return copies[0].state_dict()


def kill_at(step: int, rank_to_kill: int):
    def prepare(rank: int) -> None:
        advance = TrainingModule._advance

        def advance_and_die(self: TrainingModule, index: int) -> None:
            advance(self, index)
            if index == step and rank == rank_to_kill:
                os.kill(os.getpid(), signal.SIGKILL)

        TrainingModule._advance = advance_and_die

    return prepare


@pytest.mark.parametrize("killed", [0, 1, 2])
def test_a_killed_stage_ends_all_and_the_last_checkpoint_goes_on(run, grid, same, killed: int) -> None:
    words = ["--dgl", "--dropout_prob", "0.3"]
    run(*words)
    whole = run.state()
    both = grid(*words, *PROCESSES, "--num_stages", "3", count=3, before=kill_at(7, killed))
    assert [code for rank, code in enumerate(both.wait()) if rank != killed] == [1, 1]
    if killed:
        assert both.errors[0].count("\n") == 1
        assert "lost the connection to another process of this run" in both.errors[0]
        assert "--resume auto" in both.errors[0]
    assert all(not error for error in both.errors[1:])
    assert run.state()["step"] == 5  # the end of the first epoch
    folder = run.last
    assert run.resume(str(folder), "--layer_parallel=off") == 0
    same(whole, run.state(folder))


def test_a_restart_goes_on_with_the_run(run, grid, same) -> None:
    words = ["--dgl", "--dropout_prob", "0.3"]
    run(*words)
    whole = run.state()
    grid(*words, *PROCESSES, before=kill_at(7, 1)).wait()
    folder = run.last

    def restarted(rank: int) -> None:
        os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"

    assert grid(*words, *PROCESSES, before=restarted).wait() == [0, 0]
    assert run.last == folder or len(run.folders) == 2
    same(whole, run.state(folder))


def test_a_loss_that_is_not_finite_ends_all_with_one_line(run, grid) -> None:
    words = ["--dgl", "--learning_rate", "1e18", "--lr_schedule", "constant"]
    both = grid(*words, *PROCESSES)
    assert both.wait() == [1, 1]
    assert "is not finite at step" in both.errors[0] and both.errors[0].count("\n") == 1
    assert not both.errors[1]
    assert run.summary()["status"] == "failed"


@pytest.mark.parametrize(
    ("words", "count", "code", "message"),
    [
        (["--dgl", *PROCESSES, "--num_stages", "3"], 2, 2, "2 processes were started, but 3 stages of 1 replicas"),
        (["--dgl"], 2, 2, "2 processes were started, but --layer_parallel is off"),
        (["--bp", *PROCESSES], 2, 2, "needs a rule whose blocks learn on their own"),
        (["--dgl", *PROCESSES, "--stages", "0,2"], 2, 2, "must name the trainable blocks 0 to 2"),
        (["--dgl", *PROCESSES, "--device", "cuda:7"], 2, 2, "--device cuda:7: this machine has"),
        (["--dgl", *PROCESSES, "--dataset", "cifar10", "--data_dir", "nowhere"], 2, 1, "not found"),
    ],
)
def test_what_cannot_be_is_one_line(run, grid, words: list[str], count: int, code: int, message: str) -> None:
    assert_refused(run, grid, words, count, code, message)


def test_a_port_in_use_is_one_line(run, grid) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        alone = grid("--dgl", *PROCESSES, "--num_stages", "1", count=1, port=taken.getsockname()[1])
        assert alone.wait() == [1]
    assert "the processes cannot meet at 127.0.0.1:" in alone.errors[0] and alone.errors[0].count("\n") == 1
