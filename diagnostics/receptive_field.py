"""Receptive fields: the region of the image on which one value of a block's output depends."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from layers.dropout import Dropout
from model import Backbone


class ReceptiveField(NamedTuple):
    """The square of input pixels on which one output value depends, ignoring borders.

    Attributes:
        size: its side in pixels.
        stride: pixels between the squares of neighbouring output values.
        padding: pixels by which the first square extends beyond the image.
    """

    size: int = 1
    stride: int = 1
    padding: int = 0


def receptive_fields(backbone: Backbone) -> list[ReceptiveField | None]:
    """The receptive field of every block's output; None from the first block on for which it cannot be told.

    It cannot where torch.fx cannot trace a block, or where a block has operations that are not known here.
    A layer of kernel size k adds (k - 1) strides to the size and multiplies the stride by its own (Araujo et al.,
    Distill 2019, doi 10.23915/distill.00021).
    """
    fields: list[ReceptiveField | None] = []
    field: ReceptiveField | None = ReceptiveField()
    for index in range(backbone.num_blocks):
        if field is not None:
            try:
                field = behind(backbone.block(index), field)
            except Exception:  # code of the user's own may do anything while it is traced
                field = None
        fields.append(field)
    return fields


def behind(network: nn.Module, field: ReceptiveField) -> ReceptiveField:
    """The receptive field of a network's output if its input has ``field``; of parallel paths, the largest.

    ``network`` is a container of layers, not a layer itself.

    Raises:
        Unknown: it has an operation whose reach is not known.
    """
    fields: dict[fx.Node, ReceptiveField] = {}
    for node in _Tracer().trace(network).nodes:
        if node.op not in ("placeholder", "output", "call_module") and node.target not in _ELEMENTWISE:
            raise Unknown(str(node.target))
        sources = [fields[source] for source in node.all_input_nodes]
        before = max(sources, default=field)
        fields[node] = _layer(before, network.get_submodule(str(node.target))) if node.op == "call_module" else before
        if node.target is operator.getitem:  # a shortcut with strided indexing
            fields[node] = before._replace(stride=before.stride * _step(node.args[1]))
    return next(reversed(fields.values()))


_SEEN = (_ConvNd, _MaxPoolNd, _AvgPoolNd)
_POINTWISE = (_BatchNorm, nn.Identity, Dropout, nn.Dropout, nn.Dropout2d)  # and activations
_ELEMENTWISE = (operator.add, operator.iadd, operator.mul, operator.getitem, F.relu, torch.relu, F.pad)


class Unknown(Exception):
    """The reach of an operation is not known."""


def _layer(field: ReceptiveField, layer: nn.Module) -> ReceptiveField:
    if isinstance(layer, _POINTWISE) or type(layer).__module__ == nn.ReLU.__module__:
        return field
    if not isinstance(layer, _SEEN) or isinstance(layer, _ConvTransposeNd):
        raise Unknown(type(layer).__name__)
    kernel, stride, padding = (_side(value) for value in (layer.kernel_size, layer.stride, layer.padding))
    reach = _side(getattr(layer, "dilation", 1)) * (kernel - 1)
    return ReceptiveField(
        field.size + reach * field.stride, field.stride * stride, field.padding + padding * field.stride
    )


def _side(value: Any) -> int:
    """Size of a square kernel, stride or padding in pixels.

    Raises:
        Unknown: its sides differ, as over images of one row.
    """
    sides = {*value} if isinstance(value, tuple) else {value}
    if len(sides) > 1:
        raise Unknown(f"sides of {value}")
    return int(sides.pop())


def _step(index: Any) -> int:
    steps = [part.step for part in index if isinstance(part, slice) and part.step] if isinstance(index, tuple) else []
    return steps[0] if steps else 1


class _Tracer(fx.Tracer):
    """Traces into containers and treats layers as single steps."""

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        """Whether ``module`` is traced as a single step."""
        return not any(True for _ in module.children())
