"""What `benchmarks.gpu` measures, in its order."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import NamedTuple

import torch

from benchmarks.on_gpu.checks import bits, memory, stages, waits
from benchmarks.on_gpu.masters import MasterSGD
from benchmarks.on_gpu.runs import Run, build_method, make_feed, make_recorder, random_images, settings
from benchmarks.on_gpu.timing import Row, Work, calibrate, interleaved, rate_row, seconds
from datamodules.base import ImageSet
from datamodules.feed import Feed
from engine.devices import set_determinism
from engine.loop.recorders import Step


class Sizes(NamedTuple):
    """How much is measured."""

    models: tuple[str, ...] = ("BasicCNN", "VGG16")
    batch_sizes: tuple[int, ...] = (64, 512)
    stages: tuple[int, ...] = (2, 4, 8)
    num_images: int = 50_000
    num_steps: int = 50
    rounds: int = 7
    matmul_side: int = 8192
    copy_floats: int = 2**28


TINY = Sizes(("BasicCNN",), (4,), (2,), 12, 2, 2, 64, 2**12)  # for a CPU: shows that the script runs, and the bits
METHODS = ("bp", "dgl")


def measure(device: torch.device) -> Iterator[Row]:
    """Everything, the checks first."""
    sizes = Sizes() if device.type == "cuda" else TINY
    images = random_images(sizes.num_images)
    yield from environment(device)
    set_determinism(True)
    torch.use_deterministic_algorithms(True, warn_only=True)  # an operation that cannot is named, and the run goes on
    yield from bits(sizes.models, sizes.batch_sizes[-1], sizes.num_steps, images, device)
    yield from stages(sizes.models[-1], sizes.batch_sizes[0], sizes.stages[0], sizes.num_steps, images, device)
    set_determinism(False)
    yield from waits(sizes.models, sizes.batch_sizes[0], images, device)
    rows, roof = calibrate(device, sizes.matmul_side, sizes.copy_floats, sizes.rounds)
    yield from rows
    speed = list(speeds(sizes, images, device, roof))
    yield from speed
    yield from wavefront(sizes, images, device)
    yield from memory(sizes.models[-1], sizes.batch_sizes[-1], images, device)
    yield from inputs(sizes, images, device, fastest=max(row.median for row in speed))


def environment(device: torch.device) -> Iterator[Row]:
    """What the figures hold for."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, with the twin of CUDA graphs"
    note = f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    yield Row("environment", name, 1, "device", note=note)


def speeds(sizes: Sizes, images: ImageSet, device: torch.device, roof: float) -> Iterator[Row]:
    """Images per second of the eager path, the graph, and the graph with bfloat16 weights, in turns."""
    for model, batch_size in product(sizes.models, sizes.batch_sizes):
        runs: dict[str, Run] = {}
        for name in METHODS:
            args = settings(name, model, batch_size)
            feed = make_feed(args, images, device)
            runs[f"{name} eager"], runs[f"{name} graph"] = Run(args, feed), Run(args, feed).record()
            method = build_method(args, device)
            masters = MasterSGD(method, args.optim)
            runs[f"{name} graph, bf16 weights"] = Run(args, feed, method, masters).record()
        works = {name: partial(each.take, sizes.num_steps) for name, each in runs.items()}
        times = interleaved(works, sizes.rounds, device)
        for name, taken in times.items():
            kind = name.partition(" ")[0]
            ratio = statistics.median(times[f"{kind} eager"]) / statistics.median(taken)
            flops = runs[f"{kind} eager"].flops() * sizes.num_steps / statistics.median(taken)
            note = f"{ratio:.2f} x eager, {flops / roof:.1%} of matmul"
            amount = sizes.num_steps * batch_size
            yield rate_row("speed", f"{model} {batch_size} {name}", amount, taken, "images/s", note)


def wavefront(sizes: Sizes, images: ImageSet, device: torch.device) -> Iterator[Row]:
    """Images per second with stages in streams, beside the graphs of the whole step, in turns."""
    model, batch_size = sizes.models[-1], sizes.batch_sizes[0]
    runs = {}
    for name in METHODS:
        args = settings(name, model, batch_size)
        runs[name] = Run(args, make_feed(args, images, device)).record()
    for count in sizes.stages:
        runs[f"{count} stages"] = Run(args, make_feed(args, images, device)).line_up(count)
    works = {name: partial(each.take, sizes.num_steps) for name, each in runs.items()}
    times = interleaved(works, sizes.rounds, device)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    for name, taken in times.items():
        note = ", ".join(f"{medians[other] / medians[name]:.2f} x {other}" for other in METHODS)
        amount = sizes.num_steps * batch_size
        yield rate_row("wavefront", f"{model} {batch_size} {name}", amount, taken, "images/s", note)


def inputs(sizes: Sizes, images: ImageSet, device: torch.device, fastest: float) -> Iterator[Row]:
    """Batches alone, and what drawing an epoch's order and augmentation takes beside the fastest epoch."""
    batch_size = sizes.batch_sizes[-1]
    for case, words in (("crop, flip", {}), ("crop, flip, erase", {"random_erasing": True})):
        feed = make_feed(settings("bp", sizes.models[0], batch_size, **words), images, device)
        gather, recorder = gatherer(feed), make_recorder(device)
        recorder.warm_up(gather)
        works = {
            name: partial(repeat, way, sizes.num_steps)
            for name, way in (("eager", gather), ("graph", recorder.capture(gather)))
        }
        for name, taken in interleaved(works, sizes.rounds, device).items():
            amount = sizes.num_steps * batch_size
            yield rate_row("input alone", f"{case} {batch_size} {name}", amount, taken, "images/s")
        draws = [1000 * seconds(partial(feed.batch, epoch, 0), device) for epoch in range(1, sizes.rounds + 1)]
        median = statistics.median(draws)
        note = f"{median / 1000 / (feed.num_images / fastest):.1%} of the fastest epoch"
        yield Row("drawing an epoch", case, median, "ms", min(draws), max(draws) / min(draws), note)


def gatherer(feed: Feed) -> Step:
    """What makes the next batch of the first epoch, on the device alone."""
    drawn = feed.drawn(0).each(lambda drawn_P: drawn_P.to(feed.device))
    first_B = torch.arange(feed.batch_size, device=feed.device)
    step_1 = torch.zeros(1, dtype=torch.int64, device=feed.device)

    def gather() -> None:
        feed.gather(drawn, step_1 % feed.num_steps * feed.batch_size + first_B)
        step_1.add_(1)

    return gather


def repeat(work: Work, count: int) -> None:
    """Do ``work`` ``count`` times."""
    for _ in range(count):
        work()
