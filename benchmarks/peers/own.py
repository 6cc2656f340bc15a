"""This project's engine: its images, method, optimiser and sums of metrics, without Lightning's loop."""

from __future__ import annotations

import time

from benchmarks.engine import SPEC, Run, build_method, make_feed
from benchmarks.peers.by_hand import NUM_CHECKED, check_feed
from consts import LOSS, TRAIN, metric_name
from datamodules.base import DataSpec, ImageSet
from engine.devices import choose_precision, keep_freed_memory, use_device
from schemas import Args


class Own:
    """A turn is an epoch: the metrics are read once, at its end."""

    def __init__(self, args: Args, images: ImageSet, spec: DataSpec = SPEC) -> None:
        use_device("cpu")
        keep_freed_memory()
        method = build_method(args, spec=spec)
        self.feed = make_feed(args, images, spec=spec, two_views=method.two_views)
        if args.run.precision == "auto":
            precision, _ = choose_precision(self.feed.device)
            args = args.model_copy(update={"run": args.run.model_copy(update={"precision": precision})})
        self._run = Run(args, self.feed, method)
        self._taken = 0

    def losses(self) -> list[float]:
        """Those on the batches that are the same for all peers."""
        run = self._run
        run = Run(run.args, check_feed(self.feed.batch_size), run.method, run.optimizer)
        return [run.take(1, step).means(TRAIN)[metric_name(TRAIN, LOSS)] for step in range(NUM_CHECKED)]

    def train(self) -> float:
        """A turn; the seconds that it took."""
        begin = time.perf_counter()
        self._run.take(self.feed.num_steps, self._taken)
        self._taken += self.feed.num_steps
        return time.perf_counter() - begin
