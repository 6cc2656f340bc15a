"""This project's engine: its images, method, optimiser and sums of metrics, without Lightning's loop."""

from __future__ import annotations

import time

from benchmarks.engine import Run, build_method, make_feed, random_images, with_precision
from benchmarks.peers import Setting
from benchmarks.peers.shared import LEARNING_RATE, MOMENTUM, NUM_CHECKED, WEIGHT_DECAY, check_feed
from consts import LOSS, TRAIN, metric_name
from engine.devices import keep_freed_memory, set_determinism
from schemas import build_args


class Own:
    """A turn is an epoch: the metrics are read once, at its end."""

    def __init__(self, setting: Setting, overrides: dict[str, object]) -> None:
        sgd = {"learning_rate": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY, "nesterov": False}
        common = {"model": setting.model, "batch_size": setting.batch_size, "lr_schedule": "constant", "epochs": 1000}
        args = build_args(common | sgd | overrides)
        set_determinism(False)
        keep_freed_memory()
        method = build_method(args)
        images = random_images(setting.num_images)
        self.feed = make_feed(args, images, two_views=method.two_views)
        args = with_precision(args, method, self.feed)
        self.run = Run(args, self.feed, method)
        self._checked = Run(args, check_feed(setting), method, self.run.optimizer)
        self._taken = 0

    def losses(self) -> list[float]:
        """See `Peer`."""
        return [self._checked.take(1, step).means(TRAIN)[metric_name(TRAIN, LOSS)] for step in range(NUM_CHECKED)]

    def train(self) -> float:
        """See `Peer`."""
        begin = time.perf_counter()
        self.run.take(self.feed.num_steps, self._taken)
        self._taken += self.feed.num_steps
        return time.perf_counter() - begin
