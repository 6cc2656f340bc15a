"""The contents of a run's checkpoint, saved and restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consts import TRAIN
from engine.loop.finite import FiniteCheck
from engine.loop.meter import Totals
from engine.loop.optimizer import load_state
from engine.run import checkpoint

if TYPE_CHECKING:
    from engine.module import TrainingModule


def state_of(module: TrainingModule) -> dict[str, Any]:
    """Everything that the rest of the run depends on."""
    curriculum = module.feeds[TRAIN].curriculum
    return {
        "args": module.args.model_dump(mode="json"),
        "method": module.method.state_dict(),
        "optimizer": module.optimizer.state_dict(),
        "step": module.step,
        "phase": module.method.phases.now,
        "ranking": None if curriculum is None else curriculum.ranking_P,
        "train_s": module.train_s,
        "train_cpu_s": module.train_cpu_s,
        "time_s": module.time_s,
        "best": module.best,
        "interval": module.interval.state(),
        "epoch_totals": module.epoch_totals.state(),
    }


def finite_check(module: TrainingModule) -> FiniteCheck:
    """The check of everything that is saved."""
    return FiniteCheck(module.method, module.optimizer, module.run_log.folder.checkpoints)


def save(module: TrainingModule, *, best: bool = False) -> None:
    """Write ``last.ckpt``, and ``best.ckpt`` where asked.

    Raises:
        UserError: it cannot be written, or contains NaN or infinity.
    """
    check = finite_check(module)
    check.totals(module.interval, module.step)
    check.state(module.step)
    checkpoint.save_last(module.run_log.folder.checkpoints, state_of(module), best=best)


def restore(module: TrainingModule, state: dict[str, Any]) -> None:
    """Continue from what `state_of` returned.

    Raises:
        UserError: it is of another network, method or optimiser.
    """
    checkpoint.restore(module.method, state)
    with checkpoint.fitting():
        load_state(module.optimizer, state["optimizer"])
        module.step, module.train_s, module.time_s = state["step"], state["train_s"], state["time_s"]
        module.train_cpu_s = state.get("train_cpu_s", 0.0)  # earlier checkpoints have none
        module.best = state["best"]
        module.interval, module.epoch_totals = Totals(**state["interval"]), Totals(**state["epoch_totals"])
