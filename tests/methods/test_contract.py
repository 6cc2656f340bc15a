"""What every method promises, for every file in `methods/`."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable

import pytest
import torch

import methods
import tasks
from consts import NETWORKS, POOL
from datamodules.base import Batch
from engine.loop.optimizer import block_of
from methods._base import Method
from schemas import method_sections
from sections.parts import foreign_settings
from sections.task import TASKS
from tests.conftest import CASES, build, gradients, make_batch, make_method, seed, strided_backbone

NAMES = methods.names()
HEADINGS = ("Paper", "Signal", "Cost", "Deviations", "Reference numbers")


PARTS = [f"methods/{name}" for name in NAMES] + [f"tasks/{name}" for name in tasks.names()]
SECTIONS = {"methods": ("sections/rules", method_sections()), "tasks": ("sections/tasks", TASKS)}


@pytest.mark.parametrize("part", PARTS)
def test_every_rule_and_task_has_its_section(part: str) -> None:
    room, _, name = part.partition("/")
    folder, known = SECTIONS[room]
    assert name in known, f"{part}.py has no settings: write {folder}/{name}.py, with the groups that it takes"
    kind = (methods if room == "methods" else tasks).load(name)
    assert kind.__doc__, f"the class of {part}.py has no docstring"
    foreign = foreign_settings(kind, known[name])
    assert foreign is None, f"{part}.py: {foreign}, of {folder}/{name}.py"


@pytest.mark.parametrize("section", [f"{folder}/{name}" for folder, known in SECTIONS.values() for name in known])
def test_every_section_has_its_rule_or_task(section: str) -> None:
    room = "methods" if "rules" in section else "tasks"
    name = section.rpartition("/")[2]
    assert f"{room}/{name}" in PARTS, f"{section}.py has no {room}/{name}.py"


@pytest.mark.parametrize("part", PARTS)
def test_docstring_has_the_headings(part: str) -> None:
    doc = importlib.import_module(part.replace("/", ".")).__doc__ or ""
    missing = [heading for heading in HEADINGS if f"\n{heading}:\n" not in doc]
    assert not missing, f"the docstring of {part}.py lacks the headings {', '.join(missing)} (see methods/bp.py)"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("first", [0, 1, -1])
def test_exits_in_training_are_those_of_inference(case: str, first: int) -> None:
    """Logits of the data's classes, for the same blocks: accuracies are made of them."""
    method, batch = make_method(case, first_trainable_block=first), make_batch()
    seed(case)
    trained = method.fill_grads(batch).logits
    with torch.no_grad():
        seen = method.eval().block_logits(batch.x_BCHW)
    known = method.traits.logits_in_training
    for index, (own, other) in enumerate(zip(trained, seen, strict=True)):
        assert (own is None) == (other is None or not known), (
            f"block {index}: logits in training and inference must both be None"
        )
        for logits in (own, other):
            assert logits is None or logits.shape == (6, 5), f"block {index}: logits must be (images, classes)"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("first", [0, 1, -1])
def test_gradients_reach_exactly_the_trainable_parameters(case: str, first: int) -> None:
    method = make_method(case, first_trainable_block=first)
    method.fill_grads(make_batch())
    grouped = {id(p) for group in method.param_groups() for p in group["params"]}
    for parameter_name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in grouped), parameter_name
        if parameter.grad is not None:
            assert parameter.grad.shape == parameter.shape
            assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("case", CASES)
def test_groups_are_named_by_block_and_hold_each_parameter_once(case: str) -> None:
    groups = make_method(case, first_trainable_block=1).param_groups()
    assert list(dict.fromkeys(map(block_of, groups))) == ["block_01", "block_02"]
    parameters = [id(p) for group in groups for p in group["params"]]
    assert len(parameters) == len(set(parameters))


