"""Training steps on random images, one function for each way of training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

import methods
from datamodules.base import Batch, DataSpec
from engine.devices import autocast
from methods._base import Method
from model import build_backbone
from schemas import build_args

CPU = torch.device("cpu")
Step = Callable[[int], float]  # number of images -> loss of the last block


def _sum_of_losses(method: Method, batch: Batch) -> Tensor:
    """DGL as the textbook writes it: all graphs at once, one backward pass."""
    h_BCHW, losses = batch.x_BCHW, []
    for index in range(method.backbone.num_blocks):
        h_BCHW = method.backbone.block(index)(h_BCHW.detach())
        losses.append(F.cross_entropy(method.block_heads(index)[0](h_BCHW).float(), batch.y_B))
    torch.stack(losses).sum().backward()
    return losses[-1].detach()


def _autograd(method: Method, batch: Batch) -> Tensor:
    """Back-propagation as everybody writes it."""
    loss = F.cross_entropy(method(batch.x_BCHW).float(), batch.y_B)
    loss.backward()
    return loss.detach()


def _own(method: Method, batch: Batch) -> Tensor:
    """The method's own step."""
    loss = method.fill_grads(batch).losses[-1]
    assert loss is not None
    return loss


# Name of a way of training: the method, its settings, and what fills the gradients.
VARIANTS: dict[str, tuple[str, dict[str, object], Callable[[Method, Batch], Tensor]]] = {
    "bp": ("bp", {}, _own),
    "bp_autograd": ("bp", {}, _autograd),
    "dgl": ("dgl", {}, _own),
    "dgl_sum_of_losses": ("dgl", {}, _sum_of_losses),
    "dgl_direct_global": ("dgl", {"is_direct_global": True}, _own),
    "dgl_mlp_sr": ("dgl", {"pred_aux_type": "mlp_sr"}, _own),
    "dgl_cnn": ("dgl", {"pred_aux_type": "cnn"}, _own),
    "dgl_mlp": ("dgl", {"pred_aux_type": "mlp"}, _own),
}


def build_method(name: str, settings: dict[str, object], model: str) -> Method:
    """A method on ``model`` for images of 32x32 in ten classes, always with the same weights."""
    args = build_args({"method": name, "model": model, **settings})
    spec = DataSpec("random", 3, 32, 32, tuple("0123456789"), (0.5,) * 3, (0.5,) * 3)
    torch.manual_seed(0)
    method = methods.load(name)(args.method, build_backbone(args.model, spec), spec)
    return method.to(memory_format=torch.channels_last)


def build_step(variant: str, model: str, batch_size: int, precision: str) -> tuple[Step, int]:
    """A step of ``variant``, gradients and SGD update, and the number of parameters in its heads."""
    name, settings, fill = VARIANTS[variant]
    method = build_method(name, settings, model)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.01, momentum=0.9, fused=True)
    x_BCHW = torch.randn(batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
    y_B = torch.randint(10, (batch_size,))

    def step(num_images: int) -> float:
        with autocast(CPU, precision):
            loss = fill(method, Batch(x_BCHW[:num_images], y_B[:num_images]))
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    network = sum(parameter.numel() for parameter in method.backbone.parameters())
    return step, sum(parameter.numel() for parameter in method.parameters()) - network
