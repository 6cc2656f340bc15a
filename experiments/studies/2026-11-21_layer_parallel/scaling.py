"""What stages and replicas would bring on more devices than this machine has: ``python .../scaling.py``.

A model of layer-parallel training, simulated as events. Block times are measured here with one thread; a device is
``--speed`` times as fast as a core of this machine, and links are what ``--bandwidth`` and ``--latency`` say.
``--check`` first compares the model with real runs of two and three stages.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import link as links
import torch
from chains import BYTES_PER_PARAMETER, Block, Chain, measure, resnet152
from figure import draw
from simulate import Pipeline, gpipe_seconds

from benchmarks import tables
from benchmarks.engine import build_method, settings
from benchmarks.pipeline import Runner, Way, work
from engine.parallel.partition import partition
from schemas import Args

STAGES, NUM_MICRO = (1, 2, 4, 8, 16, 32, 64), (8, 32)
CHECKED = ("VGG11", "BasicCNN")


def cut(chain: Chain, costs: Sequence[float], num_stages: int) -> list[list[Block]]:
    """The blocks of every stage."""
    return [[chain.blocks[index] for index in part] for part in partition(costs, num_stages)]


def local_row(chain: Chain, num_stages: int, num_replicas: int, link: links.Link, num_steps: int) -> dict[str, float]:
    """Images per second and the fullest device's memory, with a loss in every block; a batch for each replica."""
    stages = cut(chain, [block.local_s for block in chain.blocks], num_stages)
    gradients = [4 * sum(block.local_parameters for block in stage) for stage in stages]
    shared = num_replicas > 1
    ring = 2 * (num_replicas - 1) / num_replicas
    work_s = [
        sum(block.local_s for block in stage)
        + shared * (ring * size / link.bytes_per_s + 2 * (num_replicas - 1) * link.latency_s)
        for stage, size in zip(stages, gradients, strict=True)
    ]
    link_s = [link.seconds(stage[-1].message_bytes) for stage in stages[:-1]]
    taken = Pipeline(work_s, link_s, num_steps).seconds()
    memory = max(
        sum(block.local_parameters for block in stage) * BYTES_PER_PARAMETER
        + max(block.local_bytes for block in stage)
        + 2 * stage[-1].message_bytes
        for stage in stages
    )
    return {"images_per_second": num_replicas * chain.batch_size * num_steps / taken, "mib": memory / 2**20}


def bp_row(chain: Chain, num_stages: int, num_micro: int) -> dict[str, float]:
    """The same for back-propagation: GPipe's time, links for nothing, and the memory of GPipe and of 1F1B."""
    stages = cut(chain, [block.bp_s for block in chain.blocks], num_stages)
    taken = gpipe_seconds([sum(block.bp_s for block in stage) for stage in stages], num_micro)
    memory, memory_1f1b = [], []
    for place, stage in enumerate(stages):
        weights = sum(block.bp_parameters for block in stage) * BYTES_PER_PARAMETER
        kept = sum(block.bp_bytes for block in stage)
        memory.append(weights + kept)
        memory_1f1b.append(weights + kept * min(num_stages - place, num_micro) / num_micro)
    return {
        "images_per_second": chain.batch_size / taken,
        "mib": max(memory) / 2**20,
        "mib_1f1b": max(memory_1f1b) / 2**20,
    }


def curves(chain: Chain, link: links.Link, num_steps: int) -> list[dict[str, Any]]:
    """A row for each number of stages, up to one block each."""
    rows = []
    for count in [count for count in STAGES if count < len(chain.blocks)] + [len(chain.blocks)]:
        local = local_row(chain, count, 1, link, num_steps)
        row: dict[str, Any] = {"chain": chain.name, "stages": count, "local": local["images_per_second"]}
        row |= {"local_mib": local["mib"]}
        for num_micro in NUM_MICRO:
            bp = bp_row(chain, count, num_micro)
            row |= {f"gpipe_{num_micro}": bp["images_per_second"], f"gpipe_{num_micro}_mib": bp["mib"]}
            row |= {f"1f1b_{num_micro}_mib": bp["mib_1f1b"]}
        rows.append(row)
    for row in rows:  # ratios to one device of the same rule
        row["local_ratio"] = row["local"] / rows[0]["local"]
        for num_micro in NUM_MICRO:
            row[f"gpipe_{num_micro}_ratio"] = row[f"gpipe_{num_micro}"] / rows[0][f"gpipe_{num_micro}"]
    return rows


