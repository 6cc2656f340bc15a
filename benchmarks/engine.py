"""The benchmarks' only access to the training engine: a method, its images, and the ways in which steps are taken.

Nothing here imports PyTorch Lightning, which takes seconds to import, and which no training step needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import torch

import methods
from datamodules.base import DataSpec, ImageSet
from datamodules.feed import Feed
from engine.graph import StepGraph
from engine.meter import Meter, Totals
from engine.optimizers import build_optimizer
from engine.parallel.partition import choose_stages
from engine.parallel.processes import Processes
from engine.parallel.ranks import joined_ranks
from engine.parallel.stage import Course, Layout, Rules, Stage
from engine.parallel.threads import Threads
from engine.parallel.wavefront import Wavefront
from engine.recorders import CudaGraphs, Recorder
from engine.signals import StopRequest
from engine.static_step import StaticStep
from engine.stepper import Stepper
from engine.tape import Tape
from methods._base import Method
from methods._local import LocalMethod
from model import build_backbone
from schemas import Args, build_args

CPU = torch.device("cpu")
MEAN, STD, NUM_CLASSES = (0.5,) * 3, (0.25,) * 3, 10
SPEC = DataSpec("random", 3, 32, 32, tuple(map(str, range(NUM_CLASSES))), MEAN, STD)


def settings(name: str, model: str, batch_size: int, **others: object) -> Args:
    """Settings of a run of method ``name``: those of the command line where ``others`` do not replace them."""
    return build_args({"method": name, "model": model, "batch_size": batch_size, "epochs": 2, **others})


def random_images(count: int) -> ImageSet:
    """Always the same images: noise over a pattern that belongs to the class, so that there is something to learn."""
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(NUM_CLASSES, 32, 32, 3, generator=generator)
    labels_P = torch.randint(NUM_CLASSES, (count,), generator=generator)
    noise_PHWC = torch.randn(count, 32, 32, 3, generator=generator)
    pixels_PHWC = (128 + 30 * patterns[labels_P] + 50 * noise_PHWC).clamp(0, 255).to(torch.uint8)
    return ImageSet(pixels_PHWC, labels_P)


def make_feed(
    args: Args, images: ImageSet, device: torch.device = CPU, *, spec: DataSpec = SPEC, two_views: bool = False
) -> Feed:
    """The training images on the device, shuffled and augmented as ``args`` say."""
    size, seed = args.optim.batch_size, args.optim.seed
    return Feed(images, spec, size, device, augment=args.data, seed=seed, two_views=two_views)


def build_method(args: Args, device: torch.device = CPU, spec: DataSpec = SPEC) -> Method:
    """The network with its training rule on the device, always with the same weights."""
    torch.manual_seed(0)
    method = methods.load(args.method.method)(args.method, build_backbone(args.model, spec), spec)
    return method.to(device).to(memory_format=torch.channels_last)


def cut(args: Args, method: Method, feed: Feed, num_stages: int) -> tuple[range, ...]:
    """The blocks of each of ``num_stages`` stages, as even as the blocks' times allow; the log says how even.

    Raises:
        UsageError: there are fewer blocks than stages.
    """
    asked = {"layer_parallel": "processes", "num_stages": num_stages}
    return tuple(choose_stages(args.run.model_copy(update=asked), method, feed.batch(0, 0)))


class Run:
    """A training run without evaluation, log lines, files and Lightning's loop: only its steps are left.

    Args:
        args: the settings.
        feed: the training images.
        method: in place of the one that ``args`` name.
        optimizer: in place of the one that ``args`` name, for ``method``.
        way: how steps are taken: ``eager``, ``recorded``, or by stages in ``streams``, ``threads`` or ``processes``.
        stages: the blocks of each stage.
    """

    def __init__(
        self,
        args: Args,
        feed: Feed,
        method: Method | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        way: str = "eager",
        stages: Sequence[range] = (),
    ) -> None:
        self.args, self.feed = args, feed
        self.method = method or build_method(args, feed.device)
        self.optimizer = optimizer or build_optimizer(args.optim, self.method)
        self._stepper = Stepper(args, self.method, feed)
        self._held = contextlib.ExitStack()
        self._recording: tuple[StepGraph, StaticStep] | None = None
        self._layout: Layout | None = None
        if way == "recorded":
            program = StaticStep(args, self.method, feed, self.optimizer)
            self._recording = StepGraph(program, self._recorder(), 0), program
        elif way != "eager":
            self._layout = self._build_layout(way, stages)

    def _build_layout(self, way: str, stages: Sequence[range]) -> Layout:
        args, method, optimizer, device = self.args, self.method, self.optimizer, self.feed.device
        assert isinstance(method, LocalMethod)
        if way == "streams":
            return Wavefront(args, method, self.feed, optimizer, stages, self._recorder(), 0)
        rules = Rules(method, args.run.precision, self._stepper.seed_block, self._stepper.update)
        if way == "threads":
            layout: Layout = Threads([Stage(rules, blocks, optimizer) for blocks in stages])
        else:
            process = {"layer_parallel": "processes", "num_stages": len(stages), "device": str(device)}
            ranks = self._held.enter_context(joined_ranks(args.run.model_copy(update=process)))
            own = Stage(rules, stages[ranks.stage], optimizer)
            layout = processes = Processes(ranks, own, stages, device, StopRequest())
            self._held.callback(lambda: processes.collect(method, optimizer))
        self._held.callback(layout.close)
        return layout

    def _recorder(self) -> Recorder:
        """CUDA graphs, or on a CPU the list of operations that stands in for them."""
        return CudaGraphs(self.feed.device) if self.feed.device.type == "cuda" else Tape()

    def close(self) -> None:
        """Bring what other processes have learned to the first one, and end threads and connections."""
        self._held.close()

    def start(self, count: int, first: int = 0) -> Callable[[], Totals]:
        """Take ``count`` steps of one epoch, from number ``first`` on; the result waits and reads the metrics."""
        steps = range(first, first + count)
        course = Course(steps, self._stepper.batch, Totals(), lambda step: None, lambda: False)
        if self._layout is not None:
            totals = self._layout.run(course)
            return lambda: totals
        if self._recording is not None:
            graph, program = self._recording
            graph.launch(steps, course.before, course.advance, course.is_stopped)
            return partial(program.totals, count * self.feed.batch_size)
        meter = Meter()
        for step in steps:
            meter.add(*self._stepper.take(self.optimizer, step))
        return meter.read

    def take(self, count: int, first: int = 0) -> Totals:
        """The same, and read the sums."""
        return self.start(count, first)()

    def state(self) -> list[torch.Tensor]:
        """Every parameter, buffer and tensor of the optimizer."""
        held = [value for entry in self.optimizer.state.values() for value in entry.values() if torch.is_tensor(value)]
        return [*self.method.state_dict().values(), *held]
