"""Target propagation: exact where inverses are exact, back-propagation where they are the transposed Jacobian."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cli
import main
from datamodules.base import Batch
from heads.inverse import BlockInverse, Seen, Weights, run
from layers.normalisation import untracked
from layers.saved import SavedBytes
from methods._signal import Trace
from methods._target import ChainMethod
from methods.tp import TargetPropagation
from model import Backbone, Block, Shape, mlp
from networks.table import convolutional_block
from schemas import ModelArgs
from tests.conftest import CLASSES, build, gradients, make_batch, make_method, seed, strided_backbone
from utils import UsageError

RULES = pytest.mark.parametrize("rule", ["tp", "dtp", "sdtp", "ao_sdtp"])


def transposed(method: ChainMethod) -> None:
    """Put the transposed Jacobian of each block, with the statistics of the batch, in place of its inverse."""

    def carry(index: int, x_BCHW: Tensor, seen: Seen, difference_BCHW: Tensor, weights: Weights) -> Tensor:
        with torch.enable_grad(), untracked(method):
            leaf_BCHW = x_BCHW.clone().requires_grad_()
            return torch.autograd.grad(method.backbone.block(index)(leaf_BCHW), leaf_BCHW, difference_BCHW)[0]

    method.carry = carry  # type: ignore[method-assign]


@pytest.mark.parametrize("name", ["tp", "ldrl"])
@pytest.mark.parametrize("target_step", [0.01, 1.0])
@pytest.mark.parametrize("first", [0, 1])
def test_with_the_transposed_jacobian_it_is_back_propagation(name: str, target_step: float, first: int) -> None:
    """On blocks with a stride, pools and BatchNorm in training: the scale of the signals is back-propagation's."""
    method = make_method(name, target_step=target_step, first_trainable_block=first)
    whole = make_method("bp", first_trainable_block=first)
    assert isinstance(method, ChainMethod)
    transposed(method)
    for trained in (method, whole):
        trained.fill_grads(make_batch())
    for key, gradient in gradients(whole).items():
        if gradient is not None:
            torch.testing.assert_close(gradients(method)[key], gradient, rtol=1e-9, atol=1e-14, msg=key)
    for key, value in whole.state_dict().items():
        assert torch.equal(method.state_dict()[key], value), f"{key}: the passes for the inverses moved it"


def invertible() -> Backbone:
    """Blocks of a 1x1 convolution that keeps every value above zero, where ReLU is the identity."""
    torch.manual_seed(0)
    blocks = []
    for _ in range(3):
        convolution = nn.Conv2d(3, 3, 1)
        nn.init.orthogonal_(convolution.weight, 0.5)
        nn.init.constant_(convolution.bias, 10.0)
        blocks.append(Block(nn.Sequential(convolution, nn.ReLU()), Shape(3, 4, 4), nn.Identity(), nn.Identity()))
    return Backbone(blocks, mlp(48, len(CLASSES), 1, 7))


def exact(**settings: object) -> TargetPropagation:
    method = make_method("tp", invertible(), **settings)
    assert isinstance(method, TargetPropagation)
    with torch.no_grad():
        for index in (1, 2):
            convolution, inverse = method.backbone.block(index).features[0], method.inverse(index)
            back_DD = torch.linalg.inv(convolution.weight[:, :, 0, 0])
            inverse.weight.copy_(back_DD.t()[:, :, None, None])
            inverse.bias.copy_(-back_DD @ convolution.bias)
    return method


