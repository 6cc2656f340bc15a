"""The end of an epoch: evaluate, write its line of metrics, and save."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

from consts import ACCURACY, TEST, TRAIN, VAL, metric_name
from engine import saving
from engine.evaluation import evaluate
from engine.loop.meter import Totals
from engine.run.console import epoch_line

if TYPE_CHECKING:
    from engine.module import TrainingModule


def end_epoch(module: TrainingModule) -> None:
    """Finish the epoch of the last step.

    Raises:
        UserError: it cannot be saved, or a parameter is not finite.
    """
    epoch, feeds = module.epoch - 1, module.feeds
    values = module.epoch_totals.means(TRAIN)
    for split in (VAL, TEST):
        if split in feeds:
            values |= evaluate(module.method, feeds[split], module.args.run.precision).means(split)
    module.epoch_totals = Totals()
    values |= module.observers.measure(module.method)
    module.run_log.write("epoch", module.position(epoch) | values)
    _announce(module, epoch, values)
    if module.run_log.is_due or module.step == module.num_steps:
        module.observers.show(module.method, feeds[TEST], module.run_log, module.position(epoch))
    # The network has no accuracy before all its blocks have begun to learn, and no epoch before that is the best.
    chosen = values.get(metric_name(VAL if VAL in feeds else TEST, ACCURACY), module.best["chosen"])
    better = chosen > module.best["chosen"]
    if better:
        module.best = {"epoch": epoch + 1, "chosen": chosen, "test": values[metric_name(TEST, ACCURACY)]}
    module.note_wall_time()
    saving.save(module, best=better)
    module.run_log.draw()


def _announce(module: TrainingModule, epoch: int, values: dict[str, float]) -> None:
    """The epoch's line on the terminal."""
    assert module.progress is not None
    learning = module.method.phases.learning
    block = learning[0] if module.method.last not in learning else None  # in place of the network
    logger.info(epoch_line(epoch, module.args.optim.epochs, module.time_s, module.progress.eta_s, values, block))
    module.progress.spoke()
