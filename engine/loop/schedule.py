"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state.

torch's schedulers were tried: chained ones (`SequentialLR`) multiply the previous value up step by step, so the rate
depends on the history in its last bits. The formulas are theirs; the tests compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from schemas import OptimArgs

ONE_CYCLE_WARMUP = 0.3  # fraction of the run, torch's `OneCycleLR` and Smith & Topin, arXiv 1708.07120
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 25 * 1e-4  # factors at the first and the last step, as in torch


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def factor(args: OptimArgs, step: int, num_steps: int, num_phases: int = 1) -> float:
    """Factor on ``--learning_rate`` at ``step`` (from 0) of ``num_steps``, in equal phases with the same course."""
    if args.optimizer_type == "Rprop":  # whose first steps alone depend on it
        return 1.0
    num_steps //= num_phases
    step %= num_steps
    warmup = args.warmup_epochs / (args.epochs // num_phases) * num_steps
    if args.lr_schedule == "one_cycle":
        peak = (warmup or ONE_CYCLE_WARMUP * num_steps) - 1
        if step <= peak:
            return _cosine(ONE_CYCLE_START, 1, step / peak if peak else 1)  # a warm-up of one step begins at the peak
        return _cosine(1, ONE_CYCLE_END, (step - peak) / max(num_steps - 1 - peak, 1e-9))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if args.lr_schedule == "cosine":
        return _cosine(1, 0, (step - warmup) / max(num_steps - warmup, 1))
    if args.lr_schedule == "multistep":
        return args.lr_gamma ** sum(step >= milestone * num_steps for milestone in args.lr_milestones)
    return 1.0


def learning_rates(
    args: OptimArgs, steps: Iterable[int], num_steps: int, dtype: torch.dtype, num_phases: int = 1
) -> Tensor:
    """The learning rate at each of ``steps``, (S,) on the CPU."""
    return torch.tensor([args.learning_rate * factor(args, step, num_steps, num_phases) for step in steps], dtype=dtype)


def learning_rate(args: OptimArgs, step: int, num_steps: int, dtype: torch.dtype, num_phases: int = 1) -> float:
    """The learning rate at ``step``, rounded to a value that ``dtype`` holds."""
    return learning_rates(args, [step], num_steps, dtype, num_phases).item()