@pytest.mark.parametrize("case", CASES)
def test_gradients_add_up_and_repeat(case: str) -> None:
    method, batch = make_method(case), make_batch()
    before = copy.deepcopy(method.state_dict())
    seed(case)
    method.fill_grads(batch)
    once = gradients(method)
    method.load_state_dict(before)  # feedback may be a running average
    seed(case)
    method.fill_grads(batch)
    twice = gradients(method)
    # Where a block's gradient is itself a sum, of overlaps or of phases of a nudge, the order of adding four counts.
    tolerance = 1e-12 if "overlap" in case or case.split()[0] in ("ep", "hopfield") else 0
    for key, gradient in once.items():
        torch.testing.assert_close(twice[key], gradient + gradient, rtol=tolerance, atol=tolerance / 10, msg=key)


@pytest.mark.parametrize("case", CASES)
def test_step_changes_nothing_but_gradients_and_statistics(case: str) -> None:
    method, batch = make_method(case), make_batch()
    before = copy.deepcopy(method.state_dict())
    method.fill_grads(batch)
    for key, value in method.state_dict().items():
        moved = "running_" in key or "num_batches_tracked" in key
        assert torch.equal(value, before[key]) != moved, key


@pytest.mark.parametrize("case", CASES)
def test_output_has_an_entry_for_every_block_and_no_graph(case: str) -> None:
    method, batch = make_method(case), make_batch()
    output = method.fill_grads(batch)
    assert len(output.logits) == len(output.losses) == 3
    assert (output.logits[-1] is None) != method.traits.logits_in_training
    assert output.logits[-1] is None or output.logits[-1].shape == (6, 5)
    assert not any(value.requires_grad for value in [*output.logits, *output.losses] if value is not None)


@pytest.mark.parametrize("case", CASES)
def test_inference_is_the_backbone_alone_and_the_last_exit(case: str) -> None:
    method, batch = make_method(case).eval(), make_batch()
    with torch.no_grad():
        expected = method.backbone(batch.x_BCHW)
        assert torch.equal(method(batch.x_BCHW), expected)
        assert torch.equal(method.block_logits(batch.x_BCHW)[-1], expected)


@pytest.mark.parametrize("case", CASES)
def test_frozen_blocks_keep_their_statistics_and_build_no_graph(case: str) -> None:
    method = make_method(case, first_trainable_block=-1).train()
    before = copy.deepcopy(method.backbone.blocks[:2].state_dict())
    method.fill_grads(make_batch())
    for key, value in method.backbone.blocks[:2].state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("case", CASES)
def test_isolation_is_as_declared(case: str) -> None:
    """Change what lies above block 0, its neighbour or beyond; the gradients of its whole group tell.

    With three images the features that the classifier sees leave directions free, along which its weights can change
    and no logit does: a signal from the top stays as it is, a gradient carried down through the weights does not.
    """
    method, batch = make_method(case), make_batch(num_images=3)
    shake(*method.children())  # away from heads that start at zero

    def gradients_of_first_group() -> list[torch.Tensor]:
        probe = copy.deepcopy(method)  # a head may have an average that every step moves on
        seed(case)
        probe.fill_grads(batch)
        return [p.grad for p in probe.param_groups()[0]["params"]]

    def changed_by(change: Callable[[], None]) -> tuple[bool, bool]:
        """Whether a bit changed, and whether more than rounding did."""
        before = gradients_of_first_group()
        change()
        pairs = list(zip(before, gradients_of_first_group(), strict=True))
        return (
            not all(torch.equal(old, new) for old, new in pairs),
            not all(torch.allclose(old, new, rtol=1e-6, atol=1e-9) for old, new in pairs),
        )

    def parts(index: int) -> list[torch.nn.Module]:
        return [method.backbone.blocks[index], *method.block_heads(index)]

    isolation = method.traits.isolation
    classifies = any(True for _ in method.backbone.classifier.parameters())
    probed = classifies and (isolation != "none" or case == "bp")
    unseen = changed_by(lambda: change_without_effect(method, batch, case) if probed else None)
    beyond = changed_by(lambda: shake(*parts(2)))
    # From near to far: of what the neighbour says, a method may read no more than a sign.
    neighbours = [changed_by(lambda size=size: shake(*parts(1), size=size)) for size in (0.1, 1, 3, 10)]
    neighbour = tuple(any(found) for found in zip(*neighbours, strict=True))
    assert beyond == ((True, True) if isolation in ("none", "broadcast") else (False, False))
    assert neighbour == ((False, False) if isolation == "block" else (True, True))
    if isolation == "broadcast":
        assert not unseen[1]
    elif isolation != "none":
        assert not unseen[0]
    elif case == "bp":
        assert unseen[1]  # the probe can tell


