"""All that only a GPU can show, in one run: the recorded step's bits, waits, speed and memory, beside peak rates."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from itertools import product
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.engine import Run, build_method, cut, make_feed, random_images, settings
from benchmarks.memory import VARIANTS, Steps
from benchmarks.tables import show
from benchmarks.throughput import Calibration, flops_per_image
from benchmarks.workers import in_turns, seconds
from datamodules.base import ImageSet
from datamodules.feed import Feed
from engine.devices import set_determinism, tf32_obstacle, use_device
from engine.loop.recorders import no_waiting
from schemas import Args
from utils import UserError

METHODS = ("bp", "dgl")
DIFFERENCES = "differences"  # unit of what must be 0
BITS: dict[str, dict[str, object]] = {
    "bp": {}, "dgl": {}, "dgl that draws": {"dropout_prob": 0.2, "inpaint_loss_weight": 0.5, "cpc_loss_weight": 0.5},
}  # fmt: skip


class Sizes(NamedTuple):
    """How much is measured."""

    models: tuple[str, ...] = ("BasicCNN", "VGG16")
    batch_sizes: tuple[int, ...] = (64, 512)
    stages: tuple[int, ...] = (2, 4, 8)
    num_images: int = 50_000
    num_steps: int = 50
    rounds: int = 7
    matmul_side: int = 8192


TINY = Sizes(("BasicCNN",), (4,), (2,), 12, 2, 2, 64)  # for a CPU: shows that the script runs, and the bits


def precisions(device: torch.device) -> tuple[str, ...]:
    """Those that the device has, bf16 last."""
    return ("fp32", "bf16") if tf32_obstacle(device) else ("fp32", "tf32", "bf16")


class Row(NamedTuple):
    """A line of the table: the median and the best of some rounds, and the slowest over the fastest of them."""

    check: str
    case: str
    median: float
    unit: str
    best: float | None = None
    spread: float | None = None
    note: str | None = None


def run(options: Namespace) -> int:
    """Measure, print the table and write ``gpu.csv``; 1 where bits differ or a step waits for the device."""
    rows: list[Row] = []
    try:
        for row in measure(use_device(options.device)):
            rows.append(row)
    finally:  # a failure must not cost what was measured before it
        if rows:
            records = [row._asdict() for row in rows]
            show(f"{options.device}", records, {name: name for name in Row._fields}, options.out / "gpu.csv")
    return int(any(row.unit == DIFFERENCES and row.median for row in rows))


def measure(device: torch.device) -> Iterator[Row]:
    """Everything, the checks first."""
    sizes = Sizes() if device.type == "cuda" else TINY
    images = random_images(sizes.num_images)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, with the tape in place of CUDA graphs"
    note = f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    yield Row("environment", name, 1, "device", note=note)
    set_determinism(True)
    torch.use_deterministic_algorithms(True, warn_only=True)  # an operation that cannot is named, and the run goes on
    yield from kept("bits", bits(sizes, images, device))
    set_determinism(False)
    yield from kept("waits", waits(sizes, images, device))
    rates = Calibration(device, sizes.matmul_side).measure()
    yield from (Row("calibration", name, rate, "FLOP/s") for name, rate in rates.items())
    for model, batch_size in product(sizes.models, sizes.batch_sizes):
        yield from kept("speed", speed(model, batch_size, sizes, images, device, rates["matmul_bf16"]))
    yield from kept("memory", memory(sizes.models[-1], sizes.batch_sizes[-1], device))


def kept(check: str, rows: Iterator[Row]) -> Iterator[Row]:
    """``rows``, and the error that ended them as the last one: the other checks go on."""
    try:
        yield from rows
    except (RuntimeError, UserError) as error:
        yield Row(check, "error", 1, DIFFERENCES, note=f"{type(error).__name__}: {error}".partition("\n")[0])


def setup(
    name: str, model: str, batch_size: int, images: ImageSet, device: torch.device, **others: object
) -> tuple[Args, Feed]:
    """The settings of a run, bf16 unless ``others`` say something else, and its images on the device."""
    cifar = {"precision": "bf16", "random_crop": True, "random_horizontal_flip": True}
    args = settings(name, model, batch_size, **cifar | others)
    return args, make_feed(args, images, device)


def run_in_streams(args: Args, feed: Feed, num_stages: int) -> Run:
    """A run with ``num_stages`` stages in streams, cut by the time of each block."""
    method = build_method(args, feed.device)
    return Run(args, feed, method, way="streams", stages=cut(args, method, feed, num_stages))


def bits(sizes: Sizes, images: ImageSet, device: torch.device) -> Iterator[Row]:
    """The recorded step, and dgl's stages in streams, against the eager step, after some steps from one start."""
    batch_size, count = sizes.batch_sizes[-1], sizes.num_steps
    for model, name, precision in product(sizes.models, BITS, precisions(device)):
        method = name.partition(" ")[0]
        args, feed = setup(method, model, batch_size, images, device, precision=precision, **BITS[name])
        eager = Run(args, feed)
        others = {"eager again": Run(args, feed), "graph": Run(args, feed, way="recorded")}
        if method == "dgl":
            others[f"{sizes.stages[0]} stages in streams"] = run_in_streams(args, feed, sizes.stages[0])
        for each in (eager, *others.values()):
            each.take(count)
        for way, other in others.items():
            differ = sum(not torch.equal(*pair) for pair in zip(eager.state(), other.state(), strict=True))
            note = f"of {len(eager.state())} tensors, {way} against eager, {count} steps"
            unit = "differences (control)" if way == "eager again" else DIFFERENCES
            yield Row("bits", f"{model} {batch_size} {name} {precision}", differ, unit, note=note)


