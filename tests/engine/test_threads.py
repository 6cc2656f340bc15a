"""Stages in threads give the bits of one block after the other."""

from __future__ import annotations

import threading

import pytest
import torch

from engine.module import TrainingModule
from methods._local import LocalMethod
from tests.engine.test_run import without_times

METHODS = {
    "dgl": ["--dgl"],
    "ssl": ["--dgl", "--ssl", "--upsample"],
    "rotate": ["--dgl", "--ssl", "--ssl_task", "rotate"],
    "inpaint": ["--dgl", "--ssl", "--ssl_task", "inpaint"],
    "simclr": ["--dgl", "--simclr_loss_weight", "0.5", "--random_crop"],
    "cpc": ["--dgl", "--cpc_loss_weight", "0.5"],
    "predsim": ["--predsim"],
}
STEPS_50 = ["--train_size", "300", "--batch_size", "12", "--epochs", "2"]
HARD = ["--dropout_prob", "0.3", "--gradient_clip", "1", *STEPS_50]
FULL = ("dgl",)  # with both numbers of stages and precisions; of the others one each
WAYS = [
    (name, *way)
    for place, name in enumerate(METHODS)
    for parity, way in enumerate([("2", "fp32"), ("3", "bf16")])
    if name in FULL or place % 2 == parity
]


@pytest.mark.parametrize(("name", "num_stages", "precision"), WAYS)
def test_same_bits_as_one_after_the_other(run, same, name: str, num_stages: str, precision: str) -> None:
    words = [*METHODS[name], *HARD, "--precision", precision]
    assert run(*words) == 0
    whole, records = run.state(), without_times(run.records())
    assert run(*words, "--layer_parallel", "threads", "--num_stages", num_stages) == 0
    same(whole, run.state())
    assert without_times(run.records()) == records


def test_labels_that_a_rule_draws_are_the_same_in_every_stage(run, same) -> None:
    words = ["--ff", "--epochs", "2", "--learning_rate", "0.05"]
    assert run(*words) == 0
    whole, records = run.state(), without_times(run.records())
    assert run(*words, "--layer_parallel", "threads", "--num_stages", "3") == 0
    same(whole, run.state())
    assert without_times(run.records()) == records


def test_every_layout_goes_on_with_any_other(run, same, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--dgl", "--dropout_prob", "0.3", "--optimizer_type", "AdamW"]
    run(*words)
    whole, records = run.state(), without_times(run.records())
    for first, second in (
        ([], ["--layer_parallel", "threads"]),
        (["--layer_parallel", "threads"], ["--layer_parallel=off"]),
    ):
        with monkeypatch.context() as patch:
            after(6, patch)
            assert run(*words, *first) == 143
        folder = run.last
        assert run.resume(str(folder), *second) == 0
        same(whole, run.state(folder))
        assert without_times(run.records(folder)) == records


def after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the run to end right after step ``step``, whatever thread took it."""
    advance = TrainingModule._advance

    def advance_and_stop(self: TrainingModule, index: int) -> None:
        advance(self, index)
        if index == step:
            self.stop.exit_code = 143

    monkeypatch.setattr(TrainingModule, "_advance", advance_and_stop)


def test_an_error_in_a_stage_ends_all_of_them_and_is_the_one_reported(run, monkeypatch: pytest.MonkeyPatch) -> None:
    fill = LocalMethod.fill_block_grads

    def fail(self: LocalMethod, index: int, x_BCHW: torch.Tensor, batch):
        if index == 1 and threading.current_thread() is not threading.main_thread():
            raise ValueError("broken on purpose")
        return fill(self, index, x_BCHW, batch)

    monkeypatch.setattr(LocalMethod, "fill_block_grads", fail)
    with pytest.raises(ValueError, match="broken on purpose"):
        run("--dgl", "--layer_parallel", "threads", "--num_stages", "3")
    assert run.summary()["status"] == "failed"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stage")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dgl", "--layer_parallel", "threads", "--num_stages", "4"], "there are 3 trainable blocks, so at most 3"),
        (["--bp", "--layer_parallel", "threads"], "needs a rule whose blocks learn on their own"),
        (["--cdni", "--layer_parallel", "threads"], "needs a rule whose blocks learn on their own"),
        (["--dgl", "--is_direct_global", "--layer_parallel", "threads"], "exclude each other: blocks then need"),
        (["--dgl", "--man", "--layer_parallel", "threads"], "exclude each other: blocks then need"),
        (["--dgl", "--layer_parallel", "threads", "--stages", "0,2"], "must name the trainable blocks 0 to 2"),
        (["--dgl", "--layer_parallel", "threads", "--stages", "a"], "--stages 'a'"),
        (["--dgl", "--num_stages", "2"], "--num_stages has no effect: it needs --layer_parallel threads"),
    ],
)
def test_what_cannot_be_is_one_line(run, capsys, words: list[str], message: str) -> None:
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not run.folders
