"""Forward-forward: closed forms of its gradients, the sum of all losses, what blocks see, and how it classifies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cli
from datamodules.base import DataSpec
from methods._label import Label, UnitLength
from methods.ff import ForwardForward
from model import Backbone, Block, Shape
from objectives.goodness import forward_forward, goodness, symba
from tests.conftest import CLASSES, gradients, make_batch, make_method, strided_backbone
from utils import UsageError

LOSSES = ["ff", "symba"]


def maps(count: int = 6) -> Tensor:
    return torch.randn(count, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def loss_of(name: str, right_B: Tensor, wrong_B: Tensor, channels: int) -> Tensor:
    """As the docstring has it, an image at a time."""
    pairs = zip(right_B, wrong_B, strict=True)
    if name == "symba":
        return sum(torch.log1p(torch.exp(-4.0 * (right - wrong))) for right, wrong in pairs) / len(right_B)
    at = 0.5 * channels
    return sum(torch.log1p(torch.exp(at - r)) + torch.log1p(torch.exp(w - at)) for r, w in pairs) / len(right_B)


def written(x_BCHW: Tensor, y_B: Tensor, label_in: str) -> Tensor:
    """The label in 8x8 images of five classes, pixel by pixel; black is -1, white 1."""
    if label_in == "image":
        x_BCHW = x_BCHW.clone()
        for x_CHW, y in zip(x_BCHW, y_B.tolist(), strict=True):
            for place in range(5):
                x_CHW[:, 0, place] = 1 if place == y else -1
        return x_BCHW
    channel = torch.zeros(len(x_BCHW), 1, 8, 8, dtype=x_BCHW.dtype)
    for number, y in enumerate(y_B.tolist()):
        channel[number, 0, y // 3 :: 3, y % 3 :: 3] = 1  # squares of 3x3 pixels
    return torch.cat([x_BCHW, channel], 1)


def test_the_gradient_of_the_threshold_loss_is_its_closed_form() -> None:
    """``-2 h sigmoid(t - G)`` and ``2 h sigmoid(G' - t)``, over the positions and the images of the mean."""
    right, wrong = (part.requires_grad_() for part in maps(12).chunk(2))
    forward_forward(goodness(right), goodness(wrong), 3.0).backward()
    for h, sign in ((right, -1), (wrong, 1)):
        slope_B = torch.sigmoid(sign * (goodness(h.detach()) - 3.0))
        torch.testing.assert_close(h.grad, sign * 2 * h.detach() * slope_B[:, None, None, None] / (6 * 9))


def test_the_gradient_of_symba_is_its_closed_form() -> None:
    right, wrong = (part.requires_grad_() for part in maps(12).chunk(2))
    symba(goodness(right), goodness(wrong), 0.7).backward()
    slope_B = 0.7 * torch.sigmoid(-0.7 * (goodness(right.detach()) - goodness(wrong.detach())))
    for h, sign in ((right, -1), (wrong, 1)):
        torch.testing.assert_close(h.grad, sign * 2 * h.detach() * slope_B[:, None, None, None] / (6 * 9))


def test_values_at_known_inputs() -> None:
    ones = torch.ones(2, 7, 3, 5)
    assert goodness(ones).tolist() == [7, 7]
    assert goodness(ones.bfloat16()).dtype is torch.float32
    ln2 = torch.tensor(2.0).log()
    torch.testing.assert_close(forward_forward(goodness(ones), goodness(ones), 7.0), 2 * ln2)
    torch.testing.assert_close(symba(goodness(ones), goodness(ones), 3.0), ln2)


def test_unit_length_leaves_nothing_of_the_goodness() -> None:
    x = maps() * torch.arange(1, 7)[:, None, None, None]
    scaled = UnitLength()(x)
    torch.testing.assert_close(goodness(scaled), torch.full((6,), 4.0, dtype=torch.float64), rtol=1e-3, atol=0)
    torch.testing.assert_close(scaled[2] / x[2], torch.full_like(x[2], (scaled[2] / x[2]).mean().item()))
    assert not UnitLength()(torch.zeros(1, 4, 3, 3)).any()


@pytest.mark.parametrize("label_in", ["image", "channel"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("num_modules", [1, 3])
def test_equals_the_sum_of_losses(name: str, label_in: str, num_modules: int) -> None:
    """All graphs at once and one backward pass; with one module that is back-propagation of the last block's loss."""
    settings = {"goodness_loss": name, "label_in": label_in, "num_modules": num_modules}
    method, oracle, batch = make_method("ff", **settings), make_method("ff", **settings), make_batch()
    torch.manual_seed(3)
    method.fill_grads(batch)
    torch.manual_seed(3)
    wrong_B = (batch.y_B + 1 + torch.randint(4, (6,))) % 5
    h = torch.cat([written(batch.x_BCHW, y_B, label_in) for y_B in (batch.y_B, wrong_B)])
    total = torch.zeros((), dtype=torch.float64)
    for index in range(num_modules):
        block = oracle.backbone.block(index)
        features = block.features(h.detach() if index else h)
        G = features.square().sum(1).mean((1, 2))
        total = total + loss_of(name, G[:6], G[6:], features.shape[1])
        pooled = block.pool[0](features)
        h = pooled / (pooled.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-4)
    total.backward()
    found = gradients(method)
    assert set(found) == set(gradients(oracle))
    for key, gradient in gradients(oracle).items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-10, atol=1e-13, msg=key)


def test_with_an_overlap_a_block_learns_from_the_loss_above_too() -> None:
    method, oracle, batch = make_method("ff", overlap=2), make_method("ff"), make_batch()
    torch.manual_seed(3)
    method.fill_grads(batch)
    torch.manual_seed(3)
    h, total = oracle.prepare(batch).x_BCHW, torch.zeros((), dtype=torch.float64)
    for index in range(3):
        hidden = oracle.run_block(index, h)
        total, h = total + oracle.block_loss(index, hidden, batch)[0], hidden.out_BCHW
    total.backward()
    for key, gradient in gradients(oracle).items():
        torch.testing.assert_close(gradients(method)[key], gradient, rtol=1e-9, atol=1e-12, msg=key)


@pytest.mark.parametrize("label_in", ["image", "channel"])
@pytest.mark.parametrize("first", [0, 1, 2, 9])
def test_the_class_is_the_label_with_the_most_goodness(label_in: str, first: int) -> None:
    """Every exit against a loop over images and labels."""
    method, batch = make_method("ff", label_in=label_in, first_scored_block=first).eval(), make_batch(num_images=3)
    with torch.no_grad():
        found = method.block_logits(batch.x_BCHW)
        for number in range(3):
            for label in range(5):
                h, sums = written(batch.x_BCHW[number, None], torch.tensor([label]), label_in), 0.0
                for index in range(3):
                    features, h = method.run_block(index, h)
                    own = features.square().sum((1, 2, 3)).item() / features[0, 0].numel()
                    sums = own if index <= first else sums + own
                    assert found[index][number, label].item() == pytest.approx(sums, rel=1e-10)


def test_frozen_blocks_do_not_count() -> None:
    method, batch = make_method("ff", first_trainable_block=-1, first_scored_block=0).eval(), make_batch()
    alone = make_method("ff", first_scored_block=2).eval()
    assert method.block_logits(batch.x_BCHW)[:2] == [None, None]
    assert torch.equal(method.block_logits(batch.x_BCHW)[2], alone.block_logits(batch.x_BCHW)[2])


def test_wrong_labels_are_the_others_equally_often_and_the_same_in_parts() -> None:
    method, seen = make_method("ff", label_in="image"), torch.zeros(5, 5)
    batch = make_batch(num_images=400)
    batch = batch._replace(y_B=torch.arange(400) % 5, generator=torch.Generator().manual_seed(0))
    prepared = method.prepare(batch)
    right, wrong = prepared.x_BCHW[:, 0, 0, :5].argmax(1).chunk(2)
    assert torch.equal(right, batch.y_B)
    seen.index_put_((right, wrong), torch.ones(400), accumulate=True)
    assert not seen.diagonal().any()
    assert seen[~torch.eye(5, dtype=torch.bool)].min() >= 10  # of 20
    halves = [
        method.prepare(batch._replace(generator=torch.Generator().manual_seed(0)).shared(place, 2)) for place in (0, 1)
    ]
    parts = torch.cat([half.x_BCHW.chunk(2)[1] for half in halves])
    assert torch.equal(parts, prepared.x_BCHW[400:])


def test_labels_are_black_and_white_in_the_images_own_units() -> None:
    spec = DataSpec("test", 2, 3, 4, CLASSES, (0.5, 0.2), (0.25, 0.1))
    shown = Label(spec, in_channel=False)(torch.full((1, 2, 3, 4), 9.0), torch.tensor([2]))
    assert shown[0, 0].flatten().tolist() == [-2, -2, 2, -2, -2] + [9] * 7
    torch.testing.assert_close(shown[0, 1].flatten()[:3], torch.tensor([-2.0, -2.0, 8.0]))


def test_images_without_the_channel_show_no_label() -> None:
    """As probes and other diagnostics run them."""
    block, x_BCHW = make_method("ff").eval().backbone.block(0), make_batch().x_BCHW
    assert torch.equal(block(x_BCHW), block(torch.cat([x_BCHW, torch.zeros_like(x_BCHW[:, :1])], 1)))


def test_running_statistics_are_those_of_both_labels() -> None:
    method, batch = make_method("ff"), make_batch()
    torch.manual_seed(3)
    method.fill_grads(batch)
    torch.manual_seed(3)
    first = method.backbone.block(0).features
    mean_C = first[0](method.prepare(batch).x_BCHW).mean((0, 2, 3))
    torch.testing.assert_close(first[1].running_mean, 0.1 * mean_C)


@pytest.mark.parametrize("label_in", ["image", "channel"])
def test_the_losses_fall_where_a_block_has_another_below(label_in: str) -> None:
    method, batch, losses = make_method("ff", label_in=label_in), make_batch(), []
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.02)
    for _ in range(40):
        losses.append(torch.stack(method.fill_grads(batch).losses))
        optimizer.step()
        optimizer.zero_grad()
    first, last = (torch.stack(part).mean(0) for part in (losses[:5], losses[-5:]))
    assert (last[1:] < 0.7 * first[1:]).all()


def dense() -> Backbone:
    block = Block(nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Unflatten(1, (8, 1, 1)), nn.ReLU()),
                  Shape(8, 1, 1), nn.Identity(), nn.Identity())  # fmt: skip
    return Backbone([block], nn.Sequential(nn.Flatten(), nn.Linear(8, 5)))


