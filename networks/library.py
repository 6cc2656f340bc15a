"""Networks of torchvision and timm, cut into blocks.

Their layers must run one after the other, which is checked: the blocks and the classifier, run in turn, give the bits
of the library's network. Every residual block (a module with a way around its layers, as torchvision has them) is a
block. Layers before the first one are the stem, a block; those between two residual blocks belong to the second; those
behind the last one are a block. Without residual blocks every convolution begins a block. torch.fx was tried: it cuts
between any two operations and needs the same rules to find the blocks.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from model import Backbone, InputSpec
from networks.modules import backbone_of
from schemas import ModelArgs
from utils import UsageError, did_you_mean


def build_from_library(args: ModelArgs, spec: InputSpec) -> Backbone:
    """The network of ``--model torchvision:NAME`` or ``timm:NAME``, without pre-trained weights.

    The first convolution is made anew, with PyTorch's default initialisation, where the images have another number of
    channels or ``--stem cifar`` asks for a smaller one.

    Raises:
        UsageError: there is no such network, it does not take these images, or it cannot be cut.
    """
    assert args.library is not None
    library, name = args.library
    what = f"--model {args.model}"
    with warnings.catch_warnings(action="ignore"):
        network = MAKERS[library](name, spec, what)
    _adapt_stem(network, spec, args.stem, what)
    x_BCHW = torch.linspace(-1, 1, spec.num_channels * spec.height * spec.width)
    x_BCHW = x_BCHW.view(1, spec.num_channels, spec.height, spec.width)
    network.eval()
    with torch.no_grad():
        try:
            expected = network(x_BCHW)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"{what} does not take images of {spec.height}x{spec.width} pixels: {reason}") from error
        blocks, classifier = cut_into_blocks([layer for _, layer in _layers(network)], x_BCHW)
        found: object = None
        with contextlib.suppress(Exception):
            found = nn.Sequential(*blocks, classifier)(x_BCHW)
    in_turn = isinstance(found, Tensor) and torch.equal(found, expected)
    if not blocks or not in_turn or _hands_on_channels_last(network):
        raise UsageError(
            f"{what} is not a chain of layers on maps (B, C, H, W), so that it cannot be cut into blocks; resnet, "
            "resnext, vgg, mobilenet, convnext, efficientnet and regnet are"
        )
    network.train()
    return backbone_of(blocks, classifier, spec, what)


def _from_torchvision(name: str, spec: InputSpec, what: str) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(f"{what}: torchvision has no such network{did_you_mean(name, known)}")
    network: nn.Module = models.get_model(name, weights=None, num_classes=spec.num_classes)
    return network


def _from_timm(name: str, spec: InputSpec, what: str) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise UsageError(f"{what}: timm is not installed: pip install timm") from None
    if not timm.is_model(name):
        raise UsageError(f"{what}: timm has no such network{did_you_mean(name, timm.list_models())}")
    network: nn.Module = timm.create_model(
        name, pretrained=False, num_classes=spec.num_classes, in_chans=spec.num_channels
    )
    return network


MAKERS: dict[str, Callable[[str, InputSpec, str], nn.Module]] = {"torchvision": _from_torchvision, "timm": _from_timm}


def _layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers and residual blocks of a network by name: its children, and those of every ``nn.Sequential``."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential):
            yield from _layers(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _hands_on_channels_last(network: nn.Module) -> bool:
    """Whether its maps are (B, H, W, C), as those of Swin are."""
    permutes = any(type(layer).__name__ == "Permute" for _, layer in _layers(network))
    return permutes or getattr(network, "output_fmt", "NCHW") == "NHWC"


def _is_residual(layer: nn.Module) -> bool:
    """Whether it is a block in the library's eyes: layers inside, and a forward pass of its own."""
    inner = any(True for _ in layer.children()) and not isinstance(layer, _BatchNorm)
    return inner and any(True for _ in layer.parameters())


