"""Sweeps over networks: of a file, of a library and of the project."""

from __future__ import annotations

import json
from pathlib import Path

import cli
from sweeps.check import _metric_problem
from tests.sweeps.conftest import refused, sweeper

__all__ = ["refused", "sweeper"]


def test_a_sweep_tries_networks_of_every_kind(sweeper, refused, net: Path) -> None:
    models = [f"{net}:build", "torchvision:resnet18"]
    parameters = sweeper.vary(model={"values": models}, learning_rate={"value": 0.1}, method={"value": "dgl"})
    for name in ("test/block_08/accuracy", "tset/accuracy"):  # how many blocks they have is not known yet
        problem = _metric_problem(name, cli.parse(["--dgl", "--model", models[1]]).args)
        assert (problem is None) == name.startswith("test")
    several = parameters | {"model": {"values": [*models, "VGGs"]}}
    beyond = {"name": "test/block_08/accuracy", "goal": "maximize"}  # of the second network; the third has three blocks
    assert "no trial logs it; blocks with a loss are block_00, " in refused(parameters=several, metric=beyond)
    missing = parameters | {"model": {"values": [f"{net}:bild", "VGGs"]}}
    assert "has no function bild (did you mean build?)" in refused(parameters=missing)
    assert sweeper(str(sweeper.write(parameters=parameters))) == 0
    flags = [json.loads(path.read_text()) for path in sorted(sweeper.folder.glob("*/flags.json"))]
    assert [each["model"] for each in flags] == models
