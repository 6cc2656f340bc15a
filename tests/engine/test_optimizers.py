"""The optimiser's step: the kernels are given other views of the tensors, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from engine.layouts import build_layout
from engine.loop import optimizer as optimizers
from engine.loop.eager import Eager
from engine.loop.layout import Course
from engine.loop.optimizer import MemoryOrder
from engine.loop.recorded import Recorded
from engine.loop.schedule import learning_rate
from engine.loop.tape import Tape
from schemas import build_args
from tests.conftest import make_method
from tests.engine.test_graph import make_feed

KINDS: list[Callable[..., torch.optim.Optimizer]] = [
    lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01, fused=True),
    lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True, weight_decay=0.01, fused=True),
    lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.01, fused=True),
    lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.01, fused=True),
    lambda p: optimizers.SignSGD(p, 0.1, 0.9, weight_decay=0.01, fused=True),
]


def trained(kind: Callable[..., torch.optim.Optimizer], format: torch.memory_format) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.Conv2d(32, 8, 1), nn.Flatten(), nn.Linear(32, 3)
    )
    layers.to(memory_format=format)
    optimizer = kind(layers.parameters())
    for _ in range(4):
        layers(torch.randn(4, 16, 4, 4)).square().sum().backward()

        optimizers.update(optimizer, 0.05, 0.0)
    return layers, optimizer


@pytest.mark.parametrize("kind", KINDS, ids=["sgd", "momentum", "adam", "adamw", "sign"])
@pytest.mark.parametrize("format", [torch.channels_last, torch.contiguous_format])
def test_the_order_in_memory_changes_no_bit(kind, format, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = optimizers._in_memory_order

    def counting(values: list[torch.Tensor], last: list[bool]) -> list[torch.Tensor]:
        seen.append(sum(last))
        return plain(values, last)

    monkeypatch.setattr(optimizers, "_in_memory_order", counting)
    found, optimizer = trained(kind, format)
    assert max(seen) == (2 if format is torch.channels_last else 1)  # a 1x1 kernel is both
    monkeypatch.setattr(optimizers, "_FUSED", ())
    expected, reference = trained(kind, format)
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a, b) and a.stride() == b.stride()
        assert optimizer.state[a].keys() == reference.state[b].keys()
        for name, value in optimizer.state[a].items():
            assert torch.equal(value, reference.state[b][name]), name
            assert value.stride() == reference.state[b][name].stride(), name


def test_a_gradient_in_another_order_than_its_weight_is_still_its_gradient() -> None:
    torch.manual_seed(0)
    results = []
    for inside in (True, False):
        weight = nn.Parameter(torch.arange(72.0).view(2, 4, 3, 3).contiguous(memory_format=torch.channels_last))
        optimizer = torch.optim.SGD([weight], 0.1, 0.9, fused=True)
        for _ in range(2):
            weight.grad = torch.linspace(0, 1, 72).view(2, 4, 3, 3)
            if inside:
                with MemoryOrder():
                    optimizer.step()
            else:
                optimizer.step()
        results.append(weight.detach())
    assert torch.equal(*results)


OPTIM = {
    "SGD": {"optimizer_type": "SGD", "momentum": 0.9, "weight_decay": 0.01},
    "Adam": {"optimizer_type": "Adam", "weight_decay": 0.01},
    "SignSGD": {"optimizer_type": "SignSGD", "momentum": 0.9, "weight_decay": 0.01},
}
SCALES = {"block_00": 1.0, "block_00/critic": 0.3, "block_01": 1.0, "block_01/critic": 4.0}


class Scaled(nn.Module):
    """Stands for a method whose blocks have a second parameter group each, with a learning rate of its own."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(5, dtype=dtype)) for _ in SCALES)

    def param_groups(self) -> list[dict[str, Any]]:
        named = zip(SCALES.items(), self.weights, strict=True)
        return [{"name": n, "params": [w]} | ({} if s == 1 else {"rate_scale": s}) for (n, s), w in named]

    def fill_grads(self) -> None:
        sum((weight**4).sum() * (index + 1) for index, weight in enumerate(self.weights)).backward()


def build(name: str, method: Scaled) -> torch.optim.Optimizer:
    return optimizers.build_optimizer(build_args(OPTIM[name]).optim, method)


