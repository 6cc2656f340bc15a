"""Training as the command line does it, without its shell: chunks of steps of the engine's own layouts."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

import methods
from datamodules.base import DataSpec, ImageSet
from datamodules.feed import Feed
from engine.devices import autocast
from engine.layouts import build_layout
from engine.loop.eager import Eager, Worker
from engine.loop.layout import Course, Layout
from engine.loop.meter import Meter
from engine.loop.optimizer import build_optimizer
from engine.loop.part import Part, Rules
from engine.loop.program import Program
from engine.loop.recorded import Recorded, Recording
from engine.loop.recorders import CudaGraphs, Recorder
from engine.loop.steps import Steps
from engine.loop.tape import Tape
from engine.parallel.partition import measure_blocks, partition
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
    """A method, its images, and the layout that takes its steps.

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
        self.args, self.feed, self.batch_size = args, feed, feed.batch_size
        self.optimizer = optimizer or build_optimizer(args.optim, self.method)
        self.steps = Steps(args, self.method, feed)
        self.layout: Layout = Eager(Worker(self._part(), self.steps))

    def _part(self) -> Part:
        return Part(self.method, self.optimizer, Rules(self.args.run.precision, self.args.optim.gradient_clip))

    def record(self) -> Run:
        """Replay the steps from here on."""
        program = Program(self._part(), self.steps)
        self.layout = Recorded(Recording(program, make_recorder(self.feed.device), 0))
        return self

    def line_up(self, num_stages: int) -> Run:
        """Train stages side by side from here on."""
        assert isinstance(self.method, LocalMethod)
        costs = measure_blocks(self.method, self.feed.batch(0, 0), self.args.run.precision)
        run = self.args.run.model_copy(update={"layer_parallel": "streams"})
        self.layout = build_layout(
            self.args.model_copy(update={"run": run}), self.method, self.feed, self.optimizer,
            stages=partition(costs, num_stages), recorder=make_recorder(self.feed.device),
        )  # fmt: skip
        return self

    def take(self, num_steps: int) -> None:
        """A chunk: the first steps of the first epoch, then the metrics are read."""
        self.layout.run(Course(range(num_steps)))

    def launch(self, num_steps: int) -> None:
        """The same steps without reading anything."""
        if isinstance(self.layout, Recorded):
            self.layout.launch(Course(range(num_steps)))
            return
        worker, meter = Worker(self._part(), self.steps), Meter()
        for step in range(num_steps):
            worker.take(worker.item(step, self.steps.batch(step)), meter)

    def state(self) -> list[torch.Tensor]:
        """Every parameter, buffer and tensor of the optimiser."""
        entries = self.optimizer.state.values()
        held = [value for entry in entries for value in entry.values() if isinstance(value, torch.Tensor)]
        return [*self.method.state_dict().values(), *held]

    def flops(self) -> int:
        """Floating-point operations of a step, from a copy of the method."""
        batch, probe = self.feed.batch(0, 0), copy.deepcopy(self.method)
        counter = FlopCounterMode(display=False)
        with counter, autocast(self.feed.device, self.args.run.precision):
            probe.fill_grads(batch)
        return counter.get_total_flops()
