"""What training takes in memory, over back-propagation: ``python .../memory.py NETWORK OUT.csv``.

Every rule of ``run.py`` at batch 128 in bf16; for ResNet110 instead InfoPro in the paper's modules of balanced memory,
at batch 256 in fp32.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parent)]

INFOPRO = "--infopro --label_loss contrast --reconstruction_weight_first 5 --label_weight_first 0.1"
# Blocks of ResNet-110 that end a module: 0 is the stem, then 18 for each stage.
MODULES = {
    "bp": "--bp",
    "infopro, 2 modules": f"{INFOPRO} --module_ends 15",
    "infopro, 3 modules": f"{INFOPRO} --module_ends 10 21",
    "infopro, 4 modules": f"{INFOPRO} --module_ends 7 15 27",
    "dgl, 4 modules": "--dgl --module_ends 7 15 27",
    "dgl, every block": "--dgl",
}


def main() -> None:
    """Measure one after the other, and write MiB and ratios."""
    from run import COMMON, RULES

    from benchmarks.footprint import footprint

    network, out = sys.argv[1:]
    deep = network == "ResNet110"
    common = "--batch_size 256 --precision fp32 --device cpu" if deep else COMMON
    mib = {}
    with Path(out).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["rule", "mib", "over_bp"])
        for name, flags in (MODULES if deep else RULES).items():
            mib[name] = footprint([*common.split(), *flags.split(), "--model", network])
            writer.writerow([name, f"{mib[name]:.0f}", f"{mib[name] / mib['bp']:.2f}"])
            stream.flush()
            print(f"{name:20} {mib[name]:7.0f} {mib[name] / mib['bp']:6.2f}")


if __name__ == "__main__":
    main()
