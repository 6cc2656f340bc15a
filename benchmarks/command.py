"""Runs of ``main.py`` in a process of its own, and what the run folder says of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from consts import METRICS_FILE, SUMMARY_FILE


class Finished(NamedTuple):
    """A run's lines of ``metrics.jsonl``, its ``summary.json``, and the seconds that the whole command took."""

    lines: list[dict[str, Any]]
    summary: dict[str, Any]
    seconds: float


def call(*flags: object) -> float:
    """Seconds of ``main.py`` with ``flags``."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "main.py", *map(str, flags)], capture_output=True, check=True)
    return time.perf_counter() - begin


def train(*flags: object) -> Finished:
    """A training run with ``flags``; its folder is read and removed."""
    with tempfile.TemporaryDirectory() as place:
        seconds = call(*flags, "--path", place)
        (folder,) = Path(place).iterdir()
        lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
        return Finished(lines, json.loads((folder / SUMMARY_FILE).read_text()), seconds)
