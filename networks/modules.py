"""Plain modules as a backbone: shapes are found on meta tensors, and what no rule could train is refused."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from consts import block_name
from layers.convolution import Conv2d
from layers.dropout import Dropout
from model import Backbone, Block, InputSpec, Shape
from sections.files import own_code
from utils import UsageError

BATCH = 2  # images with which shapes are found


def backbone_of(
    blocks: Sequence[nn.Module], classifier: nn.Module, spec: InputSpec, what: str, path: Path = Path()
) -> Backbone:
    """A backbone of these modules, which are not copied.

    Every block maps (B, C, H, W) to a map, and the classifier the last map to (B, num_classes). Nothing is computed:
    copies run on the meta device, in training mode, on channels_last maps as training does. Each ``nn.Dropout`` that
    runs once in a pass becomes a `Dropout` with a key, so that its masks do not depend on which blocks ran before. Each
    ``nn.Conv2d`` becomes the project's, with the same parameters.

    Args:
        blocks: in order.
        classifier: the rest of the network.
        spec: of the images.
        what: how the user named the network; messages begin with it.
        path: the file with their code.

    Raises:
        UsageError: they do not fit each other or the images, or cannot be trained as blocks.
    """
    _check_weights(blocks, classifier, what)
    h_BCHW = torch.empty(
        (BATCH, spec.num_channels, spec.height, spec.width), device="meta", memory_format=torch.channels_last
    )
    shapes: list[Shape] = []
    for index, block in enumerate(blocks):
        where = f"{what}: {block_name(index)}"
        out = _run(block, h_BCHW, where, path)
        if not isinstance(out, Tensor) or out.ndim != 4 or len(out) != BATCH or 0 in out.shape:
            raise UsageError(
                f"{where} gives {_described(out)} for a batch of {BATCH} images, but a block hands on a map (B, C, H, "
                "W); what flattens belongs to the classifier"
            )
        if not out.requires_grad:
            raise UsageError(f"{where} gives an output that no gradient can come back from; leave detach() out")
        h_BCHW = out.detach()
        shapes.append(Shape(*out.shape[1:]))
    out = _run(classifier, h_BCHW, f"{what}: the classifier", path)
    if not isinstance(out, Tensor) or out.shape != (BATCH, spec.num_classes):
        raise UsageError(
            f"{what}: the classifier gives {_described(out)} for a batch of {BATCH} images, but the data have "
            f"{spec.num_classes} classes, so it must give ({BATCH}, {spec.num_classes})"
        )
    for layer in nn.ModuleList([*blocks, classifier]).modules():
        if type(layer) is nn.Conv2d:
            layer.__class__ = Conv2d
    return Backbone(
        [Block(block, shape, nn.Identity(), nn.Identity()) for block, shape in zip(blocks, shapes, strict=True)],
        classifier,
    )


def _check_weights(blocks: Sequence[nn.Module], classifier: nn.Module, what: str) -> None:
    """Refuse blocks without weights of their own."""
    owners: dict[int, str] = {}
    for index, part in enumerate([*blocks, classifier]):
        name = block_name(index) if index < len(blocks) else "the classifier"
        parameters = [*part.parameters()]
        if any(is_lazy(each) for each in (*parameters, *part.buffers())):
            raise UsageError(
                f"{what}: {name} has lazy layers; give them their sizes, which spec and the block before tell"
            )
        if index < len(blocks) and not any(parameter.requires_grad for parameter in parameters):
            raise UsageError(
                f"{what}: {name} ({type(part).__name__}) has no parameters that learn; put it into a block with some"
            )
        for parameter in parameters:
            if owners.setdefault(id(parameter), name) != name:
                raise UsageError(
                    f"{what}: {owners[id(parameter)]} and {name} share a parameter, but each is trained by itself"
                )


def _run(module: nn.Module, x_BCHW: Tensor, where: str, path: Path) -> object:
    """Run a copy of a module on the meta device; return its output, and make the module's dropout reproducible."""
    calls: Counter[str] = Counter()
    with own_code(path, f"{where} on maps of {_described(x_BCHW[0])}"):
        twin = copy.deepcopy(module).to("meta").train()
        for name, part in twin.named_modules():
            if isinstance(part, nn.Conv2d):  # real ones keep the layout, those of the meta device do not
                part.register_forward_hook(lambda *args: args[-1].contiguous(memory_format=torch.channels_last))
            if type(part) is nn.Dropout and name:
                part.register_forward_hook(lambda *_, name=name: calls.update([name]))
        before = x_BCHW._version
        out: object = twin(x_BCHW)
    if x_BCHW._version != before:
        raise UsageError(
            f"{where} overwrites its input, which belongs to what comes before; leave inplace out of its first layer"
        )
    for name in [name for name, count in calls.items() if count == 1]:
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Dropout)
        module.set_submodule(name, Dropout(layer.p))
    return out


def _described(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"
