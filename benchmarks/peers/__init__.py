"""The same training in several implementations; the time of a turn includes loading its images."""

from __future__ import annotations

import argparse
from typing import NamedTuple, Protocol

from pydantic import ValidationError

from schemas import build_args, sections_for


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

    def losses(self) -> list[float]:
        """Train on the 20 batches that are the same for all peers, and return the loss on each."""

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


ENGINES = ("dgl", "bp")


def known(name: str) -> str:
    """``name``, if there is a peer of that name; ``dgl:pred_aux_type=cnn`` is the engine with another setting.

    Raises:
        ArgumentTypeError: there is none.
    """
    kind, colon, words = name.partition(":")
    overrides = _overrides(words)
    if kind not in PEERS or (colon and (kind not in ENGINES or not all(overrides.values()))):
        raise argparse.ArgumentTypeError(
            f"there is no peer {name!r}; allowed are {', '.join(PEERS)}, and dgl or bp with :flag=value,flag=value"
        )
    if colon:
        flags = {flag for section in sections_for(kind).values() for flag in section.model_fields}
        for flag in overrides.keys() - flags:
            raise argparse.ArgumentTypeError(f"{name}: {kind} has no flag {flag}")
        try:
            build_args({"method": kind, **overrides})
        except ValidationError as error:
            raise argparse.ArgumentTypeError(f"{name}: {error.errors()[0]['msg']}") from None
    return name


def _overrides(words: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in words.split(",")]
    return {flag: value for flag, _, value in pairs}


def load(name: str, setting: Setting) -> Peer:
    """The peer of a `known` name; its libraries are imported now."""
    kind, colon, words = name.partition(":")
    if kind in ENGINES:
        from benchmarks.peers.own import Own

        return Own(setting, {"method": kind, **(_overrides(words) if colon else {})})
    if kind == "lightning":
        from benchmarks.peers.lightning import Lightning

        return Lightning(setting)
    from benchmarks.peers import by_hand

    loop: type[by_hand.Plain] = getattr(by_hand, kind.capitalize())
    return loop(setting)
