"""Read the files of a run folder; a damaged file or line does not affect the rest.

Readers append what is missing or wrong to a list of ``problems``, one sentence each, instead of raising.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from consts import ACCURACY, TEST, VAL, metric_name

MAX_BLOCKS = 100  # block names have two digits

Line = dict[str, Any]


def finite(value: Any) -> float | None:
    """``value`` if it is a finite number, else None; a boolean is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the range of floats
        return None


def printable(text: str) -> str:
    """``text`` without control characters, which would break the terminal, the table or the SVG."""
    return "".join(char if char.isprintable() else "?" for char in text)


def read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    """Keys of a JSON file; what is wrong with it is appended to ``problems``."""
    return _read_mapping(path, json.loads, problems)


def read_yaml(path: Path, problems: list[str]) -> dict[str, Any]:
    """Keys of a YAML file, sections dissolved; what is wrong with it is appended to ``problems``."""
    return _read_mapping(path, lambda text: _flat(yaml.safe_load(text)), problems)


def _flat(nested: Any) -> Any:
    """Settings with their sections dissolved; flag names are unique, so nothing is lost."""
    if not isinstance(nested, dict):
        return nested
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value) if isinstance(value, dict) else {str(key): value}
    return flat


def _read_mapping(path: Path, parse: Callable[[str], Any], problems: list[str]) -> dict[str, Any]:
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        problems.append(f"{path.name} cannot be read ({printable(' '.join(str(error).split()))})")
    else:
        if isinstance(value, dict):
            return value
        problems.append(f"{path.name} cannot be read (it holds no keys)")
    return {}


def read_metrics(path: Path, problems: list[str]) -> tuple[list[Line], list[Line]]:
    """Step lines and epoch lines of ``metrics.jsonl``, in the order of the file."""
    lines: dict[str, list[Line]] = {"step": [], "epoch": []}
    damaged: list[int] = []
    try:
        content = path.read_bytes().splitlines()
    except OSError as error:
        problems.append(f"{path.name} " + ("is missing" if isinstance(error, FileNotFoundError) else "cannot be read"))
        return [], []
    for number, text in enumerate(content, start=1):
        line = _parse_line(text)
        if line is None:
            damaged.append(number)
        else:
            lines[line["kind"]].append(line)
    problems += _metric_problems(path.name, damaged, lines["epoch"])
    return lines["step"], lines["epoch"]


def _parse_line(text: bytes) -> Line | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    usable = isinstance(line, dict) and line.get("kind") in ("step", "epoch") and finite(line.get("epoch")) is not None
    return line if usable else None


def _metric_problems(name: str, damaged: list[int], epochs: list[Line]) -> Iterator[str]:
    if damaged:
        lines = f"line {damaged[0]}" if len(damaged) == 1 else f"{len(damaged)} lines, the first of them {damaged[0]},"
        yield f"{name}: {lines} cannot be read (cut off or damaged)"
    if not epochs:
        yield "no epoch has ended yet"
    for line in epochs:
        # A metric has a slash in its name. JSON has no word for infinity and NaN, so the engine writes null for them.
        bad = [key for key, value in line.items() if "/" in key and finite(value) is None]
        if bad:
            yield f"{name}: {printable(bad[0])} is not a finite number in epoch {line['epoch']:g}"
            return


def summary_of(steps: list[Line], epochs: list[Line]) -> dict[str, Any]:
    """Summary values computed from the metrics, for a run without a written summary, by the summary's keys."""
    known = {"images_per_second": steps[-1].get("images_per_second")} if steps else {}
    tested = [line for line in epochs if finite(line.get(metric_name(TEST, ACCURACY))) is not None]
    if not tested:
        return known
    held_out = metric_name(VAL, ACCURACY)  # the best epoch is chosen on the validation images if there are any
    chooser = (
        held_out if all(finite(line.get(held_out)) is not None for line in tested) else metric_name(TEST, ACCURACY)
    )
    best, last = max(tested, key=lambda line: line[chooser]), tested[-1]
    blocks = [last.get(metric_name(TEST, ACCURACY, block)) for block in range(MAX_BLOCKS)]
    while blocks and blocks[-1] is None:
        blocks.pop()
    return known | {
        "best_test_accuracy": best[metric_name(TEST, ACCURACY)],
        "best_epoch": best["epoch"],
        "final_test_accuracy": last[metric_name(TEST, ACCURACY)],
        "block_test_accuracy": blocks,
    }
