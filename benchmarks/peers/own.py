"""This project's engine: its feed, its method, its optimiser, its meter and its run log, without Lightning's loop."""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

import methods
from benchmarks.peers import Batches, Setting
from benchmarks.peers._common import LEARNING_RATE, MEAN, MOMENTUM, NUM_CLASSES, STD, WEIGHT_DECAY, images
from consts import LOSS, METRICS_FILE, TRAIN, metric_name
from datamodules.base import Batch, DataSpec, Splits
from datamodules.feed import Feed
from engine.devices import choose_precision, keep_freed_memory, set_determinism
from engine.layouts import build_layout
from engine.loop.steps import Steps
from engine.module import TrainingModule
from engine.observers import Observers
from engine.run.console import Progress
from engine.run.folder import RunFolder
from engine.run.log import RunLog
from engine.run.signals import StopRequest
from engine.run.wandb_log import WandbLog
from engine.trainer import make_feeds
from model import build_backbone
from schemas import build_args

CPU = torch.device("cpu")


class _Given:
    """A feed of batches that are known."""

    device = CPU

    def __init__(self, batches: Batches) -> None:
        self.batches, self.num_steps = batches, len(batches)

    def batch(self, epoch: int, step: int) -> Batch:
        x_BCHW, y_B = self.batches[step]
        return Batch(x_BCHW.contiguous(memory_format=torch.channels_last), y_B)


class Own:
    """The training module as a run has it; a turn is an epoch in one chunk, with its line in ``metrics.jsonl``."""

    def __init__(self, setting: Setting, overrides: dict[str, object]) -> None:
        optim = {"learning_rate": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
        args = build_args(
            {
                "model": setting.model, "batch_size": setting.batch_size, "lr_schedule": "constant",
                "wandb": "disabled", "epochs": 1, "nesterov": False, **optim, **overrides,
            }
        )  # fmt: skip
        train = images(setting.num_images)
        spec = DataSpec("random", 3, 32, 32, tuple(map(str, range(NUM_CLASSES))), MEAN, STD)
        splits = Splits(train, None, train, spec)
        torch.manual_seed(0)
        method = methods.load(args.method.method)(args.method, build_backbone(args.model, spec), spec)
        set_determinism(False)
        keep_freed_memory()
        method.to(memory_format=torch.channels_last)
        feeds = make_feeds(args, splits, CPU)
        precision, _ = choose_precision(method, feeds[TRAIN].batch(0, 0))
        args = args.model_copy(update={"run": args.run.model_copy(update={"precision": precision})})
        self._place = tempfile.TemporaryDirectory()
        folder = RunFolder.create(Path(self._place.name), "")
        log = RunLog(folder, WandbLog("disabled", folder.path, {}, [], print), lambda: None, print)
        build = partial(build_layout, args, method, feeds[TRAIN], stages=())
        self.module = TrainingModule(args, method, feeds, log, StopRequest(), Observers(args, splits, CPU), build)
        self.module.progress = Progress(1, 0, enabled=False)
        self.module.begin_phase()

    def _chunk(self, num_steps: int) -> None:
        first = self.module.step
        self.module.training_step(range(first, first + num_steps), 0)

    def losses(self, batches: Batches) -> list[float]:
        """See `Peer`."""
        module = self.module
        own, given = (module.steps, module.layout, module.step), cast(Feed, _Given(batches))
        module.steps, module.step = Steps(module.args, module.method, given), 0
        module.layout = build_layout(module.args, module.method, given, module.optimizer, stages=())
        for _ in batches:
            self._chunk(1)
        module.steps, module.layout, module.step = own
        lines = (self.module.run_log.folder.path / METRICS_FILE).read_text().splitlines()
        records: list[dict[str, Any]] = [json.loads(line) for line in lines[-len(batches) :]]
        return [record[metric_name(TRAIN, LOSS)] for record in records]

    def train(self) -> float:
        """See `Peer`."""
        begin = time.perf_counter()
        self._chunk(self.module.steps_per_epoch)
        return time.perf_counter() - begin
