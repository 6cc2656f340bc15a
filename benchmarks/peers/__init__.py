"""The same training as different hands write it. Each file is one way; a turn of it is timed with its loading."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pydantic import ValidationError
from torch import Tensor

from schemas import build_args, sections_for

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


def known(name: str) -> str:
    """``name``, if there is a peer of that name; ``dgl:pred_aux_type=cnn`` is the engine with another setting.

    Raises:
        ArgumentTypeError: there is none.
    """
    kind, _, settings = name.partition(":")
    is_complete = all(part.partition("=")[2] for part in settings.split(",")) if settings else ":" not in name
    if kind not in PEERS or (":" in name and kind not in ("dgl", "bp")) or not is_complete:
        raise argparse.ArgumentTypeError(
            f"there is no peer {name!r}; allowed are {', '.join(PEERS)}, and dgl or bp with :flag=value,flag=value"
        )
    if settings:
        _check(kind, _overrides(settings), name)
    return name


def _check(method: str, overrides: dict[str, object], name: str) -> None:
    known_flags = {flag for section in sections_for(method).values() for flag in section.model_fields}
    for flag in overrides:
        if flag not in known_flags:
            raise argparse.ArgumentTypeError(f"{name}: {method} has no flag {flag}")
    try:
        build_args({"method": method, **overrides})
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"{name}: {error.errors()[0]['msg']}") from None


def _overrides(settings: str) -> dict[str, object]:
    overrides: dict[str, object] = {}
    for part in settings.split(",") if settings else ():
        flag, _, value = part.partition("=")
        overrides[flag] = value
    return overrides


def load(name: str, setting: Setting) -> Peer:
    """The peer of a `known` name."""
    kind, _, settings = name.partition(":")
    module = importlib.import_module(f"benchmarks.peers.{'own' if kind in ('dgl', 'bp') else kind}")
    if kind in ("dgl", "bp"):
        peer: Peer = module.Own(setting, {"method": kind, **_overrides(settings)})
        return peer
    peer = module.PEER(setting)
    return peer
