"""What is wrong with a sweep file is one line before the first trial, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

RATE = {"values": [0.1, 0.2]}
RANGE = {"min": 0.1, "max": 0.2}
HYPERBAND = {"type": "hyperband"}

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown flag": ({"parameters": {"learning_rat": RATE}}, "unknown flag parameters.learning_rat (did you mean"),
    "empty list": ({"parameters": {"learning_rate": {"values": []}}}, "parameters.learning_rate.values: "),
    "empty range": (
        {"method": "random", "parameters": {"learning_rate": {"min": 0.2, "max": 0.1}}},
        "parameters.learning_rate: the range is empty (min 0.2, max 0.1)",
    ),
    "no two steps": (
        {"method": "random", "parameters": {"momentum": RANGE | {"q": 0.25, "distribution": "q_uniform"}}},
        "no two multiples of q 0.25",
    ),
    "logarithm of zero": (
        {"method": "random", "parameters": {"learning_rate": RANGE | {"min": 0, "distribution": "log_uniform_values"}}},
        "needs a min above 0",
    ),
    "twice": ({"parameters": {"learning_rate": {"values": [0.1, "1e-1"]}}}, "a value stands there twice"),
    "no value": ({"parameters": {"learning_rate": {"values": [None, 0.1]}}}, "None is not a value of a flag"),
    "half a range": ({"parameters": {"learning_rate": {"min": 1}}}, "give value, or values, or min and max"),
    "normal": (
        {"parameters": {"learning_rate": {"distribution": "normal", "min": 0.1, "max": 1}}},
        "parameters.learning_rate.distribution: ",
    ),
    "endless grid": ({"parameters": {"learning_rate": RANGE}}, "a grid needs values"),
    "nothing varies": ({"parameters": {"learning_rate": {"value": 0.1}}}, "nothing varies"),
    "bad value": ({"parameters": {"learning_rate": {"values": [0.1, -1]}}}, "--learning_rate '-1': allowed is a"),
    "bad word": ({"parameters": {"model": {"values": ["VGG8c", "vgg9"]}}}, "(in the trial with --model=vgg9)"),
    "impossible combination": (
        {"parameters": {"dgl": {"values": [True, False]}, "is_direct_global": {"values": [True, False]}}},
        "--is_direct_global has no effect with --method bp; it belongs to: dgl (in the trial with --dgl=false",
    ),
    "our flag": ({"parameters": {"learning_rate": RATE, "path": {"value": "x"}}}, "a sweep sets this flag itself"),
    "metric without images": ({"metric": {"name": "val/accuracy"}}, "no trial logs it; it needs --val_size"),
    "mistyped metric of images that are not held out": (
        {"metric": {"name": "val/acuracy"}}, "no trial logs it (did you mean val/accuracy?)"
    ),
    "mistyped metric": ({"metric": {"name": "test/acuracy"}}, "no trial logs it (did you mean test/accuracy?)"),
    "metric of a block without a loss": (
        {"metric": {"name": "test/block_00/accuracy"}},
        "no trial logs it; blocks with a loss are block_02",
    ),
    "metric of a block that is not there": (
        {"metric": {"name": "test/block_07/accuracy"}, "parameters": {"learning_rate": RATE, "dgl": {"value": True}}},
        "no trial logs it; blocks with a loss are block_00, block_01, block_02",
    ),
    "no metric": ({"metric": None}, "metric is missing"),
    "goal": ({"metric": {"name": "test/loss", "goal": "low"}}, "metric.goal: "),
    "method": ({"method": "annealing"}, "method: "),
    "unknown key": ({"early_terminat": HYPERBAND}, "unknown key early_terminat (did you mean early_terminate?)"),
    "unknown key of a parameter": ({"parameters": {"learning_rate": {"vals": [1]}}}, "(did you mean values?)"),
    "both ends of hyperband": (
        {"early_terminate": HYPERBAND | {"min_iter": 1, "max_iter": 9, "s": 2}},
        "early_terminate: give either min_iter, or max_iter with s",
    ),
    "strict": ({"early_terminate": HYPERBAND | {"min_iter": 1, "strict": True}}, "unknown key early_terminate.strict"),
    "another program": ({"program": "train.py"}, "program 'train.py'"),
    "another way to write flags": ({"command": ["${program}", "${args_no_hyphens}"]}, "command: sweeps without"),
    "a fixed flag that is wrong": ({"command": ["${program}", "--epoch=2", "${args}"]}, "unknown flag --epoch (did"),
    "another verb": ({"command": ["${program}", "${args}", "--print_config"]}, "a trial must be a training run"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_file_is_refused_in_one_line(refused: Callable[..., str], changes: dict, message: str) -> None:
    line = refused(**changes)
    assert line.startswith("main.py: error: ") and "sweep.yaml: " in line
    assert message in line


def test_a_search_without_end_needs_a_number(refused: Callable[..., str]) -> None:
    line = refused(method="random", parameters={"learning_rate": RANGE})
    assert "--trials is missing" in line and "method random, which has no end" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "sweep needs a FILE.yaml, or --resume FOLDER"),
        ("a.yaml --resume b", "give one of them"),
        ("none.yaml", "none.yaml: No such file or directory"),
        ("--resume none", "--resume none: no sweep there"),
        ("--resume none --seed 1", "--seed has no effect with --resume"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(sweeper, capsys, words: str, message: str) -> None:
    import main

    assert main.main(["sweep", *words.split()]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(sweeper.path.iterdir()) == []
