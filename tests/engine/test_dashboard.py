"""What the dashboards leave out of a line of metrics, because it is shown already."""

from __future__ import annotations

from engine.run.dashboard import without_repeats

STEP = {
    "step": 4, "epoch": 1, "learning_rate": 0.1, "train/loss": 2.0, "train/accuracy": 30.0,
    "train/block_00/loss": 3.0, "train/block_01/loss": 2.0, "train/block_01/accuracy": 30.0,
    "train/block_01/pred_loss": 1.5,
}  # fmt: skip
EPOCH = {
    "step": 4, "epoch": 1, "train/loss": 2.2, "train/block_00/loss": 3.1, "test/loss": 1.0, "test/accuracy": 50.0,
    "test/block_00/accuracy": 50.0, "test/block_01/accuracy": 50.0, "inside/block_01/probe_accuracy": 60.0,
}  # fmt: skip


def test_the_last_block_is_the_network() -> None:
    left_out = STEP.keys() - without_repeats("step", STEP).keys()
    assert left_out == {"train/block_01/loss", "train/block_01/accuracy"}


def test_a_block_before_the_last_stays_even_where_it_is_as_good() -> None:
    shown = without_repeats("epoch", EPOCH)
    assert "test/block_00/accuracy" in shown and "test/block_01/accuracy" not in shown
    assert "inside/block_01/probe_accuracy" in shown


def test_the_means_of_an_epoch_do_not_stand_beside_its_last_steps() -> None:
    assert not [name for name in without_repeats("epoch", EPOCH) if name.startswith("train/")]
    assert without_repeats("step", STEP)["train/loss"] == 2.0


def test_while_the_network_has_no_accuracy_the_last_block_is_shown() -> None:
    alone = {"step": 1, "test/block_00/accuracy": 20.0}
    assert without_repeats("epoch", alone) == alone
