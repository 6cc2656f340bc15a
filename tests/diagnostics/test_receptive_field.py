"""The recursion against published values, and against what really moves when a pixel moves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from diagnostics.receptive_field import ReceptiveField, behind, receptive_fields
from model import Backbone
from networks import build_backbone
from schemas import ModelArgs
from tests.conftest import make_spec


def backbone_of(model: str, side: int = 32) -> Backbone:
    return build_backbone(ModelArgs(model=model), make_spec(side))


def test_the_published_field_of_vgg16() -> None:
    assert receptive_fields(backbone_of("VGG16"))[-1] == ReceptiveField(212, 32, 90)


def test_the_published_field_of_alexnet() -> None:
    layers = [nn.Conv2d(1, 1, 11, 4), nn.MaxPool2d(3, 2), nn.Conv2d(1, 1, 5, padding=2), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)]
    assert behind(nn.Sequential(*layers, nn.MaxPool2d(3, 2)), ReceptiveField())[:2] == (195, 32)


def test_a_hole_between_the_taps_of_a_kernel_counts() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 3, dilation=4))
    assert behind(network, ReceptiveField(5, 2, 1)) == ReceptiveField(21, 2, 1)


def test_a_field_that_is_no_square_is_not_told() -> None:
    assert receptive_fields(backbone_of("MLP"))[0] == ReceptiveField(32, 32, 0)
    row = build_backbone(ModelArgs(model="TreeCNN"), replace(make_spec(32), height=1))
    assert receptive_fields(row) == [None] * 3


@pytest.mark.parametrize("model", ["BasicCNN", "VGGs", "ResNet20"])
def test_no_pixel_outside_the_field_counts_and_every_one_inside_does(model: str) -> None:
    fields = [field for field in receptive_fields(backbone_of(model)) if field is not None]
    side = 2 * max(field.size for field in fields)
    side += -side % 32
    backbone = backbone_of(model, side).double().eval()
    for block in backbone.blocks:
        if isinstance(block.pool, nn.MaxPool2d):
            block.pool = nn.AvgPool2d(2)  # a maximum depends on one pixel only
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    x_BCHW = torch.ones(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    h_BCHW = x_BCHW
    for index, (size, stride, padding) in enumerate(fields):
        h_BCHW = backbone.block(index)(h_BCHW)
        place = h_BCHW.shape[-1] // 2
        [grad_BCHW] = torch.autograd.grad(h_BCHW[0, 0, place, place], x_BCHW, retain_graph=True)
        for moved in (grad_BCHW[0].abs().sum((0, 1)), grad_BCHW[0].abs().sum((0, 2))):
            begin = place * stride - padding
            assert moved.nonzero().flatten().tolist() == list(range(begin, begin + size)), f"block {index}"