@pytest.mark.parametrize("name", OPTIM)
@pytest.mark.parametrize("rate", [0.01, 1e-4 / 3])
def test_a_scaled_group_moves_as_one_with_the_scaled_rate(name: str, rate: float) -> None:
    one, other = Scaled(), Scaled()
    optimizer = build(name, one)
    apart = [build(name, other) for _ in SCALES]
    for index, each in enumerate(apart):
        each.param_groups = [each.param_groups[index] | {"rate_scale": 1.0}]
    for _ in range(3):
        one.fill_grads()
        optimizers.update(optimizer, rate, 0.0)
        other.fill_grads()
        for each, scale in zip(apart, SCALES.values(), strict=True):
            optimizers.update(each, rate * scale, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(one.weights, other.weights, strict=True))
    assert not torch.equal(one.weights[0], Scaled().weights[0])


def steps_of(name: str, factors: list[float], count: int = 30, **settings: object) -> list[torch.Tensor]:
    """The weights after some steps with gradients that have a factor each."""
    method = Scaled()
    args = build_args({"optimizer_type": name, "learning_rate": 0.01} | settings)
    optimizer = optimizers.build_optimizer(args.optim, method)
    for step in range(count):
        method.fill_grads()
        for weight, factor in zip(method.weights, factors, strict=True):
            weight.grad *= factor
        optimizers.update(optimizer, learning_rate(args.optim, step, count, torch.float64), 0.0)
    return [weight.detach() for weight in method.weights]


@pytest.mark.parametrize("name", ["SignSGD", "Rprop"])
def test_only_signs_of_gradients_count(name: str) -> None:
    """FB 6: any positive factor on a weight's gradient leaves the steps as they are; with SGD it does not."""
    ones, others = [1.0] * 4, [1e-6, 3.0, 1e5, 0.1]
    assert all(map(torch.equal, steps_of(name, ones), steps_of(name, others)))
    assert not any(map(torch.equal, steps_of("SGD", ones, 3), steps_of("SGD", others, 3)))


def test_a_step_of_sign_sgd_is_the_rate_in_the_direction_of_the_sign() -> None:
    found = steps_of("SignSGD", [1.0] * 4, 1, momentum=0.0, nesterov=False, weight_decay=0.1, lr_schedule="constant")
    for weight, start, scale in zip(found, Scaled().weights, SCALES.values(), strict=True):
        expected = start - 0.01 * scale * (start.sign() + 0.1 * start)  # the gradient of a fourth power has its sign
        torch.testing.assert_close(weight, expected.detach(), rtol=1e-12, atol=0)


def test_rprop_follows_the_published_rule() -> None:
    """A step of its own for each weight: times 1.2 where the sign stays, halved and left out where it turns."""
    found, method = steps_of("Rprop", [1.0] * 4), Scaled()
    sizes, before = (
        [torch.full((5,), 0.01 * scale, dtype=torch.float64) for scale in SCALES.values()],
        [torch.zeros(5)] * 4,
    )
    for _ in range(30):
        method.zero_grad()
        method.fill_grads()
        for index, weight in enumerate(method.weights):
            sign = weight.grad.sign()
            agrees = sign * before[index]
            factor = 1 + 0.2 * (agrees > 0).double() - 0.5 * (agrees < 0).double()
            sizes[index] = (sizes[index] * factor).clamp(1e-6, 50)
            before[index] = sign.masked_fill(agrees < 0, 0)
            weight.data -= before[index] * sizes[index]
    for a, b in zip(found, method.weights, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-6, atol=1e-9)


def test_an_unscaled_group_gets_the_very_rate() -> None:
    optimizer, rate = build("SGD", Scaled()), torch.tensor(0.1)
    optimizers.set_rate(optimizer, rate)
    assert [group["lr"] is rate for group in optimizer.param_groups] == [True, False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.1, 1e-4 / 3, 0.0123])
def test_a_number_and_a_tensor_give_one_scaled_rate(dtype: torch.dtype, rate: float, monkeypatch) -> None:
    monkeypatch.setattr(optimizers, "rate_dtype", lambda device: dtype)  # as on a GPU
    optimizer, rate_1 = build("SGD", Scaled()), torch.tensor([rate], dtype=dtype)
    optimizers.set_rate(optimizer, rate_1.item())
    numbers = [group["lr"] for group in optimizer.param_groups]
    assert all(isinstance(number, float) for number in numbers)
    optimizers.set_rate(optimizer, rate_1[0])
    assert [group["lr"].item() for group in optimizer.param_groups] == numbers


