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
from engine.layouts import build_layout
from engine.loop.layout import Course, Layout
from engine.loop.meter import Totals
from engine.loop.optimizer import build_optimizer
from engine.loop.recorders import CudaGraphs
from engine.loop.tape import Tape
from engine.parallel.partition import choose_stages
from engine.parallel.ranks import joined_ranks
from engine.parallel.world import Alone
from methods._base import Method
from networks import build_backbone
from schemas import Args, build_args

CPU = torch.device("cpu")
MEAN, STD, NUM_CLASSES = (0.5,) * 3, (0.25,) * 3, 10
SPEC = DataSpec("random", 3, 32, 32, tuple(map(str, range(NUM_CLASSES))), MEAN, STD)


def settings(name: str, model: str, batch_size: int, **others: object) -> Args:
    """Settings of a run of method ``name``: those of the command line where ``others`` do not replace them.

    Only dgl's heads are pooled, as they were by default when the figures that stand in the studies were measured.
    """
    heads = {"pred_aux_type": "pooled"} if name == "dgl" else {}
    return build_args({"method": name, "model": model, "batch_size": batch_size, "epochs": 2, **heads, **others})


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
        self._held = contextlib.ExitStack()
        self._layout = self._held.enter_context(contextlib.closing(self._lay_out(way, stages)))
        self._held.callback(self._layout.collect)

    def _lay_out(self, way: str, stages: Sequence[range]) -> Layout:
        device, ranks, recorders = self.feed.device, Alone(), None
        parallel = way in ("threads", "processes", "streams")
        stages = stages if parallel else ()
        changes: dict[str, object] = {"layer_parallel": way if parallel else "off", "num_stages": max(len(stages), 1)}
        if way in ("recorded", "streams"):  # on a CPU, the list of operations that replaces a CUDA graph
            recorders = partial(CudaGraphs, device) if device.type == "cuda" else Tape
        changes |= {"device": str(device), "cuda_graph": "on" if recorders else "off"}
        args = self.args.model_copy(update={"run": self.args.run.model_copy(update=changes)})
        if way == "processes":
            ranks = self._held.enter_context(joined_ranks(args.run))
        return build_layout(
            args, self.method, self.feed, self.optimizer, stages=stages, ranks=ranks, recorders=recorders
        )

    def close(self) -> None:
        """Bring what other processes have learned to the first one, and end threads and connections."""
        self._held.close()

    def take(self, count: int, first: int = 0, advance: Callable[[int], None] = lambda step: None) -> Totals:
        """Take ``count`` steps of one epoch, from number ``first`` on, and read the metrics.

        ``advance`` is called with each step's number when it is done, before anything waits for the device.
        """
        return self._layout.run(Course(range(first, first + count), advance=advance))

    def state(self) -> list[torch.Tensor]:
        """Every parameter, buffer and tensor of the optimizer."""
        held = [value for entry in self.optimizer.state.values() for value in entry.values() if torch.is_tensor(value)]
        return [*self.method.state_dict().values(), *held]
