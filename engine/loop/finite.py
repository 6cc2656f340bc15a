"""Stop a run at the first NaN or infinity, before a checkpoint with it is written."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from consts import ENERGY, LOSS
from engine.loop.meter import Totals
from methods._base import Method
from utils import UserError

# What is wrong with a value that is not finite, and what helps, by how its metric's name ends.
LEARNING = "is not finite", "lower --learning_rate or set --gradient_clip"
CHECKED = {LOSS: LEARNING, ENERGY: ("rises while it is relaxed, or is not finite,", "lower --inference_rate")}


class FiniteCheck:
    """Checks losses, relaxed energies, parameters and buffers of a run.

    Args:
        method: what is trained.
        optimizer: its groups are named by block.
        checkpoints: where the last good one is kept.
    """

    def __init__(self, method: Method, optimizer: torch.optim.Optimizer, checkpoints: Path) -> None:
        self._method, self._optimizer, self._checkpoints = method, optimizer, checkpoints

    def totals(self, totals: Totals, step: int) -> None:
        """Check the losses and energies.

        Raises:
            UserError: naming block and step.
        """
        for name, value in totals.sums.items():
            kind = next((kind for kind in CHECKED if name.endswith(kind)), None)
            if kind is not None and not math.isfinite(value):
                where, _, what = name.rpartition("/")
                raise self._error(f"the {what} of {where or 'the network'}", step, *CHECKED[kind])

    def state(self, step: int) -> None:
        """Check parameters and buffers, which may be affected before any loss is.

        Raises:
            UserError: naming block and step.
        """
        named = [(group["name"], value) for group in self._optimizer.param_groups for value in group["params"]]
        for name, value in [*named, *self._method.named_buffers()]:
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise self._error(f"a value in {name}", step, *LEARNING)

    def _error(self, what: str, step: int, trouble: str, advice: str) -> UserError:
        kept = f"The last good checkpoint is kept in {self._checkpoints}"
        return UserError(f"{what} {trouble} at step {step}; {advice}. {kept}")