def grids(chain: Chain, link: links.Link, num_steps: int) -> list[dict[str, Any]]:
    """The best division of so many devices into stages and replicas, and its throughput over one device's."""
    one = local_row(chain, 1, 1, link, num_steps)["images_per_second"]
    rows = []
    for devices in (4, 16, 64, 256):
        found = []
        for stages in [count for count in STAGES if count <= min(devices, len(chain.blocks))]:
            row = local_row(chain, stages, devices // stages, link, num_steps)
            found.append((row["images_per_second"] / one, stages, row["mib"]))
        ratio, stages, mib = max(found)
        alone = next(row for row in found if row[1] == 1)
        rows.append(
            {"chain": chain.name, "devices": devices, "stages": stages, "replicas": devices // stages, "ratio": ratio,
             "mib": mib, "ratio_replicas_only": alone[0], "mib_replicas_only": alone[2]}
        )  # fmt: skip
    return rows


def check(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Real runs of two and three stages beside what the model says of them."""
    threads, rows = torch.get_num_threads(), []
    link = links.measure()
    print(f"link between two processes here: {link.latency_s * 1e6:.0f} us, {link.bytes_per_s / 1e9:.2f} GB/s")
    for model in options.check_model:
        args = work(model, options.batch_size, options.precision)
        torch.set_num_threads(1)
        chain = measure(args)
        torch.set_num_threads(threads)
        for num_stages in (2, 3):
            stages = partition([block.local_s for block in chain.blocks], num_stages)
            work_s = [sum(chain.blocks[index].local_s for index in stage) for stage in stages]
            for kind in ("threads", "processes"):
                messages = [chain.blocks[stage[-1]].message_bytes for stage in stages[:-1]]
                link_s = [link.seconds(size) if kind == "processes" else 0.0 for size in messages]
                predicted = Pipeline(work_s, link_s, options.check_steps, threads).seconds()
                # Threads divide what torch has among themselves; never less than one each.
                way = Way(kind, tuple(stages), 1 if kind == "processes" else num_stages)
                taken = run_once(args, options.check_steps, way, options.rounds)
                measured = statistics.median(taken)
                rows.append(
                    {"model": model, "stages": num_stages, "layout": kind, "predicted_s": predicted,
                     "measured_s": measured, "best_s": min(taken), "error_percent": 100 * (predicted / measured - 1)}
                )  # fmt: skip
    print(tables.text(rows, {key: key for key in rows[0]}))
    return rows


def run_once(args: Args, num_steps: int, way: Way, rounds: int) -> list[float]:
    """Seconds of the turns of one way; a first turn is not counted."""
    with Runner(args, num_steps, way) as runner:
        times = [runner.turn() for _ in range(rounds + 1)][1:]
        runner.state()
        return times


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=64, help="images of a step, of each replica [default 64]")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--bandwidth", type=float, default=1.25, help="of a link, GB/s [default 1.25: 10 Gbit/s]")
    parser.add_argument("--latency", type=float, default=50.0, help="of a link, microseconds [default 50]")
    parser.add_argument("--speed", type=float, default=1.0, help="of a device, in cores of this machine [default 1]")
    parser.add_argument("--steps", type=int, default=781, help="between two drains of the pipeline [default 781]")
    parser.add_argument("--check", action="store_true", help="compare the model with runs of two and three stages")
    parser.add_argument("--check_model", nargs="+", default=list(CHECKED))
    parser.add_argument("--check_steps", type=int, default=24, help="steps of a turn of these runs [default 24]")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each [default 3]")
    parser.add_argument("--out", type=Path, default=Path("experiments/benchmarks"), help="where CSVs and figure go")
    return parser.parse_args()


def main() -> int:
    """Measure, simulate, draw."""
    options = _parse()
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    if options.check:
        tables.write_csv(options.out / "scaling_check.csv", check(options))
    torch.set_num_threads(1)
    link = links.Link(options.latency / 1e6, options.bandwidth * 1e9)
    chains = [measure(work(model, options.batch_size, options.precision)) for model in ("VGG16", "VGG19")]
    flops = torch_flops("VGG16", options.batch_size) / sum(block.bp_s for block in chains[0].blocks)
    print(f"ResNet-152 is counted at {flops / 1e9:.0f} GFLOP/s, VGG16's rate here")
    chains.append(resnet152(options.batch_size, flops))
    chains = [chain.faster(options.speed) for chain in chains]
    rows = [row for chain in chains for row in curves(chain, link, options.steps)]
    columns = ["chain", "stages", "local_ratio", *(f"gpipe_{m}_ratio" for m in NUM_MICRO), "local_mib",
               *(f"gpipe_{m}_mib" for m in NUM_MICRO), *(f"1f1b_{m}_mib" for m in NUM_MICRO)]  # fmt: skip
    print(tables.text(rows, {key: key for key in columns}))
    tables.write_csv(options.out / "scaling.csv", rows)
    grid_rows = [row for chain in chains for row in grids(chain, link, options.steps)]
    print(tables.text(grid_rows, {key: key for key in grid_rows[0]}))
    tables.write_csv(options.out / "scaling_grids.csv", grid_rows)
    for chain in chains:
        tell_limit(chain, link)
    draw(options.out / "scaling.csv", options.out / "scaling.svg")
    print(f"figure: {options.out / 'scaling.svg'}")
    return 0


def torch_flops(model: str, batch_size: int) -> float:
    """Floating-point operations of a step of back-propagation."""
    from torch.utils.flop_counter import FlopCounterMode

    method = build_method(settings("bp", model, batch_size))
    with FlopCounterMode(display=False) as counter:
        method(torch.randn(batch_size, 3, 32, 32)).sum().backward()
    return float(counter.get_total_flops())


def tell_limit(chain: Chain, link: links.Link) -> None:
    """How much faster a device may be before the links hold it up."""
    slowest = max(block.local_s for block in chain.blocks)
    largest = max(block.message_bytes for block in chain.blocks[:-1])
    factor = slowest / (largest / link.bytes_per_s)
    print(f"{chain.name}: with a block for each device, links of {link.bytes_per_s / 1e9:g} GB/s keep up with devices "
          f"{factor:.1f} times as fast as these")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