def shake(*parts: torch.nn.Module, size: float = 0.1) -> None:
    with torch.no_grad():
        for part in parts:
            for parameter in part.parameters():
                parameter.add_(size * torch.randn_like(parameter))


def change_without_effect(method: Method, batch: Batch, case: str) -> None:
    """Move the first weights of the classifier where this batch's features are blind to it."""
    probe = copy.deepcopy(method)
    seen: list[torch.Tensor] = []
    probe.backbone.classifier[1].register_forward_hook(lambda module, args, output: seen.append(args[0].detach()))
    seed(case)
    output = probe.fill_grads(batch)
    free = torch.linalg.svd(seen[0]).Vh[torch.linalg.matrix_rank(seen[0]) :]
    with torch.no_grad():
        weight = method.backbone.classifier[1].weight
        weight += torch.randn(len(weight), len(free), dtype=weight.dtype) @ free
    seed(case)
    torch.testing.assert_close(copy.deepcopy(method).fill_grads(batch).logits[-1], output.logits[-1])


# Targets that are off by all that inverses cannot reconstruct; what the difference of the others is for.
DO_NOT_LEARN = {"tp without difference"}
# Another label is wrong at every step, and each block's input moves with the losses below: it takes more steps.
DO_NOT_LEARN |= {"ff", "ff image"}
# Estimates from random directions, most of them noise in so few steps and images, and what needs more steps because
# the error reaches a block by the image alone, or what a network without BatchNorm learns slowly; their own tests have
# longer ones.
DO_NOT_LEARN |= {case for case in CASES if CASES[case][0] in ("es", "fg", "foton", "hopfield", "pepita")}


@pytest.mark.parametrize("case", [case for case in CASES if case not in DO_NOT_LEARN])
@pytest.mark.parametrize(("network", "precision"), [("BasicCNN", "fp32"), ("VGGs", "bf16"), ("VGG8c", "bf16")])
def test_loss_falls_on_a_fixed_batch(case: str, network: str, precision: str, monkeypatch) -> None:
    size = 16 if network == "VGG8c" else 8
    narrow = (32, 64, POOL, 64, 64, POOL, 128, 128, POOL)  # as deep as the real one, whose steps take seconds
    monkeypatch.setitem(NETWORKS, "VGG8c", NETWORKS["VGG8c"]._replace(channels=narrow, mlp_hidden_dim=256))
    method = make_method(case, build(network, size), size).float()
    batch = make_batch(size, dtype=torch.float32)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.02)
    losses = []
    for _ in range(24):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses.append(method.fill_grads(batch).losses[-1].item())
        if losses[-1] < 0.5 * losses[0]:  # some rules take many passes for a step
            break
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("case", CASES)
def test_deep_copy_trains_alone(case: str) -> None:
    """The precision probe runs on a copy; the original must not notice."""
    method = make_method(case)
    before = copy.deepcopy(method.state_dict())
    copy.deepcopy(method).fill_grads(make_batch())
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert all(p.grad is None for p in method.parameters())


@pytest.mark.parametrize("case", CASES)
def test_dropout_is_active_in_training_only(case: str) -> None:
    method, batch = make_method(case, strided_backbone(dropout=0.5)), make_batch()
    first, second = (method.fill_grads(batch).losses[-1] for _ in range(2))
    assert not torch.equal(first, second)
    method.eval()
    assert torch.equal(method(batch.x_BCHW), method(batch.x_BCHW))