def displacements(method: TargetPropagation, batch: Batch) -> list[Tensor]:
    """Target less output of every block, over the step, from the first on."""
    found: list[Tensor] = []
    displacement = method.displacement

    def watched(index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        found.insert(0, displacement(index, trace, above_BCHW))
        return found[0]

    method.displacement = watched  # type: ignore[method-assign]
    method.fill_grads(batch)
    return found


def test_exact_inverses_give_tp_and_dtp_the_same_targets_and_the_blocks_reach_them() -> None:
    batch = make_batch(size=4)
    found = [displacements(exact(target_rule=rule, target_step=0.5), batch) for rule in ("tp", "dtp")]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    blocks, h_BCHW = exact().backbone.blocks, batch.x_BCHW
    for index, block in enumerate(blocks[:-1]):
        h_BCHW = block(h_BCHW)
        upper_BCHW = blocks[index + 1](h_BCHW)
        reached_BCHW = blocks[index + 1](h_BCHW + 0.5 * found[0][index])
        torch.testing.assert_close(reached_BCHW, upper_BCHW + 0.5 * found[0][index + 1], rtol=1e-9, atol=1e-12)


def test_where_nothing_is_to_change_dtp_asks_for_nothing_and_tp_does() -> None:
    for rule in ("tp", "dtp"):
        method = make_method("tp", target_rule=rule)
        assert isinstance(method, TargetPropagation)
        x_BCHW = torch.randn(2, *method.backbone.out_shapes[0], dtype=torch.float64)
        seen = run(method.backbone.block(1), x_BCHW)
        weights = method.inverse(1).weights
        assert method.carry(1, x_BCHW, seen, torch.zeros_like(seen.out_BCHW), weights).any() == (rule == "tp")


def inputs(method: TargetPropagation, batch: Batch) -> list[Tensor]:
    """What every block and the classifier take in."""
    twin, found = copy.deepcopy(method), [batch.x_BCHW]
    with torch.no_grad():
        for block in twin.backbone.blocks:
            found.append(block(found[-1]))
    return found


def noise(shape: torch.Size, sigma: float = 0.1) -> Tensor:
    return sigma * torch.randn(shape, dtype=torch.float64)


def backwards(
    block: Block, inverse: BlockInverse, size: torch.Size, u_BCHW: Tensor, x_BCHW: Tensor
) -> tuple[Tensor, Tensor]:
    """What the inverse makes of ``u`` after a pass of ``x``, and what its convolution sees."""
    map_BCHW = block.features(x_BCHW)
    u_BCHW = torch.where(block.pool(map_BCHW) > 0, u_BCHW.relu(), 0)
    strides = block.features[0].stride[0]
    if isinstance(block.pool, nn.MaxPool2d):
        u_BCHW = F.max_unpool2d(u_BCHW, F.max_pool2d(map_BCHW, 2, return_indices=True)[1], 2, output_size=size)
    return F.conv_transpose2d(u_BCHW, inverse.weight, inverse.bias, strides, 1, strides - 1), u_BCHW


def test_an_inverse_learns_as_in_a_plain_loop() -> None:
    """Written with torch's own unpool, and a signal that is the gradient of a squared distance to a fixed target."""
    method, batch = make_method("tp", target_step=0.3), make_batch()
    assert isinstance(method, TargetPropagation)
    seen, twin = inputs(method, batch), copy.deepcopy(method)
    seed("tp")
    method.fill_grads(batch)
    found = gradients(method)

    top_BCHW = seen[3].clone().requires_grad_()
    loss = F.cross_entropy(twin.backbone.classifier(top_BCHW), batch.y_B, reduction="sum")
    target_BCHW = seen[3] - 0.3 * torch.autograd.grad(loss, top_BCHW)[0]
    seed("tp")
    for index in (2, 1):
        block, inverse = twin.backbone.block(index), twin.inverse(index)
        size = block.features[0](seen[index]).shape[2:]

        back = partial(backwards, block, inverse, size)
        noisy_BCHW = seen[index] + noise(seen[index].shape)
        guess_BCHW, u_BCHW = back(block(noisy_BCHW).detach(), noisy_BCHW)
        fan_in = inverse.weight.shape[0] * 9 / (4 if index == 1 else 1)
        power = fan_in * u_BCHW.detach().square().mean() + 1
        distance = (guess_BCHW - noisy_BCHW).square().sum() / (6 * seen[index][0, 0].numel()) / power
        for key, gradient in zip(
            ("weight", "bias"), torch.autograd.grad(distance, [*inverse.parameters()]), strict=True
        ):
            torch.testing.assert_close(found[f"inverses.block_{index:02d}.{key}"], gradient, rtol=1e-9, atol=1e-12)

        out_BCHW = block(seen[index])
        half = 0.5 * (out_BCHW - target_BCHW.detach()).square().sum() / (0.3 * 6)
        for (key, _), gradient in zip(
            block.named_parameters(), torch.autograd.grad(half, [*block.parameters()]), strict=True
        ):
            name = f"backbone.blocks.{index}.{key}"
            torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
        down_BCHW = back(target_BCHW, seen[index])[0] - back(out_BCHW, seen[index])[0]
        target_BCHW = (seen[index] + down_BCHW).detach()


@pytest.mark.parametrize("name", ["tp", "ldrl", "ddtp"])
def test_a_plain_optimiser_ends_where_the_steps_of_a_batch_end(name: str) -> None:
    """Three steps on one batch are three times one step, on the same noise."""
    thrice, single = make_method(name, inverse_steps=3, inverse_step_size=0.05), make_method(name)
    torch.manual_seed(4)
    drawn: list[Tensor] = []
    draw = thrice.noise
    thrice.noise = lambda like, trace: drawn.append(draw(like, trace)) or drawn[-1]  # type: ignore[method-assign]
    thrice.fill_grads(make_batch())
    places = range(len(thrice.inverses))
    calls = len(drawn) // 3 // len(places)
    order = [drawn[calls * (3 * place + step) :][:calls] for step in range(3) for place in places]
    rest = [each for group in order for each in group]
    single.noise = lambda like, trace: rest.pop(0)  # type: ignore[method-assign]
    for _ in range(3):
        single.zero_grad()
        single.fill_grads(make_batch())
        with torch.no_grad():
            for parameter in single.inverses.parameters():
                parameter -= 0.05 * parameter.grad
    for own, other in zip(thrice.inverses.parameters(), single.inverses.parameters(), strict=True):
        torch.testing.assert_close(own - 0.05 * own.grad, other, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", ["tp", "ldrl", "ddtp"])
def test_the_graph_of_a_step_is_freed_before_the_next(name: str) -> None:
    peaks = []
    for steps in (1, 4):
        method = make_method(name, inverse_steps=steps)
        counter = SavedBytes(method.parameters())
        with counter.hooks:
            method.fill_grads(make_batch())
        peaks.append(counter.peak_bytes)
    small = sum(parameter.nbytes for parameter in method.inverses.parameters())
    assert peaks[1] <= peaks[0] + small  # a copy of the weights is no parameter


def test_without_auxiliary_outputs_ao_sdtp_is_sdtp() -> None:
    one, other = make_method("tp", target_rule="ao_sdtp", auxiliary_outputs=0), make_method("tp", target_rule="sdtp")
    for method in (one, other):
        seed("tp")
        method.fill_grads(make_batch())
    for key, gradient in gradients(one).items():
        assert torch.equal(gradients(other)[key], gradient), key


def test_sdtp_ends_at_the_label_and_does_not_see_the_classifiers_weights() -> None:
    method = make_method("tp", target_rule="sdtp", target_step=1.0)
    assert isinstance(method, TargetPropagation)
    batch, seen = make_batch(), []
    inverse = method.inverses["output"]
    inverse.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    seed("tp")
    found = displacements(method, batch)
    (_, _), (label_BN, at_label), (guess_BN, at_guess) = seen
    assert torch.allclose(label_BN, F.one_hot(batch.y_B, len(CLASSES)).double(), atol=1e-12)
    assert torch.allclose(guess_BN.sum(1), torch.ones(6).double())
    size = inputs(method, batch)[3].square().sum((1, 2, 3)).mean().sqrt()
    torch.testing.assert_close(found[2], (at_label - at_guess) / size, rtol=1e-9, atol=1e-12)


def test_auxiliary_outputs_are_fixed_and_the_same_at_both_ends() -> None:
    method = make_method("tp", target_rule="ao_sdtp", auxiliary_outputs=4)
    seen: list[Tensor] = []
    method.inverses["output"].register_forward_hook(lambda module, args, output: seen.append(args[0]))
    before = method.auxiliary.clone()
    method.fill_grads(make_batch())
    assert torch.equal(seen[1][:, 5:], seen[2][:, 5:]) and seen[1][:, 5:].any()
    assert torch.equal(method.auxiliary, before)
    assert not any(parameter is method.auxiliary for group in method.param_groups() for parameter in group["params"])


@RULES
def test_inverses_learn_to_reconstruct(rule: str) -> None:
    method, batch = make_method("tp", target_rule=rule), make_batch()
    optimizer = torch.optim.SGD(method.inverses.parameters(), lr=0.3, momentum=0.9)
    errors = []
    for _ in range(60):
        method.zero_grad()
        errors.append(method.fill_grads(batch).metrics["block_02/reconstruction_error"].item())
        optimizer.step()
    assert errors[-1] < 0.6 * errors[0]


def test_inverses_have_a_rate_of_their_own_and_come_back_with_the_state() -> None:
    method = make_method("tp", target_rule="sdtp", inverse_rate_scale=0.5)
    groups = {group["name"]: group for group in method.param_groups()}
    assert [*groups] == ["block_00", "block_01", "block_01/inverse", "block_02", "block_02/inverse"]
    assert groups["block_02/inverse"]["rate_scale"] == 0.5
    assert len(groups["block_02/inverse"]["params"]) == 4  # the block's and the output's
    torch.manual_seed(3)
    other = make_method("tp", strided_backbone(), target_rule="sdtp")
    other.load_state_dict(method.state_dict())
    for trained in (method, other):
        seed("tp")
        trained.fill_grads(make_batch())
    assert all(torch.equal(gradient, gradients(other)[key]) for key, gradient in gradients(method).items())


def test_the_network_starts_as_under_back_propagation() -> None:
    own, whole = make_method("tp").state_dict(), make_method("bp").state_dict()
    assert all(torch.equal(own[key], value) for key, value in whole.items())


@pytest.mark.parametrize("name", ["tp", "ldrl"])
def test_residual_blocks_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^--{name}: block_01 cannot be inverted: it is Residual"):
        make_method(name, build("ResNet20", 8))


def test_a_block_that_no_target_passes_need_not_be_invertible() -> None:
    block = convolutional_block(Shape(3, 8, 8), 4, 3, pool=False, args=ModelArgs())
    block.features[2] = nn.GELU()
    make_method("tp", Backbone([block], mlp(256, len(CLASSES), 1, 7))).fill_grads(make_batch())


@pytest.mark.parametrize(
    "words",
    ["--tp --target_step 0", "--tp --target_step 11", "--ldrl --inverse_noise 0", "--ddtp --inverse_noise -1",
     "--tp --inverse_steps 0", "--ddtp --damping -1", "--tp --auxiliary_outputs 5", "--ldrl --inverse_step_size 1",
     "--ddtp --target_step 1", "--dgl --inverse_noise 1", "--tp --layer_parallel threads"],
)  # fmt: skip
def test_what_is_out_of_range_or_without_effect_is_one_line(words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        cli.parse(words.split())
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2


@pytest.mark.parametrize("rule", ["tp", "ldrl"])
@pytest.mark.parametrize("flag", ["target_step", "inverse_steps", "inverse_noise", "inverse_rate_scale"])
def test_what_inverses_need_is_refused_where_there_is_none(rule: str, flag: str, capsys) -> None:
    """A single block that learns has its target from the loss; without a gradient, an inverse of the output remains."""
    words = [f"--{rule}", "--first_trainable_block=-1", f"--{flag}=2", "--print_config"]
    assert main.main(words) == 2
    error = capsys.readouterr().err
    assert f"--{flag} has no effect: it needs more than one block that learns" in error and error.count("\n") == 1
    assert main.main([f"--{rule}", f"--{flag}=2", "--print_config"]) == 0
    assert rule != "tp" or main.main([*words, "--target_rule=sdtp"]) == 0
