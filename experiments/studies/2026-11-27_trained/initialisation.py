"""A training run whose convolutions begin as He et al. have it (arXiv 1502.01852): ``initialisation.py [flags]``.

Normal weights of variance 2 / fan_in and biases of zero, in place of torch's uniform ones; everything else as in
``python main.py [flags]``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch
from torch import nn

import engine.trainer
import main
import networks
from model import Backbone

build = networks.build_from_table


def build_he(*args: Any) -> Backbone:
    """The network that ``--model`` names, with He's initial weights."""
    backbone = build(*args)
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return backbone


if __name__ == "__main__":
    assert engine.trainer  # loaded before the network's room is changed
    torch.set_num_threads(1)
    networks.build_from_table = build_he  # type: ignore[assignment]
    sys.exit(main.main(sys.argv[1:]))
