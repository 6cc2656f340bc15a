"""Decoupled greedy learning against its limit cases and an oracle that sums all losses."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from methods._local import LocalMethod
from model import Backbone, Shape, mlp
from networks.table import convolutional_block
from schemas import ModelArgs
from tests.conftest import CLASSES, gradients, make_batch, make_method


def one_block() -> Backbone:
    block = convolutional_block(Shape(3, 8, 8), 4, 3, pool=True, args=ModelArgs())
    return Backbone([block], mlp(block.out_shape.num_features, len(CLASSES), 1, 7))


def sum_of_losses(method: LocalMethod) -> None:
    """The textbook form: all graphs at once, one backward pass."""
    batch = make_batch()
    h_BCHW, total = batch.x_BCHW, torch.zeros((), dtype=torch.float64)
    for index in range(3):
        h_BCHW = method.backbone.block(index)(h_BCHW.detach())
        total = total + F.cross_entropy(method.head(index)(h_BCHW), batch.y_B)
    total.backward()


@pytest.mark.parametrize("direct", [False, True])
def test_one_block_is_back_propagation(direct: bool) -> None:
    torch.manual_seed(0)
    local = make_method("dgl", one_block(), is_direct_global=direct)
    torch.manual_seed(0)
    whole = make_method("bp", one_block())
    whole.load_state_dict(local.state_dict())
    for method in (local, whole):
        method.fill_grads(make_batch())
    for name, gradient in gradients(whole).items():
        assert torch.equal(gradient, gradients(local)[name]), name


HEADS = ["mlp", "cnn", "pooled", "mlp_sr", "linear", "monoforward", "channelwise", "lls", "random"]


@pytest.mark.parametrize("head", HEADS)
def test_equals_the_sum_of_losses(head: str) -> None:
    settings = {"pred_aux_type": head}
    immediate, oracle = make_method("dgl", **settings), make_method("dgl", **settings)
    immediate.fill_grads(make_batch())
    sum_of_losses(oracle)
    for name, gradient in gradients(oracle).items():
        assert torch.equal(gradient, gradients(immediate)[name]), name


def test_each_graph_is_freed_before_the_next_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make_method("dgl")
    alive: list[int] = []
    now_alive: set[int] = set()

    def pack(tensor: torch.Tensor) -> object:
        class Saved:
            def __init__(self) -> None:
                now_alive.add(id(self))
                self.tensor = tensor

            def __del__(self) -> None:
                now_alive.discard(id(self))

        return Saved()

    run_block = method.run_block

    def watched(index: int, x_BCHW: torch.Tensor):
        alive.append(len(now_alive))
        return run_block(index, x_BCHW)

    monkeypatch.setattr(method, "run_block", watched)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        method.fill_grads(make_batch())
        assert alive == [0, 0, 0]
        alive.clear()
        sum_of_losses_alive = make_method("dgl", is_direct_global=True)
        monkeypatch.setattr(sum_of_losses_alive, "run_block", lambda i, x: watched(i, x))
        sum_of_losses_alive.fill_grads(make_batch())
    assert alive[0] == 0
    assert alive[2] > alive[1] > 0  # the direct global form must keep them, which shows that the probe can tell


def test_direct_global_without_weight_is_dgl() -> None:
    plain, mixed = make_method("dgl"), make_method("dgl", is_direct_global=True, last_gradient_weight=0.0)
    for method in (plain, mixed):
        method.fill_grads(make_batch())
    for name, gradient in gradients(plain).items():
        assert torch.equal(gradient, gradients(mixed)[name]), name


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_direct_global_equals_its_surrogate_loss(weight: float) -> None:
    """``sum_{i<L} (1 - w) l_i + w <sg(g_L), z_i>  +  l_L`` (thesis sheet, section 2.3), to rounding."""
    method = make_method("dgl", is_direct_global=True, last_gradient_weight=weight)
    surrogate = make_method("dgl")
    method.fill_grads(make_batch())
    batch = make_batch()
    h_BCHW, logits, losses = batch.x_BCHW, [], []
    for index in range(3):
        h_BCHW = surrogate.backbone.block(index)(h_BCHW.detach())
        logits.append(surrogate.head(index)(h_BCHW))
        losses.append(F.cross_entropy(logits[-1], batch.y_B))
    (g_BN,) = torch.autograd.grad(losses[-1], logits[-1], retain_graph=True)
    total = losses[-1] + sum((1 - weight) * losses[i] + weight * (g_BN * logits[i]).sum() for i in range(2))
    total.backward()
    for name, gradient in gradients(surrogate).items():
        torch.testing.assert_close(gradients(method)[name], gradient, rtol=1e-12, atol=1e-14, msg=name)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_direct_global_leaves_the_last_block_alone(weight: float) -> None:
    plain, mixed = make_method("dgl"), make_method("dgl", is_direct_global=True, last_gradient_weight=weight)
    for method in (plain, mixed):
        method.fill_grads(make_batch())
    for name, gradient in gradients(plain).items():
        if "blocks.2" in name or "classifier" in name:
            assert torch.equal(gradient, gradients(mixed)[name]), name


def test_the_output_handed_on_is_from_before_the_update() -> None:
    """Stepping a block's weights right after its backward changes nothing for the blocks above."""
    late, early = make_method("dgl"), make_method("dgl")
    for method in (late, early):
        optimizer = torch.optim.SGD(method.param_groups(), lr=0.1, momentum=0.9)
        for _ in range(3):
            if method is late:
                method.fill_grads(make_batch())
                optimizer.step()
                optimizer.zero_grad()
                continue
            batch = make_batch()
            h_BCHW, groups = batch.x_BCHW, optimizer.param_groups
            for index in range(3):
                h_BCHW, _ = method.fill_block_grads(index, h_BCHW, batch)
                optimizer.param_groups = [groups[index]]
                optimizer.step()
                optimizer.zero_grad()
            optimizer.param_groups = groups
    for name, value in late.state_dict().items():
        assert torch.equal(value, early.state_dict()[name]), name
