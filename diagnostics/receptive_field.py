"""Receptive fields: the region of the image on which one value of a block's output depends."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from torch import fx, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

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


def receptive_fields(backbone: Backbone) -> list[ReceptiveField]:
    """The receptive field of every block's output.

    A layer of kernel size k adds (k - 1) strides to the size and multiplies the stride by its own (Araujo et al.,
    Distill 2019, doi 10.23915/distill.00021).
    """
    fields: list[ReceptiveField] = []
    for index in range(backbone.num_blocks):
        fields.append(behind(backbone.block(index), fields[-1] if fields else ReceptiveField()))
    return fields


def behind(network: nn.Module, field: ReceptiveField) -> ReceptiveField:
    """The receptive field of a network's output if its input has ``field``; of parallel paths, the largest.

    ``network`` is a container of layers, not a layer itself.
    """
    fields: dict[fx.Node, ReceptiveField] = {}
    for node in _Tracer().trace(network).nodes:
        sources = [fields[source] for source in node.all_input_nodes]
        before = max(sources, default=field)
        fields[node] = _layer(before, network.get_submodule(str(node.target))) if node.op == "call_module" else before
        if node.target is operator.getitem:  # a shortcut with strided indexing
            fields[node] = before._replace(stride=before.stride * _step(node.args[1]))
    return next(reversed(fields.values()))


def _layer(field: ReceptiveField, layer: nn.Module) -> ReceptiveField:
    if not isinstance(layer, (_ConvNd, _MaxPoolNd, _AvgPoolNd)):
        return field
    kernel, stride, padding = (_side(value) for value in (layer.kernel_size, layer.stride, layer.padding))
    reach = _side(getattr(layer, "dilation", 1)) * (kernel - 1)
    return ReceptiveField(
        field.size + reach * field.stride, field.stride * stride, field.padding + padding * field.stride
    )


def _side(value: Any) -> int:
    """Size of a square kernel, stride or padding in pixels."""
    return int(value[0] if isinstance(value, tuple) else value)


def _step(index: Any) -> int:
    steps = [part.step for part in index if isinstance(part, slice) and part.step] if isinstance(index, tuple) else []
    return steps[0] if steps else 1


class _Tracer(fx.Tracer):
    """Traces into containers and treats layers as single steps."""

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        """Whether ``module`` is traced as a single step."""
        return not any(True for _ in module.children())