def _adapt_stem(network: nn.Module, spec: InputSpec, stem: str, what: str) -> None:
    """Let the first convolution take the images, and with ``cifar`` make it 3x3, without stride and pool behind it."""
    layers = [*_layers(network)]
    residual = [index for index, (_, layer) in enumerate(layers) if _is_residual(layer)]
    convolutions = [index for index, (_, layer) in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    count = residual[0] if residual else convolutions[1] if len(convolutions) > 1 else len(layers)
    name, first = next(((n, layer) for n, layer in layers[:count] if isinstance(layer, nn.Conv2d)), ("", None))
    if first is None:
        return  # what cannot be cut is refused later
    kernel: Any = first.kernel_size
    stride: Any = first.stride
    padding: Any = first.padding
    if stem == "cifar":
        if (kernel, stride) == ((3, 3), (1, 1)):
            raise UsageError(f"--stem cifar has no effect: {what} begins with a 3x3 convolution of stride 1 by itself")
        kernel, stride, padding = (3, 3), (1, 1), (1, 1)
        for place in [place for place, layer in layers[:count] if isinstance(layer, nn.MaxPool2d)]:
            network.set_submodule(place, nn.Identity())
    if (kernel, stride, spec.num_channels) != (first.kernel_size, first.stride, first.in_channels):
        has_bias = first.bias is not None
        network.set_submodule(
            name, nn.Conv2d(spec.num_channels, first.out_channels, kernel, stride, padding, bias=has_bias)
        )


def cut_into_blocks(layers: Sequence[nn.Module], x_BCHW: Tensor) -> tuple[list[nn.Module], nn.Module]:
    """Blocks and classifier of layers that run one after the other; ``x_BCHW`` shows which of them give maps."""
    count = _num_maps(layers, x_BCHW)
    units = [index for index in range(count) if isinstance(layers[index], nn.Conv2d) or _is_residual(layers[index])]
    residual = [index for index in units if _is_residual(layers[index])]
    residual = residual if len(residual) > 1 else []  # a single one is what a library puts before its classifier
    end = units[-1] + 1 if units else 0
    while end < count and _belongs_to_what_is_before(layers[end]):
        end += 1
    if residual:
        ends = [index for index in (residual[0], *(index + 1 for index in residual)) if index]
        ends = [*ends, end] if units[-1] > residual[-1] else [*ends[:-1], end]
    else:
        ends = [*units[1:], end]
    blocks = [layers[start:stop] for start, stop in pairwise([0, *ends])]
    return [each[0] if len(each) == 1 else nn.Sequential(*each) for each in blocks], _classifier(layers[end:])


def _num_maps(layers: Sequence[nn.Module], x_BCHW: Tensor) -> int:
    """How many of the first layers map maps to maps."""
    for count, layer in enumerate(layers):
        try:
            x_BCHW = layer(x_BCHW)
        except Exception:
            return count
        if not isinstance(x_BCHW, Tensor) or x_BCHW.ndim != 4:
            return count
    return len(layers)


def _belongs_to_what_is_before(layer: nn.Module) -> bool:
    """Whether it normalises, activates or pools what the layers before it give."""
    activates = type(layer).__module__ == nn.ReLU.__module__
    return activates or isinstance(layer, (_BatchNorm, nn.MaxPool2d, nn.AvgPool2d))


def _classifier(layers: Sequence[nn.Module]) -> nn.Module:
    """The layers behind the blocks, with the average and the flattening that libraries do between layers."""
    if any(_is_residual(layer) for layer in layers):
        return nn.Sequential(*layers)  # a head, which does both itself
    start = next((index + 1 for index, layer in enumerate(layers) if "Pool" in type(layer).__name__), 0)
    average = list(layers[:start]) or [nn.AdaptiveAvgPool2d(1)]
    flatten = [] if any(isinstance(layer, nn.Flatten) for layer in layers) else [nn.Flatten()]
    return nn.Sequential(*average, *flatten, *layers[start:])
