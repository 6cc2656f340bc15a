"""Stop a run at the first NaN or infinity, before a checkpoint with it is written."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from consts import LOSS
from engine.loop.meter import Totals
from methods._base import Method
from utils import UserError


class FiniteCheck:
    """Checks losses, parameters and buffers of a run.

    Args:
        method: what is trained.
        optimizer: its groups are named by block.
        checkpoints: where the last good one is kept.
    """

    def __init__(self, method: Method, optimizer: torch.optim.Optimizer, checkpoints: Path) -> None:
        self._method, self._optimizer, self._checkpoints = method, optimizer, checkpoints

    def totals(self, totals: Totals, step: int) -> None:
        """Check the losses.

        Raises:
            UserError: naming block and step.
        """
        for name, value in totals.sums.items():
            if name.endswith(LOSS) and not math.isfinite(value):
                where, _, what = name.rpartition("/")
                raise self._error(f"the {what} of {where or 'the network'}", step)

    def state(self, step: int) -> None:
        """Check parameters and buffers, which may be affected before any loss is.

        Raises:
            UserError: naming block and step.
        """
        named = [(group["name"], value) for group in self._optimizer.param_groups for value in group["params"]]
        for name, value in [*named, *self._method.named_buffers()]:
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise self._error(f"a value in {name}", step)

    def _error(self, what: str, step: int) -> UserError:
        return UserError(
            f"{what} is not finite at step {step}; lower --learning_rate or set --gradient_clip. "
            f"The last good checkpoint is kept in {self._checkpoints}"
        )
