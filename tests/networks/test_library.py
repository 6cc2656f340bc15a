"""Networks of torchvision and timm: cut at residual blocks, with the library's bits."""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from diagnostics.receptive_field import receptive_fields
from networks import build_backbone, library
from schemas import ModelArgs
from tests.conftest import make_spec
from utils import UsageError


def build_from(name: str, size: int = 32, channels: int = 3, stem: str = "as_is"):
    torch.manual_seed(0)
    return build_backbone(ModelArgs(model=name, stem=stem), make_spec(size, channels))


# Name, blocks, kind of the second block and of the last one.
CUTS = [
    ("resnet18", 9, "BasicBlock", "BasicBlock"),
    ("resnext50_32x4d", 17, "Bottleneck", "Bottleneck"),
    ("vgg11_bn", 8, "Sequential", "Sequential"),
    ("mobilenet_v2", 19, "InvertedResidual", "Sequential"),
    ("mobilenet_v3_small", 13, "InvertedResidual", "Sequential"),
    ("convnext_tiny", 19, "CNBlock", "CNBlock"),
    ("regnet_y_400mf", 17, "ResBottleneckBlock", "ResBottleneckBlock"),
]


@pytest.mark.parametrize(("name", "count", "second", "last"), CUTS)
def test_residual_blocks_are_blocks_and_nothing_is_lost(name: str, count: int, second: str, last: str) -> None:
    network = build_from(f"torchvision:{name}")
    assert network.num_blocks == count
    assert [type(network.block(index).features).__name__ for index in (1, count - 1)] == [second, last]
    whole = models.get_model(name, weights=None, num_classes=5)
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in whole.parameters())


def test_a_training_pass_has_the_gradients_of_the_library() -> None:
    network = build_from("torchvision:resnet18").double()
    torch.manual_seed(0)
    whole = models.resnet18(num_classes=5).double()
    x_BCHW, y_B = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.arange(4)
    for each in (network, whole):
        F.cross_entropy(each(x_BCHW), y_B).backward()
    for own, theirs in zip(network.parameters(), whole.parameters(), strict=True):
        assert torch.equal(own.grad, theirs.grad)


def test_the_published_receptive_field_of_resnet18() -> None:
    """435 pixels: Araujo, Norris, Sim 2019, doi 10.23915/distill.00021."""
    assert receptive_fields(build_from("torchvision:resnet18"))[-1].size == 435


def test_a_receptive_field_that_cannot_be_told_is_not_told() -> None:
    fields = receptive_fields(build_from("torchvision:mobilenet_v3_small"))
    assert fields[0].size == 3 and fields[-1] is None  # squeeze-and-excitation sees the whole map


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "convnext_tiny"])
def test_a_stem_for_small_images_keeps_their_size(name: str) -> None:
    network = build_from(f"torchvision:{name}", stem="cifar")
    stem = network.block(0).features
    first = next(layer for layer in stem.modules() if isinstance(layer, nn.Conv2d))
    assert (first.kernel_size, first.stride, network.out_shapes[0].height) == ((3, 3), (1, 1), 32)
    assert not any(isinstance(layer, nn.MaxPool2d) for layer in stem.modules())


def test_a_stem_that_would_not_change_is_refused() -> None:
    with pytest.raises(UsageError, match="--stem cifar has no effect: --model torchvision:vgg11 begins with a 3x3"):
        build_from("torchvision:vgg11", stem="cifar")


def test_grey_images_are_taken() -> None:
    assert build_from("torchvision:resnet18", channels=1)(torch.randn(2, 1, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"torchvision has no such network \(did you mean resnet18\?\)"),
        ("densenet121", "torchvision:densenet121 is not a chain of layers on maps"),
        ("swin_t", "torchvision:swin_t is not a chain of layers on maps"),
        ("vgg11", "torchvision:vgg11 does not take images of 8x8 pixels: "),
    ],
)
def test_what_cannot_be_had_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_from(f"torchvision:{name}", size=8 if name == "vgg11" else 32)


def test_a_cut_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        library, "_classifier", lambda layers: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), *layers[1:])
    )
    with pytest.raises(UsageError, match="is not a chain of layers"):
        build_from("torchvision:resnet18", size=64)  # with 32 pixels the last map has one


def test_without_timm_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"^--model timm:resnet18: timm is not installed: pip install timm$"):
        build_from("timm:resnet18")


def test_timm_is_asked_for_an_untrained_network_with_these_images_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, *, pretrained: bool, num_classes: int, in_chans: int) -> nn.Module:
        assert (name, pretrained, num_classes, in_chans) == ("resnet18", False, 5, 1)
        network = models.resnet18(num_classes=num_classes)
        network.conv1 = nn.Conv2d(in_chans, 64, 7, 2, 3, bias=False)
        return network

    fake = SimpleNamespace(is_model="resnet18".__eq__, list_models=lambda: ["resnet18"], create_model=create)
    monkeypatch.setitem(sys.modules, "timm", fake)
    assert build_from("timm:resnet18", channels=1).num_blocks == 9
    with pytest.raises(UsageError, match=r"timm has no such network \(did you mean resnet18\?\)"):
        build_from("timm:resnet81")


def test_the_library_network_is_the_same_for_the_same_seed() -> None:
    first, second = (copy.deepcopy(build_from("torchvision:resnet18").state_dict()) for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