def test_a_blocks_groups_are_clipped_by_their_joint_norm() -> None:
    method = Scaled()
    optimizer, bound = build("SGD", method), 0.1
    method.fill_grads()
    expected = []
    for first in (0, 2):
        pair = [weight.grad.clone() for weight in method.weights[first : first + 2]]
        norm = torch.stack([grad.norm() for grad in pair]).norm()
        assert norm > bound
        expected += [grad * (bound / (norm + 1e-6)) for grad in pair]
    optimizer.param_groups.insert(1, optimizer.param_groups.pop(3))  # in whatever order they stand
    found: list[torch.Tensor] = []
    optimizer.step = lambda: found.extend(weight.grad.clone() for weight in method.weights)
    optimizers.update(optimizer, 0.1, bound)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_a_stage_steps_every_group_of_its_blocks() -> None:
    view = optimizers.optimizer_of(build("SGD", Scaled()), range(1, 2))
    assert [group["name"] for group in view.param_groups] == ["block_01", "block_01/critic"]


@pytest.mark.parametrize("name", OPTIM)
def test_state_that_knows_no_scales_keeps_those_of_the_method(name: str) -> None:
    method = Scaled()
    optimizer = build(name, method)
    method.fill_grads()
    optimizers.update(optimizer, 0.01, 0.0)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group.pop("rate_scale", None)
    optimizer = build(name, method)
    optimizers.load_state(optimizer, state)
    assert [group.get("rate_scale", 1.0) for group in optimizer.param_groups] == list(SCALES.values())
    assert optimizer.state[method.weights[1]]


@pytest.mark.parametrize("name", OPTIM)
def test_recorded_steps_have_the_scaled_rates_of_eager_ones(name: str) -> None:
    """A method with its blocks' parameters in two groups each, over changing rates, clipped."""
    args = build_args(
        OPTIM[name] | {"lr_schedule": "one_cycle", "epochs": 2, "gradient_clip": 0.5, "precision": "fp32"}
    )
    methods, layouts = [], []
    for recorders in (None, Tape):
        method = make_method("dgl").float()
        plain = method.param_groups()
        groups = [{"name": f"{g['name']}{suffix}", "params": part} | extra for g in plain for suffix, part, extra in
                  (("", g["params"][:1], {}), ("/rest", g["params"][1:], {"rate_scale": 0.3}))]  # fmt: skip
        method.param_groups = lambda groups=groups: groups
        optimizer = optimizers.build_optimizer(args.optim, method)
        layouts.append(build_layout(args, method, make_feed(), optimizer, recorders=recorders))
        methods.append(method)
    assert [type(layout) for layout in layouts] == [Eager, Recorded]
    for layout in layouts:
        layout.run(Course(range(4)))
    for (key, a), b in zip(methods[0].state_dict().items(), methods[1].state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_a_state_of_other_parameters_is_refused() -> None:
    def optimizer(*shapes: tuple[int, ...]) -> torch.optim.Optimizer:
        parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
        made = torch.optim.SGD([{"name": "block_00", "params": parameters}], lr=0.1, momentum=0.9)
        sum(parameter.sum() for parameter in parameters).backward()
        made.step()
        return made

    state = optimizer((2, 3), (4,)).state_dict()
    optimizers.load_state(optimizer((2, 3), (4,)), state)
    with pytest.raises(ValueError, match=r"momentum_buffer has shape \[2, 3\], the parameter \[4\]"):
        optimizers.load_state(optimizer((4,), (2, 3)), state)


@pytest.mark.parametrize(("first", "expected"), [(0.25, [0.25, 0.5, 1.0]), (4.0, [4.0, 2.0, 1.0]), (1.0, [1, 1, 1])])
def test_blocks_rates_run_geometrically_from_the_first_to_the_last(first: float, expected: list[float]) -> None:
    method = make_method("dgl")
    args = build_args({"method": "dgl", "first_rate_scale": first, "learning_rate": 0.5}).optim
    optimizer = optimizers.build_optimizer(args, method)
    optimizers.set_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5 * scale for scale in expected])
    assert optimizer.param_groups[-1]["lr"] == 0.5  # the very number, not near it


def test_a_blocks_scale_multiplies_that_of_its_heads() -> None:
    method = make_method("dni", synthesiser_rate_scale=0.5)
    optimizer = optimizers.build_optimizer(build_args({"method": "dni", "first_rate_scale": 0.25}).optim, method)
    optimizers.set_rate(optimizer, 1.0)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({
        "block_00": 0.25, "block_00/synthesiser": 0.125, "block_01": 0.5, "block_01/synthesiser": 0.25,
        "block_02": 1.0, "block_02/synthesiser": 0.5,
    })  # fmt: skip


def test_the_first_block_that_learns_is_the_first() -> None:
    optimizer = optimizers.build_optimizer(
        build_args({"first_rate_scale": 0.25}).optim, make_method("bp", first_trainable_block=1)
    )
    optimizers.set_rate(optimizer, 1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 1.0]
