"""The same training as different hands write it. Each file is one way; a turn of it is timed with its loading."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

Batches = Sequence[tuple[Tensor, Tensor]]  # normalised (B, 3, 32, 32) images and (B,) labels


class Setting(NamedTuple):
    """What all peers train on: random images in ten classes.

    Attributes:
        model: value of ``--model``.
        batch_size: images in a batch.
        num_steps: batches in a turn.
    """

    model: str
    batch_size: int
    num_steps: int

    @property
    def num_images(self) -> int:
        """Images in a turn."""
        return self.batch_size * self.num_steps


class Peer(Protocol):
    """One way of training."""

    def losses(self, batches: Batches) -> list[float]:
        """Train on these batches, and return the network's loss on each; shows that all peers compute the same."""

    def train(self) -> float:
        """One turn, `Setting.num_steps` steps with loading and augmentation; the seconds that it took."""


PEERS = {
    "thesis": "fp32, an optimiser for every block, .item() for every block, DataLoader with PIL images and 2 workers",
    "plain": "fp32, a good loop by hand: one optimiser, numbers read once a turn, the same DataLoader",
    "lightning": "bf16-mixed, LightningModule with manual optimisation and self.log, the same DataLoader",
    "tuned": "bf16 autocast, channels_last, fused SGD, images in memory, crop and flip by batch",
    "dgl": "this project's engine",
    "bp": "this project's engine with back-propagation instead",
}


def load(name: str, setting: Setting) -> Peer:
    """The peer of that name; ``dgl:pred_aux_type=cnn`` is the engine with another setting.

    Raises:
        ValueError: there is no such peer.
    """
    kind, _, settings = name.partition(":")
    if kind not in PEERS:
        raise ValueError(f"peer {name}: allowed are {', '.join(PEERS)}, and dgl or bp with :name=value")
    module = importlib.import_module(f"benchmarks.peers.{'own' if kind in ('dgl', 'bp') else kind}")
    if kind in ("dgl", "bp"):
        overrides = dict(part.split("=", 1) for part in settings.split(",") if part)
        peer: Peer = module.Own(setting, {"method": kind, **overrides})
        return peer
    peer = module.PEER(setting)
    return peer
