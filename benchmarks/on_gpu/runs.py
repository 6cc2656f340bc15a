"""Training as the command line does it, without its shell: chunks of steps of the engine's own module."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch.utils.flop_counter import FlopCounterMode

import methods
from consts import TRAIN
from datamodules.base import DataSpec, ImageSet
from datamodules.feed import Feed
from engine.devices import autocast
from engine.loop.meter import Meter
from engine.loop.program import StaticStep
from engine.loop.recorded import StepGraph
from engine.loop.recorders import CudaGraphs, Recorder
from engine.loop.tape import Tape
from engine.module import TrainingModule
from engine.observers import Observers
from engine.parallel.partition import measure_blocks, partition
from engine.run.console import Progress
from engine.run.log import RunLog
from engine.run.signals import StopRequest
from methods._base import Method
from methods._local import LocalMethod
from model import build_backbone
from schemas import Args, build_args

SIDE, NAMES = 32, tuple("0123456789")
SPEC = DataSpec("random", 3, SIDE, SIDE, NAMES, (0.5,) * 3, (0.5,) * 3)


def settings(name: str, model: str, batch_size: int, **others: object) -> Args:
    """A run with the default augmentation of CIFAR-10."""
    common = {"random_crop": True, "random_horizontal_flip": True, "epochs": 2, "precision": "bf16"}
    return build_args({"method": name, "model": model, "batch_size": batch_size} | common | others)


def random_images(count: int) -> ImageSet:
    """Pixels that no kernel can profit from."""
    source = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, SIDE, SIDE, 3), dtype=torch.uint8, generator=source)
    return ImageSet(pixels, torch.randint(len(NAMES), (count,), generator=source))


def make_feed(args: Args, images: ImageSet, device: torch.device) -> Feed:
    """The training images on the device."""
    return Feed(images, SPEC, args.optim.batch_size, device, augment=args.data, seed=0)


def build_method(args: Args, device: torch.device) -> Method:
    """The method of ``args`` on the device, always with the same weights."""
    torch.manual_seed(0)
    method = methods.load(args.method.method)(args.method, build_backbone(args.model, SPEC), SPEC)
    return method.to(device).to(memory_format=torch.channels_last)


def make_recorder(device: torch.device) -> Recorder:
    """CUDA graphs, or their twin on a CPU."""
    return CudaGraphs(device) if device.type == "cuda" else Tape()


class Run:
    """A method, its images, and the module that takes its steps.

    Args:
        args: the settings.
        feed: the training images.
        optimizer: in place of the one that ``args`` name, for ``method``.
        method: in place of the one that ``args`` name.
    """

    def __init__(
        self,
        args: Args,
        feed: Feed,
        method: Method | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self.method = method or build_method(args, feed.device)
        self.feed, self.batch_size = feed, feed.batch_size
        # Nothing of the shell is asked for inside a chunk.
        shell = (cast(RunLog, None), StopRequest(), cast(Observers, None))
        self.module = TrainingModule(args, self.method, {TRAIN: feed}, *shell)
        self.module.optimizer = optimizer or self.module.optimizer
        self.module.progress = Progress(self.module.num_steps, 0, enabled=False)

    def record(self) -> Run:
        """Replay the steps from here on."""
        module, device = self.module, self.feed.device
        program = StaticStep(module.args, self.method, self.feed, module.optimizer)
        module.graph = StepGraph(program, make_recorder(device), module.step)
        return self

    def line_up(self, num_stages: int) -> Run:
        """Train stages side by side from here on."""
        module = self.module
        assert isinstance(self.method, LocalMethod)
        costs = measure_blocks(self.method, self.feed.batch(0, 0), module.args.run.precision)
        module.stages = partition(costs, num_stages)
        module._line_up(make_recorder(self.feed.device))
        return self

    def take(self, num_steps: int) -> None:
        """A chunk: the first steps of the first epoch, then the metrics are read."""
        self.module._take_steps(range(num_steps))
        self.module.interval.read()
        self.module.interval = Meter()

    def launch(self, num_steps: int) -> None:
        """The same steps without reading anything."""
        module = self.module
        if module.graph is not None:
            module.graph.launch(range(num_steps), Meter().read(), module._advance, lambda: False)
            return
        for step in range(num_steps):
            module._take_step(step)

    def state(self) -> list[torch.Tensor]:
        """Every parameter, buffer and tensor of the optimiser."""
        entries = self.module.optimizer.state.values()
        held = [value for entry in entries for value in entry.values() if isinstance(value, torch.Tensor)]
        return [*self.method.state_dict().values(), *held]

    def flops(self) -> int:
        """Floating-point operations of a step, from a copy of the method."""
        batch, probe = self.feed.batch(0, 0), copy.deepcopy(self.method)
        counter = FlopCounterMode(display=False)
        with counter, autocast(self.feed.device, self.module.args.run.precision):
            probe.fill_grads(batch)
        return counter.get_total_flops()
