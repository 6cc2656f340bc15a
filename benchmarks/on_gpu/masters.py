"""A prototype beside autocast: weights that are kept in bfloat16, with float32 masters in the optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from methods._base import Method
from schemas import OptimArgs


class MasterSGD(torch.optim.SGD):
    """SGD on float32 copies of the weights of convolutions and linear layers, which become bfloat16 in place.

    Under autocast such weights need no cast in any step; gradients are cast up, and weights down, once and all
    together. Clipping would see old gradients.
    """

    def __init__(self, method: Method, args: OptimArgs) -> None:
        layers = [part for part in method.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        trained = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
        self.working: list[Tensor] = [*trained]
        self.masters: list[Tensor] = [nn.Parameter(parameter.detach().clone()) for parameter in trained]
        master_of = dict(zip(map(id, self.working), self.masters, strict=True))
        groups = [
            group | {"params": [master_of.get(id(parameter), parameter) for parameter in group["params"]]}
            for group in method.param_groups()
        ]
        for parameter, master in zip(self.working, self.masters, strict=True):
            parameter.data = parameter.data.bfloat16()
            master.grad = torch.zeros_like(master)
        super().__init__(
            groups, lr=args.learning_rate, momentum=args.momentum, nesterov=args.nesterov,
            weight_decay=args.weight_decay, fused=True,
        )  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Gradients up, a step on the masters, weights down."""
        torch._foreach_copy_(_gradients(self.masters), _gradients(self.working))
        super().step(closure)
        torch._foreach_copy_(self.working, self.masters)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, but for the masters' tensors, which the next step overwrites."""
        kept = _gradients(self.masters)
        super().zero_grad(set_to_none)
        for parameter in self.working:
            parameter.grad = None
        for master, gradient in zip(self.masters, kept, strict=True):
            master.grad = gradient


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