def test_a_network_without_a_first_convolution_takes_labels_in_the_image() -> None:
    with pytest.raises(UsageError, match="begins with Flatten, which has no room for one; give --label_in image"):
        make_method("ff", dense())
    method = make_method("ff", dense(), label_in="image")
    assert isinstance(method, ForwardForward)
    method.fill_grads(make_batch())


def test_images_too_small_for_the_labels_are_refused() -> None:
    spec = DataSpec("test", 1, 2, 2, CLASSES, (0.5,), (0.5,))
    with pytest.raises(UsageError, match="2x2 pixels have no room for 5 labels"):
        Label(spec, in_channel=False)


def test_frozen_blocks_that_are_left_out_hand_the_label_on() -> None:
    backbone = strided_backbone()
    backbone.blocks[0].features, backbone.blocks[0].out_shape = nn.Identity(), Shape(3, 4, 4)
    backbone.blocks[1].features[0] = nn.Conv2d(3, 6, 3, stride=2, padding=1)
    method = make_method("ff", backbone, first_trainable_block=1)
    method.fill_grads(make_batch())
    assert method.backbone.blocks[1].features[0].in_channels == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--goodness_threshold 0", "allowed is a number, above 0"),
        ("--goodness_alpha 2", "needs --goodness_loss symba"),
        ("--goodness_loss symba --goodness_threshold 1", "needs --goodness_loss ff"),
        ("--label_in corner", "allowed is"),
        ("--ssl", "belongs to"),
        ("--supcon_loss_weight 1", "belongs to"),
        ("--pred_aux_type mlp", "belongs to"),
        ("--mlp_hidden_dim 8", "needs a rule that trains the network's classifier"),
        ("--diagnostics alignment", "needs a rule that trains the network's classifier"),
        ("--init_from somewhere", "the first convolution has an input channel more; give --label_in image"),
        ("--num_modules 1 --first_scored_block 0", "has no effect"),
        ("--overlap 1 --layer_parallel threads", "exclude each other"),
    ],
)
def test_what_has_no_effect_or_no_place_is_one_line(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        cli.parse(["--ff", *words.split()])
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2


@pytest.mark.parametrize("size", [(1, 8), (2, 32), (3, 3), (8, 2), (1, 27), (32, 32)])
@pytest.mark.parametrize("num_classes", [5, 8])
def test_every_label_shows_in_images_of_any_shape(size: tuple[int, int], num_classes: int) -> None:
    height, width = size
    names = tuple(map(str, range(num_classes)))
    label = Label(DataSpec("any", 1, height, width, names, (0.5,), (0.5,)), in_channel=True)
    codes_NP = label.code_NHW.flatten(1)
    assert (codes_NP.sum(1) > 0).all() and (codes_NP.sum(0) <= 1).all()
