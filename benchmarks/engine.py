"""The benchmarks' only access to the training engine: a method, its images, and the ways in which steps are taken.

Nothing here imports PyTorch Lightning, which takes seconds to import, and which no training step needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch

import methods
from datamodules.base import DataSpec, ImageSet
from datamodules.feed import Feed
from engine.devices import choose_precision
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


def as_local(method: Method) -> LocalMethod:
    """The same method; its type says that each block learns from a loss of its own."""
    assert isinstance(method, LocalMethod)
    return method


def with_precision(args: Args, method: Method, feed: Feed) -> Args:
    """The settings with the precision in which a step is faster here, as ``--precision auto`` chooses it."""
    precision, _ = choose_precision(method, feed.batch(0, 0))
    return args.model_copy(update={"run": args.run.model_copy(update={"precision": precision})})


def cut(args: Args, method: Method, feed: Feed, num_stages: int) -> tuple[range, ...]:
    """The blocks of each of ``num_stages`` stages, as even as the blocks' times allow; the log says how even.

    Raises:
        UsageError: there are fewer blocks than stages.
    """
    asked = {"layer_parallel": "processes", "num_stages": num_stages}
    return tuple(choose_stages(args.run.model_copy(update=asked), method, feed.batch(0, 0)))


def make_recorder(device: torch.device) -> Recorder:
    """What records a step: CUDA graphs, or on a CPU the list of operations that stands in for them."""
    return CudaGraphs(device) if device.type == "cuda" else Tape()


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
        self._graph: StepGraph | None = None
        if way == "eager":
            self._train = self._train_eagerly
        elif way == "recorded":
            program = StaticStep(args, self.method, feed, self.optimizer)
            self._graph = StepGraph(program, make_recorder(feed.device), 0)
            self._train = self._replay
        else:
            self._train = self._layout(way, stages).run

    def _layout(self, way: str, stages: Sequence[range]) -> Layout:
        args, method, optimizer, device = self.args, as_local(self.method), self.optimizer, self.feed.device
        if way == "streams":
            return Wavefront(args, method, self.feed, optimizer, stages, make_recorder(device), 0)
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

    def _train_eagerly(self, course: Course) -> Totals:
        return self._start_eagerly(course).read()

    def _start_eagerly(self, course: Course) -> Meter:
        meter = Meter()
        for step in course.steps:
            meter.add(*self._stepper.take(self.optimizer, step))
        return meter

    def _replay(self, course: Course) -> Totals:
        assert self._graph is not None and isinstance(course.steps, range)
        return self._graph.run(course.steps, course.before, course.advance, course.is_stopped)

    def close(self) -> None:
        """Bring what other processes have learned to the first one, and end threads and connections."""
        self._held.close()

    def take(self, count: int, first: int = 0) -> Totals:
        """Take ``count`` steps of one epoch, from number ``first`` on, and read the sums of the metrics."""
        return self._train(self._course(range(first, first + count)))

    def launch(self, count: int) -> None:
        """Take the first ``count`` steps without reading anything, eagerly or recorded."""
        course = self._course(range(count))
        if self._graph is None:
            self._start_eagerly(course)
        else:
            self._graph.launch(range(count), course.before, course.advance, course.is_stopped)

    def _course(self, steps: range) -> Course:
        return Course(steps, self._stepper.batch, Totals(), lambda step: None, lambda: False)

    def state(self) -> list[torch.Tensor]:
        """Every parameter, buffer and tensor of the optimizer."""
        entries = self.optimizer.state.values()
        held = [value for entry in entries for value in entry.values() if isinstance(value, torch.Tensor)]
        return [*self.method.state_dict().values(), *held]