def waits(sizes: Sizes, images: ImageSet, device: torch.device) -> Iterator[Row]:
    """Whether the host waits for the device between the steps of a chunk; a CPU has nothing to wait for."""
    for model, name, way in product(sizes.models, METHODS, ("eager", "recorded")):
        run, reason = Run(*setup(name, model, sizes.batch_sizes[0], images, device), way=way), ""
        run.take(2)
        with contextlib.ExitStack() as forbidden:
            if device.type == "cuda":
                forbidden.enter_context(no_waiting())
            try:  # the sums are read behind the last step
                run.take(2, advance=lambda step, end=forbidden.close: end() if step == 1 else None)  # type: ignore[misc]
            except RuntimeError as error:
                reason = f"{error}".partition("\n")[0]
        case = f"{model} {sizes.batch_sizes[0]} {name} {way}"
        yield Row("waits", case, int(bool(reason)), DIFFERENCES, note=reason)


def speed(
    model: str, batch_size: int, sizes: Sizes, images: ImageSet, device: torch.device, roof: float
) -> Iterator[Row]:
    """Images per second: eager, recorded (in each precision), in streams; ``roof`` is the rate of matmul in bf16."""
    runs: dict[str, Run] = {}
    for name in METHODS:
        args, feed = setup(name, model, batch_size, images, device)
        runs[f"{name} eager"], runs[f"{name} graph"] = Run(args, feed), Run(args, feed, way="recorded")
        for precision in precisions(device)[:-1]:
            others = setup(name, model, batch_size, images, device, precision=precision)
            runs[f"{name} graph {precision}"] = Run(*others, way="recorded")
    for number in sizes.stages:
        if number <= runs["dgl eager"].method.backbone.num_blocks:
            runs[f"dgl {number} stages"] = run_in_streams(args, feed, number)
    works = {name: partial(run.take, sizes.num_steps) for name, run in runs.items()}
    times = in_turns({name: partial(seconds, work, device) for name, work in works.items()}, range(sizes.rounds))
    medians = {name: median(taken) for name, taken in times.items()}
    amount = sizes.num_steps * batch_size
    for name, taken in times.items():
        method = name.partition(" ")[0]
        share = flops_per_image(model, method) * amount / medians[name] / roof
        over = ", ".join(f"{medians[f'{method} {way}'] / medians[name]:.2f} x {way}" for way in ("eager", "graph"))
        note = f"{over}, {share:.1%} of matmul"
        rate, best, spread = amount / medians[name], amount / min(taken), max(taken) / min(taken)
        yield Row("speed", f"{model} {batch_size} {name}", rate, "images/s", best, spread, note)


def memory(model: str, batch_size: int, device: torch.device) -> Iterator[Row]:
    """The most that a step allocates beyond weights, optimiser and batch; on a CPU it says little inside a process."""
    peaks = {name: Steps(name, model, batch_size, "bf16", device).measure()[0] for name in VARIANTS}
    for name, peak in peaks.items():
        note = f"{peak / peaks['bp']:.2f} x bp" if peaks["bp"] else None
        yield Row("memory", f"{model} {batch_size} {name}", peak, "MiB", note=note)
