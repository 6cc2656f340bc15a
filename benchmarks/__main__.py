"""``python -m benchmarks memory``: peak memory of a training step, every way of training in a process of its own."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys

MODES = ("bp", "bp_autograd", "dgl", "dgl_sum_of_losses", "dgl_direct_global")
STEPS = 3
# glibc gives large freed blocks back at once, so that resident memory follows what is allocated.
EAGER_FREE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def measure(mode: str, model: str, batch_size: int, precision: str, head: str) -> tuple[float, float]:
    """Peak resident memory (MiB) above that of the warm process, and the last loss, of a few steps on random images."""
    import torch
    from torch.nn import functional as F

    import methods
    from datamodules.base import Batch, DataSpec
    from engine.devices import autocast
    from model import build_backbone
    from schemas import build_args

    name = mode.partition("_")[0]
    settings = {} if name == "bp" else {"pred_aux_type": head, "is_direct_global": mode == "dgl_direct_global"}
    args = build_args({"method": name, "model": model, **settings})
    spec = DataSpec("random", 3, 32, 32, tuple("0123456789"), (0.5,) * 3, (0.5,) * 3)
    torch.manual_seed(0)
    method = methods.load(name)(args.method, build_backbone(args.model, spec), spec)
    method.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.01, momentum=0.9, fused=True)
    x_BCHW = torch.randn(batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
    y_B = torch.randint(10, (batch_size,))

    def sum_of_losses(batch: Batch) -> torch.Tensor:
        h_BCHW, losses = batch.x_BCHW, []
        for index in range(method.backbone.num_blocks):
            h_BCHW = method.backbone.block(index)(h_BCHW.detach())
            losses.append(F.cross_entropy(method.block_heads(index)[0](h_BCHW).float(), batch.y_B))
        torch.stack(losses).sum().backward()
        return losses[-1].detach()

    def autograd(batch: Batch) -> torch.Tensor:
        loss = F.cross_entropy(method(batch.x_BCHW).float(), batch.y_B)
        loss.backward()
        return loss.detach()

    by_hand = {"dgl_sum_of_losses": sum_of_losses, "bp_autograd": autograd}

    def step(size: int) -> float:
        batch = Batch(x_BCHW[:size], y_B[:size])
        with autocast(torch.device("cpu"), precision):
            loss = by_hand[mode](batch) if mode in by_hand else method.fill_grads(batch).losses[-1]
        optimizer.step()
        optimizer.zero_grad()
        assert loss is not None
        return loss.item()

    step(2)  # libraries and optimiser state are there before the clock of memory starts
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    losses = [step(batch_size) for _ in range(STEPS)]
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, losses[-1]


def main() -> int:
    """Print the table; exit code 1 if the two forms of the same gradient disagree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", choices=("memory",))
    parser.add_argument("--model", default="BasicCNN")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--head", default="pooled")
    parser.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mode:
        print(*measure(options.mode, options.model, options.batch_size, options.precision, options.head))
        return 0
    results = {}
    for mode in MODES:
        command = [sys.executable, "-m", "benchmarks", *sys.argv[1:], "--mode", mode]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | EAGER_FREE)
        results[mode] = [float(word) for word in done.stdout.split()]
    import torch

    print(f"{options.model}, batch {options.batch_size}, {options.precision}, heads {options.head}")
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads")
    print("peak resident memory above that of the warm process")
    for mode, (peak_mib, loss) in results.items():
        ratio = peak_mib / results["dgl_sum_of_losses"][0]
        print(f"{mode:20} {peak_mib:8.0f} MiB   {ratio:5.2f} x sum of losses   loss {loss:.6f}")
    return int(abs(results["dgl"][1] - results["dgl_sum_of_losses"][1]) > 1e-3)


if __name__ == "__main__":
    sys.exit(main())
