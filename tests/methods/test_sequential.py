"""One block after the other: against a loop by hand on stored features, and what must not move meanwhile."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from methods._base import Method
from tests.conftest import PHASED, make_batch, make_method, strided_backbone
from tests.methods.test_modules import five_blocks, make

OPTIMISERS = {
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1),
}
BATCHES = [make_batch(num_images=count) for count in (6, 4, 5, 6)]


def train(method: Method, optimizer: torch.optim.Optimizer) -> list[list[torch.Tensor | None]]:
    """A pass over the batches; the losses of every step."""
    losses = []
    for batch in BATCHES:
        losses.append(method.fill_grads(batch).losses)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return losses


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("head", ["pooled", "cnn"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_phase_is_training_of_one_block_on_stored_features(name: str, head: str, first: int) -> None:
    # 20 epochs, two trained blocks; 21, three.
    epochs = {"epochs": 21 - first}
    method = make_method("dgl", sequential=True, pred_aux_type=head, first_trainable_block=first, **epochs)
    optimizer = OPTIMISERS[name](method.param_groups())
    assert method.phases.count == 3 - first
    for phase in range(method.phases.count):
        index = first + phase
        method.enter_phase(phase)
        method.train()
        below = copy.deepcopy(method.backbone.blocks[:index]).eval()
        alone = torch.nn.Sequential(*map(copy.deepcopy, (method.backbone.blocks[index], method.head(index)))).train()
        own = OPTIMISERS[name](alone.parameters())
        with torch.no_grad():
            features = [torch.nn.Sequential(*below)(batch.x_BCHW) for batch in BATCHES]
        for (x_BCHW, batch), losses in zip(zip(features, BATCHES, strict=True), train(method, optimizer), strict=True):
            loss = F.cross_entropy(alone(x_BCHW), batch.y_B)
            loss.backward()
            own.step()
            own.zero_grad()
            assert torch.equal(losses[index], loss)
            assert [other for other, value in enumerate(losses) if value is not None] == [index]
        for ours, theirs in (
            (method.backbone.blocks[index], alone[0]),
            (method.head(index), alone[1]),
        ):
            for key, value in theirs.state_dict().items():
                assert torch.equal(ours.state_dict()[key], value), (phase, key)


@pytest.mark.parametrize("case", PHASED)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_finished_blocks_and_those_above_do_not_move(case: str, name: str) -> None:
    method = make_method(case)
    optimizer = OPTIMISERS[name](method.param_groups())
    groups = method.param_groups()
    for phase in range(3):
        method.enter_phase(phase)
        before, parts = copy.deepcopy(method.state_dict()), [method.backbone.blocks[phase], *method.block_heads(phase)]
        mine = {id(value) for part in parts for value in (*part.parameters(), *part.buffers())}
        train(method, optimizer)
        named = [*method.named_parameters(), *method.named_buffers()]
        moved = {key for key, value in named if key in before and not torch.equal(value, before[key])}
        assert moved, phase
        assert moved <= {key for key, value in named if id(value) in mine}
        later = [parameter for group in groups[phase + 1 :] for parameter in group["params"]]
        assert not any(parameter in optimizer.state for parameter in later)  # so its momentum starts from nothing


@pytest.mark.parametrize("case", PHASED)
def test_gradients_and_outputs_are_those_of_the_block_whose_turn_it_is(case: str) -> None:
    method = make_method(case)
    for phase in range(3):
        method.enter_phase(phase)
        method.zero_grad()
        output = method.fill_grads(make_batch())
        own = {id(parameter) for parameter in method.param_groups()[phase]["params"]}
        for name, parameter in method.named_parameters():
            assert (parameter.grad is not None) == (id(parameter) in own), name
        assert [loss is not None for loss in output.losses] == [index == phase for index in range(3)]
        assert {name.partition("/")[0] for name in output.metrics} <= {f"block_{phase:02d}"}


@pytest.mark.parametrize("case", PHASED)
def test_exits_are_those_that_have_begun_to_learn(case: str) -> None:
    method, batch = make_method(case), make_batch()
    method.enter_phase(2)
    with torch.no_grad():
        expected = method.eval().block_logits(batch.x_BCHW)
    assert torch.equal(expected[-1], method(batch.x_BCHW))
    for phase in range(3):
        method.enter_phase(phase)
        with torch.no_grad():
            logits = method.block_logits(batch.x_BCHW)
            drawn = method.reconstructions(batch)
        for index, (one, other) in enumerate(zip(logits, expected, strict=True)):
            assert (one is None) == (index > phase or other is None)
            assert one is None or torch.equal(one, other)
        if case in ("dgl ssl sequential", "infopro sequential"):
            assert sorted(drawn) == [*range(min(phase + 1, 2))]


@pytest.mark.parametrize("case", ["dgl", "predsim"])
def test_one_module_is_back_propagation(case: str) -> None:
    own = {"sim_loss_weight": 0.0} if case == "predsim" else {}
    plain = make("bp", five_blocks)
    sequential = make(case, five_blocks, num_modules=1, sequential=True, **own)
    assert sequential.phases.count == 1
    for method in (plain, sequential):
        train(method, OPTIMISERS["SGD"](method.param_groups()))
    values = [[*method.backbone.parameters(), *method.backbone.buffers()] for method in (plain, sequential)]
    assert all(torch.equal(one, other) for one, other in zip(*values, strict=True))


def test_the_first_phase_is_what_the_first_block_does_when_all_learn() -> None:
    parallel, sequential = make_method("dgl"), make_method("dgl sequential")
    for method in (parallel, sequential):
        train(method, OPTIMISERS["SGD"](method.param_groups()))
    for name in ("backbone.blocks.0.", "heads.block_00."):
        keys = [key for key in parallel.state_dict() if key.startswith(name)]
        assert keys and all(torch.equal(parallel.state_dict()[key], sequential.state_dict()[key]) for key in keys)


def test_dropout_of_finished_blocks_is_off() -> None:
    method, batch = make_method("dgl sequential", strided_backbone(dropout=0.5)), make_batch()
    method.enter_phase(1)
    method.eval().train()  # as an evaluation between two epochs does
    torch.manual_seed(1)
    inputs: list[torch.Tensor] = []
    method.backbone.blocks[1].features.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    for _ in range(2):
        method.fill_grads(batch)
    assert torch.equal(*inputs)
    assert method.backbone.blocks[1].dropout.training
