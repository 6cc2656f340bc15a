"""The optimiser: one for all blocks, a named group each."""

from __future__ import annotations

import torch

from methods._base import Method
from schemas import OptimArgs


def build_optimizer(args: OptimArgs, method: Method) -> torch.optim.Optimizer:
    """The optimiser of torch of that name, in its fused form: one pass over the parameters.

    One optimiser per block would give the same weights; Lightning's step counter would then count blocks.
    """
    groups = method.param_groups()
    if args.optimizer_type == "SGD":
        return torch.optim.SGD(
            groups, lr=args.learning_rate, momentum=args.momentum, nesterov=args.nesterov,
            weight_decay=args.weight_decay, fused=True,
        )  # fmt: skip
    kind = torch.optim.Adam if args.optimizer_type == "Adam" else torch.optim.AdamW
    return kind(groups, lr=args.learning_rate, weight_decay=args.weight_decay, fused=True)
