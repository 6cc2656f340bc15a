"""All that only a GPU can show, in one run: the fast path's bits, waits, speed and memory, under the device's roof."""

from __future__ import annotations

import sys
from argparse import Namespace

from benchmarks.tables import text, write_csv
from utils import UsageError


def run(options: Namespace) -> int:
    """Measure, print the table and write ``gpu.csv``; 1 where bits differ or a step waits for the device."""
    # Lightning stands behind these, which the processes of the other benchmarks need not load.
    from benchmarks.on_gpu import measurements
    from benchmarks.on_gpu.timing import DIFFERENCES, Row
    from engine.devices import resolve_device

    try:
        device = resolve_device(options.device)
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    rows: list[Row] = []
    try:
        for row in measurements.measure(device):
            rows.append(row)
    finally:  # a failure must not cost what was measured before it
        if rows:
            records = [row._asdict() for row in rows]
            print(text(records, {name: name for name in Row._fields}))
            write_csv(options.out / "gpu.csv", records)
    return int(any(row.unit == DIFFERENCES and row.median for row in rows))
