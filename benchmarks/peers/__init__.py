"""The same training in several implementations, which benchmarks call peers.

Each has ``losses()``, which trains on 20 batches that are the same for all and returns the loss on each, and
``train()``, one turn: steps with loading and augmentation, and the seconds that they took.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from pydantic import ValidationError

from schemas import build_args, sections_for
from sections.fields import fields_of


class Setting(NamedTuple):
    """What all peers train on: a network, images in a batch, and batches in a turn; random images in ten classes."""

    model: str
    batch_size: int
    num_steps: int

    @property
    def num_images(self) -> int:
        """Images in a turn."""
        return self.batch_size * self.num_steps


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
    if kind not in PEERS or (colon and (kind not in ENGINES or not all(_overrides(words).values()))):
        raise argparse.ArgumentTypeError(
            f"there is no peer {name!r}; allowed are {', '.join(PEERS)}, and dgl or bp with :flag=value,flag=value"
        )
    if colon:
        flags = {flag for section in sections_for(kind).values() for flag in fields_of(section)}
        for flag in _overrides(words).keys() - flags:
            raise argparse.ArgumentTypeError(f"{name}: {kind} has no flag {flag}")
        try:
            build_args({"method": kind, **_overrides(words)})
        except ValidationError as error:
            raise argparse.ArgumentTypeError(f"{name}: {error.errors()[0]['msg']}") from None
    return name


def _overrides(words: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in words.split(",")]
    return {flag: value for flag, _, value in pairs}


def load(name: str, setting: Setting) -> Any:
    """The peer of a `known` name; its libraries are imported now."""
    kind, colon, words = name.partition(":")
    if kind in ENGINES:
        from benchmarks.engine import random_images, settings
        from benchmarks.peers.by_hand import HYPERPARAMETERS
        from benchmarks.peers.own import Own

        others = HYPERPARAMETERS | (_overrides(words) if colon else {})
        args = settings(kind, setting.model, setting.batch_size, **others)
        return Own(args, random_images(setting.num_images))
    if kind == "lightning":
        from benchmarks.peers.lightning import Lightning

        return Lightning(setting)
    from benchmarks.peers import by_hand

    return getattr(by_hand, kind.capitalize())(setting)
