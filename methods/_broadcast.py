"""Broadcast methods: what is known at the top goes to every block by a way of its own, past the blocks above it."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from consts import block_name
from datamodules.base import DataSpec
from methods._signal import SignalMethod, Trace
from model import Backbone
from sections.rule import MethodArgs


def uniform(num_classes: int, num_features: int) -> Tensor:
    """A matrix (N, D), uniform within 1 / sqrt(D): the law of a linear layer from the features to the classes."""
    bound = 1 / math.sqrt(num_features)
    return torch.empty(num_classes, num_features).uniform_(-bound, bound)


class Broadcast(SignalMethod):
    """The family of rules whose signals come from the top alone.

    Attributes:
        feedback: by the block's name, what it has for its signal: a fixed random matrix, kept as (N, D), unless `give`
            gives it something else.
    """

    def __init__(self, args: MethodArgs, backbone: Backbone, spec: DataSpec) -> None:
        super().__init__(args, backbone, spec)
        self.feedback = nn.Module()
        for index in range(self.first_trainable, backbone.num_blocks):
            self.give(block_name(index), spec.num_classes, backbone.out_shapes[index].num_features)

    def give(self, name: str, num_classes: int, num_features: int) -> None:
        """Make the feedback of the block ``name``, and keep it in `feedback`."""
        self.feedback.register_buffer(name, uniform(num_classes, num_features))

    def signal(self, index: int, trace: Trace, above_BCHW: Tensor) -> Tensor:
        """What `project` gives, in the shape, type and memory order of ``above_BCHW``, whose values are not used."""
        return torch.empty_like(above_BCHW).copy_(self.project(index, trace).view_as(above_BCHW))

    @abstractmethod
    def project(self, index: int, trace: Trace) -> Tensor:
        """The signal of block ``index``, (B, D)."""
